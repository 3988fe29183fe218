"""Writes the commands that compare what the controller did with the repository.

Each has the options with which the command reads the repository as the controller does.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.catalog import is_commit
from openfero_gitops.domain.setting import SettingOrigin

if TYPE_CHECKING:
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.health import About
    from openfero_gitops.domain.remediation import Remediation

#: Settings of the controller that `audit` has as well, with the same default.
_SAME_SETTINGS: Final = ("--kubernetes-version",)


def diff_command(repository: str, root: str, before: str, commit: str) -> str:
    """Write the command that compares two commits; empty if it is not safe to paste."""
    if not is_commit(before) or not is_commit(commit):
        return ""
    return _joined("openfero-gitops", "diff", *_path(root), repository, before, commit)


def verify_command(remediation: Remediation, about: About, catalog: Catalog | None) -> str:
    """Write the command that verifies the Jobs of an operario as the controller does.

    It is empty if there is no commit to verify them against, or if it is not safe to paste. Files
    with keys are not named: an auditor has files of their own.
    """
    if catalog is None or not is_commit(remediation.commit):
        return ""
    revision = catalog.revision
    ref = ("--ref", revision.ref) if revision.ref not in ("", "HEAD") else ()
    # Without this option, openfero.yaml alone would decide which namespaces are allowed.
    others = [name for name in about.allowed_namespaces if name != about.jobs_namespace]
    allowed = [
        part for name in others or [about.jobs_namespace] for part in ("--allowed-namespace", name)
    ]
    settings = [
        part
        for setting in about.settings
        if setting.flag in _SAME_SETTINGS and setting.origin is not SettingOrigin.DEFAULT
        for part in (setting.flag, setting.value)
    ]
    return _joined(
        "openfero-gitops",
        "audit",
        "--verify",
        "--repo",
        revision.repository,
        *ref,
        *_path(catalog.root),
        "--controller-namespace",
        about.namespace,
        "--jobs-namespace",
        about.jobs_namespace,
        *allowed,
        *settings,
        "--namespace",
        remediation.key.namespace,
        "--operario",
        remediation.operario,
    )


def _path(root: str) -> tuple[str, ...]:
    return ("--path", root) if root else ()


def _joined(*words: str) -> str:
    """Quote words for a shell; empty if one has characters that a terminal may act on."""
    return shlex.join(words) if all(map(str.isprintable, words)) else ""
