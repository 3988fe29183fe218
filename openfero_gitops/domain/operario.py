"""One remediation definition and the options that its author chose."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openfero_gitops.domain.alert import Status
    from openfero_gitops.domain.matcher import Matcher


class Form(StrEnum):
    """Which of OpenFero's three generations a file was written in."""

    JOB = "Job"
    CONFIG_MAP = "ConfigMap"
    OPERARIUS = "Operarius"


class Mode(StrEnum):
    """Whether a remediation really runs."""

    RUN = "run"
    DRY_RUN = "dry-run"


class OnResolve(StrEnum):
    """What becomes of a firing operario's Jobs when their alert is resolved."""

    CANCEL = "cancel"
    KEEP = "keep"
    CANCEL_RUNNING = "cancel-running"


@dataclass(frozen=True, slots=True)
class Options:
    """The annotations an author may set; every default is safe in a storm."""

    matchers: tuple[Matcher, ...] = ()
    priority: int = 0
    enabled: bool = True
    mode: Mode = Mode.RUN
    target: tuple[str, ...] = ()
    cooldown: timedelta = timedelta(minutes=10)
    max_concurrent: int = 5
    max_per_hour: int = 30
    max_wait: timedelta = timedelta(hours=1)
    rerun_after: timedelta = timedelta(0)
    max_runs: int = 3
    approval: bool = False
    on_resolve: OnResolve = OnResolve.CANCEL
    resolve_delay: timedelta = timedelta(minutes=1)
    own_jobs: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """Where in Git a definition was read.

    `commit` is the catalog's revision, or an older one where the newest version of the file is
    broken (`stale`); `document` counts the YAML documents of the file from 0.
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
    """A valid definition: for this alert in this state, this Job.

    `job` is the Job as its author wrote it, unknown fields dropped: `labels`, `annotations` and
    `spec`. Nobody changes it: rendering copies. `namespace` is None for the jobs namespace.
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
