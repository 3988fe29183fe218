"""The demonstration, as a newcomer starts it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.paths import ROOT
from tests.support.process import Process, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping


PATIENCE = 600  # seconds


def run_demo(argv: list[str], env: Mapping[str, str]) -> str:
    """Run the demo to its end and return what it printed."""
    ran = subprocess.run(
        argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    return ran.stdout


def check(story: str) -> None:
    """Check that each step printed what it must."""
    [created] = re.findall(r"HTTP 200, created: Job \S+/(\S+)", story)
    assert f"HTTP 200, exists: Job {created}" in story
    assert "an incident gets one Job" in story
    assert re.search(rf"{created} now records: resolved at \S+", story)
    assert "no-match: no operario in the active catalog matches this alert" in story
    commits = re.findall(r"commit +([0-9a-f]{40})", story)
    proof = re.search(r"git show ([0-9a-f]{12}):(\S+)", story)
    assert proof is not None
    assert commits[0].startswith(proof[1])
    assert ", the merged commit" in story
    assert f"$ openfero-gitops trace {trace_of(story)}" in story
    check_effects(story)


def trace_of(story: str) -> str:
    """Return the Job of the first alert."""
    return re.findall(r"HTTP 200, created: Job (\S+)", story)[0]


def check_effects(story: str) -> None:
    """Check that one remediation healed, and that one was stopped because it did not."""
    assert re.search(r"effect +healed: resolved \S+ after the Job ended", story)
    assert len(re.findall(r"effect +not-healed: still firing \S+ after the Job ended", story)) >= 2
    stopped = re.search(r"Job \d +(\S+)\n +phase +Waiting, not-helping: ", story)
    assert stopped is not None
    assert f"Job {stopped[1]} approved by " in story
    _, _, approved = story.partition("A person approves one more run")
    assert "phase     Succeeded" in approved
    assert "$ openfero-gitops status\n" in story
    _, _, stats = story.partition("$ openfero-gitops stats")
    rows = {line.split()[0]: line.split() for line in stats.splitlines() if "openfero-" in line}
    assert rows["openfero-kubepodcrashlooping-monitoring"][-2:-1] == ["100%"]
    assert rows["openfero-kubedeploymentreplicasmismatch-firing"][-2:-1] == ["0%"]


def test_the_story_in_memory() -> None:
    """`demo --once` tells every step of the story and exits with 0."""
    story = run_demo([sys.executable, "-m", "openfero_gitops", "demo", "--once"], os.environ)
    assert "Cluster: simulated in memory" in story
    check(story)


@pytest.mark.cluster
@pytest.mark.usefixtures("kwok")
def test_the_same_story_on_a_real_cluster(kubeconfig: Path) -> None:
    """On a real control plane the story is the same, also with the mirror of an earlier one."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "KUBECONFIG": str(kubeconfig), "PATH": path}
    for _ in range(2):
        story = run_demo(["tests/cluster/demo", "--once"], env)
        assert "Cluster: 127.0.0.1:" in story
        check(story)


def test_the_pages_stay_until_they_are_told_to_stop(tmp_path: Path) -> None:
    """Without `--once` the pages are served, and SIGTERM ends them.

    Meanwhile a second demo on the same port fails with a message, without a traceback, and commands
    reach the in-memory cluster.
    """
    port = free_port()
    argv = [sys.executable, "-m", "openfero_gitops", "demo", f"--listen=127.0.0.1:{port}"]
    log = tmp_path / "demo.log"
    with Process(argv, log=log, url=f"http://127.0.0.1:{port}/", cwd=ROOT) as demo:
        second = subprocess.run(
            argv, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert demo.returncode is None
        [kubeconfig] = re.findall(r"export KUBECONFIG=(\S+)", demo.output)
        command = [sys.executable, "-m", "openfero_gitops", "stats", f"--kubeconfig={kubeconfig}"]
        stats = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    assert stats.returncode == 0, stats.stderr
    assert not Path(kubeconfig).exists()
    assert second.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in second.stderr
    assert "Traceback" not in second.stderr
    assert "Traceback" not in demo.output
    assert f"pages: http://127.0.0.1:{port}/" in demo.output


def test_other_operarios_wait_for_an_alert_of_the_user(tmp_path: Path) -> None:
    """The demo prints a command that sends an alert of one of them; there is no story to tell."""
    folder = tmp_path / "operarios"
    folder.mkdir()
    starter = ROOT / "operarios-example/nodes/kubenodenotready/firing.yaml"
    (folder / "operario.yaml").write_text(starter.read_text())
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [sys.executable, "-m", "openfero_gitops", "demo", f"--example={folder}"]
    refused = subprocess.run(
        [*argv, "--once"], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert refused.returncode == 2
    assert "leave out --once to serve the pages" in refused.stderr
    argv.append(f"--listen=127.0.0.1:{port}")
    with Process(argv, log=tmp_path / "demo.log", url=f"{url}/", cwd=ROOT) as demo:
        deadline = time.monotonic() + PATIENCE
        while len(files := re.findall(r"curl -H .* -d @(\S+)", demo.output)) < 2:
            assert time.monotonic() < deadline, demo.output
            time.sleep(0.1)
        items = []
        for file in files:
            body = Path(file).read_bytes()
            request = urllib.request.Request(
                f"{url}/alerts", body, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                items += json.load(response)["items"]
        with urllib.request.urlopen(f"{url}/api/remediations", timeout=PATIENCE) as response:
            [remediation] = json.load(response)["items"]
    assert [(item["alertname"], item["outcome"]) for item in items] == [
        ("KubeNodeNotReady", "created"),
        ("KubeNodeNotReady", "no-match"),
    ]
    assert remediation["resolvedAt"] >= remediation["receivedAt"]
