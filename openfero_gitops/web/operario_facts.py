"""Everything that is known of one operario, for its page and for the API."""

from __future__ import annotations

import difflib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from openfero_gitops.admission.decide import Wait
from openfero_gitops.admission.usage import measure_usage
from openfero_gitops.effects.regression import find_regressions
from openfero_gitops.effects.stats import report_stats

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from openfero_gitops.admission.usage import OperarioUsage
    from openfero_gitops.domain.catalog import Catalog, SourceFile
    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.problem import Problem
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.effects.assess import Assessment
    from openfero_gitops.effects.regression import Regression
    from openfero_gitops.effects.stats import StatsReport
    from openfero_gitops.web.ports import ReplicaState

_MAX_RUNS: Final = 50
_MAX_NEAR: Final = 5
_MAX_COMPARED: Final = 1000
_MAX_COMPARED_CHARACTERS: Final = 100
_MIN_SIMILARITY: Final = 0.5


@dataclass(frozen=True, slots=True)
class Run:
    """A remediation that started, and its effect; None if it has none."""

    remediation: Remediation
    effect: Assessment | None


@dataclass(frozen=True, slots=True)
class OperarioFacts:
    """What is known of one operario.

    Attributes:
        name: of the operario.
        operario: in the active catalog; None if it is not, or no longer, in it.
        candidates: the active operarios for the same alert and status in the order in which they
            are tried, this one among them.
        file: its content at the commit that is active; None if it is not in memory.
        problems: of its file.
        usage: how full its limits are; None without an active operario.
        waiting: how many of its Jobs wait, by reason.
        runs: the last ones, newest first.
        stats: by commit, from the Jobs that exist.
        regressions: since which commits it heals clearly fewer alerts.
        latest: its newest remediation.
    """

    name: str
    operario: Operario | None
    candidates: Sequence[Operario]
    file: SourceFile | None
    problems: Sequence[Problem]
    usage: OperarioUsage | None
    waiting: Mapping[str, int]
    runs: Sequence[Run]
    stats: StatsReport
    regressions: Mapping[str, Regression]
    latest: Remediation | None


def read_facts(state: ReplicaState, name: str, now: datetime) -> OperarioFacts | None:
    """Read what is known of an operario; None if it is neither active nor has Jobs."""
    catalog = state.catalog()
    operario = _find(catalog, name)
    remediations = list(state.remediations())
    own = [remediation for remediation in remediations if remediation.operario == name]
    if operario is None and not own:
        return None
    own.sort(key=lambda remediation: remediation.order, reverse=True)
    started = [remediation for remediation in own if remediation.has_run]
    incidents = {remediation.incident for remediation in own}
    related = [r for r in remediations if r.incident in incidents]
    stats = report_stats(related, now, lambda remediation: remediation.operario == name)
    decisions = state.decisions()
    waiting = Counter(
        decision.reason.value
        for remediation in own
        if isinstance(decision := decisions.get(remediation.key), Wait)
    )
    return OperarioFacts(
        name=name,
        operario=operario,
        candidates=_candidates(catalog, operario),
        file=_file(catalog, operario),
        problems=_problems(catalog, operario, own),
        usage=measure_usage(operario, remediations, now) if operario else None,
        waiting=waiting,
        runs=[Run(r, state.effect(r)) for r in started[:_MAX_RUNS]],
        stats=stats,
        regressions=find_regressions(stats.commits),
        latest=own[0] if own else None,
    )


def near_names(state: ReplicaState, name: str) -> list[str]:
    """Names of operarios that a reader may have meant, the most similar first."""
    if len(name) > _MAX_COMPARED_CHARACTERS:
        return []
    catalog = state.catalog()
    names = {operario.name for operario in (catalog.operarios if catalog else ())}
    names |= {remediation.operario for remediation in state.remediations()}
    wanted = name.casefold()
    containing = sorted((known for known in names if wanted in known.casefold()), key=len)
    compared = sorted(names)[:_MAX_COMPARED]
    similar = difflib.get_close_matches(name, compared, _MAX_NEAR, _MIN_SIMILARITY)
    return list(dict.fromkeys([*containing, *similar]))[:_MAX_NEAR]


def _find(catalog: Catalog | None, name: str) -> Operario | None:
    operarios = catalog.operarios if catalog else ()
    return next((operario for operario in operarios if operario.name == name), None)


def _candidates(catalog: Catalog | None, operario: Operario | None) -> list[Operario]:
    if catalog is None or operario is None:
        return []
    of_alert = catalog.by_alert.get(operario.alertname.lower(), ())
    return [other for other in of_alert if other.status is operario.status]


def _file(catalog: Catalog | None, operario: Operario | None) -> SourceFile | None:
    if catalog is None or operario is None:
        return None
    return next((file for file in catalog.files if file.path == operario.origin.path), None)


def _problems(
    catalog: Catalog | None, operario: Operario | None, own: Iterable[Remediation]
) -> list[Problem]:
    """The problems of its file; of one that was removed, of the file that it had last."""
    latest = next(iter(own), None)
    path = operario.origin.path if operario else latest.path if latest else ""
    return [problem for problem in (catalog.problems if catalog else ()) if problem.path == path]
