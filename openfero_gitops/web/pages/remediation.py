"""The page of one remediation: what happened, from which commit, whether it helped, and proof.

It can be sent to somebody at night, and printed as evidence.
"""

from __future__ import annotations

import asyncio
import json
import shlex
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from openfero_gitops.audit.verify import Proof
from openfero_gitops.catalog.yaml.dump import to_yaml
from openfero_gitops.domain import keys
from openfero_gitops.domain.remediation import JobKey, Phase
from openfero_gitops.domain.rule import format_pointer
from openfero_gitops.inspection.trace import Step, Trace
from openfero_gitops.web.evidence import Evidence, EvidenceReader, nothing_read, trace_of
from openfero_gitops.web.highlight import HighlightedText, highlight
from openfero_gitops.web.pages.remediation_rows import row_of
from openfero_gitops.web.pages.shell_commands import verify_command
from openfero_gitops.web.pages.site import PageRoute

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from openfero_gitops.audit.verify import Verification
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.jobs.compare import FieldDifference
    from openfero_gitops.web.pages.site import Site, Visit
    from openfero_gitops.web.ports import ReplicaState
    from openfero_gitops.web.repository_links import RepositoryLinks

    Object = Mapping[str, Any]

_MAX_RELATED: Final = 8
#: Moments that are shown; a Job with many Pods has more.
_MAX_MOMENTS: Final = 120
_MAX_PODS: Final = 10
_MAX_DIFFERENCES: Final = 40
#: A Job can have 1.5 MiB; a larger one is not shown.
_MAX_JOB_CHARACTERS: Final = 256 * 1024
#: Longer values are shortened in the Job: the alert as JSON, which the page shows itself.
_MAX_VALUE_CHARACTERS: Final = 280
_SECOND: Final = timedelta(seconds=1)
#: How the text of the Event of an approval starts.
_APPROVED_EVENT: Final = "Approved: "
_UNREAD: Final = nothing_read("the API server was not read")
_TONES: Final = {
    Step.FIRING: "bad",
    Step.RECEIVED: "idle",
    Step.DECIDED: "idle",
    Step.ADMITTED: "run",
    Step.STARTED: "run",
    Step.CLUSTER_EVENT: "minor",
    Step.CONTAINER_STARTED: "minor",
    Step.CONTAINER_ENDED: "minor",
    Step.RESOLVED: "ok",
}
_PROOFS: Final = {
    Proof.VERIFIED: ("ok", "Verified"),
    Proof.NOT_KNOWN: ("warn", "Verified, but the commit may not have been active"),
    Proof.DIFFERS: ("bad", "Differs"),
    Proof.UNPROVABLE: ("warn", "Cannot be verified"),
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was read before the page is built, and the Job as highlighted YAML."""

    evidence: Evidence
    manifest: HighlightedText | None


@dataclass(frozen=True, slots=True)
class ShownMoment:
    """A line of the timeline; `after` is the time since the line before."""

    at: datetime
    after: timedelta | None
    tone: str
    text: str


@dataclass(frozen=True, slots=True)
class ShownProof:
    """The answer of the verification; `tone` says how it is drawn."""

    tone: str
    title: str
    text: str
    differences: tuple[tuple[str, str, str], ...] = ()
    more: int = 0
    changed: tuple[str, ...] = ()


def add(
    site: Site, state: ReplicaState, evidence: EvidenceReader | None, links: RepositoryLinks
) -> None:
    """Serve `/remediations/NAMESPACE/NAME`; without `evidence`, with what the replica knows."""

    async def load(request: web.Request) -> Loaded:
        remediation = _find(state, request.match_info)
        read = (
            await evidence.read(remediation, lambda: request.transport is not None)
            if evidence
            else _UNREAD
        )
        manifest = await asyncio.to_thread(_manifest, read.job) if read.job else None
        return Loaded(read, manifest)

    site.add(
        PageRoute(
            "/remediations/{namespace}/{name}",
            "remediation.html",
            partial(build, links=links),
            load,
            section="/remediations",
        )
    )


def _find(state: ReplicaState, match: Mapping[str, str]) -> Remediation:
    key = JobKey(match["namespace"], match["name"])
    remediation = state.remediation(key)
    if remediation is None:
        raise web.HTTPNotFound(
            text=f"No remediation has the Job {key}. Finished Jobs are deleted when their TTL "
            "expires (ttlSecondsAfterFinished, at least the time set by remember in "
            "openfero.yaml), and users with permission can delete them earlier. To see which Jobs "
            "still exist, run openfero-gitops audit. Events about deleted Jobs, and the logs of "
            "your cluster, may have more details."
        )
    return remediation


def build(visit: Visit, links: RepositoryLinks) -> dict[str, Any]:
    """Compute the variables of the template."""
    state, loaded = visit.state, visit.loaded
    remediation = _find(state, visit.match)
    evidence: Evidence = loaded.evidence
    found = trace_of(remediation, evidence, state, visit.now)
    row = row_of(remediation, state.decisions().get(remediation.key), state)
    moments = _moments(found)
    same_incident, same_target = _related(remediation, state)
    annotations = _texts(found.alert.get("annotations"))
    return {
        "remediation": remediation,
        "trace": found,
        "row": row,
        "moments": moments[-_MAX_MOMENTS:],
        "earlier": max(0, len(moments) - _MAX_MOMENTS),
        "alert_labels": remediation.labels,
        "alert_annotations": annotations,
        "generator": str(found.alert.get("generatorURL") or ""),
        "runbook": annotations.get("runbook_url") or annotations.get("runbook") or "",
        "author": found.annotation(keys.COMMIT_AUTHOR),
        "commit_time": found.annotation(keys.COMMIT_TIME),
        "blob": found.annotation(keys.BLOB),
        "received_by": found.annotation(keys.RECEIVED_BY),
        "commit_url": links.commit(remediation.repository, remediation.commit),
        "file_url": links.file(remediation.repository, remediation.commit, remediation.path),
        "active": _is_active(remediation, state),
        "pods": found.pods[-_MAX_PODS:],
        "more_pods": max(0, len(found.pods) - _MAX_PODS),
        "unread_pods": evidence.unread_pods,
        "logs": evidence.logs,
        "manifest": loaded.manifest,
        "missing": evidence.missing,
        "same_incident": same_incident,
        "same_target": same_target,
        "proof": _proof(evidence, remediation),
        "commands": _commands(remediation, row.commands, state),
        "needs_person": remediation.phase in (Phase.AWAITING_APPROVAL, Phase.HELD),
    }


def _moments(found: Trace) -> list[ShownMoment]:
    """The timeline, with the approval before the admission, whose time is all that is recorded."""
    shown: list[ShownMoment] = []
    before: datetime | None = None
    has_approval = bool(found.remediation.approved_by and found.remediation.admitted_at)
    for moment in found.timeline:
        if has_approval and moment.step is Step.DECIDED and moment.text.startswith(_APPROVED_EVENT):
            continue  # it would be listed twice
        if has_approval and moment.step is Step.ADMITTED:
            shown.append(ShownMoment(moment.at, None, "ask", _approval(found)))
        after = moment.at - before if before is not None else timedelta(0)
        shown.append(
            ShownMoment(
                moment.at,
                after if after >= _SECOND else None,
                _tone(moment.step, found),
                moment.text,
            )
        )
        before = moment.at
    return shown


def _approval(found: Trace) -> str:
    remediation = found.remediation
    verified = {
        True: "verified by the cluster's admission policy",
        False: "unverified: the cluster does not check this name",
        None: "it is not known whether the cluster checked this name",
    }[found.approval_verified]
    reason = f": {remediation.approval_reason}" if remediation.approval_reason else ""
    return f"approved by {remediation.approved_by} ({verified}){reason}"


def _tone(step: Step, found: Trace) -> str:
    if step is Step.ENDED:
        return "ok" if found.remediation.phase is Phase.SUCCEEDED else "bad"
    if step is Step.EFFECT:
        effect = found.assessment.effect.value if found.assessment else ""
        return {"healed": "ok", "not-healed": "bad"}.get(effect, "idle")
    return _TONES[step]


def _texts(value: Any) -> dict[str, str]:
    """Labels or annotations of the recorded alert, which anybody may have written."""
    if not isinstance(value, dict):
        return {}
    return {str(name): str(text) for name, text in sorted(value.items())}


def _related(
    remediation: Remediation, state: ReplicaState
) -> tuple[list[Remediation], list[Remediation]]:
    """The newest others of the incident, and of the target."""
    others = [r for r in state.remediations() if r.key != remediation.key]
    others.sort(key=lambda r: r.order, reverse=True)
    incident = [r for r in others if remediation.incident and r.incident == remediation.incident]
    target = [
        r
        for r in others
        if remediation.target
        and r.target == remediation.target
        and r not in incident[:_MAX_RELATED]
    ]
    return incident[:_MAX_RELATED], target[:_MAX_RELATED]


def _is_active(remediation: Remediation, state: ReplicaState) -> bool | None:
    """Whether the operario is unchanged in the active catalog; None if it was removed."""
    catalog = state.catalog()
    for operario in catalog.operarios if catalog else ():
        if operario.name == remediation.operario:
            return operario.spec_digest == remediation.spec_digest
    return None


def _commands(
    remediation: Remediation, commands: Sequence[tuple[str, str]], state: ReplicaState
) -> Iterator[tuple[str, str]]:
    yield from commands
    yield "Timeline", f"openfero-gitops trace {shlex.quote(str(remediation.key))}"
    if verify := verify_command(remediation, state.about(), state.catalog()):
        yield "Verify", verify


def _proof(evidence: Evidence, remediation: Remediation) -> ShownProof:
    verification = evidence.verification
    if verification is None:
        return ShownProof(
            "idle", "Not verified", f"It could not be verified: {evidence.unverified}."
        )
    tone, title = _PROOFS[verification.proof]
    text = verification.message
    if verification.proof is Proof.VERIFIED:
        text = (
            "The fields that the controller rendered equal those derived from commit "
            f"{remediation.commit}, file {remediation.path}, and the recorded alert."
        )
    return _with_differences(ShownProof(tone, title, text), verification)


def _with_differences(proof: ShownProof, verification: Verification) -> ShownProof:
    differences = verification.differences
    return ShownProof(
        proof.tone,
        proof.title,
        proof.text,
        tuple(map(_difference, differences[:_MAX_DIFFERENCES])),
        max(0, len(differences) - _MAX_DIFFERENCES),
        tuple(format_pointer(each.pointer) for each in verification.changed[:_MAX_DIFFERENCES]),
    )


def _difference(difference: FieldDifference) -> tuple[str, str, str]:
    """The field, its value by Git, and its value in the cluster."""
    return (
        format_pointer(difference.pointer),
        _json(difference.before),
        _json(difference.after),
    )


def _json(value: Any) -> str:
    return "absent" if value is None else json.dumps(value, ensure_ascii=False)[:2000]


def _manifest(job: Object) -> HighlightedText | None:
    """The Job as highlighted YAML; None if it is too large."""
    metadata = {name: value for name, value in job["metadata"].items() if name != "managedFields"}
    text = json.dumps(job)
    if len(text) > _MAX_JOB_CHARACTERS:
        return None
    ordered = ("apiVersion", "kind", "metadata", "spec", "status")
    shown = {name: job[name] for name in ordered if name in job} | {"metadata": metadata}
    return highlight(to_yaml([_shortened(shown)]), "yaml")


def _shortened(value: Any) -> Any:
    """Shorten long values that are one line; scripts, which have several, are shown in full."""
    match value:
        case dict():
            return {name: _shortened(member) for name, member in value.items()}
        case list():
            return [_shortened(item) for item in value]
        case str() if len(value) > _MAX_VALUE_CHARACTERS and "\n" not in value:
            return f"{value[: _MAX_VALUE_CHARACTERS - 40]}… ({len(value):,} characters)"
    return value
