"""The documentation site, built as `make docs` builds it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

#: Seconds for a build; it takes about ten.
PATIENCE: Final = 600


def build_site(folder: Path) -> Path:
    """Build the site in a folder; each warning of Sphinx fails.

    Returns:
        The folder with `index.html`.
    """
    site = folder / "site"
    command = [sys.executable, "-m", "sphinx", "--quiet", "-E", "-W", "--keep-going", "-n"]
    ran = subprocess.run(
        [*command, "-b", "html", "-d", str(folder / "doctrees"), "docs", str(site)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return site
