"""Alerts as tools and APIs print them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openfero_gitops.author.alert_file import read_alert_file, read_alerts
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.errors import PayloadError, TooLarge

LABELS = {"alertname": "Disk", "pod": "v2"}
STARTS = "2026-11-28T10:00:00.000Z"


def of_api(state: Any = "active", **members: Any) -> dict[str, Any]:
    """Return an alert as amtool and Alertmanager's API print it."""
    return {
        "annotations": {"summary": "s"},
        "endsAt": "2026-11-28T10:04:00.000Z",
        "fingerprint": "0011223344556677",
        "receivers": [{"name": "heal"}],
        "startsAt": STARTS,
        "status": {"inhibitedBy": [], "silencedBy": [], "state": state},
        "updatedAt": "2026-11-28T10:01:00.000Z",
        "generatorURL": "http://prometheus.example/graph",
        "labels": LABELS,
        **members,
    }


def of_prometheus(state: str = "firing", **members: Any) -> dict[str, Any]:
    """Return an alert as Prometheus' API prints it."""
    return {
        "labels": LABELS,
        "annotations": {"summary": "s"},
        "state": state,
        "activeAt": "2026-11-28T10:00:00.000Z",
        "value": "1e+00",
        **members,
    }


GRAFANA = {
    "receiver": "heal",
    "status": "firing",
    "orgId": 1,
    "alerts": [
        {
            "status": "firing",
            "labels": LABELS,
            "annotations": {"summary": "s"},
            "startsAt": "2026-11-28T10:00:00Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "https://grafana.example/alerting",
            "fingerprint": "0011223344556677",
            "silenceURL": "https://grafana.example/silence",
            "values": {"B": 22, "C": 1},
            "imageURL": None,
        }
    ],
    "groupLabels": {},
    "version": "1",
    "groupKey": "{}:{}",
    "truncatedAlerts": 0,
    "title": "[FIRING:1]",
    "state": "alerting",
    "message": "text",
}


def read(value: Any) -> Any:
    """Read a value as JSON."""
    return read_alerts(json.dumps(value).encode())


@pytest.mark.parametrize(
    "value",
    [
        [of_api()],
        of_api(),
        [of_api("suppressed")],
        of_api("unprocessed"),
        {"status": "success", "data": [of_api()]},
        [{"labels": {"alertname": "Disk"}, "receiver": {"name": "heal"}, "alerts": [of_api()]}],
        {"labels": {}, "receiver": {"name": "heal"}, "alerts": [of_api()]},
        {"alerts": [of_api()]},
        {"status": "success", "data": {"alerts": [of_prometheus()]}},
        {"alerts": [of_prometheus("pending")]},
        [of_prometheus()],
        of_prometheus(),
        [{"status": "firing", "labels": LABELS, "startsAt": STARTS}],
        {"status": "firing", "labels": LABELS, "startsAt": STARTS},
        {"labels": LABELS, "startsAt": STARTS},
        GRAFANA,
    ],
)
def test_one_alert_in_every_form(value: Any) -> None:
    """It fires, whatever its state is, from the moment that is printed."""
    group = read(value)
    (alert,) = group.alerts
    assert group.status is Status.FIRING
    assert (alert.status, alert.labels, alert.ends_at) == (Status.FIRING, LABELS, None)
    assert alert.starts_at is not None
    assert alert.starts_at.isoformat() == "2026-11-28T10:00:00+00:00"


def test_resolved_alerts_stay_resolved() -> None:
    """Only a state means firing, a status does not."""
    resolved = {"status": "resolved", "labels": LABELS, "endsAt": STARTS}
    for value in (resolved, [resolved], {"alerts": [resolved]}):
        (alert,) = read(value).alerts
        assert alert.status is Status.RESOLVED
        assert alert.ends_at is not None


def test_a_payload_keeps_what_belongs_to_its_group() -> None:
    """Group key and status are those of the payload."""
    group = read({"status": "resolved", "groupKey": "g", "alerts": [{"labels": LABELS}]})
    assert (group.group_key, group.alerts[0].status) == ("g", Status.RESOLVED)


@pytest.mark.parametrize("value", [[], {"alerts": []}, [{"alerts": []}], {"data": {"alerts": []}}])
def test_no_alert(value: Any) -> None:
    """A list without alerts is not an error: amtool prints [] if none fires."""
    assert read(value).alerts == ()


def test_all_alerts_of_all_groups() -> None:
    """They come in the order in which they are printed."""
    groups = [
        {"alerts": [of_api(labels={"alertname": "A"}), of_api(labels={"alertname": "B"})]},
        {"alerts": [of_api(labels={"alertname": "C"})]},
    ]
    assert [alert.name for alert in read(groups).alerts] == ["A", "B", "C"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "alert.json is not JSON: it is empty"),
        ("Alertname  Starts At", "alert.json is not JSON: Expecting value: line 1"),
        ("7", "alert.json is not an Alertmanager payload: it is not a JSON object"),
        ("{}", "alert.json is not an Alertmanager payload: at /alerts: the member is required"),
        ("[1]", "alert.json is not an Alertmanager payload: at /0: an alert must be an object"),
        ('[{"status": {"state": "active"}}]', "at /0/labels: the member is required"),
        (json.dumps([of_api(), of_api("gone")]), 'at /1/status: the status must be "firing" or'),
        (json.dumps(of_api(None)), "at /status: the status must be"),
        (json.dumps(of_api(labels={"a": 1})), "at /labels/a: must be a string"),
        (json.dumps([{"alerts": [of_api(startsAt="noon")]}]), "at /0/alerts/0/startsAt: "),
        (json.dumps({"data": {"alerts": [of_prometheus(labels=1)]}}), "at /data/alerts/0: labels"),
        (json.dumps({"alerts": [{"labels": {}, "status": "x"}]}), "at /alerts/0/status: the"),
        (json.dumps([of_api(labels={"": str(n)}) for n in range(10_001)]), "alert.json has more"),
    ],
)
def test_errors_name_the_file_and_the_place(content: str, message: str) -> None:
    """The place is that in the file, not in the payload that is made of it."""
    with pytest.raises(PayloadError) as caught:
        read_alert_file(content.encode(), "alert.json")
    assert message in str(caught.value)
    assert str(caught.value).startswith("alert.json ")
    assert not isinstance(caught.value, TooLarge)
