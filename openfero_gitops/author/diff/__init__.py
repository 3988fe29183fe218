"""What a pull request changes in behaviour: two catalogs to the list of what is otherwise.

Compared is what is in force at either revision, never text: a comment, a moved file or another
order of keys is no change. The most dangerous comes first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openfero_gitops.author.diff.change import (
    BehaviourChange,
    BehaviourDiff,
    ChangeEffect,
    ChangeKind,
    Quote,
    Winner,
)
from openfero_gitops.author.diff.fields import (
    envelope_changes,
    job_changes,
    option_changes,
)
from openfero_gitops.author.diff.powers import powers
from openfero_gitops.author.diff.rights import (
    account_of,
    beyond,
    hidden_secrets,
    read_grants,
    words,
)
from openfero_gitops.author.diff.side import Side
from openfero_gitops.author.diff.winners import winners

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openfero_gitops.author.diff.rights import Grants, RbacSubject, Right
    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.problem import Problem

__all__ = [
    "BehaviourChange",
    "BehaviourDiff",
    "ChangeEffect",
    "ChangeKind",
    "Quote",
    "Side",
    "Winner",
    "compare",
]

_JOBS_NAMESPACE: Final = "the jobs namespace"


def compare(base: Side, head: Side) -> BehaviourDiff:
    """Everything that behaves otherwise in `head` than in `base`."""
    broken = list(_broken(base, head))
    changes = broken + list(_mended(base, head))
    if not (base.refusal or head.refusal):
        changes += envelope_changes(base.catalog.envelope, head.catalog.envelope)
    old, new = _by_name(base), _by_name(head)
    grants = read_grants(base.snapshot.files, head.snapshot.files)
    changes += (_gone(old[key]) for key in old.keys() - new.keys())
    for key in new.keys() - old.keys():
        changes += _new(new[key])
    for key in old.keys() & new.keys():
        changes += _changed(old[key], new[key])
    changes += _rights(old, new, *grants)
    files = {file.path: file.blob for file in base.snapshot.files}
    others = {file.path: file.blob for file in head.snapshot.files}
    return BehaviourDiff(
        base=base.snapshot.revision,
        head=head.snapshot.revision,
        changes=tuple(sorted(changes, key=lambda change: change.rank)),
        winners=tuple(winners(base.catalog, head.catalog)),
        files=sum(files.get(path) != others.get(path) for path in {*files, *others}),
        broken=bool(broken),
    )


def _by_name(side: Side) -> dict[str, Operario]:
    return {operario.name.lower(): operario for operario in side.catalog.operarios}


# Errors.


def _broken(base: Side, head: Side) -> Iterator[BehaviourChange]:
    """What the new revision breaks: itself, or single files of it."""
    if head.refusal is not None and base.refusal is None:
        yield BehaviourChange(
            ChangeEffect.BREAKS,
            ChangeKind.REVISION,
            "",
            ("the controller would not take this revision: ", Quote(str(head.refusal))),
        )
    known = {_sight(problem) for problem in base.errors}
    refused = head.refusal.problems if head.refusal else ()
    new: dict[str, list[Problem]] = {}
    for problem in head.errors:
        if _sight(problem) not in known and problem not in refused:
            new.setdefault(problem.path, []).append(problem)
    for path, problems in sorted(new.items()):
        first = problems[0]
        place = f"{path}:{first.line}" if first.line else path
        more = f", and {len(problems) - 1} more" if problems[1:] else ""
        rule = f" [{first.rule}]{more}"
        sentence = (Quote(place), ": ", Quote(first.message), rule, *_left(path, head))
        yield BehaviourChange(ChangeEffect.BREAKS, ChangeKind.QUARANTINE, "", sentence)


def _left(path: str, head: Side) -> tuple[str, ...]:
    """What stays in force of a file with an error."""
    kept = [one for one in head.catalog.operarios if one.origin.path == path]
    names = Quote(", ".join(one.name for one in kept))
    if not kept:
        return ("; nothing of this file is in force",)
    if kept[0].origin.stale:
        return ("; in force stays ", names, f" of commit {kept[0].origin.commit[:12]}")
    return ("; in force is only ", names)


def _mended(base: Side, head: Side) -> Iterator[BehaviourChange]:
    wrong = {problem.path for problem in head.errors}
    there = {file.path for file in head.snapshot.files}
    for path in sorted({problem.path for problem in base.errors} - wrong):
        if path in there:
            sentence = (Quote(path), " has no error any more")
            yield BehaviourChange(ChangeEffect.CHANGES, ChangeKind.QUARANTINE, "", sentence)


def _sight(problem: Problem) -> tuple[str, str, str, str]:
    return problem.path, problem.rule, problem.pointer, problem.message


# Operarios.


def _gone(operario: Operario) -> BehaviourChange:
    sentence = ("is gone; it answered ", Quote(operario.alertname), f" ({operario.status})")
    return BehaviourChange(ChangeEffect.NARROWS, ChangeKind.OPERARIO, operario.name, sentence)


def _new(operario: Operario) -> Iterator[BehaviourChange]:
    name = operario.name
    off = "" if operario.options.enabled else ", but is switched off"
    yield BehaviourChange(
        ChangeEffect.CHANGES,
        ChangeKind.OPERARIO,
        name,
        ("is new; it answers ", Quote(operario.alertname), f" ({operario.status}){off}"),
    )
    if operario.namespace is not None:
        sentence = ("runs in the namespace ", Quote(operario.namespace))
        yield BehaviourChange(ChangeEffect.WIDENS, ChangeKind.NAMESPACE, name, sentence)
    for power in sorted(powers(operario.job["spec"]), key=lambda one: one.sentence):
        if power.grave:
            yield BehaviourChange(ChangeEffect.WIDENS, ChangeKind.SECURITY, name, power.sentence)


def _changed(before: Operario, after: Operario) -> Iterator[BehaviourChange]:
    name = after.name
    sentence: tuple[str, ...]
    old_alert, new_alert = _answers(before), _answers(after)
    if [one.lower() for one in old_alert] != [one.lower() for one in new_alert]:
        sentence = ("answers ", *new_alert, " instead of ", *old_alert)
        yield BehaviourChange(ChangeEffect.CHANGES, ChangeKind.ALERT, name, sentence)
    if before.namespace != after.namespace:
        sentence = ("runs in ", *_place(after), " instead of ", *_place(before))
        effect = ChangeEffect.CHANGES if after.namespace is None else ChangeEffect.WIDENS
        yield BehaviourChange(effect, ChangeKind.NAMESPACE, name, sentence)
    old_account, new_account = account_of(before), account_of(after)
    if old_account != new_account:
        sentence = ("runs as ", Quote(new_account), " instead of ", Quote(old_account))
        yield BehaviourChange(ChangeEffect.CHANGES, ChangeKind.SERVICE_ACCOUNT, name, sentence)
    yield from option_changes(name, before.options, after.options)
    if before.spec_digest == after.spec_digest:
        return  # the whole Job is the same
    had, has = powers(before.job["spec"]), powers(after.job["spec"])
    for effect, word, found in (
        (ChangeEffect.WIDENS, "", has - had),
        (ChangeEffect.NARROWS, "no longer so: ", had - has),
    ):
        for power in sorted(found, key=lambda one: one.sentence):
            yield BehaviourChange(effect, ChangeKind.SECURITY, name, (word, *power.sentence))
    yield from job_changes(before, after)


def _answers(operario: Operario) -> tuple[str, str]:
    return Quote(operario.alertname), f" ({operario.status})"


def _place(operario: Operario) -> tuple[str, ...]:
    if operario.namespace is None:
        return (_JOBS_NAMESPACE,)
    return ("the namespace ", Quote(operario.namespace))


# Rights.


def _rights(
    old: dict[str, Operario], new: dict[str, Operario], before: Grants, after: Grants
) -> Iterator[BehaviourChange]:
    """Whose rights are others: each operario's by its ServiceAccount, then everybody else's."""
    used: set[RbacSubject] = set()
    told: dict[tuple[frozenset[Right], frozenset[Right]], list[str]] = {}
    nothing: tuple[frozenset[Right], frozenset[RbacSubject]] = frozenset(), frozenset()
    for key in sorted({*old, *new}):
        one = new.get(key) or old[key]
        had, those = before.of(old[key]) if key in old else nothing
        has, these = after.of(new[key]) if key in new else nothing
        used |= those | these
        if had != has:
            told.setdefault((had, has), []).append(one.name)
    for (had, has), names in told.items():
        yield from _rights_changes(", ".join(names), (), had, has)
    subjects = {*before.by_subject, *after.by_subject} - used
    for subject in sorted(subjects):
        had = before.by_subject.get(subject, frozenset())
        has = after.by_subject.get(subject, frozenset())
        intro = (*subject.words(), ", which no operario uses: ")
        yield from _rights_changes("", intro, had, has)


def _rights_changes(
    name: str, intro: tuple[str, ...], had: frozenset[Right], has: frozenset[Right]
) -> Iterator[BehaviourChange]:
    for effect, word, found in (
        (ChangeEffect.WIDENS, "may now ", beyond(has, had)),
        (ChangeEffect.NARROWS, "may no longer ", beyond(had, has)),
    ):
        if found:
            secrets = ("; Secrets are among that",) if hidden_secrets(found) else ()
            yield BehaviourChange(
                effect, ChangeKind.RIGHTS, name, (*intro, word, *words(found), *secrets)
            )
