from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.text import canonical_json
from openfero_gitops.jobs.environment import (
    LIMITS,
    AlertRecord,
    RecordLimits,
    variables,
    why_missing,
)
from openfero_gitops.jobs.environment import record_alert as record_within
from openfero_gitops.jobs.render import RENDERER
from tests.support.build import alert

if TYPE_CHECKING:
    from random import Random

    from openfero_gitops.domain.alert import Alert

KIB = 1024
TEXT = st.text(st.characters(codec="utf-8"))


def record_alert(alert: Alert, limits: RecordLimits = LIMITS[RENDERER]) -> AlertRecord:
    """Record an alert as Jobs do now."""
    return record_within(alert, limits)


def variables_for(
    *, group_key: str = "key", commit: str = "1a2b", renderer: int = RENDERER, **values: Any
) -> dict[str, str]:
    """Return the variables of an alert with these values."""
    limits = LIMITS[renderer]
    return variables(record_within(alert(**values), limits), group_key, commit, limits)


def test_the_record_is_the_alert_as_canonical_json() -> None:
    """It has everything that was delivered, sorted and without spaces."""
    assert record_alert(alert(status=Status.RESOLVED, starts_at=None)).text == (
        '{"annotations":{"summary":"web-1 restarts"},"endsAt":"","fingerprint":"c0ffee",'
        '"generatorURL":"http://prometheus.example/graph?g0.expr=up","labels":'
        '{"alertname":"PodCrashLooping","pod":"web-1","severity":"page"},"startsAt":"",'
        '"status":"resolved"}'
    )


@given(st.dictionaries(TEXT, TEXT), st.dictionaries(TEXT, TEXT))
def test_the_values_of_a_record_are_those_of_its_text(
    labels: dict[str, str], annotations: dict[str, str]
) -> None:
    """The text need not be parsed again."""
    record = record_alert(alert(labels=labels, annotations=annotations))
    assert json.loads(record.text) == record.values


@given(st.dictionaries(TEXT, TEXT), st.dictionaries(TEXT, TEXT), st.randoms())
def test_the_record_does_not_depend_on_order(
    labels: dict[str, str], annotations: dict[str, str], random: Random
) -> None:
    """The order of members in a delivery has no effect."""
    shuffled = [list(labels.items()), list(annotations.items())]
    for items in shuffled:
        random.shuffle(items)

    assert record_alert(alert(labels=labels, annotations=annotations)) == record_alert(
        alert(labels=dict(shuffled[0]), annotations=dict(shuffled[1]))
    )


@pytest.mark.parametrize(
    ("annotations", "longest"),
    [
        ({"a": "x" * 15 * KIB}, 15 * KIB),
        ({"a": "x" * 300 * KIB}, 4096),
        ({str(n): "x" * 5000 for n in range(10)}, 1024),
        ({str(n): "☃" * 2000 for n in range(50)}, 64),
        ({f"{n:0>60}": "x" * 100 for n in range(2000)}, 0),
    ],
)
def test_long_annotations_are_cut_and_marked(annotations: dict[str, str], longest: int) -> None:
    """They are cut as little as necessary until the record fits."""
    record = record_alert(alert(annotations=annotations))
    kept = json.loads(record.text)["annotations"].values()

    assert record.fits
    assert max(len(text.removesuffix("…[cut]")) for text in kept) == longest
    assert all(text.endswith("…[cut]") for text in kept) is (longest < 15 * KIB)


def test_a_cut_does_not_depend_on_order() -> None:
    """If names become equal when they are cut, the same value is kept."""
    annotations = {f"{'a' * 70}{n}": f"{n}{'x' * 100}" for n in range(900)}
    reordered = dict(reversed(annotations.items()))

    assert record_alert(alert(annotations=annotations)) == record_alert(
        alert(annotations=reordered)
    )


def test_labels_are_never_cut() -> None:
    """If they are too long, the record does not fit."""
    record = record_alert(alert(labels={"a": "x" * 20 * KIB}, annotations={"b": "y"}))

    assert json.loads(record.text)["labels"] == {"a": "x" * 20 * KIB}
    assert not record.fits


@pytest.mark.parametrize(("version", "kib"), [(1, 64), (2, 16)])
@pytest.mark.parametrize(("letter", "width"), [("x", 1), ("é", 2)])
def test_a_record_has_at_most_16_kib_of_utf_8(
    version: int, kib: int, letter: str, width: int
) -> None:
    """Bytes count, not characters; version 1 of the renderer recorded 64 KiB."""
    only_labels = {"annotations": {}, "generator_url": "", "fingerprint": ""}
    empty = len(record_alert(alert(labels={"a": ""}, **only_labels)).text)
    letters, rest = divmod(kib * KIB - empty, width)
    largest = alert(labels={"a": letter * letters + "x" * rest}, **only_labels)
    record = record_within(largest, LIMITS[version])

    assert len(record.text.encode()) == kib * KIB
    assert record.fits
    longer = alert(labels={"a": largest.labels["a"] + "x"}, **only_labels)
    assert not record_within(longer, LIMITS[version]).fits


def test_every_reserved_variable_is_set() -> None:
    """They have the documented names."""
    values = variables_for(
        labels={}, annotations={"runbook-url": "http://x", "Summary": "s"}, group_key="{}:{}"
    )

    assert values == {
        "OPENFERO_ALERT_JSON": record_alert(
            alert(labels={}, annotations={"runbook-url": "http://x", "Summary": "s"})
        ).text,
        "OPENFERO_STATUS": "firing",
        "OPENFERO_FINGERPRINT": "c0ffee",
        "OPENFERO_STARTS_AT": "2026-11-21T03:03:35.678901Z",
        "OPENFERO_GROUP_KEY": "{}:{}",
        "OPENFERO_COMMIT": "1a2b",
        "OPENFERO_ANNOTATION_RUNBOOK_URL": "http://x",
        "OPENFERO_ANNOTATION_SUMMARY": "s",
    }


@pytest.mark.parametrize(
    ("label", "variable"),
    [
        ("pod", "OPENFERO_POD"),
        ("app-name", "OPENFERO_APP_NAME"),
        ("mixedCase_9", "OPENFERO_MIXEDCASE_9"),
        ("9lives", "OPENFERO_9LIVES"),
        ("service.name", "OPENFERO_SERVICE_NAME"),
        ("cloud.account-name", "OPENFERO_CLOUD_ACCOUNT_NAME"),
        ("app.kubernetes.io/name", "OPENFERO_APP_KUBERNETES_IO_NAME"),
        (".", "OPENFERO__"),
    ],
)
def test_labels_have_openferos_names(label: str, variable: str) -> None:
    """A label's variable is its name in upper case, with _ for - . and /."""
    values = variables_for(labels={label: "v"}, annotations={label: "w"})
    assert values[variable] == "v"
    assert values[variable.replace("OPENFERO_", "OPENFERO_ANNOTATION_")] == "w"


@pytest.mark.parametrize("renderer", [1, 2])
def test_earlier_versions_made_no_variables_of_dotted_labels(renderer: int) -> None:
    """Their Jobs are verified as they were rendered: only - became _."""
    values = variables_for(labels={"a.b": "1", "a-b": "2"}, renderer=renderer)
    assert values["OPENFERO_A_B"] == "2"


@pytest.mark.parametrize(
    "label", ["", "a b", "é", "a=b", "a\n", "ß", "a\0", "foo🙂", "a:b", "a\\b"]
)
def test_a_name_that_is_invalid_is_only_in_the_json(label: str) -> None:
    """A label whose variable name would be invalid is not lost."""
    values = variables_for(labels={label: "hidden", "pod": "p"}, annotations={label: "hidden"})

    assert "hidden" not in {v for k, v in values.items() if k != "OPENFERO_ALERT_JSON"}
    assert json.loads(values["OPENFERO_ALERT_JSON"])["labels"][label] == "hidden"
    assert values["OPENFERO_POD"] == "p"


def test_a_name_that_two_labels_share_is_only_in_the_json() -> None:
    """No label gets the value of another."""
    values = variables_for(
        labels={"a-b": "1", "a_b": "2", "A_b": "3", "a.b": "4", "c": "4", "d.e": "5", "d/e": "6"},
        annotations={"x-y": "1", "x_y": "2"},
    )

    assert "OPENFERO_A_B" not in values
    assert "OPENFERO_D_E" not in values
    assert "OPENFERO_ANNOTATION_X_Y" not in values
    assert values["OPENFERO_C"] == "4"


@pytest.mark.parametrize(
    ("variable", "reason"),
    [
        ("OPENFERO_K8S_APP", "the alert has 2 labels that would have this name: k8s-app, k8s_app;"),
        ("OPENFERO_A_B", "the alert has 3 labels that would have this name: A_B, a.b, a/b;"),
        ("OPENFERO_ANNOTATION_X_Y", "the alert has 2 annotations that would have this name: x-y,"),
        ("OPENFERO_SERVICE", "the alert has no such label or annotation"),
        ("OPENFERO_ANNOTATION_X", "the alert has no such label or annotation"),
    ],
)
def test_why_there_is_no_variable(variable: str, reason: str) -> None:
    """A name that several labels share is distinguished from one that none has."""
    shared = {"k8s-app": "x", "k8s_app": "y", "a.b": "1", "a/b": "2", "A_B": "3", "foo🙂": "z"}
    record = record_alert(alert(labels=shared, annotations={"x-y": "1", "x.y": "2"}))
    missing = why_missing(variable, record, LIMITS[RENDERER])
    assert missing.startswith(reason)
    assert ("OPENFERO_ALERT_JSON" in missing) == ("would have" in reason)


def test_names_that_are_too_long_to_keep_have_the_same_variables() -> None:
    """Whether the names of variables are kept for the next alert makes no difference."""
    labels = {"a-b": "1", "a.b": "2", "c": "3", "d" * 4096: "4", "é": "5"}
    values = variables_for(labels=labels)
    del labels["d" * 4096]
    assert values.pop("OPENFERO_" + "D" * 4096) == "4"
    values.pop("OPENFERO_ALERT_JSON")
    kept = variables_for(labels=labels)
    kept.pop("OPENFERO_ALERT_JSON")
    assert list(values.items()) == list(kept.items())


def test_reserved_names_win_over_labels() -> None:
    """A label cannot replace the commit, the status or an annotation."""
    labels = {
        "commit": "evil",
        "Status": "evil",
        "alert-json": "evil",
        "annotation_summary": "evil",
        "annotation-other": "evil",
        "GROUP_KEY": "evil",
    }
    values = variables_for(labels=labels)

    assert "evil" not in values.values()
    assert values["OPENFERO_COMMIT"] == "1a2b"
    assert values["OPENFERO_ANNOTATION_SUMMARY"] == "web-1 restarts"
    assert "OPENFERO_ANNOTATION_OTHER" not in values


@given(st.dictionaries(TEXT, TEXT), st.dictionaries(TEXT, TEXT))
def test_every_variable_has_a_valid_name_and_a_delivered_value(
    labels: dict[str, str], annotations: dict[str, str]
) -> None:
    """Kubernetes accepts the names; the values are the alert's own."""
    fixed = {"firing", "c0ffee", "2026-11-21T03:03:35.678901Z", "key", "1a2b"}
    for name, value in variables_for(labels=labels, annotations=annotations).items():
        assert name.isascii()
        assert name.replace("_", "").isalnum()
        assert name == "OPENFERO_ALERT_JSON" or value in {
            *fixed,
            *labels.values(),
            *annotations.values(),
        }


def test_canonical_json_is_text_without_escapes() -> None:
    """A value has exactly one representation."""
    assert canonical_json({"b": [1, None], "a": "é\n"}) == '{"a":"é\\n","b":[1,null]}'
