"""The tests; a package so that `from tests.support.… import …` finds this folder."""
