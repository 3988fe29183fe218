"""Options, envelopes and Jobs, field by field: what is another value, and which way it leads."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.author.diff.change import BehaviourChange, ChangeEffect, ChangeKind, Quote
from openfero_gitops.catalog.yaml.dump import to_yaml
from openfero_gitops.domain.duration import format_duration
from openfero_gitops.domain.operario import OPTIONS, Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from openfero_gitops.domain.catalog import Envelope
    from openfero_gitops.domain.operario import Operario, Options

_LONGEST_INLINE: Final = 80
_ENVELOPE: Final[dict[str, tuple[Callable[[Envelope], Any], Callable[[Any], Any] | None]]] = {
    "paused": (lambda one: one.paused, lambda paused: not paused),
    "mode": (lambda one: one.mode, lambda mode: mode is Mode.RUN),
    "limits.concurrent": (lambda one: one.limits.concurrent, int),
    "limits.perMinute": (lambda one: one.limits.per_minute, int),
    "limits.history": (lambda one: one.limits.history, None),
    "remember": (lambda one: one.remember, lambda remember: -remember),
    "defaults.backoffLimit": (lambda one: one.defaults.backoff_limit, int),
    "defaults.activeDeadlineSeconds": (lambda one: one.defaults.active_deadline_seconds, int),
    "defaults.podReplacementPolicy": (lambda one: one.defaults.pod_replacement_policy, None),
    "defaults.ttlSecondsAfterFinished": (
        lambda one: one.defaults.ttl_seconds_after_finished,
        None,
    ),
}


def _effect(before: Any, after: Any, allows: Callable[[Any], Any] | None) -> ChangeEffect:
    if allows is None or allows(before) == allows(after):
        return ChangeEffect.CHANGES
    return ChangeEffect.WIDENS if allows(after) > allows(before) else ChangeEffect.NARROWS


def envelope_changes(before: Envelope, after: Envelope) -> Iterator[BehaviourChange]:
    """What the safety envelope lets happen that it did not, and the reverse."""
    for name, (get, allows) in _ENVELOPE.items():
        old, new = get(before), get(after)
        if old != new:
            yield BehaviourChange(
                _effect(old, new, allows),
                ChangeKind.ENVELOPE,
                "",
                (f"{name}: {_shown(old)} → {_shown(new)}",),
            )
    old_names, new_names = before.namespaces, after.namespaces
    if old_names == new_names:
        return
    if new_names is None:
        sentence = ("namespaces: no longer narrowed",)
        yield BehaviourChange(ChangeEffect.WIDENS, ChangeKind.ENVELOPE, "", sentence)
        return
    if old_names is None:
        narrowed = ("namespaces: narrowed to ", Quote(", ".join(new_names)))
        yield BehaviourChange(ChangeEffect.NARROWS, ChangeKind.ENVELOPE, "", narrowed)
        return
    for effect, word, names in (
        (ChangeEffect.WIDENS, "also allows ", [n for n in new_names if n not in old_names]),
        (ChangeEffect.NARROWS, "no longer allows ", [n for n in old_names if n not in new_names]),
    ):
        if names:
            yield BehaviourChange(
                effect, ChangeKind.ENVELOPE, "", (f"namespaces: {word}", Quote(", ".join(names)))
            )


def option_changes(name: str, before: Options, after: Options) -> Iterator[BehaviourChange]:
    """Which options an operario has otherwise."""
    for option in OPTIONS:
        old, new = option.of(before), option.of(after)
        if old == new:
            continue
        if option.field == "matchers":
            effect = _matchers_effect(old, new)
        else:
            effect = _effect(old, new, option.permits)
        old_text, new_text = (option.type.text(value) or "none" for value in (old, new))
        yield BehaviourChange(
            effect,
            ChangeKind.OPTION,
            name,
            (f"{option.name}: ", Quote(old_text), " → ", Quote(new_text)),
        )


def _matchers_effect(old: tuple[Any, ...], new: tuple[Any, ...]) -> ChangeEffect:
    if set(new) < set(old):
        return ChangeEffect.WIDENS
    return ChangeEffect.NARROWS if set(old) < set(new) else ChangeEffect.CHANGES


def _shown(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case timedelta():
            return format_duration(value) if value else "0"
        case Mode():
            return value.value
        case _:
            return str(value)


def job_changes(before: Operario, after: Operario) -> Iterator[BehaviourChange]:
    """What an operario's Job holds otherwise."""
    name = after.name
    old, new = before.job, after.job
    for key in ("labels", "annotations"):
        yield from _maps(name, ChangeKind.JOB, (f"{key} of the Job: ",), old.get(key), new.get(key))
    old_spec, new_spec = dict(old["spec"]), dict(new["spec"])
    old_template, new_template = old_spec.pop("template"), new_spec.pop("template")
    yield from _maps(name, ChangeKind.JOB, ("spec of the Job: ",), old_spec, new_spec)
    old_meta, new_meta = old_template.get("metadata") or {}, new_template.get("metadata") or {}
    for key in ("labels", "annotations"):
        yield from _maps(
            name, ChangeKind.JOB, (f"{key} of the Pod: ",), old_meta.get(key), new_meta.get(key)
        )
    yield from _pods(name, old_template["spec"], new_template["spec"])


def _pods(
    name: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[BehaviourChange]:
    old, new = dict(before), dict(after)
    for key in ("initContainers", "containers"):
        yield from _containers(name, key, old.pop(key, []), new.pop(key, []))
    for pod in (old, new):
        for key in ("serviceAccountName", "serviceAccount"):
            pod.pop(key, None)  # told by whoever asks for its rights
    volumes = _by_name(old.pop("volumes", [])), _by_name(new.pop("volumes", []))
    yield from _maps(name, ChangeKind.VOLUMES, ("volume ",), *volumes)
    yield from _maps(name, ChangeKind.JOB, ("spec of the Pod: ",), old, new)


def _by_name(items: list[Any]) -> dict[str, Any]:
    return {one.get("name", ""): one for one in items}


def _containers(
    name: str, key: str, before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> Iterator[BehaviourChange]:
    word = "init container " if key == "initContainers" else "container "
    old, new = _by_name(before), _by_name(after)
    sentence: tuple[str, ...]
    for one in [one for one in new if one not in old]:
        sentence = (word, Quote(one), " is new, with image ", Quote(new[one].get("image", "")))
        yield BehaviourChange(
            ChangeEffect.CHANGES, ChangeKind.COMMAND, name, sentence, "", to_yaml([new[one]])
        )
    for one in [one for one in old if one not in new]:
        sentence = (word, Quote(one), " is gone")
        yield BehaviourChange(
            ChangeEffect.CHANGES, ChangeKind.COMMAND, name, sentence, to_yaml([old[one]]), ""
        )
    for one in [one for one in new if one in old]:
        yield from _container(name, (word, Quote(one), ": "), old[one], new[one])
    kept = [one for one in old if one in new]
    if kept != [one for one in new if one in old]:
        sentence = (f"{word.strip()}s are in another order: ", Quote(", ".join(new)))
        yield BehaviourChange(ChangeEffect.CHANGES, ChangeKind.COMMAND, name, sentence)


_PARTS: Final = (
    (ChangeKind.IMAGE, "image"),
    (ChangeKind.COMMAND, "command"),
    (ChangeKind.ARGS, "args"),
)
_MORE_PARTS: Final = (
    (ChangeKind.ENVIRONMENT, "envFrom"),
    (ChangeKind.VOLUMES, "volumeMounts"),
    (ChangeKind.VOLUMES, "volumeDevices"),
)


def _container(
    name: str, intro: tuple[str, ...], before: dict[str, Any], after: dict[str, Any]
) -> Iterator[BehaviourChange]:
    old, new = dict(before), dict(after)
    for kind, key in _PARTS:
        yield from _value(name, kind, (*intro, key), old.pop(key, None), new.pop(key, None))
    own = old.pop("env", []), new.pop("env", [])
    variables = _by_name(own[0]), _by_name(own[1])
    changes = list(_maps(name, ChangeKind.ENVIRONMENT, (*intro, "env "), *variables))
    yield from changes
    if not changes and own[0] != own[1]:
        sentence = (*intro, "env is in another order")
        yield BehaviourChange(
            ChangeEffect.CHANGES, ChangeKind.ENVIRONMENT, name, sentence, *map(_text, own)
        )
    for kind, key in _MORE_PARTS:
        yield from _value(name, kind, (*intro, key), old.pop(key, None), new.pop(key, None))
    yield from _maps(name, ChangeKind.JOB, intro, old, new)


def _maps(
    name: str,
    kind: ChangeKind,
    intro: tuple[str, ...],
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
) -> Iterator[BehaviourChange]:
    """Each member that is another; `intro` is in front of its name."""
    old, new = before or {}, after or {}
    for key in [*old, *(key for key in new if key not in old)]:
        yield from _value(name, kind, (*intro, Quote(key)), old.get(key), new.get(key))


def _value(
    name: str, kind: ChangeKind, where: tuple[str, ...], before: Any, after: Any
) -> Iterator[BehaviourChange]:
    if _canonical(before) == _canonical(after):
        return
    if _is_short(before) and _is_short(after):
        sentence = (*where, ": ", *_inline(before), " → ", *_inline(after))
        yield BehaviourChange(ChangeEffect.CHANGES, kind, name, sentence)
        return
    if before is None or after is None:
        word = " is new" if before is None else " is gone"
    else:
        word = " changed"
    yield BehaviourChange(
        ChangeEffect.CHANGES, kind, name, (*where, word), _text(before), _text(after)
    )


def _canonical(value: Any) -> str:
    """A text that is equal for equal values alone; 1 and true are not."""
    return json.dumps(value, sort_keys=True)


def _text(value: Any) -> str:
    """A value over several lines; nothing for none."""
    return "" if value is None else to_yaml([value], sort_keys=True).removesuffix("...\n")


def _is_short(value: Any) -> bool:
    if isinstance(value, dict) and set(value) == {"name", "value"}:
        value = value["value"]
    return not isinstance(value, dict | list) and (
        not isinstance(value, str) or (len(value) <= _LONGEST_INLINE and "\n" not in value)
    )


def _inline(value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):
        value = value["value"]
    return ("nothing",) if value is None else (Quote(_shown(value)),)
