"""The page `/operarios/NAME`: what an operario does, how it does, and since which commit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import log1p
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.powers import powers
from openfero_gitops.domain.catalog import git_show
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.matcher import Operator
from openfero_gitops.domain.operario import OPTIONS
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.sentence import sentence_text
from openfero_gitops.web.formats import duration
from openfero_gitops.web.highlight import HighlightedText, highlight, language_of
from openfero_gitops.web.operario_facts import near_names, read_facts
from openfero_gitops.web.pages.phases import PHASES
from openfero_gitops.web.pages.site import PageMissing, PageRoute
from openfero_gitops.web.reviewed import ReviewedFiles, rights_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import timedelta

    from aiohttp import web

    from openfero_gitops.domain.catalog import SourceFile
    from openfero_gitops.domain.matcher import Matcher
    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.problem import Problem
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.effects.regression import Regression
    from openfero_gitops.effects.stats import CommitStats, StatsReport
    from openfero_gitops.web.operario_facts import OperarioFacts, Run
    from openfero_gitops.web.pages.site import Site, Visit
    from openfero_gitops.web.repository_links import RepositoryLinks
    from openfero_gitops.web.reviewed import ReviewedReader

_MAX_TARGETS: Final = 30
_MAX_COMMITS: Final = 50
_MAX_CANDIDATES: Final = 20
_MAX_CASES: Final = 50
_NOT_READ: Final = ReviewedFiles(missing="this replica does not read Git")
#: Of the bars in the strip of runs.
_MIN_HEIGHT: Final = 4
_MAX_HEIGHT: Final = 34
_REASON_TEXTS: Final = {reason.value: reason.text for reason in Reason}
_COMPARISONS: Final = {
    Operator.EQUAL: "is",
    Operator.NOT_EQUAL: "is not",
    Operator.MATCHES: "matches",
    Operator.NOT_MATCHES: "does not match",
}


@dataclass(frozen=True, slots=True)
class RunMark:
    """How a run is drawn in the strip: a bar whose height shows its duration, and a sign.

    `is_changed` says that the operario was another one at the run before.
    """

    remediation: Remediation
    tone: str
    icon: str
    words: str
    height: int
    is_changed: bool


def mark_runs(runs: Sequence[Run]) -> list[RunMark]:
    """Return the marks of runs, the oldest first; `runs` are newest first."""
    oldest_first = list(reversed(runs))
    longest = max((_seconds(run.remediation) for run in oldest_first), default=0.0)
    marks = []
    digest = oldest_first[0].remediation.spec_digest if oldest_first else ""
    for run in oldest_first:
        remediation = run.remediation
        tone, icon = _style(run)
        share = log1p(_seconds(remediation)) / log1p(longest) if longest else 0.0
        marks.append(
            RunMark(
                remediation,
                tone,
                icon,
                _words(run),
                round(_MIN_HEIGHT + share * (_MAX_HEIGHT - _MIN_HEIGHT)),
                remediation.spec_digest != digest,
            )
        )
        digest = remediation.spec_digest
    return marks


def _style(run: Run) -> tuple[str, str]:
    """The tone and the sign: of the effect, else of the phase."""
    if run.effect is not None and run.effect.effect is Effect.HEALED:
        return "ok", "ok"
    if run.effect is not None and run.effect.effect is Effect.NOT_HEALED:
        return "bad", "fail"
    phase = run.remediation.phase
    if phase in (Phase.SUCCEEDED, Phase.CANCELLED):
        return "idle", "wait" if phase is Phase.SUCCEEDED else PHASES[phase].icon
    return PHASES[phase].tone, PHASES[phase].icon


def _words(run: Run) -> str:
    remediation = run.remediation
    parts = [remediation.phase.value]
    if run.effect is not None:
        parts.append(f"effect {run.effect.effect.value}")
    if (ran := _ran(remediation)) is not None:
        parts.append(f"ran for {duration(ran)}")
    return ", ".join(parts)


def _ran(remediation: Remediation) -> timedelta | None:
    if remediation.started_at is None or remediation.finished_at is None:
        return None
    return remediation.finished_at - remediation.started_at


def _seconds(remediation: Remediation) -> float:
    ran = _ran(remediation)
    return max(ran.total_seconds(), 0.0) if ran else 0.0


@dataclass(frozen=True, slots=True)
class CommitRow:
    """A row of the table by commit; `is_changed` if its definition is not that of the row below."""

    commit: CommitStats
    is_changed: bool
    regression: Regression | None
    link: str


def list_commits(
    stats: StatsReport,
    regressions: Mapping[str, Regression],
    links: Mapping[str, str],
) -> list[CommitRow]:
    """Return the rows of the commits, the newest first; `links` are to their forge."""
    commits = stats.commits
    older = [*commits[1:], None][: len(commits)]
    return [
        CommitRow(
            commit,
            before is not None and before.spec_digest != commit.spec_digest,
            regressions.get(commit.commit),
            links.get(commit.commit, ""),
        )
        for commit, before in zip(commits, older, strict=True)
    ][:_MAX_COMMITS]


@dataclass(frozen=True, slots=True)
class LabelCondition:
    """A matcher in words: a label, a comparison, and a value."""

    label: str
    comparison: str
    value: str


def conditions_of(matchers: Iterable[Matcher]) -> list[LabelCondition]:
    """Put matchers in words."""
    return [
        LabelCondition(matcher.name, _COMPARISONS[matcher.operator], matcher.value)
        for matcher in matchers
    ]


@dataclass(frozen=True, slots=True)
class OptionRow:
    """An option with its value; `text` is empty if there is none."""

    name: str
    text: str
    description: str
    is_default: bool


def list_options(operario: Operario) -> list[OptionRow]:
    """Return all options, those that differ from their default first."""
    rows = [
        OptionRow(
            option.name,
            option.type.text(value := option.of(operario.options)),
            option.description,
            value == option.default,
        )
        for option in OPTIONS
    ]
    return sorted(rows, key=lambda row: row.is_default)


def notes_of(problems: Iterable[Problem], text: HighlightedText | None) -> dict[int, list[Problem]]:
    """Return the problems of a file by their line, as far as the line is shown."""
    notes: dict[int, list[Problem]] = {}
    for problem in problems:
        if text is not None and 0 < problem.line <= len(text.lines):
            notes.setdefault(problem.line, []).append(problem)
    return notes


def add(site: Site, links: RepositoryLinks, reviewed: ReviewedReader | None) -> None:
    """Serve `/operarios/NAME`; without `reviewed`, without roles and golden cases."""

    async def load(_: web.Request) -> ReviewedFiles:
        catalog = site.state.catalog()
        return await reviewed.read(catalog) if reviewed and catalog else _NOT_READ

    site.add(
        PageRoute(
            "/operarios/{name}",
            "operario.html",
            partial(build, links=links),
            load,
            section="/operarios",
        )
    )


def build(visit: Visit, links: RepositoryLinks) -> dict[str, Any]:
    """Compute the variables of the template.

    Raises:
        PageMissing: the operario is neither active nor has Jobs.
    """
    name = visit.match["name"]
    facts = read_facts(visit.state, name, visit.now)
    if facts is None:
        raise _missing(visit, name)
    catalog = visit.state.catalog()
    operario, latest = facts.operario, facts.latest
    origin = operario.origin if operario else None
    repository = catalog.revision.repository if catalog else ""
    path = origin.path if origin else latest.path if latest else ""
    commit = origin.commit if origin else latest.commit if latest else ""
    text = _text(facts.file)
    # The problems are those of the newest version of the file, whose lines may be others.
    is_newest = origin is not None and not origin.stale
    targets = facts.usage.targets if facts.usage else ()
    return {
        "facts": facts,
        "operario": operario,
        "catalog": catalog,
        "path": path,
        "commit": commit,
        "commit_url": links.commit(repository, commit),
        "file_url": links.file(repository, commit, path),
        "show_file": git_show(commit, path),
        "conditions": conditions_of(operario.options.matchers) if operario else [],
        "candidates": [(o, conditions_of(o.options.matchers)) for o in facts.candidates][
            :_MAX_CANDIDATES
        ],
        "more_candidates": max(0, len(facts.candidates) - _MAX_CANDIDATES),
        "limits": catalog.envelope.limits if catalog else None,
        "targets": targets[:_MAX_TARGETS],
        "more_targets": max(0, len(targets) - _MAX_TARGETS),
        "reasons": _REASON_TEXTS,
        "runs": mark_runs(facts.runs),
        "commits": list_commits(
            facts.stats, facts.regressions, _commit_links(facts, links, repository)
        ),
        "more_commits": max(0, len(facts.stats.commits) - _MAX_COMMITS),
        "text": text,
        "notes": notes_of(facts.problems, text) if is_newest else {},
        "options": list_options(operario) if operario else [],
        "rights": rights_of(operario, visit.loaded.grants) if operario else None,
        "cases": (visit.loaded.cases or {}).get(name, ())[:_MAX_CASES],
        "more_cases": max(0, len((visit.loaded.cases or {}).get(name, ())) - _MAX_CASES),
        "unread": visit.loaded.missing,
        "powers": _power_words(operario) if operario else [],
    }


def _missing(visit: Visit, name: str) -> PageMissing:
    near = [(other, f"operarios/{other}") for other in near_names(visit.state, name)]
    return PageMissing(
        f"No operario is named {name[:100]!r}, and no Job of one exists. It may have been renamed "
        "in Git." + (" Did you mean one of these?" if near else ""),
        [*near, ("All operarios", "operarios")],
    )


def _text(file: SourceFile | None) -> HighlightedText | None:
    if file is None:
        return None
    return highlight(file.content.decode(errors="replace"), language_of(file.path))


def _commit_links(facts: OperarioFacts, links: RepositoryLinks, repository: str) -> dict[str, str]:
    names = [commit.commit for commit in facts.stats.commits[:_MAX_COMMITS]]
    return {name: links.commit(repository, name) for name in names}


def _power_words(operario: Operario) -> list[tuple[str, bool]]:
    """What its Pods may do on their node and with Secrets, and whether that is grave."""
    ordered = sorted(
        powers(operario.job["spec"]), key=lambda power: (not power.grave, power.sentence)
    )
    return [(sentence_text(power.sentence), power.grave) for power in ordered]
