"""The page `/about`: this replica and the others, its settings, and what its conditions mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.setting import SettingOrigin
from openfero_gitops.web.conditions import show_condition
from openfero_gitops.web.pages.site import PageRoute

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from openfero_gitops.domain.replica import ReplicaReport
    from openfero_gitops.domain.setting import SettingInUse
    from openfero_gitops.web.pages.site import Site, Visit

_ORIGINS: Final = {
    SettingOrigin.FLAG: "flag",
    SettingOrigin.ENVIRONMENT: "environment",
    SettingOrigin.FILE: "settings file",
    SettingOrigin.DEFAULT: "default",
}


@dataclass(frozen=True, slots=True)
class SettingRow:
    """A setting; `origin` says where its value comes from."""

    setting: SettingInUse
    origin: str
    is_default: bool


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    """A replica, and whether it has probably stopped."""

    report: ReplicaReport
    is_stopped: bool


def add(site: Site) -> None:
    """Serve the page."""
    site.add(PageRoute("/about", "about.html", build_about, title="About"))


def build_about(visit: Visit) -> Mapping[str, Any]:
    """Compute the variables of the template."""
    replica = visit.state.about()
    rows = list_settings_of(replica.settings)
    return {
        "replica": replica,
        "leadership": visit.state.leadership(),
        "replicas": [
            ReplicaRow(report, is_stopped=report.is_stopped(visit.now))
            for report in visit.state.replicas()
        ],
        "conditions": [show_condition(c) for c in visit.attention.conditions],
        "set_rows": [row for row in rows if not row.is_default],
        "default_rows": [row for row in rows if row.is_default],
        "sync": visit.state.sync(),
        "caller": visit.caller,
    }


def list_settings_of(settings: Iterable[SettingInUse]) -> list[SettingRow]:
    """List settings with the names of their origins."""
    return [
        SettingRow(setting, _ORIGINS[setting.origin], setting.origin is SettingOrigin.DEFAULT)
        for setting in settings
    ]
