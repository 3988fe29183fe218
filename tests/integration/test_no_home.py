"""Commands of a user without a home directory, as in a container with an arbitrary user ID."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

# No HOME, and the passwd database has no entry for the user.
PROGRAM = """
import pwd, sys
def getpwuid(uid):
    raise KeyError(uid)
pwd.getpwuid = getpwuid
from openfero_gitops.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("arguments", "kubeconfig", "message"),
    [
        (("audit",), "", "no cluster is configured, and there is no home directory to look for"),
        (
            ("serve", "--repo", "/srv/operarios"),
            "",
            f"HOME is not set, and user {os.getuid()} is in no passwd entry); set --kubeconfig or",
        ),
        (("audit",), "~/kubeconfig", "there is no kubeconfig at ~/kubeconfig"),
        (("serve", "--repo", "/x", "--kubeconfig", "~/a"), "", "there is no kubeconfig at ~/a"),
    ],
)
def test_without_a_home_directory(
    arguments: tuple[str, ...], kubeconfig: str, message: str, tmp_path: Path
) -> None:
    """The error is one line that says which setting is missing."""
    kept = {"PATH", "PYTHONDONTWRITEBYTECODE"}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={
            **{name: value for name, value in os.environ.items() if name in kept},
            **({"KUBECONFIG": kubeconfig} if kubeconfig else {}),
            "PYTHONPATH": str(ROOT),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert message in ran.stderr
