"""Verify that a Job is what its recorded commit and alert produce, and that it started properly.

The renderer produces the Job again, from the catalog of the recorded revision and from the
recorded alert, and the result is compared with the Job in the cluster. Values that the API server
fills in are known (`_DEFAULTS`). Values that Kubernetes lets Kueue, its own controllers or a user
change on a suspended Job are listed separately (`_CHANGEABLE`), since they prove nothing about
Git. Kueue adds labels and annotations of its own and of the cluster autoscaler to the Pod template.

Sources: the Job API's defaulting (k8s.io/kubernetes pkg/apis/batch/v1, pkg/apis/core/v1) and its
rules for updates of suspended Jobs (pkg/apis/batch/validation); Kueue's pkg/podset.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.audit.admission import find_broken_rules, find_violations
from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Alert, Status
from openfero_gitops.domain.quantity import parse_quantity
from openfero_gitops.domain.rule import Pointer, format_pointer
from openfero_gitops.domain.text import listed, plural, shown
from openfero_gitops.domain.timestamp import format_seconds, parse_time
from openfero_gitops.jobs.compare import FieldDifference, compare
from openfero_gitops.jobs.observe import (
    find_contradiction,
    read_remediation,
    recorded_replica_labels,
)
from openfero_gitops.jobs.render import RENDERERS, Delivery, Rendered, render

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from openfero_gitops.catalog.revisions import RevisionHistory
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.operario import Operario

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: Fields whose values are quantities, which have several spellings.
_QUANTITIES: Final = frozenset({"limits", "requests", "sizeLimit", "divisor", "storage"})
#: Defaults of the API server for absent fields, by the name of the field.
_DEFAULTS: Final[Mapping[str, tuple[Any, ...]]] = {
    "parallelism": (1,),
    "completions": (1,),
    "completionMode": ("NonIndexed",),
    "manualSelector": (False,),
    "backoffLimit": (2147483647,),  # beside backoffLimitPerIndex
    "creationTimestamp": (None,),
    "dnsPolicy": ("ClusterFirst",),
    "schedulerName": ("default-scheduler",),
    "terminationGracePeriodSeconds": (30,),
    "securityContext": ({},),
    "resources": ({},),
    "imagePullPolicy": ("Always", "IfNotPresent"),
    "terminationMessagePath": ("/dev/termination-log",),
    "terminationMessagePolicy": ("File",),
    "protocol": ("TCP",),
    "scheme": ("HTTP",),
    "path": ("/",),
    "service": ("",),
    "timeoutSeconds": (1,),
    "periodSeconds": (10,),
    "successThreshold": (1,),
    "failureThreshold": (3,),
    "apiVersion": ("v1",),
    "divisor": ("0",),
    "defaultMode": (420,),
    "expirationSeconds": (3600,),
    "type": ("",),
    "volumeMode": ("Filesystem",),
    "status": ("True",),  # of a condition that a podFailurePolicy names
    "whenUnsatisfiable": ("DoNotSchedule",),
    "nodeAffinityPolicy": ("Honor",),
    "nodeTaintsPolicy": ("Ignore",),
}
#: Fields that Kubernetes lets users and controllers change after a Job was created.
_CHANGEABLE: Final = re.compile(
    r"/metadata/(labels|annotations)/.*"
    r"|/spec/(suspend|parallelism|completions|activeDeadlineSeconds|ttlSecondsAfterFinished)"
    r"|/spec/template/metadata/(labels|annotations)"
    r"/(kueue\.x-k8s\.io|autoscaling\.x-k8s\.io|cluster-autoscaler\.kubernetes\.io)~1.*"
    r"|/spec/template/spec/(nodeSelector|affinity|tolerations|schedulingGates)(/.*)?"
    r"|/spec/template/spec/(initContainers|containers)/[0-9]+/resources(/.*)?"
)
#: Annotations that the controller writes or updates after a Job was created.
_UPDATED_LATER: Final = frozenset(
    {
        keys.LAST_DELIVERED_AT,
        keys.RESOLVED_AT,
        keys.STILL_FIRING_AT,
        keys.EFFECT,
        keys.EFFECT_AT,
        keys.EFFECT_MESSAGE,
        keys.TERM,
        keys.ADMITTED_AT,
        keys.ADMITTED_BY,
        keys.APPROVED_BY,
        keys.APPROVAL_REASON,
        keys.DECISION,
        keys.REASON,
        keys.MESSAGE,
        keys.POD_WAITING,
        keys.START_COUNT,
        keys.STARTED_AT,
    }
)
#: The labels by which Kubernetes finds the Pods of a Job.
_GENERATED_LABELS: Final = frozenset(
    {
        "batch.kubernetes.io/controller-uid",
        "batch.kubernetes.io/job-name",
        "controller-uid",
        "job-name",
    }
)
#: Set by Kubernetes while a Job is being deleted.
_DELETION_FINALIZERS: Final = frozenset({"foregroundDeletion", "orphan"})
_METADATA: Final = ("name", "namespace", "labels", "annotations")
_OWN_METADATA: Final = tuple(
    format_pointer(("metadata", part, keys.PREFIX)) for part in ("labels", "annotations")
)


#: Before the reason why a Job is foreign.
NOT_CREATED: Final = "the controller did not create this Job"


class Proof(StrEnum):
    """The result of verifying a Job."""

    VERIFIED = "verified"  # the Job is what Git and its alert produce
    NOT_KNOWN = "not-known"  # it is, but it is not known whether its commit was active
    DIFFERS = "differs"  # it is not, or it started in another way than the controller starts Jobs
    UNPROVABLE = "unprovable"  # data is missing, in Git or on the Job


@dataclass(frozen=True, slots=True)
class ActiveRevisions:
    """The controller's record of active revisions, and when it was read."""

    history: RevisionHistory
    read_at: datetime


@dataclass(frozen=True, slots=True)
class Verification:
    """The proof for a Job; `changed` are the differences that any user may have made."""

    proof: Proof
    message: str = ""
    differences: tuple[FieldDifference, ...] = ()
    changed: tuple[FieldDifference, ...] = ()


def recorded_revision(job: Mapping[str, Any]) -> str:
    """The commit whose catalog a Job was rendered from, as recorded; empty if it is not."""
    annotations = job["metadata"].get("annotations") or {}
    return str(annotations.get(keys.REVISION) or annotations.get(keys.COMMIT) or "")


def verify(
    job: Mapping[str, Any],
    catalog: Catalog,
    *,
    jobs_namespace: str,
    signed: bool = False,
    record: ActiveRevisions | None = None,
) -> Verification:
    """Render a Job again and compare; check how it started, and that its commit was active.

    Args:
        job: the Job in the cluster; it is not changed.
        catalog: the catalog of `recorded_revision(job)`.
        jobs_namespace: namespace for Jobs whose operario names none.
        signed: whether the signatures of the catalog were verified; otherwise the signer that the
            Job names is not checked.
        record: when which commit was active; None if that is not to be checked.
    """
    remediation = read_remediation(job)
    objections = find_objections(job)
    name = remediation.operario
    operario = next((operario for operario in catalog.operarios if operario.name == name), None)
    if operario is not None:
        objections += find_broken_rules(remediation, operario, catalog.envelope)
    commit, received_at = recorded_revision(job), remediation.received_at
    was_active = record.history.was_active(commit, received_at, record.read_at) if record else True
    if record is not None and was_active is False:
        objections.append(_not_active(commit, received_at, record.history))
    compared = _compare(job, operario, catalog, jobs_namespace=jobs_namespace, signed=signed)
    if objections:
        return with_objections(compared, objections)
    if compared.proof is Proof.VERIFIED and was_active is None:
        message = (
            f"it is not known whether commit {commit[:12]} was active when the alert was received, "
            f"at {format_seconds(received_at)}"
        )
        return replace(compared, proof=Proof.NOT_KNOWN, message=message)
    return compared


def with_objections(verification: Verification, objections: Sequence[str]) -> Verification:
    """Add what is wrong, whatever was compared; without objections nothing changes."""
    if not objections:
        return verification
    messages = [*objections, verification.message] if verification.message else objections
    return replace(verification, proof=Proof.DIFFERS, message="; ".join(messages))


def find_objections(job: Mapping[str, Any]) -> list[str]:
    """What is wrong with a Job whatever Git has: who created it, and how it started."""
    remediation = read_remediation(job)
    started_at = parse_time((job.get("status") or {}).get("startTime"))
    objections = list(find_violations(remediation, started_at))
    if why := find_contradiction(job):
        objections.insert(0, f"{NOT_CREATED}: {why}")
    return objections


def _not_active(commit: str, at: datetime, history: RevisionHistory) -> str:
    instead = history.at(at)
    return (
        f"commit {commit[:12] or shown(commit)} was not active when the alert was received, at "
        f"{format_seconds(at)}" + (f"; the leader had {instead[:12]}" if instead else "")
    )


def _compare(
    job: Mapping[str, Any],
    operario: Operario | None,
    catalog: Catalog,
    *,
    jobs_namespace: str,
    signed: bool,
) -> Verification:
    """Render a Job again and compare."""
    annotations: Mapping[str, str] = job["metadata"].get("annotations") or {}
    renderer = annotations.get(keys.RENDERER, "")
    if renderer not in map(str, RENDERERS):
        return Verification(
            Proof.UNPROVABLE,
            f"the Job was created by renderer version {shown(renderer)}, and this release has "
            f"versions {listed(map(str, RENDERERS))}: use the release of openfero-gitops that "
            "created the Job",
        )
    if operario is None:
        commit, name = catalog.revision.commit[:12], annotations.get(keys.OPERARIUS, "")
        return Verification(Proof.DIFFERS, f"commit {commit} has no operario {shown(name)}")
    if not signed:
        signer = annotations.get(keys.VERIFIED_SIGNER, "")
        operario = replace(operario, origin=replace(operario.origin, verified_signer=signer))
    if '"truncated":true' in annotations.get(keys.ALERT, ""):
        return Verification(
            Proof.UNPROVABLE, "the alert was too large to be recorded; the Job never starts"
        )
    try:
        rendered = _render_again(job, annotations, operario, catalog, jobs_namespace)
    except (KeyError, TypeError, ValueError) as error:
        return Verification(
            Proof.UNPROVABLE,
            f"the annotations {keys.ALERT} and {keys.DELIVERY} cannot be read: {error}",
        )
    differences: list[FieldDifference] = []
    changed: list[FieldDifference] = []
    for difference in compare(_expected(rendered), _actual(job), is_equal=_is_equal):
        (changed if _anybody_may_change(difference) else differences).append(difference)
    if differences:
        verb = "differs" if len(differences) == 1 else "differ"
        return Verification(
            Proof.DIFFERS,
            f"{plural(len(differences), 'field')} {verb}"
            f" from {operario.origin.path} at commit {operario.origin.commit[:12]}",
            tuple(differences),
            tuple(changed),
        )
    return Verification(Proof.VERIFIED, changed=tuple(changed))


def _anybody_may_change(difference: FieldDifference) -> bool:
    """Whether Kubernetes allows the change; labels and annotations of our own are excluded."""
    pointer = format_pointer(difference.pointer)
    return _CHANGEABLE.fullmatch(pointer) is not None and not pointer.startswith(_OWN_METADATA)


def _render_again(
    job: Mapping[str, Any],
    annotations: Mapping[str, str],
    operario: Operario,
    catalog: Catalog,
    jobs_namespace: str,
) -> Rendered:
    record = json.loads(annotations[keys.ALERT])
    delivered = json.loads(annotations[keys.DELIVERY])
    alert = Alert(
        status=Status(record["status"]),
        labels=record["labels"],
        annotations=record["annotations"],
        starts_at=parse_time(record["startsAt"]),
        ends_at=parse_time(record["endsAt"]),
        generator_url=record["generatorURL"],
        fingerprint=record["fingerprint"],
    )
    delivery = Delivery(
        id=delivered["id"],
        group_key=delivered["groupKey"],
        group_status=Status(delivered["groupStatus"]),
        received_at=parse_time(annotations[keys.RECEIVED_AT]) or _EPOCH,
        received_by=annotations[keys.RECEIVED_BY],
        traceparent=annotations.get(keys.TRACEPARENT, ""),
    )
    return render(
        alert,
        operario,
        catalog.envelope,
        catalog.revision,
        delivery,
        jobs_namespace=jobs_namespace,
        attempt=read_remediation(job).attempt,
        renderer=int(annotations[keys.RENDERER]),
        replica_labels=frozenset(recorded_replica_labels(annotations)),
    )


def _expected(rendered: Rendered) -> dict[str, Any]:
    """The part of a rendered Job that is compared."""
    metadata = {key: rendered.manifest["metadata"][key] for key in _METADATA}
    metadata["annotations"] = _without(metadata["annotations"], _UPDATED_LATER)
    metadata |= {"finalizers": [], "ownerReferences": []}
    spec = _without(rendered.manifest["spec"], {"suspend"})
    template = {**spec["template"], "spec": _with_one_account(spec["template"]["spec"])}
    template["metadata"] = _template_metadata(template)
    return {"metadata": metadata, "spec": {**spec, "template": template}}


def _actual(job: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a Job in the cluster that is compared, without what Kubernetes generates."""
    metadata = {key: job["metadata"].get(key) for key in _METADATA}
    metadata["labels"] = metadata["labels"] or {}
    metadata["annotations"] = _without(metadata["annotations"] or {}, _UPDATED_LATER)
    finalizers = job["metadata"].get("finalizers") or []
    if "deletionTimestamp" in job["metadata"]:
        finalizers = [name for name in finalizers if name not in _DELETION_FINALIZERS]
    metadata["finalizers"] = finalizers
    metadata["ownerReferences"] = job["metadata"].get("ownerReferences") or []
    spec = _without(job["spec"], {"suspend", "selector"})  # the selector contains the Job's uid
    template = dict(spec.get("template") or {})
    template["metadata"] = _template_metadata(template)
    template["spec"] = _with_one_account(template.get("spec") or {})
    return {"metadata": metadata, "spec": {**spec, "template": template}}


def _template_metadata(template: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a Pod template, without the labels that Kubernetes adds."""
    metadata = template.get("metadata") or {}
    present = {key: value for key, value in metadata.items() if value is not None}
    labels = _without(metadata.get("labels") or {}, _GENERATED_LABELS)
    return {**present, "labels": labels, "annotations": metadata.get("annotations") or {}}


def _with_one_account(pod: Mapping[str, Any]) -> dict[str, Any]:
    """A Pod's spec without `serviceAccount`, which the API server keeps equal to the name."""
    pod = dict(pod)
    account = pod.get("serviceAccount")
    if account and pod.get("serviceAccountName") in (None, account):
        pod["serviceAccountName"] = pod.pop("serviceAccount")
    return pod


def _without(members: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if name not in names}


def _is_equal(pointer: Pointer, wanted: Any, actual: Any) -> bool:
    """Whether two values mean the same to the API server."""
    if pointer[0] == "metadata":
        return bool(wanted == actual)
    if (wanted == actual and type(wanted) is type(actual)) or (
        _is_empty(wanted) and _is_empty(actual)
    ):
        return True
    if wanted is None:
        return actual in _DEFAULTS.get(str(pointer[-1]), ())
    if not _QUANTITIES.intersection(str(part) for part in pointer[-2:]):
        return False
    try:
        return parse_quantity(wanted) == parse_quantity(actual)
    except ValueError:
        return False


def _is_empty(value: Any) -> bool:
    """Whether the API server may drop or add a value without a change of meaning."""
    if isinstance(value, dict):
        return all(map(_is_empty, value.values()))
    return value is None or value in ([], "")
