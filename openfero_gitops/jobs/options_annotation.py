"""The options in force when a Job was rendered, to its annotation and back.

A decision about a Job must not depend on which commit a replica has reached, so the Job carries
what it needs.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.duration import format_duration, parse_duration
from openfero_gitops.domain.operario import Mode, OnResolve, Options
from openfero_gitops.domain.text import canonical_json

if TYPE_CHECKING:
    from datetime import timedelta

#: A repository's operarios are few beside their Jobs.
_REMEMBERED: Final = 4096


@lru_cache(maxsize=_REMEMBERED)
def write_options(options: Options) -> str:
    """Canonical JSON under the names that authors use; matchers have done their work before."""
    return canonical_json(
        {
            "approval": options.approval,
            "cooldown": format_duration(options.cooldown),
            "max-concurrent": options.max_concurrent,
            "max-per-hour": options.max_per_hour,
            "max-runs": options.max_runs,
            "max-wait": format_duration(options.max_wait),
            "mode": options.mode.value,
            "on-resolve": options.on_resolve.value,
            "own-jobs": options.own_jobs,
            "priority": options.priority,
            "rerun-after": format_duration(options.rerun_after),
            "resolve-delay": format_duration(options.resolve_delay),
        }
    )


@lru_cache(maxsize=_REMEMBERED)
def read_options(text: str) -> Options:
    """Read `write_options`' text; what is missing or damaged has its default, which is safe.

    Except for approval, which is then required.
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raw = {}
    if not isinstance(raw, dict):
        raw = {}
    default = Options()
    return Options(
        priority=_integer(raw.get("priority"), default.priority),
        mode=Mode.DRY_RUN if raw.get("mode") == Mode.DRY_RUN.value else Mode.RUN,
        cooldown=_duration(raw.get("cooldown"), default.cooldown),
        max_concurrent=_integer(raw.get("max-concurrent"), default.max_concurrent),
        max_per_hour=_integer(raw.get("max-per-hour"), default.max_per_hour),
        max_wait=_duration(raw.get("max-wait"), default.max_wait),
        rerun_after=_duration(raw.get("rerun-after"), default.rerun_after),
        max_runs=_integer(raw.get("max-runs"), default.max_runs),
        # Whatever is not plainly "no" waits for a human.
        approval=raw.get("approval") is not False,
        on_resolve=_on_resolve(raw.get("on-resolve"), default.on_resolve),
        resolve_delay=_duration(raw.get("resolve-delay"), default.resolve_delay),
        own_jobs=raw.get("own-jobs") is True,
    )


def _integer(value: Any, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _duration(value: Any, default: timedelta) -> timedelta:
    try:
        return parse_duration(value) if isinstance(value, str) else default
    except ValueError:
        return default


def _on_resolve(value: Any, default: OnResolve) -> OnResolve:
    try:
        return OnResolve(value)
    except ValueError:
        return default
