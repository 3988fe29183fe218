"""The commands that compare what the controller did with the repository."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime

from openfero_gitops.domain.setting import SettingInUse, SettingOrigin
from openfero_gitops.web.pages.shell_commands import diff_command, verify_command
from tests.support.copying import replace
from tests.support.pages import COMMIT, busy

NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)
STATE = busy(NOW)
JOB = replace(STATE.jobs[0], operario="crash loop")
ABOUT = replace(
    STATE.about(),
    settings=(
        SettingInUse("--kubernetes-version", "", "1.35", SettingOrigin.FLAG, ""),
        SettingInUse("--interval", "", "60s", SettingOrigin.FLAG, ""),
    ),
)
CATALOG = replace(
    STATE.active,
    root="ops",
    revision=replace(STATE.active.revision, repository="https://git.example/a b.git", ref="main"),
)


def test_verify_has_the_settings_of_the_controller() -> None:
    """The command verifies with the controller's repository, and all settings that matter."""
    assert shlex.split(verify_command(JOB, ABOUT, CATALOG)) == [
        *("openfero-gitops", "audit", "--verify", "--repo", "https://git.example/a b.git"),
        *("--ref", "main", "--path", "ops"),
        *("--controller-namespace", "openfero", "--jobs-namespace", "openfero-jobs"),
        *("--allowed-namespace", "shop", "--kubernetes-version", "1.35"),
        *("--namespace", JOB.key.namespace, "--operario", "crash loop"),
    ]


def test_verify_allows_what_the_controller_allows() -> None:
    """If only the namespace of the Jobs is allowed, the command allows no other one."""
    about = replace(STATE.about(), allowed_namespaces=("openfero-jobs",))
    words = shlex.split(verify_command(JOB, about, CATALOG))
    assert words[words.index("--allowed-namespace") + 1] == "openfero-jobs"


def test_commands_that_cannot_be_run_are_not_shown() -> None:
    """Without a commit there is none, nor with characters that a terminal may act on."""
    assert verify_command(replace(JOB, commit=""), ABOUT, CATALOG) == ""
    assert verify_command(JOB, ABOUT, None) == ""
    assert verify_command(replace(JOB, operario="a\x1b[2Jb"), ABOUT, CATALOG) == ""
    assert diff_command("https://git.example/a\n", "", COMMIT, COMMIT) == ""
    assert diff_command("https://git.example/a", "", "", COMMIT) == ""
