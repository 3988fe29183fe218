"""Whether a Job is what its recorded commit and alert give: an audit's question.

A Job is derived again by the renderer, from the catalog of the revision that it names and from
the alert that it carries, and compared with what the API server shows. What the API server adds by
itself is known (`_DEFAULTS`); what Kubernetes lets Kueue, its own controllers or a person change
on a suspended Job is listed as such (`_CHANGEABLE`), since it proves nothing about Git.

Sources: the Job API's defaulting (k8s.io/kubernetes pkg/apis/batch/v1, pkg/apis/core/v1) and its
rules for updates of suspended Jobs (pkg/apis/batch/validation).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Alert, Status
from openfero_gitops.domain.quantity import parse_quantity
from openfero_gitops.domain.rule import Pointer, format_pointer
from openfero_gitops.domain.text import shown
from openfero_gitops.domain.timestamp import parse_time
from openfero_gitops.jobs.observe import observe
from openfero_gitops.jobs.render import RENDERER, Delivery, Rendered, render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.operario import Operario

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: Where two spellings of a quantity are one value.
_QUANTITIES: Final = frozenset({"limits", "requests", "sizeLimit", "divisor", "storage"})
#: What the API server gives to a field that an author left out, wherever it stands.
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
#: What Kubernetes lets others change after a Job was created, while it is suspended or runs.
_CHANGEABLE: Final = re.compile(
    r"/metadata/(labels|annotations)/.*"
    r"|/spec/(suspend|parallelism|completions|activeDeadlineSeconds|ttlSecondsAfterFinished)"
    r"|/spec/template/metadata/(labels|annotations)(/.*)?"
    r"|/spec/template/spec/(nodeSelector|affinity|tolerations|schedulingGates)(/.*)?"
    r"|/spec/template/spec/(initContainers|containers)/[0-9]+/resources(/.*)?"
)
#: Written, or written again, after a Job was created: the audit's content, not its question.
_LIVING: Final = frozenset(
    {
        keys.LAST_DELIVERED_AT,
        keys.RESOLVED_AT,
        keys.TERM,
        keys.ADMITTED_AT,
        keys.ADMITTED_BY,
        keys.APPROVED_BY,
        keys.DECISION,
        keys.REASON,
        keys.MESSAGE,
    }
)
_GENERATED_LABELS: Final = frozenset(
    {
        "batch.kubernetes.io/controller-uid",
        "batch.kubernetes.io/job-name",
        "controller-uid",
        "job-name",
    }
)


class Proof(StrEnum):
    """What an audit can say of a Job."""

    VERIFIED = "verified"  # it is what Git and its alert give
    DIFFERS = "differs"  # it is not
    UNPROVABLE = "unprovable"  # Git, or the Job, lacks what it takes to tell


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """A field that is not as rendered; `wanted` and `found` are JSON, empty where absent."""

    pointer: str
    wanted: str
    found: str

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.pointer}: {self.found or 'nothing'} instead of {self.wanted or 'nothing'}"


@dataclass(frozen=True, slots=True)
class Verification:
    """A Job's proof; `changed` are differences that others may make to any Job."""

    proof: Proof
    message: str = ""
    differences: tuple[FieldDifference, ...] = ()
    changed: tuple[FieldDifference, ...] = field(default=())


def recorded_revision(job: Mapping[str, Any]) -> str:
    """The commit of the catalog that a Job was rendered from; empty where it names none."""
    annotations = job["metadata"].get("annotations") or {}
    return str(annotations.get(keys.REVISION) or annotations.get(keys.COMMIT) or "")


def verify(
    job: Mapping[str, Any], catalog: Catalog, *, jobs_namespace: str, signed: bool = False
) -> Verification:
    """Derive a Job again and compare.

    Args:
        job: as the API server shows it; not changed.
        catalog: that of `recorded_revision(job)`.
        jobs_namespace: where Jobs go that name no namespace.
        signed: whether the catalog's signers were verified; else what the Job says of its
            signer is taken as it is.
    """
    annotations: Mapping[str, str] = job["metadata"].get("annotations") or {}
    renderer = annotations.get(keys.RENDERER, "")
    if renderer != str(RENDERER):
        return Verification(
            Proof.UNPROVABLE,
            f"it was rendered by renderer {shown(renderer)}, this one is {RENDERER}: use the "
            "version of openfero-gitops that made it",
        )
    name = annotations.get(keys.OPERARIUS, "")
    operario = next((one for one in catalog.operarios if one.name == name), None)
    if operario is None:
        return Verification(
            Proof.DIFFERS, f"commit {catalog.revision.commit[:12]} has no operario {shown(name)}"
        )
    if not signed:
        claimed = annotations.get(keys.VERIFIED_SIGNER, "")
        origin = replace(operario.origin, verified_signer=claimed)
        operario = replace(operario, origin=origin)
    if '"truncated":true' in annotations.get(keys.ALERT, ""):
        return Verification(
            Proof.UNPROVABLE, "its alert was too large to be recorded: it never starts"
        )
    try:
        rendered = _derive(job, annotations, operario, catalog, jobs_namespace)
    except (KeyError, TypeError, ValueError) as error:
        return Verification(
            Proof.UNPROVABLE,
            f"its annotations {keys.ALERT} and {keys.DELIVERY} cannot be read: {error}",
        )
    found = list(_differences(job, rendered))
    changed = tuple(one for one in found if _CHANGEABLE.fullmatch(one.pointer) and not _ours(one))
    differences = tuple(one for one in found if one not in changed)
    if differences:
        count = f"{len(differences)} field" + ("s differ" if len(differences) > 1 else " differs")
        return Verification(
            Proof.DIFFERS,
            f"{count} from commit {operario.origin.commit[:12]}:{operario.origin.path}",
            differences,
            changed,
        )
    return Verification(Proof.VERIFIED, changed=changed)


def _ours(one: FieldDifference) -> bool:
    """Whether a label or annotation of a Job means something to us: nobody else changes it."""
    return one.pointer.startswith(
        tuple(f"/metadata/{kind}/openfero.io~1" for kind in ("labels", "annotations"))
    )


def _derive(
    job: Mapping[str, Any],
    annotations: Mapping[str, str],
    operario: Operario,
    catalog: Catalog,
    jobs_namespace: str,
) -> Rendered:
    record = json.loads(annotations[keys.ALERT])
    told = json.loads(annotations[keys.DELIVERY])
    alert = Alert(
        status=Status(record["status"]),
        labels=record["labels"],
        annotations=record["annotations"],
        starts_at=parse_time(record["startsAt"]),
        ends_at=parse_time(record["endsAt"]),
        generator_url=record["generatorURL"],
        fingerprint=record["fingerprint"],
    )
    one = observe(job)
    delivery = Delivery(
        id=told["id"],
        group_key=told["groupKey"],
        group_status=Status(told["groupStatus"]),
        received_at=parse_time(annotations[keys.RECEIVED_AT]) or _EPOCH,
        received_by=annotations[keys.RECEIVED_BY],
    )
    return render(
        alert,
        operario,
        catalog.envelope,
        catalog.revision,
        delivery,
        jobs_namespace=jobs_namespace,
        attempt=one.attempt,
    )


def _differences(job: Mapping[str, Any], rendered: Rendered) -> Iterator[FieldDifference]:
    wanted = rendered.manifest
    for part in ("name", "namespace"):
        found = job["metadata"].get(part)
        if found != wanted["metadata"][part]:
            yield _difference(("metadata", part), wanted["metadata"][part], found)
    yield from _texts(job, wanted, "labels", lambda _: False)
    yield from _texts(job, wanted, "annotations", _LIVING.__contains__)
    spec = {name: value for name, value in wanted["spec"].items() if name != "suspend"}
    found = {name: value for name, value in job["spec"].items() if name != "suspend"}
    found.pop("selector", None)  # of the Job's own uid
    yield from _compare(spec, _without_generated(found), ("spec",))


def _texts(
    job: Mapping[str, Any], wanted: Mapping[str, Any], kind: str, living: Callable[[str], bool]
) -> Iterator[FieldDifference]:
    """Labels or annotations; what was added besides ours is everybody's."""
    there = job["metadata"].get(kind) or {}
    rendered = wanted["metadata"][kind]
    for name in sorted({*rendered, *there}):
        if not living(name) and there.get(name) != rendered.get(name):
            yield _difference(("metadata", kind, name), rendered.get(name), there.get(name))


def _without_generated(spec: dict[str, Any]) -> dict[str, Any]:
    """The spec without the labels by which Kubernetes finds a Job's Pods."""
    template = dict(spec.get("template") or {})
    metadata = dict(template.get("metadata") or {})
    labels = {
        name: value
        for name, value in (metadata.pop("labels", None) or {}).items()
        if name not in _GENERATED_LABELS
    }
    if labels:
        metadata["labels"] = labels
    metadata = {name: value for name, value in metadata.items() if value is not None}
    if metadata:
        template["metadata"] = metadata
    else:
        template.pop("metadata", None)
    return {**spec, "template": template}


def _compare(wanted: Any, found: Any, pointer: Pointer) -> Iterator[FieldDifference]:
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name in sorted({*wanted, *found}):
            if name in wanted:
                yield from _compare(wanted[name], found.get(name), (*pointer, name))
            elif not _is_default(name, found[name], wanted):
                yield _difference((*pointer, name), None, found[name])
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for index, (one, other) in enumerate(zip(wanted, found, strict=True)):
            yield from _compare(one, other, (*pointer, index))
    elif not _same(wanted, found, pointer):
        yield _difference(pointer, wanted, found)


def _is_default(name: str, value: Any, beside: Mapping[str, Any]) -> bool:
    """Whether the API server gives a field this value where an author gave none."""
    if name == "serviceAccount":
        return bool(value == beside.get("serviceAccountName"))
    return value in _DEFAULTS.get(name, ()) or _empty(value)


def _empty(value: Any) -> bool:
    """What the API server leaves away, or adds, without a change of meaning."""
    if isinstance(value, dict):
        return all(map(_empty, value.values()))
    return value is None or value in ([], "")


def _same(wanted: Any, found: Any, pointer: Pointer) -> bool:
    """Whether two values mean the same to the API server."""
    if (wanted == found and type(wanted) is type(found)) or (_empty(wanted) and _empty(found)):
        return True
    if not _QUANTITIES.intersection(str(part) for part in pointer[-2:]):
        return False
    try:
        return parse_quantity(wanted) == parse_quantity(found)
    except ValueError:
        return False


def _difference(pointer: Pointer, wanted: Any, found: Any) -> FieldDifference:
    return FieldDifference(format_pointer(pointer), _json(wanted), _json(found))


def _json(value: Any) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)
