from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.catalog.options import AnnotationValue, as_text, read_options
from openfero_gitops.domain.matcher import Matcher, Operator
from openfero_gitops.domain.operario import OPTIONS, Mode, OnResolve, Options

if TYPE_CHECKING:
    from openfero_gitops.domain.option import Option
    from openfero_gitops.domain.rule import Finding


def read(**annotations: object) -> tuple[Options, list[Finding]]:
    """Read options from keyword arguments, with _ for -."""
    given = {
        f"openfero.io/{name.replace('_', '-')}": AnnotationValue(value, ("annotations", name))
        for name, value in annotations.items()
    }
    return read_options(given, Options())


def test_defaults_are_as_documented() -> None:
    """An operario without options has the documented defaults."""
    options, findings = read()
    assert findings == []
    assert options == Options(
        matchers=(),
        priority=0,
        enabled=True,
        mode=Mode.RUN,
        target=(),
        cooldown=timedelta(minutes=10),
        max_concurrent=5,
        max_per_hour=30,
        max_wait=timedelta(hours=1),
        rerun_after=timedelta(0),
        max_runs=3,
        approval=False,
        on_resolve=OnResolve.CANCEL,
        resolve_delay=timedelta(minutes=1),
        own_jobs=False,
        heals_within=timedelta(minutes=15),
        stop_after_not_healed=3,
    )


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("matchers", 'a="b"', "matchers", (Matcher("a", Operator.EQUAL, "b"),)),
        ("matchers", "{}", "matchers", ()),
        ("priority", "-5", "priority", -5),
        ("enabled", "false", "enabled", False),
        ("mode", "dry-run", "mode", Mode.DRY_RUN),
        ("target", "namespace, pod", "target", ("namespace", "pod")),
        ("cooldown", "1h30m", "cooldown", timedelta(minutes=90)),
        ("cooldown", "0", "cooldown", timedelta(0)),
        ("max_concurrent", "0", "max_concurrent", 0),
        ("max_per_hour", "100", "max_per_hour", 100),
        ("max_wait", "0", "max_wait", timedelta(0)),
        ("rerun_after", "1h", "rerun_after", timedelta(hours=1)),
        ("max_runs", "1", "max_runs", 1),
        ("approval", "required", "approval", True),
        ("approval", "none", "approval", False),
        ("on_resolve", "cancel-running", "on_resolve", OnResolve.CANCEL_RUNNING),
        ("resolve_delay", " 5m ", "resolve_delay", timedelta(minutes=5)),
        ("own_jobs", "true", "own_jobs", True),
        ("heals_within", "1h", "heals_within", timedelta(hours=1)),
        ("stop_after_not_healed", "1", "stop_after_not_healed", 1),
        ("stop_after_not_healed", "off", "stop_after_not_healed", None),
    ],
)
def test_an_option_sets_its_field(name: str, text: str, field: str, value: Any) -> None:
    """An annotation sets its field."""
    options, findings = read(**{name: text})
    assert findings == []
    assert getattr(options, field) == value


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("matchers", "a=~(", "missing closing ) (at its character 4)"),
        ("matchers", "a", "expected =, !=, =~ or !~ (at its character 2)"),
        ("priority", "high", 'must be an integer, not "high"'),
        ("priority", "1.5", 'must be an integer, not "1.5"'),
        ("enabled", "True", "must be true or false"),
        ("enabled", "", "must be true or false"),
        ("mode", "dryrun", 'must be one of run, dry-run, not "dryrun"; did you mean dry-run?'),
        ("mode", "off", "must be one of run, dry-run"),
        ("target", "", "a label name is missing"),
        ("target", "a,,b", "a label name is missing"),
        ("target", "a,b c", '"b c" is not a label name'),
        ("target", "a,a", "is repeated"),
        ("cooldown", "30", "write a number with a unit, for example 30s or 30m"),
        ("cooldown", "soon", "is not a duration"),
        ("max_concurrent", "-1", "must not be negative"),
        ("max_per_hour", "9999999999", "must be an integer"),
        ("max_runs", "0", "must be at least 1"),
        ("approval", "yes", 'must be one of required, none, not "yes"'),
        ("on_resolve", "cancel-runing", "did you mean cancel-running?"),
        ("heals_within", "0", "must be longer than 0"),
        ("stop_after_not_healed", "0", "must be at least 1, but is 0; off disables it"),
        ("stop_after_not_healed", "never", 'must be a number or off, not "never"'),
    ],
)
def test_a_wrong_value_is_an_error_with_an_example(name: str, text: str, words: str) -> None:
    """An invalid value is an error that shows a valid example, and sets nothing."""
    options, (finding,) = read(**{name: text})
    assert options == Options()
    assert finding.rule.id == "option-value"
    assert finding.is_error
    assert finding.pointer == ("annotations", name)
    assert words in finding.message
    assert finding.suggestion.startswith(f"for example openfero.io/{name.replace('_', '-')}: ")


@pytest.mark.parametrize(
    ("name", "value", "suggestion"),
    [
        ("enabled", False, 'write openfero.io/enabled: "false"'),
        ("max-runs", 5, 'write openfero.io/max-runs: "5"'),
        ("stop-after-not-healed", False, 'write openfero.io/stop-after-not-healed: "off"'),
        ("stop-after-not-healed", 0, 'for example openfero.io/stop-after-not-healed: "3"'),
        ("mode", True, "for example openfero.io/mode: "),
        ("status", True, "for example openfero.io/status: firing"),
        ("unknown", True, ""),
    ],
)
def test_a_value_that_yaml_reads_as_no_string_is_shown_in_quotes(
    name: str, value: object, suggestion: str
) -> None:
    """For YAML, an unquoted `off` is a boolean."""
    assert as_text(f"openfero.io/{name}", value).startswith(suggestion)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_example_is_valid(option: Option) -> None:
    """The example of an option is valid, and its value survives writing and reading."""
    options, findings = read(**{option.name: option.example})
    assert findings == []
    value = option.of(options)
    assert option.type.parse(option.type.text(value)) == value
    assert not option.recorded or option.from_json(option.type.to_json(value)) == value


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("cool_down", "did you mean openfero.io/cooldown?"),
        ("max_concurent", "did you mean openfero.io/max-concurrent?"),
        ("Alertname", "did you mean openfero.io/alertname?"),
        ("commit", "delete it"),
        ("zzz", "the options are alertname, approval, cooldown"),
    ],
)
def test_an_unknown_option_is_an_error_with_a_suggestion(name: str, suggestion: str) -> None:
    """An annotation with the openfero.io prefix that is no option is an error."""
    _, (finding,) = read(**{name: "x"})
    assert finding.rule.id == "unknown-option"
    assert finding.is_error
    assert finding.suggestion.startswith(suggestion)


def test_an_annotation_that_openfero_ignores_is_a_warning() -> None:
    """An annotation of OpenFero's examples has no effect except a warning."""
    options, (finding,) = read(template_variables="namespace,resource")
    assert options == Options()
    assert finding.rule.id == "no-effect"
    assert not finding.is_error


def test_other_annotations_are_ignored() -> None:
    """Other prefixes, alertname and status, and values that are not strings are ignored."""
    annotations = {
        "example.com/openfero.io": AnnotationValue("x", ()),
        "operarios.openfero.io/max-size": AnnotationValue("x", ()),
        "openfero.io/alertname": AnnotationValue("X", ()),
        "openfero.io/status": AnnotationValue("firing", ()),
        "openfero.io/enabled": AnnotationValue(False, ()),  # noqa: FBT003 - a value as YAML has it
    }
    assert read_options(annotations, Options(priority=7)) == (Options(priority=7), [])
