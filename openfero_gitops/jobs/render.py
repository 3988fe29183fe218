"""An alert, an operario and the envelope to the Job that heals: a pure function.

The same inputs give the same Job on every replica. A remediation that cannot be rendered is a
Job too, one that carries its refusal and none of the alert's data, so that it is seen.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Occurrence
from openfero_gitops.domain.errors import RenderRefusal
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import JobKey
from openfero_gitops.domain.text import canonical_json
from openfero_gitops.domain.timestamp import format_time
from openfero_gitops.jobs import environment, template
from openfero_gitops.jobs.names import job_name, label_value
from openfero_gitops.jobs.options_annotation import write_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from openfero_gitops.domain.alert import Alert, Status
    from openfero_gitops.domain.catalog import Envelope, Revision
    from openfero_gitops.domain.operario import Operario

#: Written on each Job; it counts up when the same inputs give another Job than before.
RENDERER: Final = 1

_NOT_TARGET: Final = frozenset({"alertname", "severity"})
#: What Kubernetes allows, less what is written later: a decision, a container's last words.
_ANNOTATION_BYTES: Final = (256 - 16) * 1024
_VARIABLE_BYTES: Final = 128 * 1024
_RECORD_OF_TOO_LARGE: Final = 1024
_LONGEST_MESSAGE: Final = 1024


@dataclass(frozen=True, slots=True)
class Delivery:
    """The circumstances of a delivery: its group, when it came, and who took it.

    `id` tells apart deliveries of alerts that name no start of their own. What a Job depends on
    is recorded on it (`read_delivery`).
    """

    id: str
    group_key: str
    group_status: Status
    received_at: datetime
    received_by: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """A Job ready to be created, suspended; `refusal` where it must never start."""

    key: JobKey
    occurrence: Occurrence
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
) -> Rendered:
    """Build the Job of one alert occurrence."""
    # As it is recorded, so that the Job can be derived again from what it carries.
    delivery = dataclasses.replace(
        delivery, group_key=environment.cut_group_key(delivery.group_key)
    )
    occurrence = Occurrence(alert.labels, alert.status, alert.starts_at, attempt, delivery.id)
    key = JobKey(operario.namespace or jobs_namespace, job_name(occurrence))
    record = environment.alert_record(alert)
    refusal: Reason | None = None
    message = ""
    spec = _spec(operario, envelope)
    aim = target(alert, operario)
    if environment.fits(record):
        try:
            _inject(spec, _Values(json.loads(record), delivery, record, operario.origin.commit))
        except RenderRefusal as error:
            refusal, message = error.reason, str(error)[:_LONGEST_MESSAGE]
            # As its author wrote it and without the alert's data: if a person starts it all
            # the same, no value of the alert reaches a command.
            spec = _spec(operario, envelope)
    else:
        refusal = Reason.TOO_LARGE
        message = "the alert's labels do not fit into 64 KiB: shorten them at their source"
        name = {"alertname": alert.name[:_RECORD_OF_TOO_LARGE]}
        aim = target(dataclasses.replace(alert, labels=name), operario)
        record = canonical_json(
            {
                "status": alert.status.value,
                "labels": name,
                "annotations": {},
                "truncated": True,
            }
        )
    annotations = {
        **_foreign(operario.job.get("annotations")),
        **_annotations(operario, revision, occurrence, delivery, record),
        keys.FINGERPRINT: alert.fingerprint[:_RECORD_OF_TOO_LARGE],
        keys.TARGET: aim,
        keys.OPTIONS: write_options(operario.options),
    }
    if queue := (operario.job.get("labels") or {}).get(keys.KUEUE_QUEUE):
        annotations[keys.QUEUE] = queue
    if sum(len(k.encode()) + len(v.encode()) for k, v in annotations.items()) > _ANNOTATION_BYTES:
        annotations = {k: v for k, v in annotations.items() if k.startswith(keys.PREFIX)}
        if refusal is None:
            refusal = Reason.TOO_LARGE
            message = "all annotations together would exceed Kubernetes' 256 KiB"
            spec = _spec(operario, envelope)
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
                **_foreign(operario.job.get("labels")),
                keys.MANAGED_BY: keys.MANAGER,
                keys.OPERARIUS: label_value(operario.name),
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
    return Rendered(key, occurrence, manifest, refusal, message)


def target(alert: Alert, operario: Operario) -> str:
    """What is being healed, as canonical JSON of the labels that name it."""
    names = operario.options.target or tuple(n for n in alert.labels if n not in _NOT_TARGET)
    chosen = {name: alert.labels[name] for name in names if alert.labels.get(name)}
    return canonical_json(chosen or {"alertname": alert.name})


def _foreign(mapping: Mapping[str, str] | None) -> dict[str, str]:
    """An author's labels or annotations without those that mean something to us or to Kueue."""
    return {
        key: value
        for key, value in (mapping or {}).items()
        if not key.startswith((keys.PREFIX, keys.KUEUE_PREFIX))
    }


def _annotations(
    operario: Operario,
    revision: Revision,
    occurrence: Occurrence,
    delivery: Delivery,
    record: str,
) -> dict[str, str]:
    origin = operario.origin
    received = format_time(delivery.received_at)
    signer = {keys.VERIFIED_SIGNER: origin.verified_signer} if origin.verified_signer else {}
    return {
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
        keys.RENDERER: str(RENDERER),
        keys.ALERT: record,
        keys.STARTS_AT: format_time(occurrence.starts_at) if occurrence.starts_at else "",
        keys.ATTEMPT: str(occurrence.attempt),
        keys.RECEIVED_AT: received,
        keys.LAST_DELIVERED_AT: received,
        keys.RECEIVED_BY: delivery.received_by,
        keys.DELIVERY: canonical_json(
            {
                # (An alert that names its start does not depend on who delivered it.)
                "id": "" if occurrence.starts_at else delivery.id,
                "groupKey": delivery.group_key,
                "groupStatus": delivery.group_status.value,
            }
        ),
    }


def _spec(operario: Operario, envelope: Envelope) -> dict[str, Any]:
    """The author's spec, suspended, with the envelope's defaults where it says nothing."""
    defaults = envelope.defaults
    spec: dict[str, Any] = {
        "backoffLimit": defaults.backoff_limit,
        "activeDeadlineSeconds": defaults.active_deadline_seconds,
        "podReplacementPolicy": defaults.pod_replacement_policy,
        "ttlSecondsAfterFinished": defaults.ttl_seconds_after_finished,
        **copy.deepcopy(dict(operario.job["spec"])),
        "suspend": True,
    }
    if "backoffLimitPerIndex" in spec and "backoffLimit" not in operario.job["spec"]:
        del spec["backoffLimit"]  # the first index that fails would end all the others
    # A Job that is gone cannot tell a repeated delivery from a new one.
    remember = -(-envelope.remember // timedelta(seconds=1))
    spec["ttlSecondsAfterFinished"] = max(spec["ttlSecondsAfterFinished"], remember)
    return spec


@dataclass(frozen=True, slots=True)
class _Values:
    """Where an operario's references find their values.

    In the record, not in the alert: what was cut there is not in the Job at all, so that the
    Job can be derived again from what it carries.
    """

    alert: Mapping[str, Any]
    delivery: Delivery
    record: str
    commit: str

    def field(self, field: template.Field) -> str:
        """The value of a field reference; a field that is missing refuses the remediation."""
        match field.kind:
            case "Status":
                values, key = self.alert, "status"
            case "GroupStatus":
                return self.delivery.group_status.value
            case "GroupKey":
                return self.delivery.group_key
            case "Labels":
                values, key = self.alert["labels"], field.key
            case _:
                values, key = self.alert["annotations"], field.key
        try:
            value: str = values[key]
        except KeyError:
            raise RenderRefusal(
                Reason.MISSING_VALUE, f"the operario uses {field}, which the alert does not have"
            ) from None
        return value

    def argument(self, field: template.Field) -> str:
        """The same, where it becomes part of a command or an argument."""
        value = self.field(field)
        _require_safe(str(field), value)
        return value

    def variables(self) -> dict[str, str]:
        """The variables that are injected, unescaped."""
        return environment.variables(self.record, self.delivery.group_key, self.commit)


def _inject(spec: dict[str, Any], values: _Values) -> None:
    """Put the alert into every container: variables, field references, checked arguments."""
    pod = spec["template"]["spec"]
    ours = values.variables()
    for container in (*pod.get("initContainers", ()), *pod.get("containers", ())):
        theirs: list[dict[str, Any]] = container.get("env", [])
        _check_references(container, theirs, ours, values)
        for variable in theirs:
            if isinstance(variable.get("value"), str):
                variable["value"] = _filled(variable, values)
        for part in ("command", "args"):
            if part in container:
                container[part] = [
                    template.substitute(word, values.argument) for word in container[part]
                ]
        defined = {variable["name"] for variable in theirs}
        container["env"] = [
            {"name": name, "value": template.escape(value)}
            for name, value in ours.items()
            if name not in defined
        ] + theirs


def _filled(variable: Mapping[str, Any], values: _Values) -> str:
    """The value of an operario's own variable, with alert data in the place of its references."""
    written: str = variable["value"]
    value = template.substitute(written, lambda field: template.escape(values.field(field)))
    string = f"{variable['name']}={value.replace('$$', '$')}"
    if value != written and len(string.encode()) >= _VARIABLE_BYTES:
        raise RenderRefusal(
            Reason.TOO_LARGE,
            f"with the alert's values the variable {variable['name']} is longer than Linux' "
            "128 KiB, and the container could not start",
        )
    return value


def _check_references(
    container: Mapping[str, Any],
    theirs: list[dict[str, Any]],
    ours: Mapping[str, str],
    values: _Values,
) -> None:
    """Refuse alert data that a `$(NAME)` would carry into a command, by whatever detour."""
    # Of several variables of one name the last counts, and the earlier ones until then.
    own: dict[str, list[str]] = defaultdict(list)
    for variable in theirs:
        own[variable["name"]].append(variable.get("value", ""))
    pending = [name for word in _expanded(container) for name in template.references(word)]
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in own:
            for text in own[name]:
                for field in template.fields(text):
                    if isinstance(field, template.Field):
                        values.argument(field)
                pending += template.references(text)
        elif name in ours:
            _require_safe(f"$({name})", ours[name])
        elif name.startswith(environment.PREFIX):
            raise RenderRefusal(
                Reason.MISSING_VALUE,
                f"a command uses $({name}), for which the alert has no label or annotation",
            )


def _expanded(container: Mapping[str, Any]) -> Iterator[str]:
    """Every text of a container, besides its variables, in which the kubelet expands `$(NAME)`."""
    for part in ("command", "args"):
        yield from container.get(part, ())
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        yield from container.get(probe, {}).get("exec", {}).get("command", ())
    for mount in container.get("volumeMounts", ()):
        yield mount.get("subPathExpr", "")


def _require_safe(what: str, value: str) -> None:
    if not template.is_safe_argument(value):
        shown = value if len(value) <= 80 else value[:80] + "…"  # noqa: PLR2004
        raise RenderRefusal(
            Reason.UNSAFE_VALUE,
            f"{what} is {shown!r}, which may not become part of a command: only letters, digits "
            "and . _ : / - may, beginning with a letter or digit and without '..'; read it from "
            "the environment instead",
        )
