"""The example configuration for Alertmanager, read by Alertmanager's own amtool."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.domain.duration import parse_duration
from openfero_gitops.domain.notification import NotificationKind
from tests.support.alertmanagers import EXAMPLE, example_config
from tests.support.optional import require
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.alertmanager


def amtool(*arguments: str) -> str:
    """Run amtool; return what it prints."""
    executable = require("amtool", "apt-get install prometheus-alertmanager", "amtool")
    ran = subprocess.run(
        [executable, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.strip()


def receivers(**labels: str) -> set[str]:
    """Return who gets an alert with these labels."""
    pairs = [f"{name}={value}" for name, value in labels.items()]
    return set(amtool("config", "routes", "test", f"--config.file={EXAMPLE}", *pairs).split(","))


def holding_back() -> Any:
    """Return the rule that holds back notifications while an alert is remediated."""
    [rule] = [
        rule
        for rule in example_config()["inhibit_rules"]
        if any(NotificationKind.REMEDIATING in matcher for matcher in rule["source_matchers"])
    ]
    return rule


def test_alertmanager_accepts_it() -> None:
    """`amtool check-config` finds no error."""
    assert "SUCCESS" in amtool("check-config", str(EXAMPLE))


def test_alerts_of_the_controller_go_to_people_and_not_back() -> None:
    """The source of the inhibition is sent to nobody."""
    for kind in NotificationKind:
        expected = {"none"} if kind is NotificationKind.REMEDIATING else {"notifications"}
        assert receivers(alertname=kind.value, openfero="true") == expected
    both = {"openfero-gitops", "notifications"}
    assert receivers(alertname="KubePodNotReady") == both
    assert receivers(alertname="KubePodNotReady", openfero="true") == both
    assert receivers(alertname="Watchdog") == {"openfero-gitops"}
    assert receivers(alertname="InfoInhibitor") == {"none"}


def test_the_rule_in_the_documentation_is_accepted(tmp_path: Path) -> None:
    """The page lists every alert of the controller, and Alertmanager reads its example."""
    page = (ROOT / "docs/how-to/platform/notifications.md").read_text()
    [example] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    file = tmp_path / "alertmanager.yaml"
    file.write_text(f"route: {{receiver: none}}\nreceivers: [{{name: none}}]\n{example}")

    assert "1 inhibit rules" in amtool("check-config", str(file))
    assert {kind.value for kind in NotificationKind} == set(
        re.findall(r"^\| `(OpenFero\w+)` \|", page, re.MULTILINE)
    )


def test_a_page_that_was_held_back_is_sent_within_a_minute() -> None:
    """The controller's alert ends in time for the next interval of the page's group."""
    route = example_config()["route"]["routes"][-1]
    interval = parse_duration(route["group_interval"])

    assert route["receiver"] == "notifications"
    assert (NotificationKind.REMEDIATING.lifetime + interval).total_seconds() < 60
    assert parse_duration(route["group_wait"]).total_seconds() >= 30


def test_the_alerts_that_are_held_back_have_operarios() -> None:
    """A Job that only prints a report is no reason to hold back a notification."""
    [matcher] = holding_back()["target_matchers"]
    names = matcher.partition('"')[2].rstrip('"').split("|")
    texts = [path.read_text() for path in (ROOT / "operarios-example").rglob("*firing.yaml")]
    assert len(names) > 5
    for name in names:
        assert re.fullmatch("[A-Za-z]+", name)
        operarios = [text for text in texts if f"openfero.io/alertname: {name}\n" in text]
        assert operarios
        assert not all("This changes nothing" in text for text in operarios)


def test_the_labels_that_tell_alerts_apart_are_compared() -> None:
    """Alerts of two objects differ in one of them, as the sample alerts show."""
    compared = set(holding_back()["equal"])
    unimportant = {
        *("alertname", "endpoint", "service", "prometheus", "metrics_path", "uid", "fstype"),
        *("reason", "condition", "status", "job_name"),
    }
    for path in (ROOT / "operarios-example" / "_alerts").glob("*.json"):
        body = json.loads(path.read_text())
        for alert in body.get("alerts", [body]):
            if alert["labels"]["alertname"] in holding_back()["target_matchers"][0]:
                assert set(alert["labels"]) - unimportant <= compared, path.name
