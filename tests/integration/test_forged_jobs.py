"""Jobs that somebody without the controller's rights created or changed, on a real API server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.audit.verify import Proof, Verification
from openfero_gitops.catalog.build import Scope, build_catalog
from openfero_gitops.catalog.mirror import HEAD, read_history, with_history
from openfero_gitops.catalog.revisions import RevisionHistory
from openfero_gitops.commands.audit import AuditFilter, Reviewed, audit
from openfero_gitops.commands.operator import APPROVE, act_on_job
from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Occurrence, Status
from openfero_gitops.domain.rule import format_pointer
from openfero_gitops.domain.timestamp import format_time, parse_time
from openfero_gitops.jobs.render import render
from openfero_gitops.sources.git.signatures import Trust
from openfero_gitops.sources.opening import open_commit
from tests.support import build
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from openfero_gitops.domain.catalog import Catalog
    from tests.support.cluster import Kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("kwok")]

NARROW = {"openfero.io/max-concurrent": "1", "openfero.io/cooldown": "1h"}
GATED = {"openfero.io/approval": "required", "openfero.io/cooldown": "0"}


class Attacker:
    """A user who may create, change and delete Jobs in the namespace."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self._kubectl = kubectl
        self._namespace = namespace

    def forge(self, victim: Mapping[str, Any], name: str, **changes: Any) -> str:
        """Create a running Job that looks as if it handled an alert, and return its name."""
        labels = victim["labels"]
        occurrence = Occurrence(labels, Status.FIRING, parse_time(victim["startsAt"]))
        now = datetime.now(UTC)
        annotations = {
            keys.OPERARIUS: f"openfero-{labels['alertname'].lower()}-firing",
            keys.ALERT: json.dumps({"labels": {"alertname": "Other"}}),
            keys.STARTS_AT: format_time(now),
            keys.ATTEMPT: "1",
            keys.RECEIVED_AT: format_time(now),
            keys.ADMITTED_AT: format_time(now),
            keys.TARGET: json.dumps({"host": labels["host"]}, separators=(",", ":")),
            keys.OPTIONS: "{}",
            **changes.get("annotations", {}),
        }
        manifest = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": name,
                "namespace": self._namespace,
                "labels": {
                    keys.MANAGED_BY: keys.MANAGER,
                    keys.STATUS: "firing",
                    keys.OCCURRENCE: occurrence.digest,
                    keys.INCIDENT: occurrence.incident,
                },
                "annotations": annotations,
            },
            "spec": {
                "suspend": False,
                "template": {
                    "metadata": {"annotations": {"kwok.openfero.io/run-for": "forever"}},
                    "spec": {
                        "restartPolicy": "Never",
                        "containers": [{"name": "evil", "image": "registry.example/evil:1"}],
                    },
                },
            },
        }
        self._kubectl("create", "-f", "-", stdin=json.dumps(manifest))
        return name

    def job(self, name: str) -> dict[str, Any]:
        """Return a Job as it is stored."""
        job: dict[str, Any] = self._kubectl.json("get", "job", name, "-n", self._namespace)
        return job

    def annotate(self, name: str, **annotations: str) -> None:
        """Change annotations of a Job."""
        marks = [f"openfero.io/{key.replace('_', '-')}={text}" for key, text in annotations.items()]
        self._kubectl("annotate", "--overwrite", "job", name, "-n", self._namespace, *marks)

    def patch(self, name: str, change: dict[str, Any]) -> None:
        """Change a Job."""
        where = ("-n", self._namespace, "--type=merge", "-p", json.dumps(change))
        self._kubectl("patch", "job", name, *where)

    def create(self, kind: str, body: Mapping[str, Any]) -> None:
        """Create an object."""
        manifest = {**body, "kind": kind}
        self._kubectl("create", "-n", self._namespace, "-f", "-", stdin=json.dumps(manifest))

    def delete(self, name: str) -> None:
        """Delete a Job."""
        self._kubectl("delete", "job", name, "-n", self._namespace)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Create a repository whose first commit requires no approval."""
    repository = Repository(tmp_path_factory.mktemp("git") / "operarios")
    repository.write("Gated.json", operario("Gated"))
    repository.commit("Without approval")
    return repository


@pytest.fixture(scope="module")
def replica(
    tmp_path_factory: pytest.TempPathFactory,
    kubeconfig: Path,
    shared_namespace: str,
    repository: Repository,
) -> Iterator[Replica]:
    """Start a replica that all tests share; each has alerts of its own."""
    folder = tmp_path_factory.mktemp("replica")
    for name in ("Blocked", "Squatted", "Early", "Edited"):
        repository.write(f"{name}.json", operario(name, annotations=NARROW))
    repository.write("Gated.json", operario("Gated", annotations=GATED))
    repository.commit("Operarios")
    with Replica(
        folder,
        name="a",
        kubeconfig=kubeconfig,
        namespace=shared_namespace,
        repository=repository.url,
        development=False,
    ) as started:
        started.wait_for(lambda: started.leads)
        yield started


@pytest.fixture
def attacker(kubectl: Kubectl, shared_namespace: str) -> Attacker:
    """Return a user who may do anything to Jobs."""
    return Attacker(kubectl, shared_namespace)


def phase(replica: Replica, job: str) -> str:
    """Return the phase of a remediation; empty if the API does not list it."""
    items = replica.get("/api/remediations")["items"]
    return next((str(item["phase"]) for item in items if item["job"] == job), "")


def message(replica: Replica, job: str) -> str:
    """Return the message of a remediation."""
    items = replica.get("/api/remediations")["items"]
    return next((str(item["message"]) for item in items if item["job"] == job), "")


def foreign(replica: Replica) -> str:
    """Return the message of the condition about foreign Jobs."""
    conditions = replica.get("/readyz")["conditions"]
    return next((str(item["message"]) for item in conditions if item["name"] == "foreign jobs"), "")


def test_a_forged_job_blocks_no_alert(replica: Replica, attacker: Attacker) -> None:
    """One with the incident, the target and the operario of a real alert changes nothing."""
    victim = alert("Blocked", host="blocked")
    forged = attacker.forge(victim, "forged-incident")
    replica.wait_for(lambda: phase(replica, forged) or foreign(replica))
    _, answer = replica.deliver(victim)
    job = answer["items"][0]["job"]

    replica.wait_for(lambda: phase(replica, job) == "Succeeded")

    assert phase(replica, forged) == ""
    assert f"{forged} (its label openfero.io/occurrence does not belong" in foreign(replica)
    marks = attacker.job(forged)["metadata"]["annotations"]
    assert {keys.TERM, keys.DECISION, keys.ADMITTED_BY}.isdisjoint(marks), "it is never changed"


def test_an_alert_whose_name_is_taken_is_not_lost(replica: Replica, attacker: Attacker) -> None:
    """The answer is 503 and says what to do, until the forged Job is deleted."""
    victim = alert("Squatted", host="squatted")
    occurrence = Occurrence(victim["labels"], Status.FIRING, parse_time(victim["startsAt"]))
    forged = attacker.forge(victim, f"squatted-firing-{occurrence.digest[:16]}")

    status, answer = replica.deliver(victim)

    item = answer["items"][0]
    assert (status, item["outcome"], item["reason"]) == (503, "error", "name-taken")
    assert "was not created by openfero-gitops: its label openfero.io/occ" in item["message"]
    assert "delete it, so that the alert gets its Job" in item["message"]
    attacker.delete(forged)
    replica.wait_for(lambda: replica.deliver(victim)[0] == 200)
    replica.wait_for(lambda: phase(replica, forged) == "Succeeded")


def test_a_job_from_the_future_blocks_no_alert(replica: Replica, attacker: Attacker) -> None:
    """Its received-at would make every later alert of its labels the same incident."""
    victim = alert("Early", host="early")
    _, answer = replica.deliver(victim)
    job = answer["items"][0]["job"]
    replica.wait_for(lambda: phase(replica, job) == "Succeeded")
    future = datetime.now(UTC) + timedelta(days=300)
    attacker.annotate(job, received_at=format_time(future))
    replica.wait_for(lambda: phase(replica, job) == "")

    later = format_time(datetime.now(UTC))
    _, answer = replica.deliver(victim | {"startsAt": later})

    again = answer["items"][0]["job"]
    assert again != job
    replica.wait_for(lambda: phase(replica, again) == "Succeeded")


def test_an_edited_job_is_neither_started_nor_changed(replica: Replica, attacker: Attacker) -> None:
    """While it waits, its recorded target is replaced by that of another host."""
    busy = alert("Edited", host="busy")
    replica.deliver(busy)
    later = format_time(datetime.now(UTC) + timedelta(minutes=5))
    _, answer = replica.deliver(busy | {"startsAt": later})
    job = answer["items"][0]["job"]
    replica.wait_for(lambda: phase(replica, job) == "Waiting")

    attacker.annotate(job, target='{"host":"idle"}')

    replica.wait_for(lambda: f"{job} (its annotation openfero.io/target" in foreign(replica))
    assert phase(replica, job) == ""
    assert attacker.job(job)["spec"]["suspend"] is True


def test_rewritten_options_take_no_approval_away(
    replica: Replica, attacker: Attacker, kubeconfig: Path, shared_namespace: str
) -> None:
    """The operario in Git requires it, so the Job waits for a person, who can approve it."""
    _, answer = replica.deliver(alert("Gated", host="gated"))
    job = answer["items"][0]["job"]
    replica.wait_for(lambda: phase(replica, job) == "AwaitingApproval")

    attacker.annotate(job, options='{"approval":false}')

    replica.wait_for(lambda: "requires approval in Git" in message(replica, job))
    assert phase(replica, job) == "AwaitingApproval"
    assert attacker.job(job)["spec"]["suspend"] is True
    asyncio.run(act_on_job(APPROVE, job, kubeconfig, shared_namespace))
    replica.wait_for(lambda: phase(replica, job) == "Succeeded")


def test_another_operarios_name_takes_no_approval_away(
    replica: Replica, attacker: Attacker
) -> None:
    """Neither that of one without approval, nor one that does not exist."""
    _, answer = replica.deliver(alert("Gated", host="renamed"))
    job = answer["items"][0]["job"]
    replica.wait_for(lambda: phase(replica, job) == "AwaitingApproval")
    for name in ("openfero-edited-firing", "nothing"):
        attacker.annotate(job, options='{"approval":false}', operarius=name)
        replica.wait_for(lambda name=name: f'no operario "{name}"' in message(replica, job))
    assert attacker.job(job)["spec"]["suspend"] is True


class Auditor:
    """Somebody who reviewed the repository, and verifies the Jobs of the namespace."""

    def __init__(self, kubeconfig: Path, namespace: str, repository: Repository) -> None:
        self._kubeconfig = kubeconfig
        self._namespace = namespace
        self._repository = repository

    def verify(self, job: str, controller_namespace: str = "") -> Verification:
        """Return the verification of one Job."""
        reviewed = Reviewed(str(self._repository.folder), jobs_namespace=self._namespace)
        selection = AuditFilter(namespaces=(self._namespace,))
        where = controller_namespace or self._namespace
        entries = asyncio.run(audit(self._kubeconfig, selection, reviewed, lambda _: None, where))
        (verification,) = [
            entry.verification for entry in entries if entry.remediation.key.name == job
        ]
        assert verification is not None
        return verification


@pytest.fixture
def auditor(kubeconfig: Path, shared_namespace: str, repository: Repository) -> Auditor:
    """Return an auditor of the shared namespace."""
    return Auditor(kubeconfig, shared_namespace, repository)


def gated(replica: Replica, host: str) -> str:
    """Deliver an alert whose Job needs approval, and return the Job's name."""
    _, answer = replica.deliver(alert("Gated", host=host))
    job: str = answer["items"][0]["job"]
    replica.wait_for(lambda: phase(replica, job) == "AwaitingApproval")
    return job


def test_an_auditor_finds_what_was_started_by_hand(
    replica: Replica, attacker: Attacker, auditor: Auditor
) -> None:
    """Without approval, and without the leader."""
    job = gated(replica, "by-hand")
    assert auditor.verify(job).proof is Proof.VERIFIED
    attacker.patch(job, {"spec": {"suspend": False}})
    replica.wait_for(lambda: phase(replica, job) == "Succeeded")

    verification = auditor.verify(job)

    assert verification.proof is Proof.DIFFERS
    assert "the Job was started by somebody else than the controller" in verification.message
    assert "requires approval, but the Job started without it" in verification.message


def test_an_auditor_finds_a_forged_admission(
    replica: Replica, attacker: Attacker, auditor: Auditor
) -> None:
    """The names on it do not belong together."""
    job = gated(replica, "admitted")
    now = format_time(datetime.now(UTC))
    attacker.annotate(job, admitted_at=now, admitted_by="a", approved_by="ada", term="eve/1#1")
    attacker.patch(job, {"spec": {"suspend": False}})
    replica.wait_for(lambda: phase(replica, job) == "Succeeded")

    verification = auditor.verify(job)

    assert verification.proof is Proof.DIFFERS
    assert 'admitted-by "a" and term "eve/1#1" do not belong together' in verification.message


def test_an_auditor_finds_what_was_changed_before_a_start(
    replica: Replica,
    attacker: Attacker,
    auditor: Auditor,
    kubeconfig: Path,
    shared_namespace: str,
) -> None:
    """Pod-template annotations and labels, finalizers, owner references; then it is approved."""
    job = gated(replica, "bound")
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "openfero-catalog", "uid": "x"}
    template = {"annotations": {"sidecar.example/inject": "true"}, "labels": {"app": "victim"}}
    attacker.patch(job, {"spec": {"template": {"metadata": template}}})
    attacker.patch(job, {"metadata": {"finalizers": ["example.org/keep"]}})
    asyncio.run(act_on_job(APPROVE, job, kubeconfig, shared_namespace))
    replica.wait_for(lambda: phase(replica, job) == "Succeeded")
    attacker.patch(job, {"metadata": {"ownerReferences": [owner]}})

    verification = auditor.verify(job)
    attacker.patch(job, {"metadata": {"finalizers": None}})

    assert verification.proof is Proof.DIFFERS
    assert [format_pointer(difference.pointer) for difference in verification.differences] == [
        "/metadata/finalizers",
        "/metadata/ownerReferences",
        "/spec/template/metadata/annotations/sidecar.example~1inject",
        "/spec/template/metadata/labels/app",
    ]


def test_an_auditor_finds_a_commit_that_was_not_active(
    replica: Replica,
    attacker: Attacker,
    auditor: Auditor,
    repository: Repository,
    shared_namespace: str,
    kubectl: Kubectl,
    namespace: str,
) -> None:
    """A Job of a reviewed commit, whose operario needed no approval then, is consistent."""
    first, head = repository.git("rev-list", "--reverse", "HEAD").split()
    source = open_commit(
        str(repository.folder), first, ".", repository.folder.parent / "c", Trust()
    )

    async def built() -> Catalog:
        async with contextlib.aclosing(source):
            return build_catalog(await source.fetch(), Scope(jobs_namespace=shared_namespace))

    catalog = asyncio.run(built())
    now = datetime.now(UTC)
    manifest = render(
        build.alert(labels={"alertname": "Gated", "host": "old-commit"}),
        catalog.operarios[0],
        catalog.envelope,
        replace(catalog.revision, ref="main"),
        build.delivery(received_at=now, received_by="a"),
        jobs_namespace=shared_namespace,
    ).manifest
    manifest["metadata"]["annotations"] |= {
        keys.ADMITTED_AT: format_time(now),
        keys.ADMITTED_BY: "a",
        keys.TERM: f"a/1/{format_time(now)}#1",
    }
    manifest["spec"]["suspend"] = False
    attacker.create("Job", manifest)
    job = manifest["metadata"]["name"]
    replica.wait_for(lambda: phase(replica, job) == "Succeeded")

    recorded = kubectl.json("get", "configmap", HEAD, "-n", shared_namespace)
    history = read_history(recorded)
    assert [entry.commit for entry in history.activations] == [head]
    assert auditor.verify(job).proof is Proof.NOT_KNOWN, "the record begins a moment ago"
    hour = timedelta(hours=1)
    longer = RevisionHistory().activate(head, now - hour, timedelta(seconds=1))
    written = with_history(recorded, namespace, longer)
    kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(written))
    replica.wait_for(lambda: auditor.verify(job, namespace).proof is Proof.DIFFERS)
    assert f"commit {first[:12]} was not active" in auditor.verify(job, namespace).message
    assert auditor.verify(job, "default").proof is Proof.NOT_KNOWN, "there is no record"
