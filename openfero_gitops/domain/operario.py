"""An operario: one remediation definition, and the options that its author chose."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.option import (
    APPROVAL,
    BOOLEAN,
    COUNT,
    COUNT_OR_OFF,
    DURATION,
    DURATION_ABOVE_0,
    INTEGER,
    LABEL_NAMES,
    MATCHERS,
    RUNS,
    choice,
    declared_options,
    option,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openfero_gitops.domain.alert import Status
    from openfero_gitops.domain.matcher import Matcher


class Form(StrEnum):
    """Which of OpenFero's three formats a definition has."""

    JOB = "Job"
    CONFIG_MAP = "ConfigMap"
    OPERARIUS = "Operarius"


class Mode(StrEnum):
    """Whether Jobs run or are only submitted as a dry run."""

    RUN = "run"
    DRY_RUN = "dry-run"


class OnResolve(StrEnum):
    """What happens to the Jobs of a firing operario when their alert is resolved."""

    CANCEL = "cancel"
    KEEP = "keep"
    CANCEL_RUNNING = "cancel-running"


#: From the value that permits least to the one that permits most.
_ON_RESOLVE: Final = (OnResolve.CANCEL_RUNNING, OnResolve.CANCEL, OnResolve.KEEP)


@dataclass(frozen=True, slots=True)
class Options:
    """The options of an operario, each an annotation `openfero.io/NAME`.

    Every default is safe in an alert storm.
    """

    matchers: tuple[Matcher, ...] = option(
        MATCHERS,
        "Alertmanager matchers in addition to the alert name; all of them must match.",
        default=(),
        example='severity="critical", namespace!="dev"',
        recorded=False,
    )
    priority: int = option(
        INTEGER,
        "If several operarios match an alert, the highest priority wins, then the first name.",
        default=0,
        example="10",
    )
    enabled: bool = option(
        BOOLEAN,
        "`false` disables the operario: it gets no new Jobs, and its Jobs that already wait start "
        "only if somebody approves them. OpenFero's label `openfero/job-disabled` disables it too, "
        "with any value, even `false`.",
        default=True,
        example="false",
        recorded=False,
        permits=bool,
    )
    mode: Mode = option(
        choice(Mode),
        "`dry-run` submits each Job to the API server as a dry run and then refuses it.",
        default=Mode.RUN,
        example="dry-run",
        permits=lambda mode: mode is Mode.RUN,
    )
    target: tuple[str, ...] = option(
        LABEL_NAMES,
        "The labels that identify what is remediated: at most one Job runs per target, across all"
        " operarios. Default: all labels except `alertname`, `severity` and replica labels (those"
        " are never part of a target).",
        default=(),
        example="namespace,pod",
        recorded=False,
    )
    cooldown: timedelta = option(
        DURATION,
        "The time after the end of a Job during which the operario starts no other Job for the"
        " same target.",
        default=timedelta(minutes=10),
        example="30m",
        permits=lambda cooldown: -cooldown,
    )
    max_concurrent: int = option(
        COUNT,
        "The maximum number of Jobs of the operario that run at the same time; others wait.",
        default=5,
        example="5",
        permits=int,
    )
    max_per_hour: int = option(
        COUNT,
        "The maximum number of Jobs of the operario that start within an hour; others wait.",
        default=30,
        example="30",
        permits=int,
    )
    max_wait: timedelta = option(
        DURATION,
        "A Job that has waited longer is refused, because it would run late and unnoticed;"
        " `0` disables the limit.",
        default=timedelta(hours=1),
        example="1h",
        permits=lambda wait: wait or timedelta.max,
    )
    rerun_after: timedelta = option(
        DURATION,
        "If the alert still fires this long after its Job ended, another Job is created;"
        " `0` disables reruns.",
        default=timedelta(0),
        example="1h",
        permits=lambda after: -after if after else timedelta.min,
    )
    max_runs: int = option(
        RUNS,
        "The maximum number of Jobs for one occurrence of an alert, with `rerun-after`.",
        default=3,
        example="3",
        permits=int,
    )
    approval: bool = option(
        APPROVAL,
        "With `required`, each Job waits for a person to approve it; this time counts toward"
        " `max-wait`. It applies at once to Jobs that already wait.",
        default=False,
        example="required",
        if_unreadable=True,
        permits=lambda required: not required,
    )
    heals_within: timedelta = option(
        DURATION_ABOVE_0,
        "A Job has healed its alert if the alert is resolved between the start of the Job and this"
        " long after its end, and does not fire again for the same time after that.",
        default=timedelta(minutes=15),
        example="15m",
        first_renderer=4,
    )
    stop_after_not_healed: int | None = option(
        COUNT_OR_OFF,
        "If the last N Jobs for a target did not heal their alerts, the next one waits until a"
        " person approves it or the operario changes; `off` disables this.",
        default=3,
        example="3",
        first_renderer=4,
        permits=lambda count: math.inf if count is None else count,
    )
    on_resolve: OnResolve = option(
        choice(OnResolve),
        "What happens to Jobs whose alert is resolved: `cancel` cancels those that wait,"
        " also in a Kueue queue, `cancel-running` also stops those that run, `keep` does neither.",
        default=OnResolve.CANCEL,
        example="cancel",
        permits=_ON_RESOLVE.index,
    )
    resolve_delay: timedelta = option(
        DURATION,
        "How long a Job for a resolved alert waits, in case the alert fires again.",
        default=timedelta(minutes=1),
        example="5m",
        permits=lambda delay: -delay,
    )
    own_jobs: bool = option(
        BOOLEAN,
        "`true` also remediates alerts about Jobs that this controller created, and alerts that"
        " this controller sent to Alertmanager.",
        default=False,
        example="true",
        permits=bool,
    )


#: All options, in the order of the documentation.
OPTIONS: Final = declared_options(Options)


def stricter_options(options: Options, other: Options) -> Options:
    """Return, for each recorded option, the value that permits less; `options` if all are its own.

    Options that permit neither more nor less, such as the priority, stay as they are.
    """
    if options == other:  # of most Jobs: this is done for each of them, and often
        return options
    stricter = {
        option.field: option.of(other)
        for option in OPTIONS
        if option.recorded
        and option.permits is not None
        and option.permits(option.of(other)) < option.permits(option.of(options))
    }
    return replace(options, **stricter) if stricter else options


def changed_options(options: Options) -> tuple[tuple[str, str], ...]:
    """List the options that differ from their default, each with its text, sorted by name."""
    return tuple(
        (option.name, option.type.text(option.of(options)))
        for option in sorted(OPTIONS, key=lambda option: option.name)
        if option.of(options) != option.default
    )


@dataclass(frozen=True, slots=True)
class Origin:
    """The place of a definition in Git.

    `commit` is the catalog's revision, or an older one if the newest version of the file has
    errors (`stale`); `document` counts the YAML documents of the file from 0.
    """

    path: str
    blob: str
    commit: str
    commit_author: str = ""
    commit_time: str = ""
    document: int = 0
    stale: bool = False
    verified_signer: str = ""


@dataclass(frozen=True, slots=True)
class Operario:
    """A valid definition: the Job for an alert in a state.

    `job` has the author's `labels`, `annotations` and `spec`, without unknown fields. It must not
    be changed; rendering copies it. `namespace` is None for the jobs namespace.
    """

    name: str
    alertname: str
    status: Status
    form: Form
    options: Options
    job: Mapping[str, Any]
    namespace: str | None
    origin: Origin
    spec_digest: str = field(default="")
