"""Validate an object against its schema, then a Job's body against the rules beyond the schema.

A field that the schema does not have is dropped with a warning, as the API server drops it; a field
that is null counts as missing. All problems are reported at once: a value of the wrong type is
removed so that the rest can still be checked; in a list of strings it is replaced by its text.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.effort import MAX_FILE_PROBLEMS, Effort
from openfero_gitops.catalog.options import as_text

# Imported because it registers the checks.
from openfero_gitops.catalog.validation import checks  # noqa: F401
from openfero_gitops.catalog.validation.body import body_of
from openfero_gitops.catalog.validation.checks.fields import NOT_ONE_OF, REQUIRED_FIELD
from openfero_gitops.catalog.validation.checks.job import OUT_OF_RANGE
from openfero_gitops.catalog.validation.rules import CHECKS, kubernetes_error
from openfero_gitops.catalog.validation.schema import versions, versions_with
from openfero_gitops.domain.operario import Form
from openfero_gitops.domain.rule import Finding, Pointer, format_pointer, related, warning
from openfero_gitops.domain.text import canonical_json, did_you_mean, nearest, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jsonschema.exceptions import ValidationError

    from openfero_gitops.catalog.validation.schema import Path, Schema
    from openfero_gitops.catalog.validation.schema.gates import Release

WRONG_TYPE = kubernetes_error("wrong-type", "A value must have the type of its field.")
UNKNOWN_FIELD = warning(
    "unknown-field",
    "A field should be one that Kubernetes knows.",
    "The API server silently drops an unknown field. The Job then runs without it, "
    "for example without its memory limit or its pull policy.",
)

_MAX_DISTANCE: Final = 3  # in path steps, from where a field is to where it belongs
_TYPES: Final = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}
# Valid in a Pod but not in a Job (`restart-policy`), so it is not suggested.
_NOT_IN_JOBS: Final = ("restartPolicy", "Always")
_DECIMAL: Final = re.compile(r"-?[0-9]+")
# Steps of a finding, see `catalog.effort`.
_UNKNOWN_FIELD_STEPS: Final = 100
_SCHEMA_ERROR_STEPS: Final = 50


def clean(value: Any, schema: Schema, effort: Effort | None = None) -> tuple[Any, list[Finding]]:
    """Remove from a value what its schema does not allow; return the rest and the findings.

    A valid value is returned unchanged. Of a value with more errors than are listed, only the
    metadata remain.

    Raises:
        Unreadable: the file has reached the limit of its effort.
    """
    if schema.is_valid(value):
        return value, []
    effort = effort or Effort()
    pruning = _Pruning(schema, effort)
    pruned = pruning.prune(value, schema.at(()), ())
    if schema.is_valid(pruned):
        return pruned, pruning.findings
    errors = _errors(pruned, schema, effort)
    types = {finding.pointer: schema.at(finding.pointer).get("type") for finding in errors}
    pruned = _without(pruned, types)
    if len(errors) > MAX_FILE_PROBLEMS and not schema.is_valid(pruned):
        metadata = pruned.get("metadata", {})
        pruned = {"metadata": metadata} if schema.is_valid_metadata(metadata) else {}
    return pruned, pruning.findings + errors


def check_body(
    job: Mapping[str, Any],
    release: Release,
    errors: Sequence[Finding] = (),
    effort: Effort | None = None,
    form: Form = Form.JOB,
) -> tuple[str, list[Finding]]:
    """Apply every rule to a Job that has passed its schema.

    Args:
        job: its `labels`, `annotations` and `spec`; their canonical JSON is returned.
        release: the version of Kubernetes that it is for.
        errors: the schema's errors, their pointers from the root of the Job; findings that follow
            from them are left out.
        effort: of the file.
        form: of the operario.

    Raises:
        Unreadable: the file has reached the limit of its effort.
    """
    effort = effort or Effort()
    canonical = canonical_json(job)
    body = body_of(job, release, form=form, may_be_braced="{{" in canonical, spend=effort.spend)
    findings: list[Finding] = []
    for rule, breaches in CHECKS:
        for pointer, message, suggestion in breaches(body):
            if errors:
                effort.spend(1 + len(errors) // 10)
                if any(_follows(pointer, error) for error in errors):
                    continue
            if effort.admits(rule):
                words = suggestion if isinstance(suggestion, str) else suggestion()
                findings.append(rule.at(pointer, message, words))
    return canonical, findings


def _follows(pointer: Pointer, error: Finding) -> bool:
    """Whether a finding at a pointer may follow from an error.

    A value of the wrong type has been removed, so it is missing for the checks of every value
    around it. A required field that is missing in the file affects only checks of itself.
    """
    if error.rule is REQUIRED_FIELD:
        return pointer[: len(error.pointer)] == error.pointer
    return related(pointer, error.pointer)


# Unknown fields.


class _Pruning:
    """Removes unknown fields and fields that are null from one value."""

    def __init__(self, schema: Schema, effort: Effort) -> None:
        self._schema = schema
        self._effort = effort
        # The same field is often unknown in many places.
        self._words: dict[tuple[int, str, Path], str] = {}
        self.findings: list[Finding] = []

    def prune(self, value: Any, subschema: Mapping[str, Any], pointer: Pointer) -> Any:
        """Copy a value without these fields."""
        if isinstance(value, list):
            item = self._schema.member(subschema, "[]")
            return [self.prune(inner, item, (*pointer, index)) for index, inner in enumerate(value)]
        if not isinstance(value, dict):
            return value
        properties = subschema.get("properties", {})
        closed = subschema.get("additionalProperties") is False
        result = {}
        for key, inner in value.items():
            at = (*pointer, key)
            if closed and key not in properties:
                if self._effort.admits(UNKNOWN_FIELD):
                    self.findings.append(self._unknown(key, pointer, subschema))
                continue
            member = self._schema.member(subschema, key)
            if inner is None or (inner == "" and "enum" in member):
                # Go reads null, and an empty string for an enumeration, as a missing field; in a
                # map of strings it reads null as the empty string.
                if not closed and member.get("type") == "string":
                    result[key] = ""
            else:
                result[key] = self.prune(inner, member, at)
        return result

    def _unknown(self, key: str, pointer: Pointer, subschema: Mapping[str, Any]) -> Finding:
        """Report an unknown field and where it probably belongs."""
        parent = tuple("[]" if isinstance(part, int) else part for part in pointer)
        similar = (id(subschema), key, parent)
        if similar not in self._words:
            self._effort.spend(_UNKNOWN_FIELD_STEPS)
            self._words[similar] = _advice(key, parent, self._schema, subschema)
        owner = format_pointer(pointer) or "the object"
        message = f"{owner} has no field {shown(key)}: it is ignored"
        return UNKNOWN_FIELD.at((*pointer, key), message, self._words[similar])


def _advice(key: str, parent: Path, schema: Schema, subschema: Mapping[str, Any]) -> str:
    """Where an unknown field below `parent` probably belongs."""
    if releases := versions_with(schema.name_of(subschema), key):
        return _other_version(releases)
    siblings = list(subschema.get("properties", ()))
    by_case = next((name for name in siblings if name.lower() == key.lower()), None)
    if by_case:
        return f"did you mean {by_case}?"
    elsewhere = [
        (distance, _is_secondary(path), path)
        for path in schema.fields.get(key, ())
        if (distance := _distance(parent, path[:-1])) <= _MAX_DISTANCE
    ]
    if elsewhere:
        return f"did you mean {_relative(parent, min(elsewhere)[2])}?"
    if sibling := nearest(key, siblings):
        return f"did you mean {sibling}?"
    return "delete it"


def _other_version(releases: Sequence[str]) -> str:
    """The suggestion for a field that only these other versions of Kubernetes have."""
    all_releases = versions()
    if releases[-1] == all_releases[-1]:
        return f"Kubernetes has it since {releases[0]}"
    if releases[0] == all_releases[0]:
        return f"Kubernetes removed it after {releases[-1]}"
    return f"only Kubernetes {' and '.join(releases)} has it"


def _distance(left: Path, right: Path) -> int:
    return len(left) + len(right) - 2 * _shared(left, right)


def _shared(left: Path, right: Path) -> int:
    """The length of the common beginning of two paths."""
    shared = 0
    for left_part, right_part in zip(left, right, strict=False):
        if left_part != right_part:
            break
        shared += 1
    return shared


def _is_secondary(path: Path) -> bool:
    return "initContainers" in path or "ephemeralContainers" in path


def _relative(parent: Path, path: Path) -> str:
    """A field's path, beginning with the last part that it shares with `parent`."""
    start = max(0, _shared(parent, path) - 1)
    start -= path[start] == "[]"
    return ".".join(path[start:]).replace(".[]", "[]")


# Values of a wrong type.


def _errors(value: Any, schema: Schema, effort: Effort) -> list[Finding]:
    """The first schema errors of a value without unknown fields."""
    # Slow to import, and needed only for files with errors.
    from jsonschema import Draft202012Validator  # noqa: PLC0415

    def all_findings() -> Iterator[Finding]:
        for error in Draft202012Validator(schema.document).iter_errors(value):
            effort.spend(_SCHEMA_ERROR_STEPS)
            yield from _findings(error)

    findings = list(dict.fromkeys(islice(all_findings(), MAX_FILE_PROBLEMS + 1)))
    # The fallback is for keywords that _findings does not handle; the schemas have none.
    return findings or [WRONG_TYPE.at((), "the object does not match the Kubernetes schema")]


def _findings(error: ValidationError) -> list[Finding]:
    pointer: Pointer = tuple(error.absolute_path)
    instance: Any = error.instance
    expected: Any = error.validator_value
    match error.validator:
        case "type":
            types = [expected] if isinstance(expected, str) else list(expected)
            type_names = " or ".join(_TYPES[type_] for type_ in types)
            message = f"{_name(pointer)} must be {type_names}, not {_described(instance)}"
            is_annotation = pointer[-2:-1] == ("annotations",)
            suggestion = as_text(str(pointer[-1]), instance) if is_annotation else ""
            return [WRONG_TYPE.at(pointer, message, suggestion or _conversion(instance, types))]
        case "required":
            missing = [name for name in expected if name not in instance]
            return [
                REQUIRED_FIELD.at(
                    (*pointer, name), f"{_name(pointer)} has no {name}", f"add {name}: …"
                )
                for name in missing
            ]
        case "enum":
            choices = [str(choice) for choice in expected if (pointer[-1], choice) != _NOT_IN_JOBS]
            message = f"{_name(pointer)} must be one of {', '.join(choices)}, not {shown(instance)}"
            return [NOT_ONE_OF.at(pointer, message, did_you_mean(str(instance), choices))]
        case "minimum" | "maximum":
            bits = 32 if abs(expected) < 2**33 else 64
            message = f"{_name(pointer)} must fit in {bits} bits, but is {instance}"
            bound = "more" if error.validator == "minimum" else "less"
            return [OUT_OF_RANGE.at(pointer, message, f"write {expected} or {bound}")]
        case _:
            return []


def _name(pointer: Pointer) -> str:
    """The last name of a pointer with the indexes after it: `args[1]`."""
    names = [index for index, part in enumerate(pointer) if isinstance(part, str)]
    if not names:
        return "the object"
    indexes = "".join(f"[{part}]" for part in pointer[names[-1] + 1 :])
    return f"{pointer[names[-1]]}{indexes}"


def _described(value: Any) -> str:
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str():
            return f"the string {shown(value)}"
        case None | bool():
            return shown(value)
        case _:
            return f"the number {value}"


def _conversion(  # noqa: PLR0911 - one return for each type
    value: Any, types: Sequence[str]
) -> str:
    """How to write the same value in one of the expected types; empty if that is not possible."""
    match value:
        case None:
            return "write a value, or delete it"
        case bool() if "string" in types:
            words = "y, yes, on and true" if value else "n, no, off and false"
            return f"put it in quotes: without quotes {words} are the same value"
        case int() | float() if "string" in types:
            return "put it in quotes"
        case str() if ("boolean" in types and value in ("true", "false")) or (
            "integer" in types and _DECIMAL.fullmatch(value)
        ):
            return f"write {value} without quotes"
        case str() if "array" in types:
            return f"write it as a list: [{shown(value)}]"
        case dict() if "array" in types:
            return "begin each item with -"
    return ""


def _without(value: Any, types: Mapping[Pointer, object]) -> Any:
    """Copy a value without the targets of pointers; a list with a target as an item is removed.

    In a list of strings, a number, boolean or null is replaced by its text instead.

    Args:
        value: what to copy.
        types: by pointer, the type that its schema has for the target.
    """
    if () in types:
        return {}
    here: dict[str | int, object] = {}
    below: dict[str | int, dict[Pointer, object]] = {}
    for (part, *rest), type_ in types.items():
        if rest:
            below.setdefault(part, {})[tuple(rest)] = type_
        else:
            here[part] = type_
    if isinstance(value, dict):
        members = ((key, _member(inner, key, here, below)) for key, inner in value.items())
        return {key: member for key, member in members if member is not _REMOVED}
    if isinstance(value, list):
        items = [
            str(item)
            if here.get(index) == "string" and not isinstance(item, dict | list)
            else _member(item, index, here, below)
            for index, item in enumerate(value)
        ]
        return _REMOVED if _REMOVED in items else items
    return value


def _member(
    value: Any,
    part: str | int,
    here: Mapping[str | int, object],
    below: Mapping[str | int, Mapping[Pointer, object]],
) -> Any:
    if part in here:
        return _REMOVED
    return _without(value, below[part]) if part in below else value


_REMOVED: Final = object()
