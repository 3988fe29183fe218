"""Alertmanager's own amtool, in a version that knows both syntaxes of matchers.

Debian's is older than the UTF-8 syntax, so it is built from its published module.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from tests.support.go_tool import GoTool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

AMTOOL = GoTool("amtool", "github.com/prometheus/alertmanager", "cmd/amtool", "v0.31.0")


@dataclass(frozen=True)
class Amtool:
    """Runs amtool to check matchers; `folder` is for its configurations."""

    executable: Path
    folder: Path

    def accepts(self, text: str) -> bool:
        """Return whether Alertmanager accepts a route with these matchers."""
        return self._run(self._configuration([text]), {}).returncode == 0

    def matched(self, texts: Sequence[str], labels: Sequence[Mapping[str, str]]) -> list[set[int]]:
        """Return for each label set which of the texts match it.

        Raises:
            AssertionError: amtool rejects one of the texts; the message is amtool's.
        """
        configuration = self._configuration(texts)
        matches = []
        for label_set in labels:
            done = self._run(configuration, label_set)
            assert done.returncode == 0, done.stderr
            # Lines before the last are warnings about texts that the two parsers read differently.
            receivers = done.stdout.strip().rpartition("\n")[2].split(",")
            matches.append({int(name[1:]) for name in receivers if name != "none"})
        return matches

    def _configuration(self, texts: Sequence[str]) -> Path:
        """Write a configuration with a route for each text, all of which are evaluated."""
        routes = [
            {"receiver": f"r{number}", "matchers": [text], "continue": True}
            for number, text in enumerate(texts)
        ]
        names = ["none", *(route["receiver"] for route in routes)]
        path = self.folder / "alertmanager.yaml"
        whole = {
            "route": {"receiver": "none", "routes": routes},
            "receivers": [{"name": name} for name in names],
        }
        # In double quotes, PyYAML escapes every special character.
        path.write_text(yaml.safe_dump(whole, default_style='"').replace('"true"', "true"))
        return path

    def _run(
        self, configuration: Path, labels: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                self.executable,
                "config",
                "routes",
                "test",
                f"--config.file={configuration}",
                *(f"{_quoted(name)}={_quoted(value)}" for name, value in labels.items()),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def _quoted(text: str) -> str:
    """Quote a label name or value in amtool's UTF-8 syntax, with special characters escaped."""
    return (
        '"' + "".join(c if c.isalnum() and c.isascii() else f"\\U{ord(c):08x}" for c in text) + '"'
    )


def require_amtool(folder: Path) -> Amtool:
    """Return the command, built at its first use; without Go see `missing`."""
    return Amtool(AMTOOL.build(), folder)
