"""The report of an import: as text for a terminal, as Markdown, and as values for JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.text import plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openfero_gitops.importing.differences import Difference
    from openfero_gitops.importing.openfero import Import, ImportedDefinition

_INTRODUCTION: Final = (
    "For whoever reviews this import. It lists what each definition means in another way than in "
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
    for one in sorted(imported.definitions, key=_order):
        parts.append(f"## {one.name}")
        if one.errors:
            parts.append(f"`{one.path}`, from {one.origin}. It is not an operario:")
            parts.append(_list(one.errors))
            continue
        parts.append(f"`{one.path}`, from {one.origin}: alert {one.alertname}, {one.status}.")
        parts.append(_list(_marked(difference) for difference in one.differences))
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
                "name": one.name,
                "origin": one.origin,
                "path": one.path,
                "alertname": one.alertname or None,
                "status": one.status or None,
                "namespace": one.namespace or None,
                "differences": list(map(_values, one.differences)),
                "errors": list(one.errors),
            }
            for one in sorted(imported.definitions, key=_order)
        ],
        "differences": list(map(_values, imported.for_all)),
        "notes": list(imported.notes),
    }


def _order(one: ImportedDefinition) -> tuple[bool, str, str]:
    return bool(one.errors), one.alertname.lower(), one.name


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
    for one in sorted(imported.definitions, key=_order):
        if one.errors:
            yield f"{one.name}: not an operario, moved to {one.path}"
            yield from (f"  ! {error}" for error in one.errors)
        else:
            yield f"{one.name}: {one.alertname} ({one.status}) in {one.path}"
            yield from (
                f"  {'!' if difference.needs_review else '-'} {difference.id}: {difference.message}"
                for difference in one.differences
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
    failed = sum(bool(one.errors) for one in definitions)
    yield f"{plural(len(definitions) - failed, 'operario')} imported" + (
        f", {plural(failed, 'definition')} not" if failed else ""
    )
