"""A repository that also holds the files of other programs, followed by a replica."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.replica import Replica, alert
from tests.support.repository import Repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster

SCRIPT = (
    "for p in $(kubectl get pods -o go-template='{{range .items}}{{.metadata.name}} {{end}}'); do\n"
    "  docker ps --format '{{.Names}}' | grep \"$p\"\ndone\n"
)


def job(name: str, script: str = "echo healed", labels: str = "{}") -> str:
    """Return a Job with a script."""
    return f"""\
apiVersion: batch/v1
kind: Job
metadata:
  name: openfero-{name}-firing
  labels: {labels}
spec:
  template:
    spec:
      restartPolicy: Never
      automountServiceAccountToken: false
      containers:
        - name: fix
          image: registry.example/fix:1
          resources: {{limits: {{memory: 64Mi}}}}
          command: [sh, -c]
          args: [{json.dumps(script)}, "{{{{ .Alert.Labels.host }}}}"]
"""


def problems(replica: Replica) -> dict[str, str]:
    """Return the rules of all problems by path."""
    return {item["path"]: item["rule"] for item in replica.get("/api/problems")["items"]}


def ignored(replica: Replica) -> dict[str, str]:
    """Return the reasons of what is ignored by path."""
    return {item["path"]: item["reason"] for item in replica.get("/api/problems")["ignored"]}


def test_other_programs_files_disturb_nothing(
    tmp_path: Path,
    kubeconfig: Path,
    shared_namespace: str,
    kubectl: Kubectl,
) -> None:
    """Charts, patterns and large files are ignored, and braces reach the Job as they are."""
    repository = Repository(tmp_path / "operarios")
    repository.write("braces.yaml", job("braces", SCRIPT))
    repository.write("off.yaml", job("off", labels='{openfero/job-disabled: "true"}'))
    repository.write("chart/Chart.yaml", "apiVersion: v2\nname: x\nversion: 0.1.0\n")
    repository.write("chart/templates/job.yaml", "{{- if .Values.x }}\nkind: Job\n{{- end }}\n")
    repository.write("mkdocs.yml", "emoji: !!python/name:material.emoji\n")
    repository.write("tsconfig.json", "{\n  // comment\n}\n")
    repository.write("dashboards/d.json", '{"panels": [' + '"x", ' * 400_000 + '"y"]}')
    repository.write("Old.YAML", job("old"))
    repository.commit("Everything in one repository")
    replica = Replica(
        tmp_path,
        name="mixed",
        kubeconfig=kubeconfig,
        namespace=shared_namespace,
        repository=repository.url,
    )
    with replica:
        assert problems(replica) == {"mkdocs.yml": "custom-tag", "tsconfig.json": "syntax"}
        repository.write("openfero.yaml", "ignore: [mkdocs.yml, '*.json']\n")
        commit = repository.commit("Ignore what is not ours")
        replica.wait_for(lambda: replica.get("/api/sync")["revision"]["commit"] == commit)
        assert problems(replica) == {}
        assert ignored(replica) == {
            "Old.YAML": "its name ends with .YAML: only .yaml, .yml and .json are read",
            "chart/": "part of a Helm chart (Chart.yaml)",
            "dashboards/d.json": 'matches "*.json" of ignore in openfero.yaml',
            "mkdocs.yml": 'matches "mkdocs.yml" of ignore in openfero.yaml',
            "off.yaml": 'disabled by the label openfero/job-disabled: "true"',
            "tsconfig.json": 'matches "*.json" of ignore in openfero.yaml',
        }
        status, answer = replica.deliver(alert("braces", host="web-0"), alert("off", host="web-0"))
        assert status == 200
        assert [item["outcome"] for item in answer["items"]] == ["created", "no-match"]
        assert answer["items"][1]["reason"] == "disabled"
        name, namespace = answer["items"][0]["job"], answer["items"][0]["namespace"]
        created = json.loads(kubectl("get", "job", name, "-n", namespace, "-o", "json"))
        (container,) = created["spec"]["template"]["spec"]["containers"]
        assert container["args"] == [SCRIPT, "web-0"]
        # A commit that ignores the limits themselves is refused.
        repository.write("openfero.yaml", "ignore: ['*.yaml']\n")
        repository.commit("Ignore too much")
        refused = replica.wait_for(lambda: replica.get("/api/sync")["refused"])
        assert "they ignore openfero.yaml itself" in json.dumps(refused)
        assert replica.get("/api/sync")["revision"]["commit"] == commit
