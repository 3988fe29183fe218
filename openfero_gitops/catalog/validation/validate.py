"""An object against its schema, then a Job's body against the rules a schema cannot say.

A field that the schema does not know is dropped with a warning, as the API server drops it; a
member that is null counts as absent. Everything is told at once: what is of a wrong type is set
aside, so that the rest can still be judged; in a list of texts its own text stands for it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.options import as_text

# Imported for what they register.
from openfero_gitops.catalog.validation import checks  # noqa: F401
from openfero_gitops.catalog.validation.body import body_of
from openfero_gitops.catalog.validation.checks.fields import NOT_ONE_OF, REQUIRED_FIELD
from openfero_gitops.catalog.validation.checks.job import OUT_OF_RANGE
from openfero_gitops.catalog.validation.rules import API_SERVER_REJECTS, CHECKS
from openfero_gitops.catalog.validation.schema import versions, versions_with
from openfero_gitops.domain.rule import Finding, Pointer, error, format_pointer, related, warning
from openfero_gitops.domain.text import canonical_json, did_you_mean, nearest, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jsonschema.exceptions import ValidationError

    from openfero_gitops.catalog.validation.schema import Path, Schema

WRONG_TYPE = error(
    "wrong-type",
    "A value must have the type of its field.",
    API_SERVER_REJECTS,
)
UNKNOWN_FIELD = warning(
    "unknown-field",
    "A field should be one that Kubernetes knows.",
    "The API server silently drops an unknown field. The Job then runs without it, "
    "for example without its memory limit or its pull policy.",
)

_NEAR: Final = 3  # steps between where a field stands and where it belongs
_TYPES: Final = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}
# A Pod may restart for ever, and a Job's may not (`restart-policy`): no word to suggest.
_NO_JOBS: Final = ("restartPolicy", "Always")
_DECIMAL: Final = re.compile(r"-?[0-9]+")


def clean(value: Any, schema: Schema) -> tuple[Any, list[Finding]]:
    """What of a value the schema knows, and what is wrong with the rest.

    A value with nothing wrong is returned as it is. What has an error is left out of the result.
    """
    if schema.is_valid(value):
        return value, []
    findings: list[Finding] = []
    pruned = _prune(value, schema, schema.at(()), (), findings)
    if schema.is_valid(pruned):
        return pruned, findings
    wrong = _errors(pruned, schema)
    for finding in wrong:
        pruned = _without(pruned, finding.pointer, schema.at(finding.pointer).get("type"))
    return pruned, findings + wrong


def check_body(job: Mapping[str, Any], wrong: Sequence[Finding] = ()) -> tuple[str, list[Finding]]:
    """Apply every rule to a Job that has passed its schema, but for what is `wrong` already.

    Args:
        job: its `labels`, `annotations` and `spec`; their canonical JSON is returned.
        wrong: errors found before, their pointers from the Job's root: what follows from them is
            not told again.
    """
    canonical = canonical_json(job)
    body = body_of(job, may_be_braced="{{" in canonical)
    findings = [
        rule.at(pointer, message, suggestion)
        for rule, breaches in CHECKS
        for pointer, message, suggestion in breaches(body)
        if not any(_follows(pointer, before) for before in wrong)
    ]
    return canonical, findings


def _follows(pointer: Pointer, before: Finding) -> bool:
    """Whether what is found there may be due to an error.

    What is of a wrong type has been set aside, and is missing to all that it stands in; what is
    missing in the file is missing to nothing but itself.
    """
    if before.rule is REQUIRED_FIELD:
        return pointer[: len(before.pointer)] == before.pointer
    return related(pointer, before.pointer)


# Fields that nobody knows.


def _prune(
    value: Any, schema: Schema, known: Mapping[str, Any], at: Pointer, findings: list[Finding]
) -> Any:
    """Leave out unknown fields, and those that are null."""
    if isinstance(value, list):
        item = schema.member(known, "[]")
        return [
            _prune(inner, schema, item, (*at, index), findings) for index, inner in enumerate(value)
        ]
    if not isinstance(value, dict):
        return value
    properties = known.get("properties", {})
    closed = known.get("additionalProperties") is False
    result = {}
    for key, inner in value.items():
        if closed and key not in properties:
            findings.append(UNKNOWN_FIELD.at((*at, key), *_unknown(key, at, schema, known)))
        elif inner is None or (inner == "" and "enum" in schema.member(known, key)):
            # (Go reads null and, in a list of words, nothing as if the field were not there.)
            if not closed and schema.member(known, key).get("type") == "string":
                result[key] = ""  # in a map of texts it is an empty text
        else:
            result[key] = _prune(inner, schema, schema.member(known, key), (*at, key), findings)
    return result


def _unknown(key: str, at: Pointer, schema: Schema, known: Mapping[str, Any]) -> tuple[str, str]:
    """What is said of an unknown field, and where it was probably meant to stand."""
    where = format_pointer(at) or "the object"
    message = f"{where} has no field {shown(key)}: it is ignored"
    if elsewhen := versions_with(schema.name_of(known), key):
        return message, _other_version(elsewhen)
    here = tuple("[]" if isinstance(part, int) else part for part in at)
    siblings = list(known.get("properties", ()))
    by_case = next((name for name in siblings if name.lower() == key.lower()), None)
    if by_case:
        return message, f"did you mean {by_case}?"
    elsewhere = [
        (distance, _is_secondary(path), path)
        for path in schema.fields.get(key, ())
        if (distance := _distance(here, path[:-1])) <= _NEAR
    ]
    if elsewhere:
        return message, f"did you mean {_relative(here, min(elsewhere)[2])}?"
    if near := nearest(key, siblings):
        return message, f"did you mean {near}?"
    return message, "delete it, if it does nothing"


def _other_version(known: Sequence[str]) -> str:
    """What is said of a field that this Kubernetes does not know, and these versions do."""
    every = versions()
    if known[-1] == every[-1]:
        return f"Kubernetes has it from {known[0]} on"
    if known[0] == every[0]:
        return f"Kubernetes has dropped it after {known[-1]}"
    return f"only Kubernetes {' and '.join(known)} had it"


def _distance(one: Path, other: Path) -> int:
    return len(one) + len(other) - 2 * _shared(one, other)


def _shared(one: Path, other: Path) -> int:
    shared = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        shared += 1
    return shared


def _is_secondary(path: Path) -> bool:
    return "initContainers" in path or "ephemeralContainers" in path


def _relative(here: Path, path: Path) -> str:
    """A field's path from the last part that both share."""
    start = max(0, _shared(here, path) - 1)
    start -= path[start] == "[]"
    return ".".join(path[start:]).replace(".[]", "[]")


# Fields of a wrong type.


def _errors(value: Any, schema: Schema) -> list[Finding]:
    """Every error of a value whose fields are all known, in words."""
    # Slow to import, and needed for files alone that have errors.
    from jsonschema import Draft202012Validator  # noqa: PLC0415

    findings = list(
        dict.fromkeys(
            finding
            for problem in Draft202012Validator(schema.document).iter_errors(value)
            for finding in _worded(problem)
        )
    )
    # (A pruned value breaks no rule that is not worded above; better one too many than none.)
    return findings or [WRONG_TYPE.at((), "the object does not fit Kubernetes' schema")]


def _worded(problem: ValidationError) -> list[Finding]:
    at: Pointer = tuple(problem.absolute_path)
    instance: Any = problem.instance
    wanted: Any = problem.validator_value
    match problem.validator:
        case "type":
            kinds = [wanted] if isinstance(wanted, str) else list(wanted)
            expected = " or ".join(_TYPES[kind] for kind in kinds)
            message = f"{_name(at)} is {expected}, not {_described(instance)}"
            option = as_text(str(at[-1]), instance) if at[-2:-1] == ("annotations",) else ""
            return [WRONG_TYPE.at(at, message, option or _retyped(instance, kinds))]
        case "required":
            missing = [name for name in wanted if name not in instance]
            return [
                REQUIRED_FIELD.at((*at, name), f"{_name(at)} has no {name}", f"add {name}: …")
                for name in missing
            ]
        case "enum":
            choices = [str(choice) for choice in wanted if (at[-1], choice) != _NO_JOBS]
            message = f"{_name(at)} is one of {', '.join(choices)}, not {shown(instance)}"
            return [NOT_ONE_OF.at(at, message, did_you_mean(str(instance), choices))]
        case "minimum" | "maximum":
            bits = 32 if abs(wanted) < 2**33 else 64
            message = f"{_name(at)} is an integer of {bits} bits, and {instance} is beyond it"
            bound = "more" if problem.validator == "minimum" else "less"
            return [OUT_OF_RANGE.at(at, message, f"write {wanted} or {bound}")]
        case _:
            return []


def _name(at: Pointer) -> str:
    """What a message calls a place: the last name on the way, and the index after it."""
    names = [index for index, part in enumerate(at) if isinstance(part, str)]
    if not names:
        return "the object"
    rest = "".join(f"[{part}]" for part in at[names[-1] + 1 :])
    return f"{at[names[-1]]}{rest}"


def _described(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str():
            return f"the text {shown(value)}"
        case _:
            return f"the number {value}"


def _retyped(  # noqa: PLR0911 - one return for each type
    value: Any, kinds: Sequence[str]
) -> str:
    """How the same value is written in the type that is wanted."""
    match value:
        case None:
            return "write a value, or delete it"
        case bool() if "string" in kinds:
            words = "y, yes, on and true" if value else "n, no, off and false"
            return f"put it in quotes: without them {words} are one and the same"
        case int() | float() if "string" in kinds:
            return "put it in quotes"
        case str() if ("boolean" in kinds and value in ("true", "false")) or (
            "integer" in kinds and _DECIMAL.fullmatch(value)
        ):
            return f"write {value} without quotes"
        case str() if "array" in kinds:
            return f"write it as a list: [{shown(value)}]"
        case dict() if "array" in kinds:
            return "begin each item with -"
    return ""


def _without(value: Any, pointer: Pointer, wanted: object = None) -> Any:
    """A copy without what a pointer leads to, or without the list that it is an item of.

    Where texts are `wanted`, an item that is no list and no mapping stays, as its text.
    """
    if not pointer:
        return {}
    part, rest = pointer[0], pointer[1:]
    if isinstance(value, dict) and part in value:
        inner = None if not rest else _without(value[part], rest, wanted)
        kept = {key: other for key, other in value.items() if key != part}
        return kept if inner is None else {**kept, part: inner}
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        if rest:
            inner = _without(value[part], rest, wanted)
        else:
            is_text = wanted == "string" and not isinstance(value[part], dict | list)
            inner = str(value[part]) if is_text else None
        return None if inner is None else [*value[:part], inner, *value[part + 1 :]]
    return value
