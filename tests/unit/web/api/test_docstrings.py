from __future__ import annotations

from openfero_gitops.web.api.alerts import AlertQuery
from openfero_gitops.web.api.docstrings import field_docstrings
from openfero_gitops.web.api.operario_shape import CommitStatsShape, OperarioListShape


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
