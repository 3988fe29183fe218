from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from openfero_gitops.domain.health import Condition
from openfero_gitops.domain.lease import Leadership
from openfero_gitops.domain.replica import ReplicaReport
from openfero_gitops.domain.setting import SettingInUse, SettingOrigin
from openfero_gitops.web.api.endpoints import add_api
from openfero_gitops.web.turns import Turns
from tests.support import pages
from tests.support.pages import COMMIT, REPLICA, Showcase
from tests.support.serving import OPEN, serving
from tests.unit.web.test_pages import draw

if TYPE_CHECKING:
    from openfero_gitops.domain.health import About

NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)


@dataclass
class Configured(Showcase):
    """A replica that knows its settings."""

    settings: tuple[SettingInUse, ...] = ()

    def about(self) -> About:
        """Return the settings, too."""
        return replace(super().about(), settings=self.settings)


def setting(flag: str, value: str, origin: SettingOrigin) -> SettingInUse:
    """A setting in use."""
    variable = f"OPENFERO_GITOPS_{flag[2:].upper()}"
    return SettingInUse(flag, variable, value, origin, "What it is.")


def configured(*settings: SettingInUse) -> Configured:
    """A quiet replica with these settings."""
    quiet = pages.quiet(NOW)
    return Configured(NOW, quiet.active, quiet.synced, settings=settings)


async def test_settings_have_their_value_and_origin() -> None:
    """Those that are set come first; the defaults are below."""
    page = await draw(
        configured(
            setting("--ref", "main", SettingOrigin.FLAG),
            setting("--interval", "2m", SettingOrigin.ENVIRONMENT),
            setting("--path", "shop", SettingOrigin.FILE),
            setting("--listen", ":8080", SettingOrigin.DEFAULT),
            setting("--namespace", "", SettingOrigin.DEFAULT),
        ),
        "/about",
    )

    rows = [row.text for table in page.all("tbody") for row in table.all("tr")]
    assert rows == [
        "--ref main flag",
        "--interval 2m environment OPENFERO_GITOPS_INTERVAL",
        "--path shop settings file",
        "--listen :8080 default",
        "--namespace not set default",
    ]
    assert page.find("details", "defaults").find("summary").text == "2 settings use their default"


async def test_conditions_say_what_they_check() -> None:
    """A part that is not configured is grey; one that fails has its message."""
    needs = [
        Condition("catalog", holds=True),
        Condition("alertmanager", holds=True, vital=False, configured=False),
        Condition("watchdog", holds=False, message="silent for 20m", vital=False),
    ]
    page = await draw(replace(pages.quiet(NOW), needs=needs), "/about")

    shown = [
        (item.find("span", "badge").text, item.find("span", "badge").attributes["class"])
        for item in page.find("ul", "condition-list").all("li")
    ]
    assert shown == [
        ("catalog active", "badge ok"),
        ("alertmanager: not configured", "badge idle"),
        ("no watchdog alert", "badge bad"),
    ]
    assert "Checks that an alert that always fires" in page.find("main").text
    assert "silent for 20m" in page.find("main").text


async def test_the_leader_is_named() -> None:
    """Another replica may lead, or none."""
    other = replace(pages.quiet(NOW), leader=Leadership(holder="replica-b"))
    assert "Leader replica-b" in (await draw(other, "/about")).find("main").text

    nobody = replace(pages.quiet(NOW), leader=Leadership())
    assert "Leader none No Job starts." in (await draw(nobody, "/about")).find("main").text

    text = (await draw(pages.quiet(NOW), "/about")).find("main").text
    assert f"Replica {REPLICA} leader Leader this replica" in text


async def test_settings_that_are_not_known_are_said_to_be() -> None:
    """A replica that was not started by serve has none to show."""
    page = await draw(pages.quiet(NOW), "/about")

    assert "The settings of this replica are not known" in page.find("main").text


async def test_replicas_are_listed() -> None:
    """The leader, this replica, and one that has probably stopped."""
    started = NOW - timedelta(hours=3)
    reports = [
        ReplicaReport(REPLICA, "1.2.3", COMMIT, started, NOW - timedelta(minutes=2)),
        ReplicaReport("replica-b", "1.2.2", "", started, NOW - timedelta(minutes=20)),
    ]
    page = await draw(replace(pages.quiet(NOW), reports=reports), "/about")

    own, other = page.find("ul", "replicas").all("li")
    assert own.text.startswith(f"{REPLICA} leader this replica {COMMIT[:7]} version 1.2.3")
    assert other.text.startswith("replica-b probably stopped no catalog version 1.2.2")
    assert "reported 20m ago" in other.text


async def test_the_api_has_replicas_and_settings() -> None:
    """As on the page, in JSON."""
    state = configured(setting("--ref", "main", SettingOrigin.FLAG))
    report = ReplicaReport(REPLICA, "1.2.3", COMMIT, NOW - timedelta(hours=3), NOW)
    state = replace(state, reports=[report])

    async with serving(lambda app: add_api(app, state, OPEN, Turns(), now=lambda: NOW)) as client:
        about = await (await client.get("/api/about")).json()

    assert about["settings"] == [
        {"flag": "--ref", "variable": "OPENFERO_GITOPS_REF", "value": "main", "origin": "flag"}
    ]
    assert about["replicas"] == [
        {
            "replica": REPLICA,
            "version": "1.2.3",
            "commit": COMMIT,
            "startedAt": "2026-11-21T00:04:05.000000Z",
            "at": "2026-11-21T03:04:05.000000Z",
        }
    ]
