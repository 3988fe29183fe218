"""Parts that a machine may lack: locally their tests are skipped, in CI they fail."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest


def missing(part: str, how_to_install: str) -> NoReturn:
    """Skip the test because a part is missing; with `CI=true`, fail it instead."""
    line = f"{part} is missing: {how_to_install}"
    if os.environ.get("CI") == "true":
        pytest.fail(line, pytrace=False)
    pytest.skip(line)


def require(part: str, how_to_install: str, *commands: str) -> Path:
    """Return the path of the first of `commands` that is on PATH; without any, see `missing`."""
    for command in commands:
        executable = shutil.which(command)
        if executable is not None:
            return Path(executable)
    missing(part, how_to_install)


def require_alertmanager() -> Path:
    """Return Alertmanager's executable; amtool comes with it."""
    return require(
        "Alertmanager",
        "apt-get install prometheus-alertmanager",
        "prometheus-alertmanager",
        "alertmanager",
    )


def require_prometheus() -> Path:
    """Return Prometheus' executable; promtool comes with it."""
    return require("Prometheus", "apt-get install prometheus", "prometheus")


def require_jq() -> Path:
    """Return jq's executable."""
    return require("jq", "apt-get install jq", "jq")


def require_chromium() -> Path:
    """Return Chromium's executable."""
    return require("Chromium", "apt-get install chromium", "chromium", "chromium-browser")
