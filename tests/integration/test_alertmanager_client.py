"""Alerts that a real Alertmanager accepts, over https."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.alertmanager.client import Access, Alertmanager
from openfero_gitops.domain.errors import AlertmanagerError
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.effects.incident import Incident
from openfero_gitops.notifications.alerts import list_notifications
from openfero_gitops.notifications.notifier import alert_body
from tests.support.alertmanagers import LOOPBACK
from tests.support.build import NOW, finished, remediation, running
from tests.support.certificates import Authority
from tests.support.optional import require_alertmanager
from tests.support.process import Process, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.alertmanager

#: Values and names of labels that somebody might send.
HOSTILE = {
    "ok": "1",
    "spaces": "  a  b ",
    "control": "a\x00b\x1b[31m\nc",
    "direction": "abc\u202etxt",
    "emoji": "\U0001f525" * 100,
    "long": "x" * 10_000,
    "quotes": "\"'`\\{{ $labels }}",
    "__reserved__": "x",
    "name with spaces": "x",
    "naïve": "x",
    "": "x",
    "empty": "",
    "a\n": "x",
}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Give the CA of the Alertmanager."""
    return Authority(tmp_path / "ca", "alertmanager")


@pytest.fixture
def url(tmp_path: Path, authority: Authority) -> Iterator[str]:
    """Give the address of an Alertmanager with TLS."""
    executable = require_alertmanager()
    certificate, key = authority.issue("alertmanager")
    web = tmp_path / "web.json"
    tls = {"cert_file": str(certificate), "key_file": str(key)}
    web.write_text(json.dumps({"tls_server_config": tls}))
    config = tmp_path / "alertmanager.json"
    config.write_text(json.dumps({"route": {"receiver": "none"}, "receivers": [{"name": "none"}]}))
    port = free_port()
    process = Process(
        [
            executable,
            f"--config.file={config}",
            f"--web.config.file={web}",
            f"--storage.path={tmp_path / 'data'}",
            f"--web.listen-address={LOOPBACK}:{port}",
            "--cluster.listen-address=",
        ],
        log=tmp_path / "alertmanager.log",
        port=port,
    )
    with process:
        yield f"https://{LOOPBACK}:{port}"


def read_alerts(url: str, authority: Authority) -> list[Any]:
    """Return what an Alertmanager has stored."""
    address = f"{url}/api/v2/alerts"
    with urllib.request.urlopen(address, context=authority.client(), timeout=60) as answer:
        stored: list[Any] = json.load(answer)
    return stored


async def test_alertmanager_accepts_every_alert(url: str, authority: Authority) -> None:
    """Labels that it would refuse are left out, and the others arrive as they were sent."""
    labels = {"alertname": "Odd", **HOSTILE}
    jobs = [
        running("a", labels=labels),
        remediation("b", labels=labels, phase=Phase.AWAITING_APPROVAL, message="\x00\u202e\n"),
        finished("c", labels=labels, phase=Phase.FAILED, message="\ud800" * 10_000, ended=NOW),
    ]
    listed = list_notifications(
        jobs, lambda job: Incident([job]), catalog=None, external_url="https://x", now=NOW
    )
    alerts = [alert_body(alert, NOW + timedelta(days=10_000)) for alert in listed.alerts.values()]
    access = Access(ca_file=authority.certificate)
    await Alertmanager(url, access, timeout_seconds=60).send(alerts)

    stored = await asyncio.to_thread(read_alerts, url, authority)
    assert len(stored) == len(alerts) == 3
    expected = {"ok", "spaces", "control", "direction", "emoji", "long", "quotes"}
    for alert in stored:
        assert expected | {"__reserved__"} <= set(alert["labels"])
        assert alert["labels"]["control"] == HOSTILE["control"]
        assert not set(alert["labels"]) & {"name with spaces", "naïve", "", "empty", "a\n"}


async def test_what_alertmanager_refuses_is_quoted(url: str, authority: Authority) -> None:
    """The error says which value is wrong."""
    receiver = Alertmanager(url, Access(ca_file=authority.certificate), timeout_seconds=60)
    alert = {"labels": {"alertname": "A", "a b": "x"}}

    with pytest.raises(AlertmanagerError, match=r'HTTP 400 Bad Request: .*invalid.*"a b"'):
        await receiver.send([alert])
    with pytest.raises(AlertmanagerError, match="HTTP 404"):
        await Alertmanager(
            f"{url}/wrong", Access(ca_file=authority.certificate), timeout_seconds=60
        ).send([])
