"""Validate an object against its schema, then a Job's body against the rules beyond the schema.

A field that the schema does not have is dropped with a warning, as the API server drops it; a field
that is null counts as missing. All problems are reported at once: a value of the wrong type is
removed so that the rest can still be checked; in a list of strings it is replaced by its text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.options import as_text

# Imported because it registers the checks.
from openfero_gitops.catalog.validation import checks  # noqa: F401
from openfero_gitops.catalog.validation.body import body_of
from openfero_gitops.catalog.validation.checks.fields import NOT_ONE_OF, REQUIRED_FIELD
from openfero_gitops.catalog.validation.checks.job import OUT_OF_RANGE
from openfero_gitops.catalog.validation.rules import CHECKS, kubernetes_error
from openfero_gitops.catalog.validation.schema import versions, versions_with
from openfero_gitops.domain.rule import Finding, Pointer, format_pointer, related, warning
from openfero_gitops.domain.text import canonical_json, did_you_mean, nearest, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jsonschema.exceptions import ValidationError

    from openfero_gitops.catalog.validation.schema import Path, Schema

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


def clean(value: Any, schema: Schema) -> tuple[Any, list[Finding]]:
    """Remove from a value what its schema does not allow; return the rest and the findings.

    A valid value is returned unchanged.
    """
    if schema.is_valid(value):
        return value, []
    findings: list[Finding] = []
    pruned = _prune(value, schema, schema.at(()), (), findings)
    if schema.is_valid(pruned):
        return pruned, findings
    errors = _errors(pruned, schema)
    for finding in errors:
        pruned = _without(pruned, finding.pointer, schema.at(finding.pointer).get("type"))
    return pruned, findings + errors


def check_body(job: Mapping[str, Any], errors: Sequence[Finding] = ()) -> tuple[str, list[Finding]]:
    """Apply every rule to a Job that has passed its schema.

    Args:
        job: its `labels`, `annotations` and `spec`; their canonical JSON is returned.
        errors: the schema's errors, their pointers from the root of the Job; findings that follow
            from them are left out.
    """
    canonical = canonical_json(job)
    body = body_of(job, may_be_braced="{{" in canonical)
    findings = [
        rule.at(*breach)
        for rule, breaches in CHECKS
        for breach in breaches(body)
        if not any(_follows(breach[0], error) for error in errors)
    ]
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


def _prune(
    value: Any,
    schema: Schema,
    subschema: Mapping[str, Any],
    pointer: Pointer,
    findings: list[Finding],
) -> Any:
    """Remove unknown fields and fields that are null."""
    if isinstance(value, list):
        item = schema.member(subschema, "[]")
        return [
            _prune(inner, schema, item, (*pointer, index), findings)
            for index, inner in enumerate(value)
        ]
    if not isinstance(value, dict):
        return value
    properties = subschema.get("properties", {})
    closed = subschema.get("additionalProperties") is False
    result = {}
    for key, inner in value.items():
        at = (*pointer, key)
        if closed and key not in properties:
            findings.append(UNKNOWN_FIELD.at(at, *_unknown(key, pointer, schema, subschema)))
            continue
        member = schema.member(subschema, key)
        if inner is None or (inner == "" and "enum" in member):
            # Go reads null, and an empty string for an enumeration, as a missing field; in a map
            # of strings it reads null as the empty string.
            if not closed and member.get("type") == "string":
                result[key] = ""
        else:
            result[key] = _prune(inner, schema, member, at, findings)
    return result


def _unknown(
    key: str, pointer: Pointer, schema: Schema, subschema: Mapping[str, Any]
) -> tuple[str, str]:
    """The message about an unknown field, and where it probably belongs."""
    message = f"{format_pointer(pointer) or 'the object'} has no field {shown(key)}: it is ignored"
    if releases := versions_with(schema.name_of(subschema), key):
        return message, _other_version(releases)
    parent = tuple("[]" if isinstance(part, int) else part for part in pointer)
    siblings = list(subschema.get("properties", ()))
    by_case = next((name for name in siblings if name.lower() == key.lower()), None)
    if by_case:
        return message, f"did you mean {by_case}?"
    elsewhere = [
        (distance, _is_secondary(path), path)
        for path in schema.fields.get(key, ())
        if (distance := _distance(parent, path[:-1])) <= _MAX_DISTANCE
    ]
    if elsewhere:
        return message, f"did you mean {_relative(parent, min(elsewhere)[2])}?"
    if sibling := nearest(key, siblings):
        return message, f"did you mean {sibling}?"
    return message, "delete it"


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


def _errors(value: Any, schema: Schema) -> list[Finding]:
    """The schema errors of a value without unknown fields."""
    # Slow to import, and needed only for files with errors.
    from jsonschema import Draft202012Validator  # noqa: PLC0415

    findings = list(
        dict.fromkeys(
            finding
            for error in Draft202012Validator(schema.document).iter_errors(value)
            for finding in _findings(error)
        )
    )
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


def _without(value: Any, pointer: Pointer, type_: object = None) -> Any:
    """Copy a value without the target of a pointer; a list with the target as an item is removed.

    In a list of strings, a number, boolean or null is replaced by its text instead.
    """
    if not pointer:
        return {}
    part, rest = pointer[0], pointer[1:]
    if isinstance(value, dict) and part in value:
        inner = None if not rest else _without(value[part], rest, type_)
        others = {key: other for key, other in value.items() if key != part}
        return others if inner is None else {**others, part: inner}
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        if rest:
            inner = _without(value[part], rest, type_)
        else:
            is_text = type_ == "string" and not isinstance(value[part], dict | list)
            inner = str(value[part]) if is_text else None
        return None if inner is None else [*value[:part], inner, *value[part + 1 :]]
    return value
