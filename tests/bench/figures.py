"""The figures of benchmarks: as a table with goals, and in a JSON file for each version.

`docs/bench/VERSION.json` has what was measured last for a version. Where a benchmark runs again,
its figures are compared with those of the newest recorded version.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops import __version__
from tests.support import record
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

FOLDER: Final = ROOT / "docs" / "bench"


@dataclass(frozen=True)
class Figure:
    """One measured value: the median of the rounds, and the lowest and the highest of them.

    `goal` is the most that it should be, or the least if `more_is_better`; None if there is none.
    """

    name: str
    value: float
    unit: str = ""
    low: float | None = None
    high: float | None = None
    goal: float | None = None
    more_is_better: bool = False

    @classmethod
    def of(cls, name: str, values: Sequence[float], unit: str = "", **other: Any) -> Figure:
        """Summarize the values of several rounds."""
        ordered = sorted(values)
        middle = len(ordered) // 2
        median = ordered[middle] if len(ordered) % 2 else sum(ordered[middle - 1 : middle + 1]) / 2
        return cls(name, median, unit, ordered[0], ordered[-1], **other)

    @property
    def is_reached(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.more_is_better else self.value <= self.goal


@dataclass(frozen=True)
class Measured:
    """What a benchmark found: figures, and text around their table.

    `parameters` are those that change the figures, such as the number of alerts.
    """

    figures: Sequence[Figure]
    text: str = ""
    details: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def render(self, earlier: Recorded | None = None) -> str:
        """Return text and table, compared with earlier figures if there are any."""
        then = (
            {name: figure["value"] for name, figure in earlier.figures.items()} if earlier else {}
        )
        header = ["", "median", "spread", "goal", "reached"]
        if earlier is not None:
            header += [earlier.version, "now / then"]
        rows = []
        for figure in self.figures:
            row = [
                figure.name,
                _shown(figure.value, figure.unit),
                _spread(figure),
                "" if figure.goal is None else _shown(figure.goal, figure.unit),
                {None: "", True: "yes", False: "NO"}[figure.is_reached],
            ]
            if earlier is not None:
                before = then.get(figure.name)
                row += (
                    ["", ""]
                    if before is None
                    else [
                        _shown(before, figure.unit),
                        f"{figure.value / before:.2f}" if before else "",
                    ]
                )
            rows.append(row)
        table = record.table(header, rows) if rows else ""
        note = earlier.difference(self.parameters, record.machine()) if earlier else ""
        parts = (self.text, table, note, self.details)
        return "\n\n".join(part.strip() for part in parts if part.strip())


@dataclass(frozen=True)
class Recorded:
    """The figures of one benchmark in the file of a version."""

    version: str
    figures: Mapping[str, Mapping[str, Any]]
    machine: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def difference(self, parameters: Mapping[str, Any], machine: str) -> str:
        """Say how these figures were measured differently; empty if they were not."""
        names = sorted({*self.parameters, *parameters})
        differences = [
            f"{name} {self.parameters.get(name)}, now {parameters.get(name)}"
            for name in names
            if self.parameters.get(name) != parameters.get(name)
        ]
        if self.machine != machine:
            differences.append(f"machine {self.machine or 'not recorded'}, now {machine}")
        if not differences:
            return ""
        return f"{self.version} was measured differently: {'; '.join(differences)}."


def version_key(version: str) -> tuple[object, ...]:
    """Return a key that orders versions: numbers as numbers, 1.0.0rc1 before 1.0.0."""
    match = re.fullmatch(r"(\d+(?:\.\d+)*)(.*)", version)
    release, suffix = match.groups() if match else ("", version)
    parts = [
        (int(part), "") if part.isdecimal() else (-1, part)
        for part in re.findall(r"\d+|\D+", suffix)
    ]
    return (tuple(map(int, filter(None, release.split(".")))), not suffix, parts)


def earlier(bench: str, folder: Path = FOLDER, version: str = __version__) -> Recorded | None:
    """Return the figures of the newest earlier version, else those recorded for this one."""
    files = {file.stem: file for file in folder.glob("[0-9]*.json")}
    older = [name for name in files if version_key(name) < version_key(version)]
    for name in (*sorted(older, key=version_key, reverse=True), version):
        if name in files:
            measured = json.loads(files[name].read_text())["benches"].get(bench)
            if measured is not None:
                return Recorded(
                    name,
                    {figure["name"]: figure for figure in measured["figures"]},
                    measured.get("machine", ""),
                    measured.get("parameters", {}),
                )
    return None


def keep(bench: str, measured: Measured, folder: Path = FOLDER) -> Path:
    """Write the figures into the file of this version; return the file."""
    file = folder / f"{__version__}.json"
    content: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"benches": {}}
    content["version"] = __version__
    content["benches"][bench] = {
        "date": record.today(),
        "machine": record.machine(),
        "parameters": dict(measured.parameters),
        "figures": [
            {key: value for key, value in asdict(figure).items() if value not in (None, "", False)}
            for figure in measured.figures
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    return file


def _spread(figure: Figure) -> str:
    if figure.low is None or figure.high is None or figure.low == figure.high:
        return ""
    return f"{_shown(figure.low)} to {_shown(figure.high)}"


def _shown(value: float, unit: str = "") -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}".rstrip()
