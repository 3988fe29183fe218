"""Compare two revisions by their behavior.

The catalogs of the two revisions are compared, not the text of their files: a comment, a moved
file or another order of keys is no change. The most dangerous changes come first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from openfero_gitops.author.diff.change import (
    BehaviorChange,
    BehaviorDiff,
    ChangeEffect,
    ChangeKind,
    Winner,
)
from openfero_gitops.author.diff.fields import (
    envelope_changes,
    job_changes,
    option_changes,
)
from openfero_gitops.author.diff.side import Side
from openfero_gitops.author.diff.winners import takeovers, winners
from openfero_gitops.catalog.powers import powers
from openfero_gitops.catalog.rights import (
    account_of,
    includes_secrets,
    not_covered,
    read_grants,
    rights_text,
)
from openfero_gitops.domain.sentence import Quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from openfero_gitops.catalog.rights import Grants, RbacSubject, Right
    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.problem import Problem

__all__ = [
    "BehaviorChange",
    "BehaviorDiff",
    "ChangeEffect",
    "ChangeKind",
    "Side",
    "Winner",
    "compare",
]

_JOBS_NAMESPACE: Final = "the jobs namespace"


def compare(base: Side, head: Side) -> BehaviorDiff:
    """Find everything that behaves differently in `head` than in `base`."""
    broken = list(_broken(base, head))
    changes = broken + list(_repaired(base, head))
    if not (base.refusal or head.refusal):
        changes += envelope_changes(base.catalog.envelope, head.catalog.envelope)
    old, new = _by_name(base), _by_name(head)
    grants = read_grants(base.snapshot.files, head.snapshot.files)
    changes += (_removed(old[key]) for key in old.keys() - new.keys())
    for key in new.keys() - old.keys():
        changes += _added(new[key])
    for key in old.keys() & new.keys():
        changes += _changed(old[key], new[key])
    changes += _rights(old, new, *grants)
    matched = tuple(winners(base.catalog, head.catalog))
    changes += takeovers(matched, base.catalog, head.catalog)
    changes = [_with_matches(change, matched) for change in changes]
    old_blobs = {file.path: file.blob for file in base.snapshot.files}
    new_blobs = {file.path: file.blob for file in head.snapshot.files}
    return BehaviorDiff(
        base=base.snapshot.revision,
        head=head.snapshot.revision,
        changes=tuple(sorted(changes, key=lambda change: change.rank)),
        winners=matched,
        files=sum(old_blobs.get(path) != new_blobs.get(path) for path in {*old_blobs, *new_blobs}),
        broken=bool(broken),
    )


def _with_matches(change: BehaviorChange, matched: Sequence[Winner]) -> BehaviorChange:
    """Return a change of matchers as one that allows more if an alert has a Job only now."""
    if change.option == "matchers" and change.effect is ChangeEffect.CHANGES:
        more = any(winner.after == change.operario and not winner.before for winner in matched)
        if more:
            return replace(change, effect=ChangeEffect.WIDENS)
    return change


def _by_name(side: Side) -> dict[str, Operario]:
    return {operario.name.lower(): operario for operario in side.catalog.operarios}


# Errors


def _broken(base: Side, head: Side) -> Iterator[BehaviorChange]:
    """Errors that are new: in `openfero.yaml`, or in single files."""
    if head.refusal is not None and base.refusal is None:
        yield BehaviorChange(
            ChangeEffect.BREAKS,
            ChangeKind.REVISION,
            "",
            ("the controller would reject this revision: ", Quote(str(head.refusal))),
        )
    old_errors = {_identity(problem) for problem in base.errors}
    refused = head.refusal.problems if head.refusal else ()
    new: dict[str, list[Problem]] = {}
    for problem in head.errors:
        if _identity(problem) not in old_errors and problem not in refused:
            new.setdefault(problem.path, []).append(problem)
    for path, problems in sorted(new.items()):
        first = problems[0]
        place = f"{path}:{first.line}" if first.line else path
        more = f", and {len(problems) - 1} more" if problems[1:] else ""
        rule = f" [{first.rule}]{more}"
        sentence = (Quote(place), ": ", Quote(first.message), rule, *_remaining(path, head))
        yield BehaviorChange(ChangeEffect.BREAKS, ChangeKind.QUARANTINE, "", sentence)


def _remaining(path: str, head: Side) -> tuple[str, ...]:
    """What stays active of a file with an error."""
    active = [operario for operario in head.catalog.operarios if operario.origin.path == path]
    names = Quote(", ".join(operario.name for operario in active))
    if not active:
        return ("; no operario of this file is active",)
    if active[0].origin.stale:
        return ("; still active: ", names, f" of commit {active[0].origin.commit[:12]}")
    return ("; still active: only ", names)


def _repaired(base: Side, head: Side) -> Iterator[BehaviorChange]:
    broken = {problem.path for problem in head.errors}
    existing = {file.path for file in head.snapshot.files}
    for path in sorted({problem.path for problem in base.errors} - broken):
        if path in existing:
            sentence = (Quote(path), " no longer has errors")
            yield BehaviorChange(ChangeEffect.CHANGES, ChangeKind.QUARANTINE, "", sentence)


def _identity(problem: Problem) -> tuple[str, str, str, str]:
    return problem.path, problem.rule, problem.pointer, problem.message


# Operarios


def _removed(operario: Operario) -> BehaviorChange:
    sentence = (
        "was removed; it matched alert ",
        Quote(operario.alertname),
        f" ({operario.status})",
    )
    return BehaviorChange(ChangeEffect.NARROWS, ChangeKind.OPERARIO, operario.name, sentence)


def _added(operario: Operario) -> Iterator[BehaviorChange]:
    name = operario.name
    off = "" if operario.options.enabled else ", but is disabled"
    yield BehaviorChange(
        ChangeEffect.CHANGES,
        ChangeKind.OPERARIO,
        name,
        ("is new; it matches alert ", *_alert(operario), off),
    )
    if operario.namespace is not None:
        sentence = ("runs in namespace ", Quote(operario.namespace))
        yield BehaviorChange(ChangeEffect.WIDENS, ChangeKind.NAMESPACE, name, sentence)
    for power in sorted(powers(operario.job["spec"]), key=lambda power: power.sentence):
        if power.grave:
            yield BehaviorChange(ChangeEffect.WIDENS, ChangeKind.SECURITY, name, power.sentence)


def _changed(before: Operario, after: Operario) -> Iterator[BehaviorChange]:
    name = after.name
    sentence: tuple[str, ...]
    old_alert, new_alert = _alert(before), _alert(after)
    if [part.lower() for part in old_alert] != [part.lower() for part in new_alert]:
        sentence = ("matches alert ", *new_alert, " instead of ", *old_alert)
        yield BehaviorChange(ChangeEffect.CHANGES, ChangeKind.ALERT, name, sentence)
    if before.namespace != after.namespace:
        sentence = ("runs in ", *_namespace(after), " instead of ", *_namespace(before))
        effect = ChangeEffect.CHANGES if after.namespace is None else ChangeEffect.WIDENS
        yield BehaviorChange(effect, ChangeKind.NAMESPACE, name, sentence)
    old_account, new_account = account_of(before), account_of(after)
    if old_account != new_account:
        sentence = (
            "runs as ServiceAccount ",
            Quote(new_account),
            " instead of ",
            Quote(old_account),
        )
        yield BehaviorChange(ChangeEffect.CHANGES, ChangeKind.SERVICE_ACCOUNT, name, sentence)
    yield from option_changes(name, before.options, after.options)
    if before.spec_digest == after.spec_digest:
        return  # the whole Job is the same
    had, has = powers(before.job["spec"]), powers(after.job["spec"])
    for effect, word, changed in (
        (ChangeEffect.WIDENS, "", has - had),
        (ChangeEffect.NARROWS, "no longer ", had - has),
    ):
        for power in sorted(changed, key=lambda power: power.sentence):
            yield BehaviorChange(effect, ChangeKind.SECURITY, name, (word, *power.sentence))
    yield from job_changes(before, after)


def _alert(operario: Operario) -> tuple[str, str]:
    return Quote(operario.alertname), f" ({operario.status})"


def _namespace(operario: Operario) -> tuple[str, ...]:
    if operario.namespace is None:
        return (_JOBS_NAMESPACE,)
    return ("namespace ", Quote(operario.namespace))


# RBAC


def _rights(
    old: dict[str, Operario], new: dict[str, Operario], before: Grants, after: Grants
) -> Iterator[BehaviorChange]:
    """Changes of rights: of each operario's ServiceAccount, then of all other subjects."""
    used: set[RbacSubject] = set()
    operarios: dict[tuple[frozenset[Right], frozenset[Right]], list[str]] = {}
    nothing: tuple[frozenset[Right], frozenset[RbacSubject]] = frozenset(), frozenset()
    for key in sorted({*old, *new}):
        name = (new.get(key) or old[key]).name
        had, old_subjects = before.of(old[key]) if key in old else nothing
        has, new_subjects = after.of(new[key]) if key in new else nothing
        used |= old_subjects | new_subjects
        if had != has:
            operarios.setdefault((had, has), []).append(name)
    for (had, has), names in operarios.items():
        yield from _rights_changes(", ".join(names), (), had, has)
    subjects = {*before.by_subject, *after.by_subject} - used
    for subject in sorted(subjects):
        had = before.by_subject.get(subject, frozenset())
        has = after.by_subject.get(subject, frozenset())
        intro = (*subject.text(), ", used by no operario, ")
        yield from _rights_changes("", intro, had, has)


def _rights_changes(
    name: str, intro: tuple[str, ...], had: frozenset[Right], has: frozenset[Right]
) -> Iterator[BehaviorChange]:
    for effect, word, rights in (
        (ChangeEffect.WIDENS, "may now ", not_covered(has, had)),
        (ChangeEffect.NARROWS, "may no longer ", not_covered(had, has)),
    ):
        if rights:
            secrets = ("; this includes Secrets",) if includes_secrets(rights) else ()
            yield BehaviorChange(
                effect, ChangeKind.RIGHTS, name, (*intro, word, *rights_text(rights), *secrets)
            )
