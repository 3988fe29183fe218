from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.delivery.alertmanager import PayloadLimits, read_delivery, read_payload
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.errors import Overloaded, PayloadError, TooLarge

#: As Alertmanager sends it: webhook version "4", with the members that newer releases added.
ALERTMANAGER = """{
  "receiver": "web\\\\.hook",
  "status": "firing",
  "alerts": [
    {
      "status": "firing",
      "labels": {"alertname": "KubePodCrashLooping", "namespace": "shop", "pod": "web-1"},
      "annotations": {"summary": "Pod is crash looping."},
      "startsAt": "2026-11-21T03:04:05.678901234Z",
      "endsAt": "0001-01-01T00:00:00Z",
      "generatorURL": "http://prometheus:9090/graph?g0.expr=up&g0.tab=1",
      "fingerprint": "a1b2c3d4e5f60718"
    },
    {
      "status": "resolved",
      "labels": {"alertname": "KubePodCrashLooping", "namespace": "shop", "pod": "web-2"},
      "annotations": {},
      "startsAt": "2026-11-21T04:00:00+01:00",
      "endsAt": "2026-11-21T03:10:00Z",
      "generatorURL": "",
      "fingerprint": "0f1e2d3c4b5a6978"
    }
  ],
  "groupLabels": {"alertname": "KubePodCrashLooping"},
  "commonLabels": {"alertname": "KubePodCrashLooping", "namespace": "shop"},
  "commonAnnotations": {},
  "externalURL": "http://alertmanager:9093",
  "version": "4",
  "groupKey": "{}:{alertname=\\"KubePodCrashLooping\\"}",
  "truncatedAlerts": 3,
  "notification_reason": "firing",
  "routeLabels": {}
}"""


def test_alertmanagers_payload_is_parsed() -> None:
    """Each alert has its own status and times; unknown members are ignored."""
    group = read_payload(ALERTMANAGER.encode())
    firing, resolved = group.alerts

    assert (group.status, group.truncated_alerts) == ("firing", 3)
    assert group.group_key == '{}:{alertname="KubePodCrashLooping"}'
    assert firing.status is Status.FIRING
    assert firing.name == "KubePodCrashLooping"
    assert firing.labels["pod"] == "web-1"
    assert firing.annotations == {"summary": "Pod is crash looping."}
    assert firing.starts_at == datetime(2026, 11, 21, 3, 4, 5, 678_901, tzinfo=UTC)
    assert firing.ends_at is None
    assert firing.generator_url == "http://prometheus:9090/graph?g0.expr=up&g0.tab=1"
    assert firing.fingerprint == "a1b2c3d4e5f60718"
    assert resolved.status is Status.RESOLVED
    assert resolved.starts_at == datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
    assert resolved.ends_at == datetime(2026, 11, 21, 3, 10, tzinfo=UTC)


def test_text_and_bytes_are_parsed_alike() -> None:
    """The text of a file and the body of a request give the same group."""
    assert read_payload(ALERTMANAGER) == read_payload(ALERTMANAGER.encode())


def test_an_alert_that_never_ends_has_no_end() -> None:
    """Some senders write the last possible time for it."""
    body = '{"alerts": [{"labels": {}, "status": "firing", "endsAt": "9999-12-31T23:59:59Z"}]}'

    assert read_payload(body.encode()).alerts[0].ends_at is None


@pytest.mark.parametrize(
    "body",
    [
        {"status": "firing", "alerts": [{"labels": {"alertname": "A"}}]},
        {"status": "resolved", "alerts": [{"status": "firing", "labels": {"alertname": "A"}}]},
        {"alerts": [{"status": "firing", "labels": {"alertname": "A"}, "annotations": None}]},
        {"status": "firing", "labels": {"alertname": "A"}},
    ],
)
def test_status_and_labels_are_enough(body: dict[str, Any]) -> None:
    """This is so for a group and for a single alert."""
    (alert,) = read_payload(json.dumps(body)).alerts

    assert (alert.status, alert.name) == (Status.FIRING, "A")
    assert (alert.starts_at, alert.ends_at, alert.annotations) == (None, None, {})
    assert (alert.generator_url, alert.fingerprint) == ("", "")


def test_a_single_alert_keeps_all_its_members() -> None:
    """An alert without a group loses nothing."""
    whole = json.loads(ALERTMANAGER)
    group = read_payload(json.dumps(whole["alerts"][0]))

    assert group.alerts == read_payload(ALERTMANAGER).alerts[:1]
    assert (group.status, group.group_key) == (Status.FIRING, "")


@pytest.mark.parametrize(
    ("states", "status"),
    [
        (["firing", "resolved"], Status.FIRING),
        (["resolved", "firing"], Status.FIRING),
        (["resolved", "resolved"], Status.RESOLVED),
        ([], Status.RESOLVED),
    ],
)
def test_a_group_is_firing_while_any_of_its_alerts_is(states: list[str], status: Status) -> None:
    """The status follows from the alerts, as in Alertmanager."""
    alerts = [{"status": state, "labels": {}} for state in states]

    assert read_payload(json.dumps({"alerts": alerts})).status is status


@pytest.mark.parametrize(
    ("body", "place", "complaint"),
    [
        ("", "not JSON", "it is empty"),
        (b" \r\n", "not JSON", "it is empty"),
        (
            gzip.compress(b"{}", mtime=0),
            "not JSON",
            "it is compressed (gzip); send it uncompressed",
        ),
        (b"\x28\xb5\x2f\xfd0", "not JSON", "it is compressed (Zstandard)"),
        (b"\xff", "not JSON", "decode"),
        ("[" * 100_000, "payload", "not a JSON object"),
        ('{"a": ' + "[" * 100_000, "not JSON", "nested"),
        ("9" * 5000, "payload", "not a JSON object"),
        ("[]", "payload", "not a JSON object"),
        ('"firing"', "payload", "not a JSON object"),
        ("{}", "/alerts:", "required"),
        ('{"alerts": null}', "/alerts:", "array"),
        ('{"alerts": [{}]}', "/alerts/0/labels:", "required"),
        ('{"alerts": [{"labels": {}, "status": "gone"}]}', "/alerts/0/status:", 'not "gone"'),
        ('{"alerts": [{"labels": {}}]}', "/alerts/0/status:", 'not ""'),
        ('{"alerts": [{"labels": {"a/b": 1}, "status": "firing"}]}', "/alerts/0/labels/a~1b:", ""),
        (
            '{"status": "firing", "alerts": [{"labels": {}}, {"labels": {}, "startsAt": "noon"}]}',
            "/alerts/1/startsAt:",
            '"noon" is not an RFC 3339 time',
        ),
        (
            '{"alerts": [{"labels": {}, "status": "firing", "endsAt": "2026-11-21T03:04:05"}]}',
            "/alerts/0/endsAt:",
            "offset",
        ),
        ('{"labels": {"a": 1}, "status": "firing"}', "at /labels/a:", "string"),
        ('{"labels": {}}', "at /status:", 'not ""'),
        ('{"labels": {}, "status": 1}', "at /status:", "string"),
        ('{"labels": {}, "status": "firing", "startsAt": "-"}', "at /startsAt:", '"-"'),
    ],
)
def test_an_invalid_member_is_named(body: str | bytes, place: str, complaint: str) -> None:
    """An error has the path of the member in the body, and what is wrong with it."""
    with pytest.raises(PayloadError) as caught:
        read_payload(body)

    assert place in str(caught.value)
    assert complaint in str(caught.value)
    assert "_Body" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        {"labels": {}, "status": "x" * 1_000_000},
        {"labels": {"x" * 1_000_000: 1}, "status": "firing"},
        {"labels": {}, "status": "firing", "startsAt": "x" * 1_000_000},
        {"labels": {"\ud800": 1}, "status": "firing"},
    ],
)
def test_an_error_is_short_and_can_be_encoded(body: dict[str, Any]) -> None:
    """Long or unencodable texts of the sender are cut or replaced."""
    with pytest.raises(PayloadError) as caught:
        read_payload(json.dumps(body))

    assert len(str(caught.value).encode()) < 1000


def test_lone_surrogates_become_replacement_characters() -> None:
    """JSON can contain them; digests and the Kubernetes API cannot."""
    body = r"""{"status": "firing", "groupKey": "\udc00", "alerts": [{"labels":
        {"alertname": "a\ud800b", "\udfff": "\ud83d\ude00"}, "annotations": {"x": "\ud800"}}]}"""
    group = read_payload(body)

    assert group.group_key == "\N{REPLACEMENT CHARACTER}"
    assert group.alerts[0].labels == {
        "alertname": "a\N{REPLACEMENT CHARACTER}b",
        "\N{REPLACEMENT CHARACTER}": "\N{GRINNING FACE}",
    }
    assert group.alerts[0].annotations == {"x": "\N{REPLACEMENT CHARACTER}"}


def test_a_negative_number_of_truncated_alerts_is_0() -> None:
    """No sender can decrease the metric."""
    assert read_payload('{"alerts": [], "truncatedAlerts": -4}').truncated_alerts == 0


@pytest.mark.parametrize(
    ("member", "value", "pointer", "complaint"),
    [
        ("labels", {"alertname": "B", "a/b": 1}, "/alerts/1/labels/a~1b", "must be a string"),
        ("labels", {"alertname": "B", "a": None}, "/alerts/1/labels/a", "must be a string"),
        ("labels", {"alertname": "B", "a": "x" * 66_000}, "/alerts/1/labels", "at most 65536"),
        ("annotations", {"a": ["x"]}, "/alerts/1/annotations/a", "must be a string"),
        ("annotations", ["x"], "/alerts/1/annotations", "must be an object"),
        ("annotations", {"a": "x" * 300_000}, "/alerts/1", "shorten its annotations"),
        ("status", "gone", "/alerts/1/status", 'not "gone"'),
        ("status", 1, "/alerts/1/status", "must be a string"),
        ("startsAt", "noon", "/alerts/1/startsAt", "RFC 3339"),
        ("startsAt", 5, "/alerts/1/startsAt", "must be a string"),
        ("endsAt", "2026-11-21T03:04:05", "/alerts/1/endsAt", "offset"),
        ("generatorURL", {}, "/alerts/1/generatorURL", "must be a string"),
        ("fingerprint", False, "/alerts/1/fingerprint", "must be a string"),
    ],
)
def test_an_invalid_alert_leaves_the_others(
    member: str, value: Any, pointer: str, complaint: str
) -> None:
    """Only the alert with the wrong member is invalid; its name is still read."""
    right = {"status": "firing", "labels": {"alertname": "A"}}
    wrong = {"status": "firing", "labels": {"alertname": "B"}, member: value}
    group = read_delivery(json.dumps({"alerts": [right, wrong, right]}))

    assert [alert.name for alert in group.alerts] == ["A", "A"]
    (invalid,) = group.invalid
    assert (invalid.index, invalid.name, invalid.pointer) == (1, "B", pointer)
    assert complaint in invalid.problem
    assert len(invalid.problem) < 500


def test_text_that_is_not_utf_8_is_invalid() -> None:
    """A label value or name in another encoding makes its alert invalid, and no other."""
    body = b'{"status":"firing","alerts":[{"labels":{"a":"\xff"}},{"labels":{"\xff":"a"}},'
    group = read_delivery(body + b'{"labels":{}}]}')

    assert [(invalid.index, invalid.pointer) for invalid in group.invalid] == [
        (0, "/alerts/0/labels"),
        (1, "/alerts/1/labels"),
    ]
    assert len(group.alerts) == 1


def test_null_means_absent() -> None:
    """Members that are null are treated as if they were not there."""
    nulls = dict.fromkeys(
        ["status", "annotations", "startsAt", "endsAt", "generatorURL", "fingerprint"]
    )
    body = {"status": None, "groupKey": None, "truncatedAlerts": None}
    group = read_payload(
        json.dumps(body | {"alerts": [nulls | {"status": "firing", "labels": {}}]})
    )

    assert (group.group_key, group.truncated_alerts) == ("", 0)
    assert group.alerts == read_payload('{"status": "firing", "labels": {}}').alerts


def test_the_number_of_alerts_is_limited() -> None:
    """Alerts of every array count, also of one that a second array of the same name replaces."""
    limits = PayloadLimits(alerts=3)
    element = '{"status": "firing", "labels": {}}'
    three, four = (f'{{"alerts": [{", ".join([element] * count)}]}}' for count in (3, 4))
    twice = f'{{"alerts": [{element}, {element}], "alerts": [{element}, {element}]}}'

    assert len(read_delivery(three, limits).alerts) == 3
    for body in (four, twice):
        with pytest.raises(TooLarge, match="more than 3 alerts; set max_alerts: 3") as caught:
            read_delivery(body, limits)
        assert caught.value.cause == "too-many-alerts"


def test_the_number_of_labels_and_annotations_is_limited() -> None:
    """It follows from the size of the body: real ones need more bytes for each."""
    names = [f"{number:x}" for number in range(1100)]
    alert = {"status": "firing", "labels": dict.fromkeys(names, "")}
    group = {"alerts": [alert] * 10}
    long = group | {"unknown": "x" * 32 * 11_000}

    with pytest.raises(TooLarge, match="more than 10000 labels and annotations") as caught:
        read_delivery(json.dumps(group))
    assert caught.value.cause == "too-many-labels"
    assert len(read_delivery(json.dumps(long)).alerts) == 10
    assert len(read_delivery(json.dumps({"alerts": [alert] * 9})).alerts) == 9


def test_memory_is_reserved_for_each_alert() -> None:
    """It is reserved before the next alert is read, so that a refusal ends reading."""
    sizes: list[int] = []

    def reserve(size: int) -> None:
        sizes.append(size)
        if len(sizes) > 2:
            raise Overloaded("enough")

    alerts = [{"labels": {"a": "b"}}, {"labels": {}}, {"labels": 1}]
    body = json.dumps({"status": "firing", "alerts": alerts[:2] * 9})
    with pytest.raises(Overloaded):
        read_delivery(body, PayloadLimits(), reserve)
    assert len(sizes) == 3
    assert sizes[0] > sizes[1] > 1000


@given(st.dictionaries(st.text(), st.text()), st.dictionaries(st.text(), st.text()))
def test_labels_and_annotations_are_unchanged(
    labels: dict[str, str], annotations: dict[str, str]
) -> None:
    """Every text is kept, and can be serialized again."""
    body = {"status": "firing", "labels": labels, "annotations": annotations}
    (alert,) = read_payload(json.dumps(body)).alerts

    assert (alert.labels, alert.annotations) == (labels, annotations)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.text()
                | st.sampled_from(
                    ["alerts", "labels", "status", "annotations", "startsAt", "endsAt"]
                ),
                inner,
            )
        ),
    )
)
def test_any_json_is_parsed_or_refused(value: Any) -> None:
    """No JSON value raises anything but PayloadError."""
    try:
        group = read_delivery(json.dumps(value))
    except PayloadError as error:
        assert str(error)  # noqa: PT017
    else:
        assert all(alert.status in Status for alert in group.alerts)
        assert all(invalid.problem for invalid in group.invalid)


READABLE = {"labels": {"alertname": "Disk"}, "status": "firing"}


@pytest.mark.parametrize(
    ("element", "pointer", "problem"),
    [
        (1, "", "an alert must be an object"),
        (None, "", "an alert must be an object"),
        ("Disk", "", "an alert must be an object"),
        ([], "", "an alert must be an object"),
        ({}, "/labels", "the member is required"),
        ({"labels": None}, "", "labels must be an object"),
        ({"labels": ["alertname"]}, "", "labels must be an object"),
        ({"labels": {"alertname": "Disk", "code": 500}}, "/labels/code", "must be a string"),
        ({"labels": {"alertname": "Disk", "gone": None}}, "/labels/gone", "must be a string"),
        ({"labels": {"a": {"b": "c"}}}, "/labels/a", "must be a string"),
        (READABLE | {"annotations": {"n": 1.5}}, "/annotations/n", "must be a string"),
        (READABLE | {"annotations": "s"}, "/annotations", "must be an object"),
        (READABLE | {"status": "suppressed"}, "/status", 'not "suppressed"'),
        (READABLE | {"status": "FIRING"}, "/status", 'not "FIRING"'),
        (READABLE | {"status": {"state": "active"}}, "/status", "must be a string"),
        (READABLE | {"startsAt": 1764324000}, "/startsAt", "must be a string"),
        (READABLE | {"startsAt": "yesterday"}, "/startsAt", "is not an RFC 3339 time"),
        (READABLE | {"endsAt": False}, "/endsAt", "must be a string"),
        (READABLE | {"fingerprint": 17}, "/fingerprint", "must be a string"),
        (READABLE | {"generatorURL": []}, "/generatorURL", "must be a string"),
    ],
)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_one_alert_that_is_wrong_spoils_no_other(
    index: int, element: object, pointer: str, problem: str
) -> None:
    """The others are read, and the wrong one is named with its position."""
    alerts: list[object] = [READABLE, READABLE]
    alerts.insert(index, element)
    group = read_delivery(json.dumps({"status": "firing", "alerts": alerts}).encode())
    assert [alert.name for alert in group.alerts] == ["Disk", "Disk"]
    (invalid,) = group.invalid
    assert (invalid.index, invalid.pointer) == (index, f"/alerts/{index}{pointer}")
    assert problem in invalid.problem


def test_elements_beside_lone_surrogates_are_read() -> None:
    """A body that has to be read twice for one reason may have the other, too."""
    body = rb'{"alerts":[7,{"labels":{"alertname":"\ud800"},"status":"firing"},null]}'
    group = read_delivery(body)
    assert [alert.name for alert in group.alerts] == ["\ufffd"]
    assert [invalid.index for invalid in group.invalid] == [0, 2]


@pytest.mark.parametrize("size", [1, 150, 3000])
@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (rb"\ud800", "\ufffd"),
        (rb"\uDFFF!", "\ufffd!"),
        (rb"\\ud800", r"\ud800"),
        (rb"\\\ud800", "\\\ufffd"),
        (rb"\ud83d\ude00\ud83d", "\N{GRINNING FACE}\ufffd"),
        (rb"\udc00\ud83d\ude00", "\ufffd\N{GRINNING FACE}"),
        (rb"\n\u0041\ud800\ud800\"", '\nA\ufffd\ufffd"'),
    ],
)
def test_lone_surrogates_are_replaced_in_a_body_of_any_size(
    escaped: bytes, text: str, size: int
) -> None:
    """They spoil neither their own alert nor another one; other escapes are unchanged."""
    other = json.dumps(READABLE | {"annotations": {"a": "x\n" * 500}}).encode()
    odd = b'{"status":"firing","labels":{"alertname":"' + escaped + b'"}}'
    group = read_delivery(b'{"alerts":[1,' + (other + b",") * size + odd + b"]}")
    assert [alert.name for alert in group.alerts] == ["Disk"] * size + [text]
    assert len(group.invalid) == 1


def test_elements_that_are_no_objects_count_too() -> None:
    """The limit of alerts holds whatever the elements are."""
    body = json.dumps({"alerts": [READABLE, *range(5)]}).encode()
    with pytest.raises(TooLarge, match="more than 5 alerts"):
        read_delivery(body, PayloadLimits(alerts=5))
    assert len(read_delivery(body, PayloadLimits(alerts=6)).invalid) == 5


OTHERS: list[Any] = [
    None,
    7,
    -1.5e3,
    True,
    'a, "]}',
    [[1, {"a": [2]}]],
    {},
    {"labels": None},
    {"labels": 1, "x": "}],"},
    {"status": "firing"},
]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("size", [1, 150, 3000])
@pytest.mark.parametrize("other", OTHERS, ids=json.dumps)
def test_the_size_of_the_body_does_not_matter(other: Any, size: int, indent: int | None) -> None:
    """Alerts beside an element that is no alert are read in a body of any size."""
    alert = READABLE | {"annotations": {"a": "x, ]}" * 200}}
    alerts = [alert] * (size // 2) + [other] + [alert] * (size - size // 2)
    group = read_delivery(
        json.dumps({"groupKey": "k", "alerts": alerts, "truncatedAlerts": 3}, indent=indent)
    )
    assert len(group.alerts) == size
    assert [invalid.index for invalid in group.invalid] == [size // 2]
    assert (group.group_key, group.truncated_alerts) == ("k", 3)


@pytest.mark.parametrize("other", OTHERS, ids=json.dumps)
def test_a_body_of_other_elements_is_no_payload(other: Any) -> None:
    """More than 500 elements that are no alerts end reading; the first is named."""
    few = [READABLE] * 7 + [other] * 500
    group = read_delivery(json.dumps({"alerts": few}))
    assert (len(group.alerts), len(group.invalid)) == (7, 500)
    with pytest.raises(PayloadError, match=r"at /alerts/7[/:]"):
        read_delivery(json.dumps({"alerts": [*few, other, READABLE]}))


@pytest.mark.parametrize("wrong", [5, "3", -0.5, True, [], {"a": 1}, ["a"], "\u00e4"])
@pytest.mark.parametrize(
    "member",
    [
        "receiver",
        "status",
        "groupKey",
        "groupLabels",
        "commonLabels",
        "commonAnnotations",
        "externalURL",
        "version",
        "truncatedAlerts",
        "notification_reason",
    ],
)
def test_a_wrong_member_of_the_group_spoils_no_alert(member: str, wrong: Any) -> None:
    """It is treated as absent, and those that are read otherwise are named."""
    alerts = [READABLE, READABLE]
    group = read_delivery(json.dumps({"alerts": alerts, member: wrong}))
    assert len(group.alerts) == 2
    read_as = {"status": str, "groupKey": str, "truncatedAlerts": int}.get(member)
    is_wrong = read_as is not None and type(wrong) is not read_as
    assert [text.split()[0] for text in group.unread] == [member] * is_wrong


def test_an_unreadable_status_of_the_group_is_missed_only_where_it_is_needed() -> None:
    """Alerts with a status of their own are read."""
    body = {"status": 7, "alerts": [READABLE, {"labels": {"alertname": "B"}}]}
    group = read_delivery(json.dumps(body))
    assert [alert.name for alert in group.alerts] == ["Disk"]
    assert [invalid.pointer for invalid in group.invalid] == ["/alerts/1/status"]


@pytest.mark.parametrize("count", [10**9, 10**15, 10**18])
def test_a_huge_number_of_truncated_alerts_is_bounded(count: int) -> None:
    """No sender can make the metric useless for good."""
    body = json.dumps({"alerts": [], "truncatedAlerts": count})
    assert read_delivery(body).truncated_alerts <= 2**31


@pytest.mark.parametrize(
    "absent",
    [
        {"annotations": None},
        {"startsAt": None},
        {"endsAt": None},
        {"generatorURL": None},
        {"fingerprint": None},
        {"status": None},
    ],
)
def test_null_is_the_same_as_absent(absent: dict[str, None]) -> None:
    """A member that may be absent may be null: of an alert, and of the group."""
    body = {
        "status": "firing",
        "receiver": None,
        "groupKey": None,
        "groupLabels": None,
        "commonLabels": None,
        "commonAnnotations": None,
        "externalURL": None,
        "version": None,
        "truncatedAlerts": None,
        "alerts": [READABLE | absent],
    }
    (name,) = absent
    without = {key: value for key, value in READABLE.items() if key != name}
    group = read_delivery(json.dumps(body).encode())
    assert group.invalid == ()
    assert group.alerts == read_delivery(json.dumps({**body, "alerts": [without]}).encode()).alerts
    assert (group.group_key, group.truncated_alerts) == ("", 0)
