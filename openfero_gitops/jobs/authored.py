"""What all Jobs of an operario have in common, prepared once for many alerts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain import keys
from openfero_gitops.jobs import template
from openfero_gitops.jobs.names import label_value
from openfero_gitops.jobs.options_annotation import write_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from openfero_gitops.domain.catalog import Envelope, Revision
    from openfero_gitops.domain.operario import Operario

#: In earlier versions all forms had the field references of an Operarius.
_FIRST_WITH_FORMS: Final = 3
#: Annotations that depend on the alert and its delivery, in the order that Jobs have them.
_OF_THE_ALERT: Final = (
    keys.ALERT,
    keys.STARTS_AT,
    keys.ATTEMPT,
    keys.RECEIVED_AT,
    keys.LAST_DELIVERED_AT,
    keys.RECEIVED_BY,
    keys.DELIVERY,
    keys.FINGERPRINT,
    keys.TARGET,
)
#: Operarios that are prepared at a time; they share most objects with those of the catalog.
_MAX_REMEMBERED: Final = 256


@dataclass(frozen=True, slots=True)
class AuthoredContainer:
    """A container of an operario.

    Attributes:
        members: as the author wrote it.
        variables: the author's own variables.
        texts: those of each variable, by its name. If several have one name, the last one counts,
            and the others up to that point.
        expanded: the variables that Kubernetes expands in its commands and other texts.
        has_braces: whether a text may have field references.
    """

    members: Mapping[str, Any]
    variables: Sequence[Mapping[str, Any]]
    texts: Mapping[str, Sequence[str]]
    expanded: tuple[str, ...]
    has_braces: bool

    @classmethod
    def of(cls, members: Mapping[str, Any], grammar: template.Grammar) -> AuthoredContainer:
        """Prepare a container."""
        variables: Sequence[Mapping[str, Any]] = members.get("env", ())
        texts: dict[str, list[str]] = defaultdict(list)
        for variable in variables:
            texts[variable["name"]].append(variable.get("value", ""))
        words = [word for part in ("command", "args") for word in members.get(part, ())]
        values = [value for named in texts.values() for value in named]
        return cls(
            members=members,
            variables=variables,
            texts=dict(texts),
            expanded=tuple(
                name for text in _expanded(members) for name in template.references(text, grammar)
            ),
            has_braces=any(isinstance(text, str) and "{{" in text for text in (*words, *values)),
        )


def _expanded(container: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts, apart from variables, in which the kubelet expands `$(NAME)`."""
    for part in ("command", "args"):
        yield from container.get(part, ())
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        yield from container.get(probe, {}).get("exec", {}).get("command", ())
    for mount in container.get("volumeMounts", ()):
        yield mount.get("subPathExpr", "")


@dataclass(frozen=True, slots=True)
class Authored:
    """What the Jobs of an operario share; none of it may be changed.

    Attributes:
        grammar: of its field references.
        spec: the author's, suspended, with the envelope's defaults for missing fields.
        containers: of its Pods, by the member of the Pod's specification.
        labels: without those that depend on the alert.
        annotations: those that depend on the alert are empty.
    """

    grammar: template.Grammar
    spec: Mapping[str, Any]
    containers: Mapping[str, Sequence[AuthoredContainer]]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


def authored_by(
    operario: Operario, envelope: Envelope, revision: Revision, renderer: int
) -> Authored:
    """Prepare an operario for a version of the renderer; the last ones are remembered."""
    return _remembered(_Sources(operario, envelope, revision), renderer)


class _Sources:
    """Immutable objects, which are compared by identity: by value it would take too long."""

    __slots__ = ("envelope", "operario", "revision")

    def __init__(self, operario: Operario, envelope: Envelope, revision: Revision) -> None:
        self.operario = operario
        self.envelope = envelope
        self.revision = revision

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Sources)
            and self.operario is other.operario
            and self.envelope is other.envelope
            and self.revision is other.revision
        )

    def __hash__(self) -> int:
        return id(self.operario)


@lru_cache(maxsize=_MAX_REMEMBERED)
def _remembered(sources: _Sources, renderer: int) -> Authored:
    operario = sources.operario
    is_older = renderer < _FIRST_WITH_FORMS
    grammar = template.ALL_FIELDS if is_older else template.grammar_of(operario.form)
    spec = _spec(operario, sources.envelope)
    pod = spec["template"]["spec"]
    return Authored(
        grammar=grammar,
        spec=spec,
        containers={
            kind: tuple(AuthoredContainer.of(container, grammar) for container in pod[kind])
            for kind in ("initContainers", "containers")
            if kind in pod
        },
        labels={
            **_without_reserved(operario.job.get("labels")),
            keys.MANAGED_BY: keys.MANAGER,
            keys.OPERARIUS: label_value(operario.name),
        },
        annotations=_annotations(operario, sources.revision, renderer),
    )


def _without_reserved(mapping: Mapping[str, str] | None) -> dict[str, str]:
    """Drop labels or annotations that the controller or Kueue would interpret."""
    return {
        key: value
        for key, value in (mapping or {}).items()
        if not key.startswith((keys.PREFIX, keys.KUEUE_PREFIX))
    }


def _annotations(operario: Operario, revision: Revision, renderer: int) -> dict[str, str]:
    origin = operario.origin
    signer = {keys.VERIFIED_SIGNER: origin.verified_signer} if origin.verified_signer else {}
    queue = (operario.job.get("labels") or {}).get(keys.KUEUE_QUEUE)
    return {
        **_without_reserved(operario.job.get("annotations")),
        keys.OPERARIUS: operario.name,
        keys.REPOSITORY: revision.repository,
        keys.REF: revision.ref,
        keys.COMMIT: origin.commit,
        keys.PATH: origin.path,
        keys.BLOB: origin.blob,
        keys.COMMIT_AUTHOR: origin.commit_author,
        keys.COMMIT_TIME: origin.commit_time,
        **signer,
        keys.SPEC_DIGEST: operario.spec_digest,
        keys.REVISION: revision.commit,
        keys.RENDERER: str(renderer),
        **dict.fromkeys(_OF_THE_ALERT, ""),
        keys.OPTIONS: write_options(operario.options, renderer),
        **({keys.QUEUE: queue} if queue else {}),
    }


def _spec(operario: Operario, envelope: Envelope) -> dict[str, Any]:
    """Return the author's spec, suspended, with the envelope's defaults for missing fields.

    The values of its fields are the author's own.
    """
    defaults = envelope.defaults
    spec: dict[str, Any] = {
        "backoffLimit": defaults.backoff_limit,
        "activeDeadlineSeconds": defaults.active_deadline_seconds,
        "podReplacementPolicy": defaults.pod_replacement_policy,
        "ttlSecondsAfterFinished": defaults.ttl_seconds_after_finished,
        **operario.job["spec"],
        "suspend": True,
    }
    if "backoffLimitPerIndex" in spec and "backoffLimit" not in operario.job["spec"]:
        del spec["backoffLimit"]  # 0 would stop all other indexes when the first one fails
    # A repeated delivery is recognized by its Job, so the Job must exist for that long.
    remember_seconds = -(-envelope.remember // timedelta(seconds=1))
    spec["ttlSecondsAfterFinished"] = max(spec["ttlSecondsAfterFinished"], remember_seconds)
    return spec
