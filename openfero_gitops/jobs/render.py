"""Renders the Job for an alert: a pure function of alert, operario, envelope and delivery.

The same inputs give the same Job on every replica. A remediation that must not start is a Job
too: it carries the refusal and none of the alert's data, so that people see it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Occurrence
from openfero_gitops.domain.errors import RenderRefusal
from openfero_gitops.domain.labels import REPLICA_LABELS, replica_labels_in
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.text import canonical_bytes
from openfero_gitops.domain.timestamp import format_time
from openfero_gitops.jobs import environment, template
from openfero_gitops.jobs.authored import authored_by
from openfero_gitops.jobs.names import job_key, label_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from openfero_gitops.domain.alert import Alert, Status
    from openfero_gitops.domain.catalog import Envelope, Revision
    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.remediation import JobKey
    from openfero_gitops.jobs.authored import Authored, AuthoredContainer
    from openfero_gitops.jobs.environment import AlertRecord, RecordLimits

#: Recorded on each Job; increased when the same inputs give a different Job. Version 2 records less
#: of large alerts. Version 3 knows two field references in a Job and a ConfigMap, and has variables
#: for labels with `.` and `/` in their name. Version 4 records the options about the effect.
RENDERER: Final = 4
#: Versions whose Jobs can be rendered again.
RENDERERS: Final = tuple(environment.LIMITS)

_NOT_TARGET: Final = frozenset({"alertname", "severity"})
#: Kubernetes' limit, less what is written later: a decision, a container's error.
_MAX_ANNOTATION_BYTES: Final = (256 - 16) * 1024
_MAX_VARIABLE_BYTES: Final = 128 * 1024
#: For texts of an alert that are not part of its record.
_MAX_TEXT_CHARACTERS: Final = 1024
_MAX_SHOWN_CHARACTERS: Final = 80


@dataclass(frozen=True, slots=True)
class Delivery:
    """When, how and to which replica an alert was delivered.

    `id` distinguishes deliveries of alerts without startsAt. What a Job depends on is recorded
    on it, in the annotation `openfero.io/delivery`. `traceparent` is the span in which the Job is
    created; empty if it is not traced.
    """

    id: str
    group_key: str
    group_status: Status
    received_at: datetime
    received_by: str
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A Job to be created, suspended; `refusal` is set if it must never start.

    `replica_labels` are the names of those that the alert has.
    """

    key: JobKey
    occurrence: Occurrence
    replica_labels: tuple[str, ...]
    manifest: dict[str, Any]
    refusal: Reason | None = None
    message: str = ""


def render(
    alert: Alert,
    operario: Operario,
    envelope: Envelope,
    revision: Revision,
    delivery: Delivery,
    *,
    jobs_namespace: str,
    attempt: int = 1,
    renderer: int = RENDERER,
    replica_labels: frozenset[str] = REPLICA_LABELS,
    occurrence: Occurrence | None = None,
) -> Rendered:
    """Build the Job of one alert occurrence, as a version of the renderer does.

    Args:
        alert: the alert.
        operario: the operario that matches it.
        envelope: of the operario's catalog.
        revision: of the operario's catalog.
        delivery: how the alert was delivered.
        jobs_namespace: namespace for Jobs whose operario names none.
        attempt: counted from 1.
        renderer: version of the renderer.
        replica_labels: the labels that do not identify an alert. Those that it has are recorded,
            so that the Job can be rendered again after the setting was changed.
        occurrence: that of the attempt, if the caller has computed its digests already.

    The manifest shares objects with the operario, and must not be changed.
    """
    limits = environment.LIMITS[renderer]
    authored = authored_by(operario, envelope, revision, renderer)
    # Cut as it is recorded, so that the Job can be rendered again from its own annotations.
    group_key = environment.cut_group_key(delivery.group_key, limits)
    if group_key != delivery.group_key:
        delivery = dataclasses.replace(delivery, group_key=group_key)
    replica = replica_labels_in(alert.labels, replica_labels)
    if occurrence is None:
        occurrence = Occurrence.of(alert, delivery.id, attempt, replica)
    key = job_key(occurrence, operario, jobs_namespace)
    record = environment.record_alert(alert, limits)
    record_text = record.text
    refusal: Reason | None = None
    message = ""
    # Without alert data: if somebody starts a Job in spite of a refusal, no value of the alert
    # reaches a command.
    spec = {**authored.spec}  # the manifest is the caller's
    target_text = target(alert, operario, replica)
    if record.fits:
        try:
            values = _Values(record, delivery, operario.origin.commit, limits)
            spec = _with_alert(authored, values)
        except RenderRefusal as error:
            refusal, message = error.reason, str(error)[:_MAX_TEXT_CHARACTERS]
    else:
        refusal = Reason.TOO_LARGE
        message = (
            f"the alert's labels are larger than {limits.record_bytes // 1024} KiB; shorten them "
            "in the alerting rule"
        )
        name = {"alertname": alert.name[:_MAX_TEXT_CHARACTERS]}
        target_text = target(dataclasses.replace(alert, labels=name), operario)
        record_text = canonical_bytes(
            {"status": alert.status.value, "labels": name, "annotations": {}, "truncated": True}
        ).decode()
    annotations = {
        **authored.annotations,
        **_annotations(alert, occurrence, delivery, record_text, target_text),
    }
    if replica:
        annotations[keys.REPLICA_LABELS] = canonical_bytes(replica).decode()
    if delivery.traceparent:
        annotations[keys.TRACEPARENT] = delivery.traceparent
    if _size(annotations) > _MAX_ANNOTATION_BYTES:
        annotations = {k: v for k, v in annotations.items() if k.startswith(keys.PREFIX)}
        if refusal is None:
            refusal = Reason.TOO_LARGE
            message = "the Job's annotations would exceed Kubernetes' limit of 256 KiB"
            spec = {**authored.spec}
    if refusal is not None:
        annotations[keys.DECISION] = "refused"
        annotations[keys.REASON] = refusal.value
        annotations[keys.MESSAGE] = message
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "labels": {
                **authored.labels,
                keys.ALERT: label_value(alert.name),
                keys.STATUS: alert.status.value,
                keys.GROUP_KEY: label_value(delivery.group_key),
                keys.OCCURRENCE: occurrence.digest,
                keys.INCIDENT: occurrence.incident,
            },
            "annotations": annotations,
        },
        "spec": spec,
    }
    return Rendered(key, occurrence, replica, manifest, refusal, message)


def target(alert: Alert, operario: Operario, replica_labels: Sequence[str] = ()) -> str:
    """Return what is to be healed: canonical JSON of the labels that identify it.

    `replica_labels` are never among them: they name who sent the alert, not what is broken.
    """
    names = operario.options.target or tuple(n for n in alert.labels if n not in _NOT_TARGET)
    chosen = {
        name: alert.labels[name]
        for name in names
        if alert.labels.get(name) and name not in replica_labels
    }
    return canonical_bytes(chosen or {"alertname": alert.name}).decode()


def _size(annotations: Mapping[str, str]) -> int:
    """Count the bytes as Kubernetes does."""
    return len("".join((*annotations, *annotations.values())).encode())


def _annotations(
    alert: Alert, occurrence: Occurrence, delivery: Delivery, record_text: str, target_text: str
) -> dict[str, str]:
    """Return the annotations that depend on the alert and its delivery."""
    received = format_time(delivery.received_at)
    return {
        keys.ALERT: record_text,
        keys.STARTS_AT: format_time(occurrence.starts_at) if occurrence.starts_at else "",
        keys.ATTEMPT: str(occurrence.attempt),
        keys.RECEIVED_AT: received,
        keys.LAST_DELIVERED_AT: received,
        keys.RECEIVED_BY: delivery.received_by,
        keys.DELIVERY: canonical_bytes(
            {
                # An alert with startsAt does not depend on its delivery.
                "id": "" if occurrence.starts_at else delivery.id,
                "groupKey": delivery.group_key,
                "groupStatus": delivery.group_status.value,
            }
        ).decode(),
        keys.FINGERPRINT: alert.fingerprint[:_MAX_TEXT_CHARACTERS],
        keys.TARGET: target_text,
    }


@dataclass(frozen=True, slots=True)
class _Values:
    """The values of an operario's references.

    They are those of the record, not of the alert: what was cut is nowhere in the Job, so that
    the Job can be rendered again from its own annotations.
    """

    record: AlertRecord
    delivery: Delivery
    commit: str
    limits: RecordLimits

    def field(self, field: template.Field) -> str:
        """Return the value of a field reference; raises RenderRefusal if the alert has none."""
        alert = self.record.values
        match field.kind:
            case "Status":
                values, key = alert, "status"
            case "GroupStatus":
                return self.delivery.group_status.value
            case "GroupKey":
                return self.delivery.group_key
            case "Labels":
                values, key = alert["labels"], field.key
            case _:
                values, key = alert["annotations"], field.key
        try:
            value: str = values[key]
        except KeyError:
            raise RenderRefusal(
                Reason.MISSING_VALUE,
                f"the operario uses {field.written or field}, which the alert does not have",
            ) from None
        return value

    def argument(self, field: template.Field) -> str:
        """Return the value of a field reference in a command or an argument."""
        value = self.field(field)
        _require_safe(field.written or str(field), value)
        return value

    def variables(self) -> dict[str, str]:
        """Return the variables to inject, unescaped."""
        return environment.variables(self.record, self.delivery.group_key, self.commit, self.limits)

    def why_missing(self, variable: str) -> str:
        """Why the alert has no variable of this name, as a clause."""
        return environment.why_missing(variable, self.record, self.limits)


def _with_alert(authored: Authored, values: _Values) -> dict[str, Any]:
    """Put the alert into every container: variables, field references, checked arguments.

    What does not depend on the alert is shared with the operario, which stays as it is.
    """
    spec = authored.spec
    injected = values.variables()
    escaped = {name: template.escape(value) for name, value in injected.items()}
    containers = {
        kind: [
            _container_with_alert(container, injected, escaped, values, authored.grammar)
            for container in containers
        ]
        for kind, containers in authored.containers.items()
    }
    pod = {**spec["template"]["spec"], **containers}
    return {**spec, "template": {**spec["template"], "spec": pod}}


def _container_with_alert(
    container: AuthoredContainer,
    injected: Mapping[str, str],
    escaped: Mapping[str, str],
    values: _Values,
    grammar: template.Grammar,
) -> dict[str, Any]:
    """Put the alert into a container; `injected` are its variables, `escaped` as they are set."""
    _check_references(container, injected, values, grammar)
    own = container.variables
    words: dict[str, list[str]] = {}
    if container.has_braces:
        own = [
            {**variable, "value": _substituted(variable, values, grammar)}
            if isinstance(variable.get("value"), str)
            else variable
            for variable in own
        ]
        words = {
            part: [
                template.substitute(word, values.argument, grammar)
                for word in container.members[part]
            ]
            for part in ("command", "args")
            if part in container.members
        }
    env = [
        {"name": name, "value": value}
        for name, value in escaped.items()
        if name not in container.texts
    ]
    return {**container.members, **words, "env": [*env, *own]}


def _substituted(variable: Mapping[str, Any], values: _Values, grammar: template.Grammar) -> str:
    """Return the value of an operario's own variable, its field references replaced."""
    written: str = variable["value"]
    value = template.substitute(
        written, lambda field: template.escape(values.field(field)), grammar
    )
    string = f"{variable['name']}={value.replace('$$', '$')}"
    if value != written and len(string.encode()) >= _MAX_VARIABLE_BYTES:
        raise RenderRefusal(
            Reason.TOO_LARGE,
            f"with the alert's values, the environment variable {variable['name']} exceeds "
            "Linux' limit of 128 KiB, and the container could not start",
        )
    return value


def _check_references(
    container: AuthoredContainer,
    injected: Mapping[str, str],
    values: _Values,
    grammar: template.Grammar,
) -> None:
    """Refuse unsafe alert data that `$(NAME)` would put into a command, also indirectly."""
    texts = container.texts
    pending = list(container.expanded)
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in texts:
            for text in texts[name]:
                for field in template.fields(text, grammar):
                    values.argument(field)
                pending += template.references(text, grammar)
        elif name in injected:
            _require_safe(f"$({name})", injected[name])
        elif name.startswith(environment.PREFIX):
            raise RenderRefusal(
                Reason.MISSING_VALUE,
                f"a command uses $({name}), but {values.why_missing(name)}",
            )


def _require_safe(reference: str, value: str) -> None:
    if not template.is_safe_argument(value):
        shown = value[:_MAX_SHOWN_CHARACTERS]
        if len(value) > len(shown):
            shown += "…"
        raise RenderRefusal(
            Reason.UNSAFE_VALUE,
            f"{reference} is {shown!r}, which is not allowed in a command: allowed are letters, "
            "digits and . _ : / -, starting with a letter or digit, without '..'; read the value "
            "from an environment variable instead",
        )
