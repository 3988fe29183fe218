"""What a definition of OpenFero means in another way here, in sentences for its author.

The facts about OpenFero are those of version 0.18 (`pkg/services/operarius.go`): it creates one Job
for a delivery, from the labels of its first alert, and appends them to `env` of the containers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.duration import format_duration
from openfero_gitops.domain.operario import Form
from openfero_gitops.jobs import template

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import timedelta

    from openfero_gitops.catalog.forms import Draft
    from openfero_gitops.domain.catalog import Envelope

_VARIABLE: Final = re.compile(r"OPENFERO_[A-Z0-9_]+")
_READ_BY_SHELL: Final = re.compile(r"\$\{?OPENFERO_([A-Z0-9_]+)")


@dataclass(frozen=True, slots=True)
class Difference:
    """A change in meaning: `id` in kebab case, `message` one or more sentences.

    `needs_review` says that the remediation may do something else than before.
    """

    id: str
    message: str
    needs_review: bool = False


#: What is different for every definition.
FOR_ALL: Final = (
    Difference(
        "every-alert",
        "OpenFero creates one Job for a delivery of Alertmanager, for its first alert. Here every "
        "alert of the delivery has its own Job.",
    ),
    Difference(
        "once",
        "OpenFero creates another Job when Alertmanager repeats an alert after the deduplication "
        "window. Here an alert has one Job from when it fires until it is resolved. To run the Job "
        "again while the alert fires, set openfero.io/rerun-after.",
    ),
    Difference(
        "admission",
        "Jobs are created suspended. The leader starts them within the limits of the operario and "
        "of openfero.yaml, one at a time for each target.",
    ),
    Difference(
        "variables",
        "Variables for the labels come first in env, also of init containers, and never replace a "
        "variable of the operario. OpenFero appends them, so its variables win. A dot in a label "
        "name becomes an underscore, and a dollar sign in a value stays one.",
    ),
    Difference(
        "values",
        "A value of an alert that contains {{ is not evaluated as a template.",
    ),
    Difference(
        "names",
        "Jobs have other names, and the label openfero.io/managed-by=openfero-gitops.",
    ),
)


def differences(draft: Draft, document: Mapping[str, Any], envelope: Envelope) -> list[Difference]:
    """Compare the meaning of one definition.

    Args:
        draft: what this controller reads.
        document: the object that OpenFero reads.
        envelope: of the new repository; its defaults fill in the Job.
    """
    return [
        *_deduplication(draft, document),
        *_defaults(draft, envelope),
        *_templates(draft),
        *_variables(draft),
        *_selection(draft),
    ]


def _deduplication(draft: Draft, document: Mapping[str, Any]) -> Iterator[Difference]:
    if draft.form is not Form.OPERARIUS:
        yield Difference("cooldown", _cooldown(draft.options.cooldown))
        return
    deduplication = document["spec"].get("deduplication") or {}
    ttl = deduplication.get("ttl") or 0
    if deduplication.get("enabled") and ttl:
        yield Difference(
            "deduplication",
            f"deduplication.ttl is {ttl} s: OpenFero creates no Job for the same group of alerts "
            f"within {ttl} s of the last one. {_cooldown(draft.options.cooldown)}",
        )
    elif deduplication.get("enabled") is False:
        yield Difference(
            "deduplication",
            "deduplication is off: OpenFero creates a Job for each delivery. Here an alert still "
            "has one Job, but there is no cooldown.",
        )
    else:
        yield Difference("cooldown", _cooldown(draft.options.cooldown))


def _cooldown(cooldown: timedelta) -> str:
    if not cooldown:
        return "There is no cooldown."
    return (
        f"Here the next Job for the same target starts {format_duration(cooldown)} after the end "
        "of the last one at the earliest (openfero.io/cooldown)."
    )


def _defaults(draft: Draft, envelope: Envelope) -> Iterator[Difference]:
    spec = draft.job["spec"]
    remember = format_duration(envelope.remember)
    ttl = spec.get("ttlSecondsAfterFinished")
    if ttl is not None and ttl < envelope.remember.total_seconds():
        yield Difference(
            "ttl",
            f"ttlSecondsAfterFinished is {ttl}. The Job is kept for {remember} (remember in "
            "openfero.yaml), because it is the record of its alert.",
        )
    elif ttl is None:
        yield Difference(
            "ttl",
            "ttlSecondsAfterFinished is not set: OpenFero keeps the Job until somebody deletes it. "
            "Here it is deleted as openfero.yaml says, a day after its end.",
        )
    if "activeDeadlineSeconds" not in spec:
        seconds = envelope.defaults.active_deadline_seconds
        yield Difference(
            "deadline",
            f"activeDeadlineSeconds is not set, so the Job is stopped after {seconds} s "
            "(defaults in openfero.yaml).",
            needs_review=True,
        )
    if "backoffLimit" not in spec:
        yield Difference(
            "retries",
            "backoffLimit is not set. Kubernetes retries a failed Pod 6 times; here it is retried "
            f"{envelope.defaults.backoff_limit} times (defaults in openfero.yaml).",
            needs_review=True,
        )


def _templates(draft: Draft) -> Iterator[Difference]:
    grammar = template.grammar_of(draft.form)
    placeholders: dict[str, set[str]] = {}
    for place, text in _texts(draft.job["spec"]):
        found = {field.written for field in template.fields(text, grammar)}
        placeholders.setdefault(place, set()).update(found)
    for place, found in placeholders.items():
        written = ", ".join(sorted(found))
        if written and not place.endswith("env"):
            yield Difference(
                "template-in-command",
                f"{place} contains {written}. A value with other characters than "
                "letters, digits and ._:/- refuses the remediation, so that an alert cannot add "
                "commands. Read the variable OPENFERO_… of the label instead, in quotes.",
                needs_review=True,
            )
        if written and draft.form is not Form.OPERARIUS:
            yield Difference(
                "template",
                f"{place} contains {written}, which is replaced by the value. OpenFero "
                "replaces it only in an Operarius.",
                needs_review=True,
            )


def _variables(draft: Draft) -> Iterator[Difference]:
    for container in draft.job["spec"]["template"]["spec"].get("containers", []):
        for variable in container.get("env", []):
            name = variable.get("name", "")
            if _VARIABLE.fullmatch(name):
                yield Difference(
                    "variable-kept",
                    f"container {container['name']} sets {name} itself. Here this value is kept; "
                    "in OpenFero the label of the alert replaces it.",
                    needs_review=True,
                )


def _selection(draft: Draft) -> Iterator[Difference]:
    if not draft.options.enabled:
        yield Difference("disabled", "It is disabled, and stays disabled.")
    if draft.options.matchers:
        matchers = ", ".join(map(str, draft.options.matchers))
        yield Difference(
            "matchers",
            f"{matchers}: each alert is compared, not the labels of the group.",
        )


def _texts(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the texts of containers that can have templates, each with its place."""
    pod = spec["template"]["spec"]
    for member in ("initContainers", "containers"):
        for container in pod.get(member) or ():
            name = container.get("name", "")
            for part in ("command", "args"):
                for text in container.get(part) or ():
                    yield f"container {name}: {part}", text
            for variable in container.get("env") or ():
                if isinstance(variable.get("value"), str):
                    yield f"container {name}: env", variable["value"]


def label_names(job: Mapping[str, Any]) -> list[str]:
    """Return the labels whose variables the shell scripts of a Job read, as `$OPENFERO_POD`."""
    names = {
        name.lower() for _, text in _texts(job["spec"]) for name in _READ_BY_SHELL.findall(text)
    }
    return sorted(names)
