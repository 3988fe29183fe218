"""Verification of Jobs."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.audit.verify import Proof, Verification, recorded_revision, verify
from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.catalog import Envelope, JobDefaults
from openfero_gitops.domain.remediation import JobKey
from openfero_gitops.domain.rule import format_pointer
from openfero_gitops.jobs.observe import read_remediation
from tests.support import build
from tests.support.build import (
    JOBS_NAMESPACE,
    REVISION,
    alert,
    catalog,
    delivery,
    job_spec,
    operario,
    rendered,
    stored,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.jobs.compare import FieldDifference


def verified(
    job: dict[str, Any], *operarios: Operario, envelope: Envelope | None = None
) -> Verification:
    """Verify a Job, with these operarios in its commit."""
    active = catalog(*(operarios or (operario(),)), envelope=envelope)
    return verify(job, active, jobs_namespace=JOBS_NAMESPACE)


def changed(pointer: str, value: Any) -> dict[str, Any]:
    """A stored Job with one field changed; None removes it."""
    job = copy.deepcopy(stored())
    *path, last = pointer.strip("/").split("/")
    place: Any = job
    for part in path:
        place = place[int(part)] if part.isdecimal() else place[part.replace("~1", "/")]
    last = last.replace("~1", "/")
    if value is None:
        del place[last]
    else:
        place[last] = value
    return job


def pointers(differences: Iterable[FieldDifference]) -> list[str]:
    """Where the differences are, as JSON Pointers."""
    return [format_pointer(difference.pointer) for difference in differences]


def test_a_job_as_it_was_createdis_verified() -> None:
    """A Job that was not changed is verified."""
    assert verified(stored()) == Verification(Proof.VERIFIED)


def test_every_input_that_shapes_a_job_is_recorded() -> None:
    """Attempts, long group keys, a missing startsAt and defaults of the envelope are verified."""
    envelope = Envelope(defaults=JobDefaults(backoff_limit=3))
    source = operario(spec=job_spec(args=["{{ .HookMessage.Status }}"]))
    delivered = delivery(group_key="k" * 30_000, group_status=Status.RESOLVED)
    for received in (alert(), alert(starts_at=None), alert(annotations={"long": "x" * 100_000})):
        created = rendered(received, source, envelope=envelope, delivered=delivered, attempt=4)
        assert created.refusal is None
        assert verified(stored(created.manifest), source, envelope=envelope).proof is Proof.VERIFIED
        assert verified(stored(created.manifest), source).proof is Proof.DIFFERS  # other defaults


def test_a_job_that_is_traced_is_verified() -> None:
    """What it carries of its trace is recorded, and depends on nothing else."""
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    created = rendered(delivered=delivery(traceparent=traceparent))
    assert created.manifest["metadata"]["annotations"][keys.TRACEPARENT] == traceparent
    assert verified(stored(created.manifest)) == Verification(Proof.VERIFIED)
    without = stored(created.manifest, annotations={keys.TRACEPARENT: None})
    del created.manifest["metadata"]["annotations"][keys.TRACEPARENT]
    assert created.manifest == rendered().manifest
    assert verified(without) == Verification(Proof.VERIFIED)


@pytest.mark.parametrize(
    "annotation", [keys.POD_WAITING, keys.MESSAGE, keys.TERM, keys.LAST_DELIVERED_AT]
)
def test_what_the_leader_writes_later_is_allowed(annotation: str) -> None:
    """A Job on which the leader recorded something is verified."""
    assert verified(stored(annotations={annotation: "Unschedulable: none"})).proof is Proof.VERIFIED


def test_a_refused_job_is_verified_too() -> None:
    """A Job that was refused when it was rendered is verified."""
    source = operario(spec=job_spec(args=["{{ .Labels.nowhere }}"]))
    created = rendered(by=source)
    assert created.refusal is not None
    assert verified(stored(created.manifest), source).proof is Proof.VERIFIED


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/spec/template/spec/containers/0/image", "registry.example/evil:1"),
        ("/spec/template/spec/containers/0/command", ["sh", "-c", "evil"]),
        ("/spec/template/spec/hostNetwork", True),
        ("/spec/template/spec/serviceAccountName", "cluster-admin"),
        ("/spec/template/spec/containers/0/securityContext", {"privileged": True}),
        ("/spec/template/spec/volumes", [{"name": "root", "hostPath": {"path": "/"}}]),
        ("/spec/backoffLimit", 7),
        ("/metadata/labels/openfero.io~1operarius", "other"),
        ("/metadata/labels/openfero.io~1incident", None),
        ("/metadata/annotations/openfero.io~1path", "elsewhere.yaml"),
        ("/metadata/annotations/openfero.io~1blob", "0" * 40),
        ("/metadata/annotations/openfero.io~1options", "{}"),
        ("/metadata/namespace", "kube-system"),
    ],
)
def test_a_forged_field_is_found(pointer: str, value: object) -> None:
    """A field that differs from the commit is named with both values."""
    verification = verified(changed(pointer, value))
    assert verification.proof is Proof.DIFFERS
    assert pointer in pointers(verification.differences)
    (actual,) = [
        difference.after
        for difference in verification.differences
        if format_pointer(difference.pointer) == pointer
    ]
    assert actual == value


def test_an_alert_that_was_rewritten_is_found() -> None:
    """Changing the recorded alert makes the Job's name and labels differ."""
    job = stored()
    record = job["metadata"]["annotations"][keys.ALERT].replace("web-1", "db-1")
    verification = verified(stored(annotations={keys.ALERT: record}))
    assert verification.proof is Proof.DIFFERS
    assert {"/metadata/name", "/metadata/labels/openfero.io~1occurrence"} <= set(
        pointers(verification.differences)
    )


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/spec/template/spec/nodeSelector", {"disk": "ssd"}),
        ("/spec/template/spec/tolerations", [{"operator": "Exists"}]),
        ("/spec/template/spec/containers/0/resources", {"limits": {"cpu": "2"}}),
        ("/spec/activeDeadlineSeconds", 0),
        ("/spec/ttlSecondsAfterFinished", 999_999),
        ("/spec/parallelism", 2),
        ("/metadata/labels/kueue.x-k8s.io~1queue-name", "batch"),
    ],
)
def test_what_anybody_may_change_is_listed_as_such(pointer: str, value: object) -> None:
    """Changes that Kueue and the controller make are listed separately."""
    verification = verified(changed(pointer, value))
    assert verification.proof is Proof.VERIFIED
    assert pointers(verification.changed) == [pointer]


@pytest.mark.parametrize(
    "annotation",
    [
        keys.DECISION,
        keys.APPROVED_BY,
        keys.APPROVAL_REASON,
        keys.RESOLVED_AT,
        keys.STILL_FIRING_AT,
        keys.EFFECT,
        keys.EFFECT_AT,
        keys.EFFECT_MESSAGE,
    ],
)
def test_what_is_written_later_is_no_difference(annotation: str) -> None:
    """Annotations that are written after a Job was created are no difference."""
    assert verified(stored(annotations={annotation: "x"})) == Verification(Proof.VERIFIED)


@pytest.mark.parametrize("text", ["{", "[]", None])
def test_a_job_without_its_alert_differs(text: str | None) -> None:
    """Nobody can hide what a Job was made of by damaging the record."""
    verification = verified(stored(annotations={keys.ALERT: text}))
    assert verification.proof is Proof.DIFFERS
    assert "the controller did not create this Job: its recorded alert is" in verification.message


def test_a_signer_is_proven_where_signatures_are_verified() -> None:
    """Only with keys, another signer is a difference."""
    source = operario(origin=replace(operario().origin, verified_signer="ada@git.example"))
    job = stored(rendered(by=source).manifest)
    assert verified(job) == Verification(Proof.VERIFIED)
    verification = verify(job, catalog(operario()), jobs_namespace=JOBS_NAMESPACE, signed=True)
    assert pointers(verification.differences) == [
        "/metadata/annotations/openfero.io~1verified-signer"
    ]
    assert verify(job, catalog(source), jobs_namespace=JOBS_NAMESPACE, signed=True) == Verification(
        Proof.VERIFIED
    )


def test_quantities_are_compared_by_value() -> None:
    """Quantities are compared by value: the API server writes `0.5` as `500m`."""
    limits = {"limits": {"cpu": "0.5", "memory": "1024Mi"}}
    source = operario(spec=job_spec(resources=limits))
    job = copy.deepcopy(stored(rendered(by=source).manifest))
    container = job["spec"]["template"]["spec"]["containers"][0]
    container["resources"] = {"limits": {"cpu": "500m", "memory": "1Gi"}}
    assert verified(job, source) == Verification(Proof.VERIFIED)
    container["resources"] = {"limits": {"cpu": "501m", "memory": "1Gi"}}
    assert [difference.after for difference in verified(job, source).changed] == ["501m"]


def test_an_operario_that_the_commit_does_not_have_is_found() -> None:
    """A Job whose operario is not in its commit differs."""
    verification = verified(stored(), operario("another"))
    assert verification.proof is Proof.DIFFERS
    assert 'has no operario "restart-pod"' in verification.message


@pytest.mark.parametrize(
    ("annotations", "text"),
    [
        ({keys.RENDERER: "7"}, 'renderer version "7"'),
        ({keys.RENDERER: None}, 'renderer version ""'),
        ({keys.DELIVERY: None}, "cannot be read"),
        ({keys.DELIVERY: '{"id":"","groupKey":"","groupStatus":"x"}'}, "cannot be read"),
    ],
)
def test_a_job_that_cannot_be_verified(annotations: dict[str, str | None], text: str) -> None:
    """A Job of another renderer version, or with damaged annotations, cannot be verified."""
    verification = verified(stored(annotations=annotations))
    assert verification.proof is Proof.UNPROVABLE
    assert text in verification.message


@pytest.mark.parametrize("size", [100, 20 * 1024, 60 * 1024])
def test_a_job_of_an_earlier_release_is_verified(size: int) -> None:
    """Renderer version 1 recorded more of a large alert and of its group key."""
    labels = {"alertname": "PodCrashLooping", "pod": "x" * size}
    wordy = alert(labels=labels, annotations={"a": "y" * size})
    created = rendered(wordy, delivered=delivery(group_key="k" * size), renderer=1)
    job = stored(created.manifest)
    assert created.refusal is None
    assert job["metadata"]["annotations"][keys.RENDERER] == "1"
    assert verified(job) == Verification(Proof.VERIFIED)
    job["spec"]["template"]["spec"]["containers"][0]["image"] = "evil"
    assert verified(job).proof is Proof.DIFFERS


def test_an_alert_too_large_to_be_recorded_is_unprovable() -> None:
    """A Job whose alert was too large to be recorded cannot be verified."""
    created = rendered(alert(labels={"alertname": "PodCrashLooping", "pod": "x" * 70_000}))
    verification = verified(stored(created.manifest))
    assert verification.proof is Proof.UNPROVABLE
    assert "too large" in verification.message


def test_the_revision_is_the_catalogs_commit() -> None:
    """The Job of a stale operario records the commits of its file and of the catalog."""
    stale = operario(origin=replace(operario().origin, commit="3" * 40, stale=True))
    job = stored(rendered(by=stale).manifest)
    assert recorded_revision(job) == REVISION.commit
    assert read_remediation(job).commit == "3" * 40


def test_the_jobs_own_key_is_compared() -> None:
    """A copy of a Job under another name or in another namespace is found."""
    job = stored(metadata={"name": "copy"})
    assert read_remediation(job).key == JobKey(JOBS_NAMESPACE, "copy")
    assert pointers(verified(job).differences) == ["/metadata/name"]


@pytest.mark.parametrize(
    "given",
    [
        None,
        {},
        {"labels": {"team": "shop"}},
        {"annotations": {"note": "n"}},
        {"labels": {"team": "shop"}, "annotations": {"note": "n"}},
    ],
)
@pytest.mark.parametrize("evicted", [False, True])
def test_what_kueue_adds_to_a_pod_template_is_no_difference(
    given: dict[str, Any] | None, *, evicted: bool
) -> None:
    """Whatever metadata the operario gives it; after an eviction, Kueue removes it again."""
    spec = build.job_spec()
    if given is not None:
        spec["template"]["metadata"] = given
    by = build.operario(spec=spec, labels={keys.KUEUE_QUEUE: "night"})
    manifest = copy.deepcopy(build.rendered(by=by).manifest)
    added = {
        "labels": {"kueue.x-k8s.io/podset": "main", "kueue.x-k8s.io/local-queue-name": "night"},
        "annotations": {"kueue.x-k8s.io/workload": "job-heal-1234"},
    }
    template = manifest["spec"]["template"]
    metadata = template.setdefault("metadata", {})
    for kind, members in added.items():
        metadata[kind] = {**(metadata.get(kind) or {}), **({} if evicted else members)}
    template["spec"]["nodeSelector"] = {"type": "kwok"}
    template["spec"]["tolerations"] = [{"key": "spot", "operator": "Exists"}]
    marks = {
        keys.TERM: "a/1#1",
        keys.ADMITTED_BY: "a",
        keys.ADMITTED_AT: "2026-11-21T03:05:05Z",
        keys.START_COUNT: "2",
        keys.STARTED_AT: "2026-11-21T03:06:05Z",
    }
    job = build.stored(manifest, annotations=marks, labels={keys.KUEUE_QUEUE: "night"})
    verification = verify(job, build.catalog(by), jobs_namespace=build.JOBS_NAMESPACE)
    assert (verification.proof, verification.message) == (Proof.VERIFIED, "")
