"""The report of an import: as text for a terminal, as Markdown, and as values for JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.text import plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openfero_gitops.importing.differences import Difference
    from openfero_gitops.importing.openfero import Import, ImportedDefinition

_INTRODUCTION: Final = (
    "For reviewers of this import. It lists how the behavior of each definition differs from "
    "OpenFero. Delete this file when you have read it."
)


def as_text(imported: Import) -> str:
    """Describe each definition with what changed in meaning; `!` marks what to review."""
    return "\n".join(_lines(imported))


def as_markdown(imported: Import) -> str:
    """Describe the same as a page of the repository."""
    parts = [
        "# Imported from OpenFero",
        _INTRODUCTION,
    ]
    for definition in sorted(imported.definitions, key=_order):
        parts.append(f"## {definition.name}")
        place = f"`{definition.path}`, from {definition.origin}"
        if definition.errors:
            parts.append(f"{place}. It is not an operario:")
            parts.append(_list(definition.errors))
            continue
        parts.append(f"{place}: alert {definition.alertname}, {definition.status}.")
        parts.append(_list(_marked(difference) for difference in definition.differences))
    parts += ["## All operarios", _list(difference.message for difference in imported.for_all)]
    if imported.notes:
        parts += ["## Notes", _list(imported.notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_values(imported: Import) -> dict[str, Any]:
    """Describe the same as values for JSON."""
    return {
        "files": sorted(imported.files),
        "definitions": [
            {
                "name": definition.name,
                "origin": definition.origin,
                "path": definition.path,
                "alertname": definition.alertname or None,
                "status": definition.status or None,
                "namespace": definition.namespace or None,
                "differences": list(map(_values, definition.differences)),
                "errors": list(definition.errors),
            }
            for definition in sorted(imported.definitions, key=_order)
        ],
        "differences": list(map(_values, imported.for_all)),
        "notes": list(imported.notes),
    }


def _order(definition: ImportedDefinition) -> tuple[bool, str, str]:
    return bool(definition.errors), definition.alertname.lower(), definition.name


def _values(difference: Difference) -> dict[str, Any]:
    return {
        "id": difference.id,
        "message": difference.message,
        "needsReview": difference.needs_review,
    }


def _marked(difference: Difference) -> str:
    return f"**Review:** {difference.message}" if difference.needs_review else difference.message


def _list(lines: Any) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _lines(imported: Import) -> Iterator[str]:
    for definition in sorted(imported.definitions, key=_order):
        if definition.errors:
            yield f"{definition.name}: not an operario, moved to {definition.path}"
            yield from (f"  ! {error}" for error in definition.errors)
        else:
            alert = f"{definition.alertname} ({definition.status})"
            yield f"{definition.name}: {alert} in {definition.path}"
            yield from (
                f"  {'!' if difference.needs_review else '-'} {difference.id}: {difference.message}"
                for difference in definition.differences
            )
        yield ""
    yield "All operarios:"
    yield from (f"  - {difference.id}: {difference.message}" for difference in imported.for_all)
    if imported.notes:
        yield ""
        yield "Notes:"
        yield from (f"  - {note}" for note in imported.notes)
    yield ""
    definitions = imported.definitions
    failed = sum(bool(definition.errors) for definition in definitions)
    yield f"{plural(len(definitions) - failed, 'operario')} imported" + (
        f", {plural(failed, 'definition')} not" if failed else ""
    )
