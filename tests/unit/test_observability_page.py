"""docs/reference/logs-and-traces.md agrees with what is logged and traced."""

from __future__ import annotations

import json
import re
from inspect import signature

import yaml

from openfero_gitops.decision_log import Decided, log_decision
from openfero_gitops.otel import _STOP_SECONDS
from openfero_gitops.tracing import NO_TRACES, start_tracing
from tests.integration.test_traces import STEPS
from tests.support.paths import ROOT

PAGE = (ROOT / "docs/reference/logs-and-traces.md").read_text()


def rows(header: str) -> list[str]:
    """Return the first cells of the table with this header."""
    table = PAGE.split(f"| {header} |", 1)[1].split("\n\n")[0]
    return [line.split("|")[1].strip() for line in table.splitlines()[2:]]


def names(cells: list[str]) -> list[str]:
    """Return what is written as code in cells."""
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_every_decision_is_listed() -> None:
    """The table has what can be decided, and nothing else."""
    assert names(rows("decision | logged by")) == [decided.value for decided in Decided]


def test_the_fields_of_a_decision() -> None:
    """The example has the fields that every decision has, and the table describes each field."""
    [example] = re.findall(r"^\{.*\}$", PAGE, re.MULTILINE)
    line = json.loads(example)
    always = [name for name in signature(log_decision).parameters if name in line]
    assert always == ["decision", "alert", "operario", "job", "commit", "reason"]
    assert set(line) == {*always, "event", "level", "timestamp"}
    assert line["event"] == "decision"
    assert names(rows("field | content"))[: len(always)] == always


def test_every_span_is_listed() -> None:
    """The table has the spans that a real alert leaves behind; a refusal is the other decision."""
    assert set(names(rows("span | what it covers"))) == STEPS | {"refuse"}


def test_how_long_a_replica_waits_for_its_last_spans() -> None:
    """The page has the time of the code."""
    assert f"up to {_STOP_SECONDS:g} s for the last spans" in PAGE


async def test_the_example_for_the_chart() -> None:
    """Its values exist in the chart, and its variable switches traces on."""
    [example] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    values = yaml.safe_load(example)
    chart = yaml.safe_load((ROOT / "charts" / "openfero-gitops" / "values.yaml").read_text())
    assert chart["extraEnv"] == chart["networkPolicy"]["extraEgress"] == []
    assert set(values) == {"extraEnv", "networkPolicy"}
    assert set(values["networkPolicy"]) == {"extraEgress"}
    environment = {variable["name"]: variable["value"] for variable in values["extraEnv"]}
    traces = start_tracing(environment, "replica-a", "1")
    await traces.stop()
    assert traces is not NO_TRACES
