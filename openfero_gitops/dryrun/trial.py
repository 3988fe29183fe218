"""The Job to create with `dryRun=All` for an operario, and what the API server's answer means.

The Job is rendered as for an alert, with an example text for each value, so that the API server
and its policies see what they would see for an alert. The results are not part of the catalog,
which is a function of the commit: another cluster, or this one a minute later, may answer
differently.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.yaml.locate import Locator
from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Alert
from openfero_gitops.domain.cluster_rule import (
    ACCOUNT_MISSING,
    CLUSTER_RULES,
    NO_ROOM,
    NOT_ALLOWED,
    REFUSED,
    UNDECIDED,
    WARNED,
)
from openfero_gitops.domain.errors import ApiError, Forbidden, Invalid, NotFound, Unavailable
from openfero_gitops.domain.operario import Form
from openfero_gitops.domain.problem import Problem
from openfero_gitops.domain.rule import format_pointer
from openfero_gitops.domain.text import canonical_json
from openfero_gitops.domain.timestamp import format_time, parse_time
from openfero_gitops.dryrun.policy import DENIAL, Policy
from openfero_gitops.jobs import template
from openfero_gitops.jobs.environment import PREFIX
from openfero_gitops.jobs.render import Delivery, render

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.rule import Pointer

CONFIG_MAP: Final = "openfero-dry-runs"
_FORMAT: Final = "3"
#: Half of what a ConfigMap can hold, because escapes make its stored JSON longer.
_MAX_CONFIG_MAP_BYTES: Final = 512 * 1024

EXAMPLE: Final = "example"
_WORD: Final = re.compile(r"[A-Za-z0-9_./:-]+")
_NO_COMMIT: Final = "0" * 40
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_PERMISSION: Final = re.compile(r"User \".*\" cannot (?:create|get) resource")
_NO_NAMESPACE: Final = re.compile(r"namespaces \".*\" not found|because it is being terminated")
_UNDECIDED: Final = re.compile(r"does not support dry run|failed calling webhook")
_FIELD: Final = re.compile(r"\bspec(?:\.[A-Za-z]+|\[[^\]\s]+\])+")
_STEP: Final = re.compile(r"([A-Za-z]+)|\[([^\]]+)\]")
#: Of one answer; a Job with more invalid fields is corrected in more than one step.
_MAX_REMARKS: Final = 20


@dataclass(frozen=True, slots=True)
class Trial:
    """An operario to try; `digest` is equal if the API server sees the same Job.

    `namespace` is where its Job would run; `account` is the ServiceAccount that the Job names,
    empty if it names none. The Job itself is not kept, because there may be thousands.
    """

    operario: Operario
    namespace: str
    account: str
    digest: str


@dataclass(frozen=True, slots=True)
class Remark:
    """One statement of the cluster; `rule` is the id of one of `CLUSTER_RULES`.

    `field` is what it is about, as a path in the author's Job: `spec.template.spec`; empty if the
    cluster names none.
    """

    rule: str
    message: str
    field: str = ""


@dataclass(frozen=True, slots=True)
class DryRun:
    """What the cluster answered, and when (UTC); without remarks it accepted."""

    at: datetime
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True)
class DryRuns:
    """All results of one cluster, at one version of its API server.

    `operarios` is by the digest of the Job. `namespaces` concerns every Job of a namespace.
    `policies` is what protects the Jobs of a namespace.
    """

    kubernetes: str = ""
    operarios: Mapping[str, DryRun] = field(default_factory=dict)
    namespaces: Mapping[str, DryRun] = field(default_factory=dict)
    policies: Mapping[str, Policy] = field(default_factory=dict)


# The Jobs to try.


def trials(
    catalog: Catalog, jobs_namespace: str, before: tuple[Catalog, Sequence[Trial]] | None = None
) -> tuple[Trial, ...]:
    """Return a trial for every enabled operario.

    Trials of an earlier catalog are reused for operarios that have not changed.
    """
    earlier: dict[tuple[object, ...], Trial] = {}
    if before is not None and before[0].envelope == catalog.envelope:
        earlier = {_identity(trial.operario): trial for trial in before[1]}
    return tuple(
        replace(trial, operario=operario)
        if (trial := earlier.get(_identity(operario))) is not None
        else _trial(operario, catalog, jobs_namespace)
        for operario in catalog.operarios
        if operario.options.enabled
    )


def _identity(operario: Operario) -> tuple[object, ...]:
    """Return everything that an operario's Job depends on, except the commit."""
    return (
        operario.name,
        operario.alertname,
        operario.status,
        operario.options,
        operario.namespace,
        operario.spec_digest,
    )


def _trial(operario: Operario, catalog: Catalog, jobs_namespace: str) -> Trial:
    job = manifest(operario, catalog, jobs_namespace)
    metadata = job["metadata"]
    authors = {k: v for k, v in metadata["annotations"].items() if not k.startswith(keys.PREFIX)}
    hashed = canonical_json({**job, "metadata": {**metadata, "annotations": authors}})
    digest = hashlib.sha256(hashed.encode()).hexdigest()[:32]
    pod = job["spec"]["template"]["spec"]
    account = pod.get("serviceAccountName") or pod.get("serviceAccount") or ""
    return Trial(operario, metadata["namespace"], account, digest)


def manifest(operario: Operario, catalog: Catalog, jobs_namespace: str) -> dict[str, Any]:
    """Render the Job to try."""
    # Without its commit, which is a variable of every container but changes nothing else.
    origin = replace(operario.origin, commit=_NO_COMMIT, commit_author="", commit_time="")
    return render(
        example_alert(operario),
        replace(operario, origin=origin),
        catalog.envelope,
        catalog.revision,
        Delivery("dry-run", "{}:{}", operario.status, _EPOCH, keys.MANAGER),
        jobs_namespace=jobs_namespace,
    ).manifest


def example_alert(operario: Operario) -> Alert:
    """Make an alert that has every value that the operario uses, and fulfils its matchers.

    A matcher with a regular expression for which no value is found is not fulfilled.
    """
    labels = {"alertname": operario.alertname}
    annotations: dict[str, str] = {}
    values = {"Labels": labels, "Annotations": annotations}
    grammar = template.grammar_of(operario.form)
    for text in _texts_with_references(operario.job.get("spec") or {}):
        for reference in template.fields(text, grammar):
            if reference.kind in values:
                values[reference.kind].setdefault(reference.key, EXAMPLE)
        for name in template.references(text, grammar):
            if name.startswith(PREFIX):
                labels.setdefault(name.removeprefix(PREFIX).lower(), EXAMPLE)
    for matcher in operario.options.matchers:
        if not matcher.matches(labels):
            # Words are better examples than a regular expression that matches itself.
            words = sorted(matcher.candidates(), key=lambda value: not _WORD.fullmatch(value))
            for value in (EXAMPLE, "", *words):
                if matcher.matches({matcher.name: value}):
                    labels[matcher.name] = value
                    break
    return Alert(operario.status, labels, annotations, None, None, "", "")


def _texts_with_references(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if "{{" in value or "$(" in value:
            yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from _texts_with_references(member)
    elif isinstance(value, list):
        for item in value:
            yield from _texts_with_references(item)


# What an answer means.


def remarks_of(warnings: Iterable[str]) -> tuple[Remark, ...]:
    """Return the warnings with which an API server accepted a Job."""
    return tuple(Remark(WARNED.id, text) for text in dict.fromkeys(warnings))


def remark_of(error: ApiError) -> Remark | None:
    """Return what an error says about the Job; None if it says nothing, and is to be retried.

    Only an invalid Job and the denial of a policy are errors of the operario.
    """
    message = str(error)
    match error:
        case Invalid() | Unavailable() if _UNDECIDED.search(message):
            return Remark(UNDECIDED.id, message)
        case Invalid():
            return Remark(REFUSED.id, message)
        # A webhook chooses the status code of its denial.
        case Forbidden() | Unavailable() if DENIAL.search(message):
            return Remark(REFUSED.id, message)
        case Forbidden() if _NO_PERMISSION.search(message):
            return Remark(NOT_ALLOWED.id, message)
        case Forbidden() | NotFound():
            return Remark(NO_ROOM.id, message)
        case _:
            return None


def remarks_about(
    error: ApiError, operario: Operario, job: Mapping[str, Any]
) -> tuple[Remark, ...]:
    """Return what an error says about each field of an operario's Job.

    Args:
        error: the answer.
        operario: whose Job was tried.
        job: the Job that was tried; its containers have more variables than the author's.

    Returns:
        nothing if the error says nothing about the Job, and is to be retried.
    """
    remark = remark_of(error)
    if remark is None:
        return ()
    if remark.rule != REFUSED.id:
        return (remark,)
    about = (
        Remark(remark.rule, f"{field}: {text}" if field else text, field)
        for path, text in error.causes
        for field in [_authors_field(path, operario, job)]
    )
    remarks = tuple(dict.fromkeys(about))[:_MAX_REMARKS]
    if not remarks:
        found = _FIELD.search(remark.message)
        field = _authors_field(found[0], operario, job) if found else ""
        remarks = (replace(remark, field=field),)
    return remarks


def _authors_field(path: str, operario: Operario, job: Mapping[str, Any]) -> str:
    """Translate a field of the rendered Job; variables that were added come first in `env`."""
    steps = _steps(path)
    match steps:
        case ("spec", "template", "spec", "containers" | "initContainers", int(), "env", int(), *_):
            containers, index = steps[3], int(steps[6])
            added = _variables(job, containers, steps[4]) - _variables(
                operario.job, containers, steps[4]
            )
            of_container = f"spec.template.spec.{containers}[{steps[4]}].env"
            if index < added:
                return of_container
            rest = path.partition(f".env[{index}]")[2]
            return f"{of_container}[{index - added}]{rest}"
        case _:
            return path


def _variables(job: Mapping[str, Any], containers: Any, index: Any) -> int:
    try:
        return len(job["spec"]["template"]["spec"][containers][index].get("env") or ())
    except (KeyError, IndexError, TypeError):
        return 0


def is_about_namespace(remark: Remark) -> bool:
    """Whether the cluster says the same about every Job of the namespace."""
    return remark.rule == NOT_ALLOWED.id or (
        remark.rule == NO_ROOM.id and _NO_NAMESPACE.search(remark.message) is not None
    )


def account_missing(trial: Trial) -> Remark:
    """Return the remark for a ServiceAccount that does not exist."""
    return Remark(
        ACCOUNT_MISSING.id,
        f"there is no ServiceAccount {trial.account!r} in namespace {trial.namespace!r}; "
        "the Job could not create a Pod",
    )


# The problems to show.

#: Line and column of a field, by path, blob, document and pointer. Kept between calls, because
#: finding one parses the whole file.
Places = dict[tuple[str, str, int, "Pointer"], tuple[int, int]]


def problems(
    results: DryRuns, catalog_trials: Sequence[Trial], catalog: Catalog, known_places: Places
) -> tuple[tuple[Problem, ...], Places]:
    """Return the problems of a catalog's operarios, and their places.

    Known places are not searched again.
    """
    located = [
        _problem(remark, catalog.root or ".", catalog.revision.commit)
        for result in results.namespaces.values()
        for remark in result.remarks
    ]
    contents = {(file.path, file.blob): file.content for file in catalog.files}
    locators: dict[tuple[str, str], Locator] = {}
    places: Places = {}
    for trial in catalog_trials:
        result = results.operarios.get(trial.digest)
        if result is None or not result.remarks:
            continue
        origin = trial.operario.origin
        file = (origin.path, origin.blob)
        for remark in result.remarks:
            pointer = _pointer(trial.operario, remark.field)
            key = (*file, origin.document, pointer)
            if (place := known_places.get(key)) is None:
                if file not in locators:
                    locators[file] = Locator(contents.get(file, b""))
                place = locators[file].place(origin.document, pointer)
            places[key] = place
            located.append(_problem(remark, origin.path, origin.commit, place, pointer))
    return tuple(located), places


def _problem(
    remark: Remark,
    path: str,
    commit: str,
    place: tuple[int, int] = (0, 0),
    pointer: Pointer = (),
) -> Problem:
    rule = CLUSTER_RULES[remark.rule]
    return Problem(
        path=path,
        line=place[0],
        column=place[1],
        pointer=format_pointer(pointer),
        rule=rule.id,
        severity=rule.severity,
        message=remark.message,
        suggestion=rule.advice,
        commit=commit,
    )


def _pointer(operario: Operario, field: str) -> Pointer:
    """Return the place of a field of the Job in the document of the operario."""
    match operario.form:
        case Form.JOB:
            return _steps(field)
        case Form.OPERARIUS:
            return ("spec", "jobTemplate", *_steps(field))
        case Form.CONFIG_MAP:
            # The key has the name of the alert; the Job is the text under it.
            return ("data", operario.alertname, *_steps(field))


def _steps(field: str) -> Pointer:
    """Split a field as the API server writes it: `spec.containers[0].limits[cpu]`."""
    return tuple(int(key) if key.isdecimal() else name or key for name, key in _STEP.findall(field))


# The ConfigMap through which other replicas, and the next leader, get the results.


def to_config_map(results: DryRuns, namespace: str) -> dict[str, Any]:
    """Serialize the results; what does not fit is left out and will be tried again.

    Operarios that were accepted are left out first.
    """
    room = _MAX_CONFIG_MAP_BYTES
    kept: dict[str, Any] = {}
    for digest, result in sorted(
        results.operarios.items(), key=lambda item: (not item[1].remarks, item[0])
    ):
        entry = _entry(result)
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
            "kubernetes": results.kubernetes,
            "operarios.json": canonical_json(kept),
            "namespaces.json": canonical_json(
                {name: _entry(result) for name, result in results.namespaces.items()}
            ),
            "policies.json": canonical_json(
                {name: _policy_entry(policy) for name, policy in results.policies.items()}
            ),
        },
    }


def is_ours(config_map: Mapping[str, Any]) -> bool:
    """Whether a ConfigMap has the label of this controller."""
    labels = config_map["metadata"].get("labels") or {}
    return bool(labels.get(keys.MANAGED_BY) == keys.MANAGER)


def from_config_map(config_map: Mapping[str, Any]) -> DryRuns | None:
    """Parse the results; None if the ConfigMap is not ours, damaged, or of another format."""
    data = config_map.get("data") or {}
    if not is_ours(config_map) or data.get("format") != _FORMAT:
        return None
    try:
        return DryRuns(
            data["kubernetes"],
            {key: _dry_run(entry) for key, entry in json.loads(data["operarios.json"]).items()},
            {key: _dry_run(entry) for key, entry in json.loads(data["namespaces.json"]).items()},
            {key: _policy(entry) for key, entry in json.loads(data["policies.json"]).items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None


def _entry(result: DryRun) -> dict[str, Any]:
    remarks = [[remark.rule, remark.message, remark.field] for remark in result.remarks]
    return {"at": format_time(result.at), "remarks": remarks}


def _dry_run(entry: Mapping[str, Any]) -> DryRun:
    remarks = (Remark(*map(str, (rule, text, field))) for rule, text, field in entry["remarks"])
    # A rule that this version does not know was written by another version.
    remarks_of_rules = tuple(remark for remark in remarks if remark.rule in CLUSTER_RULES)
    return DryRun(parse_time(entry["at"]) or _EPOCH, remarks_of_rules)


def _policy_entry(policy: Policy) -> dict[str, Any]:
    since = policy.approvals_since
    return {
        "at": format_time(policy.at),
        "version": policy.version,
        "approvals-since": None if since is None else format_time(since),
        "error": policy.error,
    }


def _policy(entry: Mapping[str, Any]) -> Policy:
    version, since = entry["version"], entry["approvals-since"]
    return Policy(
        parse_time(entry["at"]) or _EPOCH,
        None if version is None else int(version),
        None if since is None else parse_time(since),
        str(entry["error"]),
    )
