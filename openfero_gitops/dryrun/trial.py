"""Trying an operario in a cluster: the Job to try, and what the answer means.

The Job is rendered as for an alert, with a word in the place of each value, so that the API
server and its policies see what they would see. It is created with `dryRun=All` alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.yaml.locate import Locator
from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Alert
from openfero_gitops.domain.dryrun import DryRuns, Remark, Tried
from openfero_gitops.domain.errors import ApiError, Forbidden, Invalid, NotFound
from openfero_gitops.domain.matcher import Operator
from openfero_gitops.domain.operario import Form
from openfero_gitops.domain.problem import Problem, Severity
from openfero_gitops.domain.rule import Rule, format_pointer
from openfero_gitops.domain.text import canonical_json
from openfero_gitops.domain.timestamp import format_time, parse_time
from openfero_gitops.jobs import template
from openfero_gitops.jobs.environment import PREFIX
from openfero_gitops.jobs.render import Delivery, render

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.rule import Pointer

# (Not in the register of rules: no file of a repository breaks them by itself.)
REFUSED: Final = Rule(
    "dry-run-refused", Severity.ERROR, "The API server, and the cluster's policies, take the Job."
)
WARNED: Final = Rule(
    "dry-run-warning", Severity.WARNING, "The API server has nothing to say about the Job."
)
NO_ROOM: Final = Rule(
    "dry-run-forbidden", Severity.WARNING, "Its namespace is there and has room for the Job."
)
NOT_ALLOWED: Final = Rule(
    "dry-run-not-allowed", Severity.WARNING, "The controller may try operarios in the cluster."
)
ACCOUNT_MISSING: Final = Rule(
    "service-account-missing", Severity.WARNING, "The ServiceAccount that a Job runs as exists."
)
RULES: Final[Mapping[str, Rule]] = {
    rule.id: rule for rule in (REFUSED, WARNED, NO_ROOM, NOT_ALLOWED, ACCOUNT_MISSING)
}

CONFIG_MAP: Final = "openfero-dry-runs"
_FORMAT: Final = "1"
#: Half of what a ConfigMap may hold: JSON escapes make its stored form longer.
_MOST_BYTES: Final = 512 * 1024

_WORD: Final = "example"
_NO_COMMIT: Final = "0" * 40
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: How admission policies and webhooks say no; RBAC and quotas say it otherwise.
_DENIAL: Final = re.compile(r"denied (?:the )?request")
_NO_RIGHT: Final = re.compile(r"User \".*\" cannot (?:create|get) resource")
_FIELD: Final = re.compile(r"\bspec(?:\.[A-Za-z]+|\[[0-9]+\])+")


@dataclass(frozen=True, slots=True)
class Trial:
    """An operario to be tried; `digest` is equal for all that the API server cannot tell apart.

    `namespace` is where its Job would run, `account` the ServiceAccount that it names, empty
    where it names none. (The Job itself is not kept: there may be thousands.)
    """

    operario: Operario
    namespace: str
    account: str
    digest: str


def trials(
    catalog: Catalog, jobs_namespace: str, before: tuple[Catalog, Sequence[Trial]] | None = None
) -> tuple[Trial, ...]:
    """What is to be tried: every operario that is switched on.

    Of the trials of a catalog before, those are taken over whose operarios are as they were.
    """
    known: dict[tuple[object, ...], Trial] = {}
    if before is not None and before[0].envelope == catalog.envelope:
        known = {_identity(trial.operario): trial for trial in before[1]}
    return tuple(
        replace(trial, operario=one)
        if (trial := known.get(_identity(one))) is not None
        else _trial(one, catalog, jobs_namespace)
        for one in catalog.operarios
        if one.options.enabled
    )


def _identity(one: Operario) -> tuple[object, ...]:
    """All that its Job is made from, but for the commit."""
    return (one.name, one.alertname, one.status, one.options, one.namespace, one.spec_digest)


def _trial(operario: Operario, catalog: Catalog, jobs_namespace: str) -> Trial:
    job = manifest(operario, catalog, jobs_namespace)
    metadata = job["metadata"]
    theirs = {k: v for k, v in metadata["annotations"].items() if not k.startswith(keys.PREFIX)}
    told_apart = {**job, "metadata": {**metadata, "annotations": theirs}}
    digest = hashlib.sha256(canonical_json(told_apart).encode()).hexdigest()[:32]
    pod = job["spec"]["template"]["spec"]
    account = pod.get("serviceAccountName") or pod.get("serviceAccount") or ""
    return Trial(operario, metadata["namespace"], account, digest)


def manifest(operario: Operario, catalog: Catalog, jobs_namespace: str) -> dict[str, Any]:
    """The Job to try of an operario."""
    # Of no commit in particular: containers are told it, and nothing else differs by it.
    origin = replace(operario.origin, commit=_NO_COMMIT, commit_author="", commit_time="")
    return render(
        _sample(operario),
        replace(operario, origin=origin),
        catalog.envelope,
        catalog.revision,
        Delivery("dry-run", "{}:{}", operario.status, _EPOCH, keys.MANAGER),
        jobs_namespace=jobs_namespace,
    ).manifest


def _sample(operario: Operario) -> Alert:
    """An alert with all that the operario asks for, as far as plain equality goes."""
    labels = {"alertname": operario.alertname}
    annotations: dict[str, str] = {}
    of_kind = {"Labels": labels, "Annotations": annotations}
    for text in _texts(operario.job.get("spec") or {}):
        for found in template.fields(text):
            if isinstance(found, template.Field) and found.kind in of_kind:
                of_kind[found.kind].setdefault(found.key, _WORD)
        for name in template.references(text):
            if name.startswith(PREFIX):
                labels.setdefault(name.removeprefix(PREFIX).lower(), _WORD)
    for matcher in operario.options.matchers:
        if matcher.operator is Operator.EQUAL:
            labels[matcher.name] = matcher.value
    return Alert(operario.status, labels, annotations, None, None, "", "")


def _texts(value: Any) -> Iterator[str]:
    """Every text that may ask for alert data."""
    if isinstance(value, str):
        if "{{" in value or "$(" in value:
            yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def warned(warnings: Iterable[str]) -> tuple[Remark, ...]:
    """What an API server said beside its yes."""
    return tuple(Remark(WARNED.id, text) for text in dict.fromkeys(warnings))


def understood(error: ApiError) -> Remark | None:
    """What a no means; None where it says nothing about the Job, so that it is to be asked again.

    Only what the API server calls wrong in the Job itself, and what a policy denies, are errors.
    """
    said = str(error)
    match error:
        case Invalid():
            return Remark(REFUSED.id, said)
        case Forbidden() if _DENIAL.search(said):
            return Remark(REFUSED.id, said)
        case Forbidden() if _NO_RIGHT.search(said):
            return Remark(NOT_ALLOWED.id, said)
        case Forbidden() | NotFound():
            return Remark(NO_ROOM.id, said)
        case _:
            return None


def account_missing(trial: Trial) -> Remark:
    """What is said where the ServiceAccount that a Job runs as is not there."""
    return Remark(
        ACCOUNT_MISSING.id,
        f"there is no ServiceAccount {trial.account!r} in namespace {trial.namespace!r}: the Job "
        "would be started and get no Pod",
    )


def approval_probe(namespace: str) -> dict[str, Any]:
    """A Job that somebody claims to have approved, to see whether the cluster lets them."""
    container = {"name": "probe", "image": "registry.example/never-pulled:1"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "openfero-approval-probe",
            "namespace": namespace,
            "labels": {keys.MANAGED_BY: keys.MANAGER},
            "annotations": {keys.APPROVED_BY: "openfero.io:nobody"},
        },
        "spec": {
            "suspend": True,
            "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
        },
    }


def is_forgery_refused(error: ApiError) -> bool:
    """Whether an API server refused the probe because of its approval."""
    return (
        isinstance(error, Forbidden | Invalid)
        and _DENIAL.search(str(error)) is not None
        and keys.APPROVED_BY in str(error)
    )


#: Where in a file a field stands: found once, since a whole file is read for it.
Places = dict[tuple[str, str, int, "Pointer"], tuple[int, int]]


def problems(
    known: DryRuns, found: Sequence[Trial], catalog: Catalog, before: Places
) -> tuple[tuple[Problem, ...], Places]:
    """What is known, as problems of the files in force, and the places that were looked up.

    Those of the time `before` are not looked up again.
    """
    told = [
        _problem(remark, catalog.root or ".", catalog.revision.commit)
        for tried in known.namespaces.values()
        for remark in tried.remarks
    ]
    contents = {(file.path, file.blob): file.content for file in catalog.files}
    locators: dict[tuple[str, str], Locator] = {}
    places: Places = {}
    for trial in found:
        tried = known.operarios.get(trial.digest)
        if tried is None or not tried.remarks:
            continue
        origin = trial.operario.origin
        file = (origin.path, origin.blob)
        for remark in tried.remarks:
            pointer = _pointer(trial.operario, remark.message)
            key = (*file, origin.document, pointer)
            if (place := before.get(key)) is None:
                if file not in locators:
                    locators[file] = Locator(contents.get(file, b""))
                place = locators[file].place(origin.document, pointer)
            places[key] = place
            told.append(_problem(remark, origin.path, origin.commit, place, pointer))
    return tuple(told), places


def _problem(
    remark: Remark,
    path: str,
    commit: str,
    place: tuple[int, int] = (0, 0),
    pointer: Pointer = (),
) -> Problem:
    rule = RULES[remark.rule]
    return Problem(
        path=path,
        line=place[0],
        column=place[1],
        pointer=format_pointer(pointer),
        rule=rule.id,
        severity=rule.severity,
        message=remark.message,
        commit=commit,
    )


def _pointer(operario: Operario, message: str) -> Pointer:
    """The field that the API server names, in the document that it was written in."""
    match operario.form:
        case Form.JOB:
            return _field(message)
        case Form.OPERARIUS:
            return ("spec", "jobTemplate", *_field(message))
        case Form.CONFIG_MAP:
            return ()  # the Job is a text in it


def _field(message: str) -> Pointer:
    """The first field that a message of the API server names, up to what we put in ourselves."""
    found = _FIELD.search(message)
    if found is None:
        return ()
    parts: list[str | int] = []
    for name, index in re.findall(r"([A-Za-z]+)|\[([0-9]+)\]", found[0]):
        parts.append(int(index) if index else name)
        if name == "env":
            break  # counted among the variables that are injected
    return tuple(parts)


def write(known: DryRuns, namespace: str) -> dict[str, Any]:
    """The ConfigMap by which other replicas, and the next leader, know the same.

    What does not fit is left out, what nothing was said of first: it is tried again.
    """
    room = _MOST_BYTES
    kept: dict[str, Any] = {}
    for digest, tried in sorted(
        known.operarios.items(), key=lambda item: (not item[1].remarks, item[0])
    ):
        entry = _entry(tried)
        room -= len(canonical_json(entry).encode()) + len(digest) + len('"":,')
        if room < 0:
            break
        kept[digest] = entry
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": CONFIG_MAP,
            "namespace": namespace,
            "labels": {keys.MANAGED_BY: keys.MANAGER},
        },
        "data": {
            "format": _FORMAT,
            "kubernetes": known.kubernetes,
            "operarios.json": canonical_json(kept),
            "namespaces.json": canonical_json(
                {name: _entry(tried) for name, tried in known.namespaces.items()}
            ),
            "approvals.json": canonical_json(
                {name: format_time(since) for name, since in known.approvals.items()}
            ),
        },
    }


def read(config_map: Mapping[str, Any]) -> DryRuns | None:
    """Read `write`'s ConfigMap; None where it is not ours, or says nothing that can be used."""
    labels = config_map["metadata"].get("labels") or {}
    data = config_map.get("data") or {}
    if labels.get(keys.MANAGED_BY) != keys.MANAGER or data.get("format") != _FORMAT:
        return None
    try:
        return DryRuns(
            data["kubernetes"],
            {key: _tried(entry) for key, entry in json.loads(data["operarios.json"]).items()},
            {key: _tried(entry) for key, entry in json.loads(data["namespaces.json"]).items()},
            {
                key: since
                for key, text in json.loads(data["approvals.json"]).items()
                if (since := parse_time(text)) is not None
            },
        )
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None


def _entry(tried: Tried) -> dict[str, Any]:
    remarks = [[remark.rule, remark.message] for remark in tried.remarks]
    return {"at": format_time(tried.at), "remarks": remarks}


def _tried(entry: Mapping[str, Any]) -> Tried:
    remarks = [Remark(str(rule), str(message)) for rule, message in entry["remarks"]]
    # (What this version has no rule for was written by another one.)
    return Tried(
        parse_time(entry["at"]) or _EPOCH, tuple(one for one in remarks if one.rule in RULES)
    )
