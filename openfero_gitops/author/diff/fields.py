"""Changes of options, envelopes and Jobs, field by field, and whether they allow more."""

from __future__ import annotations

from datetime import timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.author.diff.change import BehaviorChange, ChangeEffect, ChangeKind
from openfero_gitops.catalog.yaml.dump import to_yaml
from openfero_gitops.domain.duration import format_duration
from openfero_gitops.domain.operario import OPTIONS, Mode
from openfero_gitops.domain.sentence import Quote
from openfero_gitops.jobs.compare import compare, is_same

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from openfero_gitops.domain.catalog import Envelope
    from openfero_gitops.domain.operario import Operario, Options
    from openfero_gitops.domain.watchdog import Watchdog

_MAX_INLINE_CHARACTERS: Final = 80
# Members of `openfero.yaml`: where the envelope has them, and how much a value allows.
_ENVELOPE: Final[dict[str, tuple[str, Callable[[Any], Any] | None]]] = {
    "paused": ("paused", lambda paused: not paused),
    "mode": ("mode", lambda mode: mode is Mode.RUN),
    "limits.concurrent": ("limits.concurrent", int),
    "limits.perMinute": ("limits.per_minute", int),
    "limits.history": ("limits.history", None),
    "remember": ("remember", lambda remember: -remember),
    "defaults.backoffLimit": ("defaults.backoff_limit", int),
    "defaults.activeDeadlineSeconds": ("defaults.active_deadline_seconds", int),
    "defaults.podReplacementPolicy": ("defaults.pod_replacement_policy", None),
    "defaults.ttlSecondsAfterFinished": ("defaults.ttl_seconds_after_finished", None),
}


def _effect(before: Any, after: Any, allows: Callable[[Any], Any] | None) -> ChangeEffect:
    if allows is None or allows(before) == allows(after):
        return ChangeEffect.CHANGES
    return ChangeEffect.WIDENS if allows(after) > allows(before) else ChangeEffect.NARROWS


def envelope_changes(before: Envelope, after: Envelope) -> Iterator[BehaviorChange]:
    """Changes of `openfero.yaml`."""
    for name, (attribute, allows) in _ENVELOPE.items():
        old, new = map(attrgetter(attribute), (before, after))
        if old != new:
            yield BehaviorChange(
                _effect(old, new, allows),
                ChangeKind.ENVELOPE,
                "",
                (f"{name}: {_shown(old)} → {_shown(new)}",),
            )
    if before.ignore != after.ignore:
        patterns = Quote(", ".join(after.ignore) or "nothing")
        yield BehaviorChange(
            ChangeEffect.CHANGES, ChangeKind.ENVELOPE, "", ("ignore: now ", patterns)
        )
    if before.watchdog != after.watchdog:
        old, new = _watchdog(before.watchdog), _watchdog(after.watchdog)
        sentence = ("watchdog: ", *old, " → ", *new)
        yield BehaviorChange(ChangeEffect.CHANGES, ChangeKind.ENVELOPE, "", sentence)
    old_names, new_names = before.namespaces, after.namespaces
    if old_names == new_names:
        return
    if new_names is None:
        sentence = ("namespaces: no longer restricted",)
        yield BehaviorChange(ChangeEffect.WIDENS, ChangeKind.ENVELOPE, "", sentence)
        return
    if old_names is None:
        restricted = ("namespaces: restricted to ", Quote(", ".join(new_names)))
        yield BehaviorChange(ChangeEffect.NARROWS, ChangeKind.ENVELOPE, "", restricted)
        return
    for effect, word, names in (
        (
            ChangeEffect.WIDENS,
            "also allows ",
            [name for name in new_names if name not in old_names],
        ),
        (
            ChangeEffect.NARROWS,
            "no longer allows ",
            [name for name in old_names if name not in new_names],
        ),
    ):
        if names:
            yield BehaviorChange(
                effect, ChangeKind.ENVELOPE, "", (f"namespaces: {word}", Quote(", ".join(names)))
            )


def _watchdog(watchdog: Watchdog | None) -> tuple[str, ...]:
    if watchdog is None:
        return ("none",)
    return (Quote(watchdog.alertname), f" within {format_duration(watchdog.within)}")


def _missing(names: Sequence[str], others: Collection[str]) -> list[str]:
    return [name for name in names if name not in others]


def option_changes(name: str, before: Options, after: Options) -> Iterator[BehaviorChange]:
    """Changes of an operario's options."""
    for option in OPTIONS:
        old, new = option.of(before), option.of(after)
        if old == new:
            continue
        if option.field == "matchers":
            effect = _matchers_effect(old, new)
        else:
            effect = _effect(old, new, option.permits)
        old_text, new_text = (option.type.text(value) or "none" for value in (old, new))
        yield BehaviorChange(
            effect,
            ChangeKind.OPTION,
            name,
            (f"{option.name}: ", Quote(old_text), " → ", Quote(new_text)),
            option=option.name,
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


def job_changes(before: Operario, after: Operario) -> Iterator[BehaviorChange]:
    """Changes of an operario's Job."""
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
) -> Iterator[BehaviorChange]:
    old, new = dict(before), dict(after)
    for key in ("initContainers", "containers"):
        yield from _containers(name, key, old.pop(key, []), new.pop(key, []))
    for pod in (old, new):
        for key in ("serviceAccountName", "serviceAccount"):
            pod.pop(key, None)  # compared together with its rights
    volumes = _by_name(old.pop("volumes", [])), _by_name(new.pop("volumes", []))
    yield from _maps(name, ChangeKind.VOLUMES, ("volume ",), *volumes)
    yield from _maps(name, ChangeKind.JOB, ("spec of the Pod: ",), old, new)


def _by_name(items: list[Any]) -> dict[str, Any]:
    return {item.get("name", ""): item for item in items}


def _containers(
    name: str, key: str, before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> Iterator[BehaviorChange]:
    word = "init container " if key == "initContainers" else "container "
    old, new = _by_name(before), _by_name(after)
    sentence: tuple[str, ...]
    for container in [container for container in new if container not in old]:
        image = new[container].get("image", "")
        sentence = (word, Quote(container), " was added, with image ", Quote(image))
        yield BehaviorChange(
            ChangeEffect.CHANGES, ChangeKind.COMMAND, name, sentence, "", to_yaml([new[container]])
        )
    for container in [container for container in old if container not in new]:
        sentence = (word, Quote(container), " was removed")
        yield BehaviorChange(
            ChangeEffect.CHANGES, ChangeKind.COMMAND, name, sentence, to_yaml([old[container]]), ""
        )
    kept = [container for container in new if container in old]
    for container in kept:
        intro = (word, Quote(container), ": ")
        yield from _container(name, intro, old[container], new[container])
    if kept != [container for container in old if container in new]:
        sentence = (f"order of {word.strip()}s changed: ", Quote(", ".join(new)))
        yield BehaviorChange(ChangeEffect.CHANGES, ChangeKind.COMMAND, name, sentence)


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
) -> Iterator[BehaviorChange]:
    old, new = dict(before), dict(after)
    for kind, key in _PARTS:
        yield from _value(name, kind, (*intro, key), old.pop(key, None), new.pop(key, None))
    own = old.pop("env", []), new.pop("env", [])
    variables = _by_name(own[0]), _by_name(own[1])
    changes = list(_maps(name, ChangeKind.ENVIRONMENT, (*intro, "env "), *variables))
    yield from changes
    if not changes and own[0] != own[1]:
        sentence = (*intro, "order of env changed")
        yield BehaviorChange(
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
) -> Iterator[BehaviorChange]:
    """Each member that differs; `intro` precedes its name."""
    for difference in compare(dict(before or {}), dict(after or {}), max_depth=1):
        field = (*intro, Quote(difference.pointer[0]))
        yield _change(name, kind, field, difference.before, difference.after)


def _value(
    name: str, kind: ChangeKind, field: tuple[str, ...], before: Any, after: Any
) -> Iterator[BehaviorChange]:
    if not is_same((), before, after):
        yield _change(name, kind, field, before, after)


def _change(
    name: str, kind: ChangeKind, field: tuple[str, ...], before: Any, after: Any
) -> BehaviorChange:
    if _is_short(before) and _is_short(after):
        sentence = (*field, ": ", *_inline(before), " → ", *_inline(after))
        return BehaviorChange(ChangeEffect.CHANGES, kind, name, sentence)
    if before is None or after is None:
        word = " was added" if before is None else " was removed"
    else:
        word = " changed"
    return BehaviorChange(
        ChangeEffect.CHANGES, kind, name, (*field, word), _text(before), _text(after)
    )


def _text(value: Any) -> str:
    """A value as YAML; empty for None."""
    return "" if value is None else to_yaml([value], sort_keys=True).removesuffix("...\n")


def _is_short(value: Any) -> bool:
    if isinstance(value, dict) and set(value) == {"name", "value"}:
        value = value["value"]
    return not isinstance(value, dict | list) and (
        not isinstance(value, str) or (len(value) <= _MAX_INLINE_CHARACTERS and "\n" not in value)
    )


def _inline(value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):
        value = value["value"]
    return ("unset",) if value is None else (Quote(_shown(value)),)
