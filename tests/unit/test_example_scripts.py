"""The starter repository's operarios: what they hand to kubectl, whatever an alert's labels say."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.support.paths import ROOT

EXAMPLE: Final = ROOT / "operarios-example"

HOSTILE: Final = (
    "--all",
    "--all-namespaces=true",
    "-A",
    "--",
    "$(reboot)",
    "`reboot`",
    '"; reboot; #',
    "'; reboot; '",
    "a\nreboot\n--all",
    "a b  c",
    "* ? [a-z]",
    "\\$(reboot) $((1/0)) ${PATH}",
    "{{ .Alert.Labels.pod }}",
)

# It writes down its arguments, NUL-separated after their number, and answers from the folder of
# canned answers: the first one whose first line is a part of the arguments.
KUBECTL: Final = r"""#!/bin/sh
printf '%s\0' "$#" "$@" >> "$CALLS"
for answer in "$ANSWERS"/*; do
  [ -e "$answer" ] || exit 0
  IFS= read -r about < "$answer"
  case "$*" in
    *"$about"*) tail -n +2 "$answer"; exit 0 ;;
  esac
done
"""

# What a value that was run as a command would call.
REBOOT: Final = '#!/bin/sh\necho rebooted >> "$CALLS.rebooted"\n'


def _documents() -> list[tuple[Path, dict[str, Any]]]:
    """Every document that the controller would read, with its file."""
    return [
        (path, document)
        for path in sorted(EXAMPLE.rglob("*.yaml"))
        for parts in [path.relative_to(EXAMPLE).parts]
        if not any(part == "tests" or part.startswith(("_", ".")) for part in parts)
        for document in yaml.load_all(path.read_text(), yaml.CSafeLoader)
    ]


def _jobs() -> dict[str, tuple[Path, dict[str, Any]]]:
    """The Job of every operario, whatever its form, by the operario's name."""
    jobs = {}
    for path, document in _documents():
        match document.get("kind"):
            case "Job":
                job = document
            case "ConfigMap":
                (wrapped,) = document["data"].values()
                job = yaml.safe_load(wrapped)
            case "Operarius":
                job = document["spec"]["jobTemplate"]
            case _:
                continue
        jobs[document["metadata"]["name"]] = path, job
    return jobs


JOBS: Final = _jobs()


def _containers(name: str) -> list[dict[str, Any]]:
    """An operario's containers, in the order in which they run."""
    pod = JOBS[name][1]["spec"]["template"]["spec"]
    return [*pod.get("initContainers", []), *pod["containers"]]


CONTAINERS: Final = [
    pytest.param(container, id=f"{name}/{container['name']}")
    for name in JOBS
    for container in _containers(name)
]


def _patch(kind: str, *operations: dict[str, Any]) -> str:
    """The flag with a patch, as the scripts write it; a merge patch is one operation."""
    content = operations[0] if kind == "merge" else operations
    return "--patch=" + json.dumps(content, separators=(",", ":"))


@dataclass(frozen=True)
class Script:
    """One shell script and the cluster state in which it acts.

    `answers` are what kubectl prints, by a part of its arguments; `acts` are the calls that then
    change something. LABEL stands for the value of every label.
    """

    name: str
    answers: dict[str, str] = field(default_factory=dict)
    acts: tuple[tuple[str, ...], ...] = ()

    @property
    def container(self) -> dict[str, Any]:
        """The container that runs it."""
        (container,) = _containers(self.name)
        return container

    @property
    def text(self) -> str:
        """The script itself."""
        assert self.container["command"] == ["/bin/sh", "-c"]
        (text,) = self.container["args"]
        return str(text)

    @property
    def labels(self) -> list[str]:
        """The variables with alert data that it reads."""
        return sorted(set(re.findall(r"OPENFERO_[A-Z_]+", self.text)))


# JSON pointers.
MARK: Final = "/metadata/annotations/operarios.openfero.io~1cordoned-for"
ORIGINAL: Final = "/metadata/annotations/operarios.openfero.io~1original-max-replicas"
SIZE: Final = "/spec/resources/requests/storage"

SCRIPTS: Final = (
    Script("openfero-kubepodcrashlooping-firing"),
    Script("openfero-kubedaemonsetrolloutstuck-firing"),
    Script("openfero-cputhrottlinghigh-firing"),
    Script("openfero-kubequotaexceeded-firing"),
    Script("openfero-nodefilesystemspacefillingup-firing", {".spec.nodeName": "worker-1"}),
    Script(
        "openfero-kubepodnotready-firing",
        {".status.phase": "Failed/Evicted/ReplicaSet"},
        (("delete", "pod", "--namespace=LABEL", "--wait=false", "--", "LABEL"),),
    ),
    Script(
        "openfero-kubedeploymentreplicasmismatch-firing",
        {"io/restart": "allowed", ".spec.replicas": "2", ".status.updatedReplicas": "2"},
        (("rollout", "restart", "--namespace=LABEL", "--", "deployment/LABEL"),),
    ),
    Script(
        "openfero-kubestatefulsetreplicasmismatch-firing",
        {
            ".spec.updateStrategy": "RollingUpdate//good",
            ".items": "other-0 StatefulSet/other bad ready=False going=\n"
            "db-0 StatefulSet/LABEL good ready=False going=\n"
            "db-1 StatefulSet/LABEL bad ready=True going=\n"
            "db-2 StatefulSet/LABEL bad ready=False going=2026-11-21T10:00:00Z\n"
            "db-3 StatefulSet/LABEL bad ready= going=\n"
            "db-4 StatefulSet/LABEL bad ready=False going=",
        },
        (("delete", "pod", "--namespace=LABEL", "--wait=false", "--", "db-3"),),
    ),
    Script(
        "openfero-kubehpamaxedout-firing",
        {".spec.maxReplicas": "10", "io/max-replicas": "11", "io/original-max": ""},
        (
            (
                "patch",
                "horizontalpodautoscaler",
                "--namespace=LABEL",
                "--type=json",
                _patch(
                    "json",
                    {"op": "test", "path": "/spec/maxReplicas", "value": 10},
                    {"op": "replace", "path": "/spec/maxReplicas", "value": 11},
                    {"op": "add", "path": ORIGINAL, "value": "10"},
                ),
                "--",
                "LABEL",
            ),
        ),
    ),
    Script(
        "openfero-kubehpamaxedout-resolved",
        {".spec.maxReplicas": "12", ".status.currentReplicas": "9", "io/original-max": "10"},
        (
            (
                "patch",
                "horizontalpodautoscaler",
                "--namespace=LABEL",
                "--type=json",
                _patch(
                    "json",
                    {"op": "test", "path": "/spec/maxReplicas", "value": 12},
                    {"op": "test", "path": ORIGINAL, "value": "10"},
                    {"op": "replace", "path": "/spec/maxReplicas", "value": 10},
                    {"op": "remove", "path": ORIGINAL},
                ),
                "--",
                "LABEL",
            ),
        ),
    ),
    Script(
        "openfero-kubepersistentvolumefillingup-expand",
        {"io/max-size": "1Ti", ".spec.resources.requests.storage": "101Gi"},
        (
            (
                "patch",
                "persistentvolumeclaim",
                "--namespace=LABEL",
                "--type=json",
                _patch(
                    "json",
                    {"op": "test", "path": SIZE, "value": "101Gi"},
                    {"op": "replace", "path": SIZE, "value": "122Gi"},
                ),
                "--",
                "LABEL",
            ),
        ),
    ),
    Script(
        "openfero-kubenodenotready-firing",
        {".status.conditions": "Unknown/", "--field-selector": "node/worker-7"},
        (
            (
                "patch",
                "node",
                "--type=merge",
                _patch(
                    "merge",
                    {
                        "metadata": {
                            "annotations": {
                                "operarios.openfero.io/cordoned-for": "KubeNodeNotReady"
                            }
                        },
                        "spec": {"unschedulable": True},
                    },
                ),
                "--",
                "LABEL",
            ),
        ),
    ),
    Script(
        "openfero-kubenodenotready-resolved",
        {"io/cordoned-for": "KubeNodeNotReady"},
        (
            (
                "patch",
                "node",
                "--type=json",
                _patch(
                    "json",
                    {"op": "test", "path": MARK, "value": "KubeNodeNotReady"},
                    {"op": "remove", "path": MARK},
                    {"op": "add", "path": "/spec/unschedulable", "value": False},
                ),
                "--",
                "LABEL",
            ),
        ),
    ),
    Script(
        "openfero-nodefilesystemalmostoutofspace-firing",
        {".spec.nodeName": "worker-1", "spec.nodeName=worker-1": "shop web-1\nbank web-2"},
        tuple(
            ("delete", "pod", "--ignore-not-found", "--wait=false", f"--namespace={ns}", "--", pod)
            for ns, pod in (("shop", "web-1"), ("bank", "web-2"))
        ),
    ),
    Script(
        "openfero-kubequotafullyused-firing",
        {"status.phase=Failed": "web-1\nweb-2"},
        tuple(
            ("delete", "pod", "--ignore-not-found", "--wait=false", "--namespace=LABEL", "--", pod)
            for pod in ("web-1", "web-2")
        ),
    ),
    Script(
        "openfero-kubejobfailed-firing",
        {
            "failed=": "failed=True owner=CronJob/nightly created=2026-11-20T02:00:00Z",
            ".items": "2026-11-19T02:00:00Z CronJob/nightly True\n"
            "2026-11-20T02:00:00Z CronJob/nightly \n"
            "2026-11-21T02:00:00Z CronJob/nightly True",
        },
        (
            (
                "delete",
                "job",
                "--cascade=background",
                "--wait=false",
                "--namespace=LABEL",
                "--",
                "LABEL",
            ),
        ),
    ),
)
ACTING: Final = [script for script in SCRIPTS if script.acts]

# Answers in which a script that could act must not, by what it then says.
RESTRAINED: Final = (
    (
        "openfero-kubepodnotready-firing",
        {".status.phase": "Running//ReplicaSet"},
        0,
        "Nothing was changed",
    ),
    (
        "openfero-kubepodnotready-firing",
        {".status.phase": "Failed/Evicted/"},
        0,
        "Nothing was changed",
    ),
    ("openfero-kubedeploymentreplicasmismatch-firing", {"io/restart": "true"}, 0, "not allow"),
    (
        "openfero-kubedeploymentreplicasmismatch-firing",
        {"io/restart": "allowed", ".spec.replicas": "2", ".status.updatedReplicas": "1"},
        0,
        "in progress",
    ),
    (
        "openfero-kubestatefulsetreplicasmismatch-firing",
        {".spec.updateStrategy": "RollingUpdate/2/good", ".items": "db-1 StatefulSet/LABEL bad"},
        0,
        "keeps old revisions",
    ),
    (
        "openfero-kubestatefulsetreplicasmismatch-firing",
        {".spec.updateStrategy": "OnDelete//good", ".items": "db-1 StatefulSet/LABEL bad"},
        0,
        "keeps old revisions",
    ),
    (
        "openfero-kubehpamaxedout-firing",
        {".spec.maxReplicas": "30", "io/max-replicas": "30"},
        1,
        "Raise it manually",
    ),
    (
        "openfero-kubehpamaxedout-firing",
        {".spec.maxReplicas": "10", "io/max-replicas": '11,"x":1'},
        1,
        "not a number",
    ),
    (
        "openfero-kubehpamaxedout-resolved",
        {".spec.maxReplicas": "12", ".status.currentReplicas": "10", "io/original-max": "10"},
        1,
        "Decide manually",
    ),
    (
        "openfero-kubepersistentvolumefillingup-expand",
        {"io/max-size": "100Gi", ".spec.resources.requests.storage": "100Gi"},
        1,
        "Expand the claim manually",
    ),
    (
        "openfero-kubepersistentvolumefillingup-expand",
        {"io/max-size": "lots", ".spec.resources.requests.storage": "100Gi"},
        1,
        "whole Gi or Ti",
    ),
    (
        "openfero-kubepersistentvolumefillingup-expand",
        {
            "io/max-size": "200Gi",
            ".spec.resources.requests.storage": "100Gi",
            ".status.conditions": "FileSystemResizePending",
        },
        1,
        "in progress",
    ),
    ("openfero-kubenodenotready-firing", {".status.conditions": "True/"}, 0, "ready again"),
    ("openfero-kubenodenotready-firing", {".status.conditions": "False/true"}, 0, "already"),
    (
        "openfero-kubenodenotready-firing",
        {".status.conditions": "Unknown/", "--field-selector": "node/worker-7\nnode/worker-8"},
        1,
        "the limit is 2",
    ),
    (
        "openfero-kubenodenotready-resolved",
        {"io/cordoned-for": "a person"},
        0,
        "Nothing was changed",
    ),
    (
        "openfero-kubejobfailed-firing",
        {
            "failed=": "failed=True owner=CronJob/nightly created=2026-11-20T02:00:00Z",
            ".items": "2026-11-19T02:00:00Z CronJob/nightly True\n"
            "2026-11-21T02:00:00Z CronJob/hourly True",
        },
        0,
        "Nothing was changed",
    ),
    (
        "openfero-kubejobfailed-firing",
        {"failed=": "failed= owner=CronJob/nightly created=2026-11-20T02:00:00Z"},
        0,
        "Nothing was changed",
    ),
)


class Bench:
    """Runs a script as its container would, against a kubectl that only takes notes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bin = folder / "bin"
        self._bin.mkdir(parents=True)
        for command, text in (("kubectl", KUBECTL), ("reboot", REBOOT)):
            (self._bin / command).write_text(text)
            (self._bin / command).chmod(0o755)
        self._calls = folder / "calls"

    def run(
        self, script: Script, answers: dict[str, str], labels: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        canned = self._folder / "answers"
        canned.mkdir()
        for number, (about, answer) in enumerate(answers.items()):
            # The longest first, so that a part of a field's name does not answer for all of it.
            order = f"{999 - len(about):03}-{number}"
            (canned / order).write_text(f"{about}\n{answer}\n" if answer else f"{about}\n")
        fixed = {variable["name"]: variable["value"] for variable in script.container["env"]}
        return subprocess.run(
            ["/bin/sh", "-c", script.text],
            env=fixed
            | labels
            | {
                "PATH": f"{self._bin}{os.pathsep}{os.environ['PATH']}",
                "HOME": str(self._folder),
                "CALLS": str(self._calls),
                "ANSWERS": str(canned),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=self._folder,
        )

    @property
    def calls(self) -> list[tuple[str, ...]]:
        """What kubectl was called with, call by call."""
        if not self._calls.exists():
            return []
        words = iter(self._calls.read_text().split("\0")[:-1])
        return [tuple(next(words) for _ in range(int(count))) for count in words]

    @property
    def changes(self) -> list[tuple[str, ...]]:
        """The calls that do more than look."""
        looking = {"get", "describe", "logs", "top", "wait"}
        return [
            call
            for call in self.calls
            if call[0] not in looking and call[:2] != ("rollout", "status")
        ]

    @property
    def rebooted(self) -> bool:
        """Whether a label's value was run as a command."""
        return Path(f"{self._calls}.rebooted").exists()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A fresh folder with its own kubectl."""
    return Bench(tmp_path / "bench")


def _flags_made_of(value: str, call: tuple[str, ...], own: set[str]) -> list[str]:
    """The words of a call that a value turned into something else than data.

    Data is a word after `--`, or what follows the `=` of a flag that the author wrote. `own` are
    the author's words, of which some may happen to contain the value.
    """
    flags = {word.partition("=")[0] for word in own if word.startswith("--")}
    before = call[: call.index("--")] if "--" in call else call
    return [
        word
        for word in before
        if value in word
        and word not in own
        and (word == value or "=" not in word or word.partition("=")[0] not in flags)
    ]


def _of(value: str, answers: dict[str, str]) -> dict[str, str]:
    """The answers for labels of this value."""
    return {about: answer.replace("LABEL", value) for about, answer in answers.items()}


def _named(script: Script) -> str:
    return script.name


def test_every_shell_script_is_tested() -> None:
    """No operario with a shell script escapes the tests below."""
    with_shell = {
        name for name in JOBS if any(c["command"] == ["/bin/sh", "-c"] for c in _containers(name))
    }
    assert {script.name for script in SCRIPTS} == with_shell


def test_the_rule_itself_catches_a_value_that_became_a_flag() -> None:
    """A value that stands before `--` as a word of its own is found, one behind a `=` is not."""
    call = ("delete", "pod", "--all", "--namespace=--all", "--", "--all")
    assert _flags_made_of("--all", call, {"--namespace=x"}) == ["--all"]
    assert _flags_made_of("--all", call, set()) == ["--all", "--namespace=--all"]


@pytest.mark.parametrize("script", SCRIPTS, ids=_named)
def test_scripts_parse(script: Script) -> None:
    """The shell accepts every script."""
    checked = subprocess.run(
        ["/bin/sh", "-n"], input=script.text, text=True, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=_named)
def test_scripts_hold_nothing_that_kubernetes_or_the_controller_would_expand(
    script: Script,
) -> None:
    """Arguments are expanded twice before the shell sees them; scripts leave both nothing to do."""
    assert "{{" not in script.text
    assert "$$" not in script.text
    assert not re.search(r"\$\([A-Za-z_][A-Za-z0-9_]*\)", script.text)
    assert script.text.startswith("set -eu\n")


@pytest.mark.parametrize("script", SCRIPTS, ids=_named)
def test_hostile_labels_stay_data(script: Script, tmp_path: Path) -> None:
    """No label value becomes a flag, several words or a command; the calls stay the same."""
    calls = {}
    for number, label in enumerate(("checkout", *HOSTILE)):
        bench = Bench(tmp_path / str(number))
        bench.run(script, _of(label, script.answers), dict.fromkeys(script.labels, label))
        assert not bench.rebooted, label
        calls[label] = bench.calls
    own = set(script.text.split())
    for value in HOSTILE:
        tame = {
            tuple(word.replace("checkout", value) for word in call) for call in calls["checkout"]
        }
        assert set(calls[value]) <= tame
        assert any(value in word for call in calls[value] for word in call), value
        for call in calls[value]:
            assert _flags_made_of(value, call, own) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=_named)
def test_a_missing_or_empty_label_stops_a_script_before_kubectl(
    script: Script, tmp_path: Path
) -> None:
    """Without a label that it needs, a script fails, names it, and calls nothing."""
    assert script.labels
    for number, missing in enumerate(script.labels):
        for left in ({}, {missing: ""}):
            labels = {label: "some" for label in script.labels if label != missing} | left
            bench = Bench(tmp_path / f"{number}{len(left)}")
            done = bench.run(script, {}, labels)
            assert done.returncode != 0
            assert missing in done.stderr
            assert bench.calls == []


@pytest.mark.parametrize("script", ACTING, ids=_named)
def test_scripts_change_what_they_say_and_no_more(script: Script, bench: Bench) -> None:
    """In the state that it is written for, a script makes exactly its change."""
    done = bench.run(
        script, _of("checkout", script.answers), dict.fromkeys(script.labels, "checkout")
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert bench.changes == [
        tuple(word.replace("LABEL", "checkout") for word in call) for call in script.acts
    ]


@pytest.mark.parametrize("script", SCRIPTS, ids=_named)
def test_scripts_change_nothing_when_the_cluster_says_nothing(script: Script, bench: Bench) -> None:
    """Where kubectl finds nothing, a script with a healing step leaves things alone."""
    bench.run(script, {}, dict.fromkeys(script.labels, "checkout"))
    assert bench.changes == []


@pytest.mark.parametrize(("name", "answers", "code", "says"), RESTRAINED)
def test_scripts_know_their_bounds(
    name: str, answers: dict[str, str], code: int, says: str, bench: Bench
) -> None:
    """Outside of its bounds a script changes nothing, says why, and fails if a person is needed."""
    (script,) = (script for script in SCRIPTS if script.name == name)
    done = bench.run(script, _of("checkout", answers), dict.fromkeys(script.labels, "checkout"))
    assert bench.changes == []
    assert done.returncode == code, done.stderr
    assert says in (done.stderr if code else done.stdout)


@pytest.mark.parametrize("container", CONTAINERS)
def test_alert_data_in_arguments_stands_where_it_cannot_be_a_flag(
    container: dict[str, Any],
) -> None:
    """Without a shell too, a label's value follows `--` or the `=` of a flag."""
    if container["command"] == ["/bin/sh", "-c"]:
        return
    arguments = tuple(container["args"])
    own = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    for reference in re.findall(r"\{\{.*?\}\}|\$\([^)]*\)", "\n".join(arguments)):
        assert _flags_made_of(reference, arguments, own) == []


@pytest.mark.parametrize("container", CONTAINERS)
def test_containers_are_pinned_bounded_and_unprivileged(container: dict[str, Any]) -> None:
    """Every container has an image of one version, requests, limits, and no privilege."""
    assert re.fullmatch(r"[a-z0-9.]+/[a-z0-9./-]+:v?\d+\.\d+\.\d+", container["image"])
    assert set(container["resources"]) == {"requests", "limits"}
    for bounds in container["resources"].values():
        assert set(bounds) == {"cpu", "memory"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("name", JOBS)
def test_every_account_is_defined_beside_its_operario(name: str) -> None:
    """The ServiceAccount of an operario lies in its folder, and the Pod is a restricted one."""
    path, job = JOBS[name]
    pod = job["spec"]["template"]["spec"]
    accounts = {
        document["metadata"]["name"]
        for document in yaml.safe_load_all((path.parent / "rbac.yaml").read_text())
        if document["kind"] == "ServiceAccount"
    }
    assert pod["serviceAccountName"] in accounts
    assert pod["restartPolicy"] == "Never"
    assert "namespace" not in job.get("metadata", {})
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_the_kustomization_installs_every_rbac_file() -> None:
    """`kubectl apply -k` leaves no ServiceAccount out."""
    kustomization = yaml.safe_load((EXAMPLE / "kustomization.yaml").read_text())
    assert kustomization["resources"] == sorted(
        str(path.relative_to(EXAMPLE)) for path in EXAMPLE.rglob("rbac.yaml")
    )


def test_the_sample_alerts_are_alertmanagers() -> None:
    """Every sample is a version-4 payload, and at least one group mixes states."""
    samples = [yaml.safe_load(path.read_text()) for path in EXAMPLE.glob("_alerts/*.json")]
    assert {sample["version"] for sample in samples} == {"4"}
    states = [{alert["status"] for alert in sample["alerts"]} for sample in samples]
    assert {"firing", "resolved"} in states
