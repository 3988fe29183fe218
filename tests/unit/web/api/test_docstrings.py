from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, NoReturn

import pytest

from openfero_gitops.web.api import docstrings
from openfero_gitops.web.api.about_shape import AboutShape
from openfero_gitops.web.api.alerts import AlertQuery
from openfero_gitops.web.api.docstrings import field_docstrings
from openfero_gitops.web.api.operario_shape import CommitStatsShape, OperarioListShape

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def nothing_cached() -> Iterator[None]:
    """Read sources again, now and after the test."""
    docstrings._of_module.cache_clear()
    yield
    docstrings._of_module.cache_clear()


def test_fields_have_the_docstring_below_them() -> None:
    """A field without a docstring has none, and a class inherits those of its bases."""
    docstrings = field_docstrings(CommitStatsShape)
    assert docstrings["spec_digest"].startswith("Identifies the definition; null if")
    assert docstrings["runs"] == "Jobs that started."
    assert "commit" not in docstrings


def test_models_of_lists_have_the_docstrings_of_all_lists() -> None:
    """The class between them, which pydantic makes of the type of the items, has no source."""
    assert field_docstrings(OperarioListShape)["continue_"].startswith("Token of the next page")


def test_docstrings_of_several_lines_have_no_indentation() -> None:
    """The lines after the first begin at the left."""
    docstring = field_docstrings(AlertQuery)["q"]
    assert [line for line in docstring.splitlines() if line.startswith(" ")] == []


@pytest.mark.usefixtures("nothing_cached")
@pytest.mark.parametrize("error", [OSError("could not get source code"), SyntaxError("invalid")])
def test_without_sources_there_are_no_docstrings(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A package that is installed without sources, or that is being replaced, still works."""

    def fail(_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(inspect, "getsource", fail)
    assert field_docstrings(AboutShape) == {}
