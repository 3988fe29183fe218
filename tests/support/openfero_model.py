"""A model of how OpenFero 0.18 creates a Job, and a comparison with what this controller renders.

Written from its `pkg/services/operarius.go`, apart from the code of the product: Go's templates are
evaluated here for fields only, which is all that its samples use. For another installation:
`python -m tests.support.openfero_model FILE...`.
"""

from __future__ import annotations

import asyncio
import copy
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from openfero_gitops.author.alert_file import read_alert_file
from openfero_gitops.commands.author import CatalogSource, read_catalog, render_all
from openfero_gitops.commands.importing import import_openfero, manifests_of_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Body = dict[str, Any]

ACTION: Final = re.compile(r"\{\{\s*(\.[\w.]+)\s*\}\}")


class NoJob(Exception):
    """OpenFero would create no Job: its template fails."""


def evaluate(text: str, data: Mapping[str, Any]) -> str:
    """Evaluate a Go template whose actions are fields; a missing key is an error."""

    def field(match: re.Match[str]) -> str:
        value: Any = data
        for name in match[1].strip(".").split("."):
            if name not in value:
                raise NoJob(match[0])
            value = value[name]
        return str(value)

    rest = ACTION.sub("", text)
    if "{{" in rest:
        raise NoJob(rest)
    return ACTION.sub(field, text)


def openferos_job(definition: Body, alert: Body) -> Body:
    """Return the Job that OpenFero creates for a delivery of this one alert.

    Raises:
        NoJob: it creates none.
    """
    job: Body = copy.deepcopy(definition["spec"]["jobTemplate"])
    data = {
        "Alert": {"Labels": alert["labels"], "Annotations": alert["annotations"]},
        "Labels": alert["labels"],
        "Annotations": alert["annotations"],
        "Status": alert["status"],
        "GroupKey": "",
        "HookMessage": {"Status": alert["status"], "GroupKey": ""},
    }
    for container in job["spec"]["template"]["spec"]["containers"]:
        env = container.setdefault("env", [])
        for name, value in alert["labels"].items():
            env.append({"name": "OPENFERO_" + name.replace("-", "_").upper(), "value": value})
        for variable in env:
            if variable.get("value"):
                variable["value"] = evaluate(variable["value"], data)
        for part in ("command", "args"):
            if part in container:
                container[part] = [evaluate(text, data) for text in container[part]]
    return job


def _variables(container: Body) -> dict[str, Any]:
    """Return what the container sees: the last of two variables with one name wins."""
    return {
        variable["name"]: variable.get("valueFrom")
        or str(variable.get("value") or "").replace("$$", "$")
        for variable in container.get("env", [])
    }


def unexpected(theirs: Body, ours: Body, own_variables: Mapping[str, set[str]]) -> list[str]:
    """Return what differs between the two Jobs, apart from what the report of an import lists.

    Args:
        theirs: OpenFero's Job.
        ours: the rendered one.
        own_variables: the variables that the author sets, by container.
    """
    pods = [copy.deepcopy(job["spec"]["template"]) for job in (theirs, ours)]
    containers = [pod["spec"].pop("containers") for pod in pods]
    found = [] if pods[0] == pods[1] else [f"Pod template: {pods[0]} is {pods[1]}"]
    for before, after in zip(*containers, strict=True):
        found += _in_container(before, after, own_variables[before["name"]])
    return [*found, *_in_spec(theirs["spec"], ours["spec"]), *_in_metadata(theirs, ours)]


def _in_container(before: Body, after: Body, own: set[str]) -> Iterator[str]:
    name = before["name"]
    was, now = _variables(before), _variables(after)
    for variable in was:
        kept = variable.startswith("OPENFERO_") and variable in own
        if not kept and was[variable] != now.get(variable):
            yield f"{name}: {variable} was {was[variable]!r}, is {now.get(variable)!r}"
    for variable in set(now) - set(was):
        if not variable.startswith("OPENFERO_"):
            yield f"{name}: {variable} is added"
    rest = [{k: v for k, v in container.items() if k != "env"} for container in (before, after)]
    if rest[0] != rest[1]:
        yield f"{name}: {rest[0]} is {rest[1]}"


def _in_spec(theirs: Body, ours: Body) -> Iterator[str]:
    raised = {"suspend", "template", "ttlSecondsAfterFinished"}
    for name in set(theirs) - raised:
        if ours.get(name) != theirs[name]:
            yield f"spec.{name}: {theirs[name]!r} is {ours.get(name)!r}"
    filled = {"activeDeadlineSeconds", "backoffLimit", "podReplacementPolicy"}
    for name in set(ours) - set(theirs) - raised - filled:
        yield f"spec.{name} is added"


def _in_metadata(theirs: Body, ours: Body) -> Iterator[str]:
    for member in ("labels", "annotations"):
        for name, value in theirs.get("metadata", {}).get(member, {}).items():
            if not name.startswith("openfero.io/") and ours["metadata"][member].get(name) != value:
                yield f"{member}: {name} is lost"


def compare(files: list[str], folder: Path) -> dict[str, list[str]]:
    """Import files, and compare the Job of each imported Operarius with OpenFero's.

    Returns:
        the unexpected differences by operario, for each that is enabled.
    """
    manifests, notes = manifests_of_files(files)
    result = asyncio.run(import_openfero(manifests, notes, folder, force=False))
    assert not result.findings.failed, result.findings.problems
    source = CatalogSource(str(folder))
    catalog = asyncio.run(read_catalog(source))
    found = {}
    for imported in result.imported.definitions:
        definition = {} if imported.errors else yaml.safe_load((folder / imported.path).read_text())
        if definition.get("kind") != "Operarius" or definition["spec"].get("enabled") is False:
            continue
        text = (folder / "tests" / imported.name / "imported" / "alert.json").read_bytes()
        alert = yaml.safe_load(text)
        theirs = openferos_job(definition, alert)
        jobs, _ = render_all(catalog, read_alert_file(text, "alert.json"), source)
        own = {
            container["name"]: {variable["name"] for variable in container.get("env", [])}
            for container in definition["spec"]["jobTemplate"]["spec"]["template"]["spec"][
                "containers"
            ]
        }
        [ours] = [
            job
            for job in jobs
            if job["metadata"]["annotations"]["openfero.io/operarius"] == imported.name
        ] or [{}]
        found[imported.name] = (
            unexpected(theirs, ours, own) if ours else ["another operario is used"]
        )
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        for name, differences in sorted(compare(sys.argv[1:], Path(temporary) / "out").items()):
            sys.stdout.write("\n  ".join([f"{name}: {len(differences)}", *differences]) + "\n")
