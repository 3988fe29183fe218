"""A snapshot to the catalog that it makes: a pure function, the same on every replica.

A file with an error is quarantined alone. Its newest older version that is valid under the
current envelope takes its place, whole (one file, one version) and marked stale; where there is
none, those of its operarios that are valid stay. A name that stands twice belongs to the first
path, and a stale version never takes a name from a current one.

`openfero.yaml` is different: a revision whose envelope cannot be followed is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import chain
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.envelope import (
    ENVELOPE_DOCUMENTS,
    ENVELOPE_MISSING,
    ENVELOPE_NAME,
    LIKE_NAME,
    NAME,
    read_envelope,
    says_paused,
    ttl_below,
)
from openfero_gitops.catalog.files import Parser, at, located, unread
from openfero_gitops.catalog.validation.body import POD, SPEC
from openfero_gitops.catalog.validation.checks.job import POD_FAILURE_POLICY
from openfero_gitops.catalog.validation.rules import shown
from openfero_gitops.catalog.validation.schema import DEFAULT
from openfero_gitops.catalog.yaml.compose import Unreadable
from openfero_gitops.catalog.yaml.document import load
from openfero_gitops.domain.catalog import Catalog, Envelope, apart
from openfero_gitops.domain.dns import is_dns_label
from openfero_gitops.domain.errors import CatalogRefusal
from openfero_gitops.domain.operario import Operario, Origin
from openfero_gitops.domain.problem import Ignored, Problem
from openfero_gitops.domain.rule import error, warning

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from openfero_gitops.catalog.files import FileReading
    from openfero_gitops.catalog.forms import Draft
    from openfero_gitops.domain.catalog import Snapshot, SourceFile
    from openfero_gitops.domain.rule import Finding

DUPLICATE_NAME = error(
    "duplicate-name",
    "The name of an operario must be unique.",
    "A Job records the name of its operario, and limits count Jobs by it. With two "
    "operarios of one name it would be unclear which of them ran. The operario with "
    "the first path is used.",
)
NAMESPACE_NOT_ALLOWED = error(
    "namespace-not-allowed",
    "A Job's namespace must be allowed by the controller and by `openfero.yaml`.",
    "The controller creates Jobs only in the namespaces of its configuration. "
    "`openfero.yaml` can restrict this list but not extend it. There is no fallback "
    "to another namespace, because the same Job could do something else there.",
)
NAMESPACE_IGNORED = warning(
    "namespace-ignored",
    "The namespace of a ConfigMap or Operarius should be one in which its Job can run.",
    "The Job runs in another namespace than the file suggests.",
)
NAMESPACE_NOT_GRANTED = warning(
    "namespace-not-granted",
    "`openfero.yaml` should list only namespaces that are granted to the controller.",
    "The entry has no effect, because the controller has no permissions in this namespace.",
)
SERVICE_ACCOUNT_UNDEFINED = warning(
    "service-account-undefined",
    "The ServiceAccount of a Job should be defined in the repository.",
    "The API server accepts a Job whose ServiceAccount does not exist, but no Pod is "
    "created for it. The Job waits until its deadline.",
)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a catalog depends on besides the repository.

    `jobs_namespace` is where Jobs go that name none, empty where that is not known;
    `allowed_namespaces` are further ones that they may name, None where that is not known (a
    check without a controller): then only openfero.yaml is asked.
    """

    jobs_namespace: str = ""
    allowed_namespaces: tuple[str, ...] | None = None
    kubernetes_version: str = DEFAULT


def build_catalog(
    snapshot: Snapshot,
    scope: Scope,
    older: Mapping[str, Sequence[SourceFile]] | None = None,
    *,
    previous_has_envelope: bool = False,
    parser: Parser | None = None,
) -> Catalog:
    """Read a snapshot.

    Args:
        snapshot: the files of one revision.
        scope: what the controller was told.
        older: for paths with errors (`broken_paths`), older versions of the file, newest first.
        previous_has_envelope: whether there was an `openfero.yaml` before this revision.
        parser: what remembers files that were read before; for the scope's Kubernetes version.

    Raises:
        CatalogRefusal: the envelope is broken, or missing where there was one.
        UsageError: the scope's Kubernetes version is not known.
    """
    parser = parser or Parser(scope.kubernetes_version)
    if not older:  # else it is the same catalog, once more
        parser.turn()
    before = parser.judged if isinstance(parser.judged, _Judged) else _Judged()
    files = before.files.follow(snapshot)
    envelope, problems, envelope_file = _envelope(
        snapshot, files.envelopes, scope, previous=previous_has_envelope
    )
    judged, rules = before.follow(files, envelope, scope, parser)
    lost = _without_duplicates(judged.versions.values()) if judged.says_names_twice else {}
    current = judged.versions | lost if lost else judged.versions
    noted = judged.noted | lost
    problems += snapshot.problems
    problems += (problem for version in noted.values() for problem in version.problems)
    in_force = _with_older(current, older, parser, rules) if older else current
    chosen = list(in_force.values())
    kept = [version.file for version in chosen if version.operarios]
    catalog = Catalog(
        revision=snapshot.revision,
        envelope=envelope,
        operarios=tuple(chain.from_iterable(map(attrgetter("operarios"), chosen))),
        problems=_of(snapshot, problems),
        ignored=tuple(
            Ignored(path, kind) for path in sorted(noted) for kind in noted[path].reading.ignored
        ),
        files=tuple(([envelope_file] if envelope_file else []) + kept),
        has_envelope=envelope_file is not None,
        root=snapshot.root,
        before=before.catalog,
    )
    parser.judged = replace(judged, catalog=catalog)
    return catalog


def broken_paths(catalog: Catalog) -> tuple[str, ...]:
    """The files with errors: those of which older versions are wanted."""
    envelopes = _envelopes(catalog.root)
    broken = {problem.path for problem in catalog.problems if problem.is_error}
    return tuple(sorted(path for path in broken if path.lower() not in envelopes))


# The envelope.


def _in_root(root: str, name: str) -> str:
    return f"{root}/{name}" if root else name


def _envelopes(root: str) -> frozenset[str]:
    """The paths, in lower case, that are the envelope's or that somebody meant to be."""
    return frozenset(_in_root(root, name).lower() for name in (NAME, *LIKE_NAME))


def _envelope(
    snapshot: Snapshot, found_files: Sequence[SourceFile], scope: Scope, *, previous: bool
) -> tuple[Envelope, list[Problem], SourceFile | None]:
    path = _in_root(snapshot.root, NAME)
    mistaken = [file for file in found_files if file.path != path]
    problems = [
        located(
            ENVELOPE_NAME.at(
                (),
                f"this file is not read: the safety envelope is named {NAME}",
                f"rename it to {NAME}",
            ),
            0,
            file,
        )
        for file in mistaken
    ]
    unread_envelope = [one for one in snapshot.problems if one.path == path and one.is_error]
    file = next((file for file in found_files if file.path == path), None)
    if file is None:
        if previous and not problems and not unread_envelope:
            problems.append(_missing(path, snapshot))
        if problems or unread_envelope:
            paused = any(says_paused(file.content) for file in mistaken)
            raise _refusal([*problems, *unread_envelope], snapshot, paused=paused)
        return Envelope(), [], None
    try:
        documents = load(file.content)
    except Unreadable as reason:
        problem = at(unread(reason), file)
        raise _refusal([problem], snapshot, paused=says_paused(file.content)) from None
    found = [(index, value) for index, value in enumerate(documents) if value is not None]
    index, value = found[0] if found else (0, None)
    envelope, findings = read_envelope(value)
    if len(found) > 1:
        message = f"{NAME} holds {len(found)} documents"
        findings.append(ENVELOPE_DOCUMENTS.at((), message, "write one"))
    findings += _not_granted(envelope, scope)
    own = [located(finding, index, file) for finding in findings]
    if any(problem.is_error for problem in own):
        raise _refusal(own, snapshot, paused=says_paused(file.content))
    return envelope, problems + own, file


def _missing(path: str, snapshot: Snapshot) -> Problem:
    rule = ENVELOPE_MISSING
    return Problem(
        path=path,
        line=0,
        column=0,
        pointer="",
        rule=rule.id,
        severity=rule.severity,
        message=f"{NAME} is gone, and its limits with it",
        suggestion="restore it; to drop its limits, leave it there and empty it",
        commit=snapshot.revision.commit,
    )


def _refusal(problems: Sequence[Problem], snapshot: Snapshot, *, paused: bool) -> CatalogRefusal:
    first = next(problem for problem in problems if problem.is_error)
    where = f"{first.path}:{first.line}" if first.line else first.path
    hint = f" ({first.suggestion})" if first.suggestion else ""
    message = f"{where}: {first.message}{hint}; the catalog in force stays"
    return CatalogRefusal(message, _of(snapshot, problems), paused=paused)


def _of(snapshot: Snapshot, problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The problems of a snapshot's files, in order, each with the commit that it was found in."""
    commit = snapshot.revision.commit
    return tuple(sorted(one if one.commit else replace(one, commit=commit) for one in problems))


def _not_granted(envelope: Envelope, scope: Scope) -> list[Finding]:
    granted = _granted(scope)
    if granted is None:
        return []
    return [
        NAMESPACE_NOT_GRANTED.at(
            ("namespaces", index),
            f"the controller was not given the namespace {name}",
            f"start it with --allowed-namespace {name}, or delete the line",
        )
        for index, name in enumerate(envelope.namespaces or ())
        if name not in granted
    ]


def _granted(scope: Scope) -> frozenset[str] | None:
    if scope.allowed_namespaces is None:
        return None
    return frozenset((*scope.allowed_namespaces, scope.jobs_namespace))


# Files.


@dataclass(frozen=True, slots=True)
class _Version:
    """One version of one file: what it gives, and what is wrong with it.

    `names` are those of all its operarios, valid or not, as they are compared, with the document
    of each.
    """

    file: SourceFile
    reading: FileReading
    operarios: tuple[Operario, ...]
    problems: tuple[Problem, ...]
    names: tuple[tuple[int, str], ...]

    @property
    def is_broken(self) -> bool:
        return any(problem.is_error for problem in self.problems)

    def held(self) -> set[str]:
        """The names of its valid operarios, as they are compared."""
        return {_folded(operario.name) for operario in self.operarios}


def _folded(name: str) -> str:
    """Kubernetes' names have no upper case; OpenFero's examples do."""
    return name.lower()


@dataclass(frozen=True, slots=True)
class _Files:
    """The files of a snapshot: `envelopes` are those that are no operarios'.

    `came` and `gone` are what it has, and has not, beside the snapshot before it.
    """

    all: tuple[SourceFile, ...] = ()
    root: str = ""
    envelopes: tuple[SourceFile, ...] = ()
    came: tuple[SourceFile, ...] = ()
    gone: tuple[SourceFile, ...] = ()

    def follow(self, snapshot: Snapshot) -> _Files:
        """Those of the next snapshot; a file that stayed is the same object in both."""
        gone, came = apart(self.all, snapshot.files)
        if self.root != snapshot.root:
            gone, came = list(self.all), list(snapshot.files)
        lost = set(map(id, gone))
        names = _envelopes(snapshot.root)
        envelopes = [file for file in self.envelopes if id(file) not in lost]
        envelopes += (file for file in came if file.path.lower() in names)
        return _Files(
            all=snapshot.files,
            root=snapshot.root,
            envelopes=tuple(sorted(envelopes, key=attrgetter("path"))),
            came=tuple(file for file in came if file.path.lower() not in names),
            gone=tuple(gone),
        )


@dataclass(frozen=True, slots=True)
class _Judged:
    """What the files of a catalog were found to be, and by which rules.

    A commit changes few of ten thousand files. So what they all come to is carried on by what
    came and what went, and nothing that stayed is looked at.

    Attributes:
        versions: by path, in its order.
        noted: those of them with problems, or with documents that are no operarios.
        accounts: of those that define ServiceAccounts, their names.
        names: how often each name of an operario stands.
        catalog: what was made of them.
    """

    rules: _Rules | None = None
    files: _Files = field(default_factory=_Files)
    versions: dict[str, _Version] = field(default_factory=dict)
    noted: dict[str, _Version] = field(default_factory=dict)
    accounts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    catalog: Catalog | None = None

    def follow(
        self, files: _Files, envelope: Envelope, scope: Scope, parser: Parser
    ) -> tuple[_Judged, _Rules]:
        """Judge each file on its own; one that is as it was, by the same rules, is what it was."""
        unread_files = [file for file in files.came if self._reading(file) is None]
        readings = iter(parser.read_all(unread_files))
        read = {file.path: (file, self._reading(file) or next(readings)) for file in files.came}
        gone = {file.path for file in files.gone} - read.keys()
        found = {path: reading.service_accounts for path, (_, reading) in read.items()}
        accounts = {
            path: names
            for path, names in {**self.accounts, **found}.items()
            if names and path not in gone
        }
        rules = _Rules(envelope, scope, frozenset(chain.from_iterable(accounts.values())))
        known = self.versions
        if rules != self.rules:
            read = {path: (one.file, one.reading) for path, one in known.items()} | read
            known = {}
        judged = _Judged(
            rules, files, dict(self.versions), dict(self.noted), accounts, dict(self.names)
        )
        for path in gone:
            judged.drop(path)
        for path in read.keys() - gone:
            file, reading = read[path]
            version = known.get(path)
            if version is None or version.reading is not reading or version.file != file:
                version = rules.judge(file, reading)
            judged.put(path, version)
        if read.keys() <= self.versions.keys():  # (What takes another's place stands in it.)
            return judged, rules
        ordered = dict(sorted(judged.versions.items(), key=itemgetter(0)))
        return replace(judged, versions=ordered), rules

    @property
    def says_names_twice(self) -> bool:
        """Whether a name stands more than once."""
        return max(self.names.values(), default=0) > 1

    def _reading(self, file: SourceFile) -> FileReading | None:
        """What a file says, if it says what it did."""
        known = self.versions.get(file.path)
        same = known is not None and file.blob and known.file.blob == file.blob
        return known.reading if known and same else None

    # (Only while it is made.)

    def put(self, path: str, version: _Version) -> None:
        """Let a version be what is at its path."""
        self._forget(path)
        self.versions[path] = version
        for _, name in version.names:
            self.names[name] = self.names.get(name, 0) + 1
        if version.problems or version.reading.ignored:
            self.noted[path] = version

    def drop(self, path: str) -> None:
        """Leave nothing at a path."""
        self._forget(path)
        self.versions.pop(path, None)

    def _forget(self, path: str) -> None:
        self.noted.pop(path, None)
        version = self.versions.get(path)
        for _, name in version.names if version else ():
            self.names[name] -= 1
            if not self.names[name]:
                del self.names[name]


def _without_duplicates(versions: Iterable[_Version]) -> dict[str, _Version]:
    """Leave every name to the first path and document that says it; only who loses is returned."""
    owners: dict[str, _Version] = {}
    lost: dict[str, _Version] = {}
    for version in versions:
        for document, name in version.names:
            owner = owners.setdefault(name, version)
            if owner is version and not _stands_before(version, document, name):
                continue
            where = "earlier in this file" if owner is version else f"in {owner.file.path}"
            before = lost.get(version.file.path, version)
            lost[version.file.path] = _without(before, document, where)
    return lost


def _stands_before(version: _Version, document: int, name: str) -> bool:
    """Whether an earlier document of the same file says the name."""
    return len(version.names) > 1 and any(
        other == name and index < document for index, other in version.names
    )


def _without(version: _Version, document: int, where: str) -> _Version:
    """A version without the operario of one document, whose name stands elsewhere already."""
    name = next(reading.name for index, reading in version.reading.documents if index == document)
    finding = DUPLICATE_NAME.at(
        ("metadata", "name"),
        f"an operario named {shown(name)} stands {where} already: that one counts",
        "rename one of them; the alert can be named by openfero.io/alertname",
    )
    return replace(
        version,
        operarios=tuple(one for one in version.operarios if one.origin.document != document),
        problems=(*version.problems, version.reading.locate(finding, version.file, document)),
    )


def _with_older(
    current: Mapping[str, _Version],
    older: Mapping[str, Sequence[SourceFile]],
    parser: Parser,
    rules: _Rules,
) -> dict[str, _Version]:
    """Put the newest acceptable older version in the place of every broken file."""
    in_force = dict(current)
    for path in sorted(older):
        now = current.get(path)
        if now is not None and not now.is_broken:
            continue
        taken = {
            name for other, version in in_force.items() if other != path for name in version.held()
        }
        for file in older[path]:
            version = rules.judge(replace(file, stale=True), parser.read(file))
            names = [name for _, name in version.names]
            twice = len(set(names)) < len(names)
            if not version.is_broken and not twice and taken.isdisjoint(names):
                in_force[path] = version
                break
    return dict(sorted(in_force.items(), key=itemgetter(0)))


@dataclass(frozen=True, slots=True)
class _Rules:
    """What is judged of an operario beyond its own file."""

    envelope: Envelope
    scope: Scope
    service_accounts: frozenset[str]

    def judge(self, file: SourceFile, reading: FileReading) -> _Version:
        """A file's operarios as far as they are valid, and everything wrong with them."""
        operarios: list[Operario] = []
        problems = [at(problem, file) for problem in reading.problems]
        names: list[tuple[int, str]] = []
        for index, document in reading.documents:
            if document.name:
                names.append((index, _folded(document.name)))
            draft = document.draft
            if draft is None:
                continue
            namespace, findings = self._namespace(draft)
            findings += self._body(draft)
            problems += (reading.locate(finding, file, index) for finding in findings)
            if not any(finding.is_error for finding in findings):
                operarios.append(_operario(draft, namespace, file, index))
        return _Version(file, reading, tuple(operarios), tuple(problems), tuple(names))

    def _namespace(self, draft: Draft) -> tuple[str | None, list[Finding]]:
        """Where the Job goes, None for the jobs namespace; nowhere it may not."""
        named = draft.namespace
        findings: list[Finding] = []
        if named is None and draft.around is not None:
            if reason := self._refused(draft.around):
                message = f"{reason}: the Job goes to the jobs namespace"
                suggestion = "delete it, or name an allowed namespace"
                findings.append(
                    NAMESPACE_IGNORED.at(("metadata", "namespace"), message, suggestion)
                )
            else:
                named = draft.around
        pointer = (*draft.root, "metadata", "namespace")
        reason = self._refused(named or self.scope.jobs_namespace)
        if reason and (named or self.scope.jobs_namespace):
            if named is None:
                reason += ", where Jobs go that name none"
            findings.append(
                NAMESPACE_NOT_ALLOWED.at(pointer, reason, "name one of the allowed namespaces")
            )
        return named, findings

    def _refused(self, name: str) -> str:
        """Why no Job may go to a namespace; empty where it may."""
        granted, listed = _granted(self.scope), self.envelope.namespaces
        if not is_dns_label(name):
            return f"{shown(name)} is no namespace's name"
        if granted is not None and name not in granted:
            return f"the controller was not given the namespace {name}"
        if listed is not None and name not in listed:
            return f"{NAME} does not list the namespace {name}"
        return ""

    def _body(self, draft: Draft) -> Iterator[Finding]:
        spec: Mapping[str, Any] = draft.job["spec"]
        ttl = spec.get("ttlSecondsAfterFinished")
        if ttl is not None:
            yield from ttl_below(
                ttl, self.envelope, (*draft.root, *SPEC, "ttlSecondsAfterFinished")
            )
        policy = self.envelope.defaults.pod_replacement_policy
        if (
            "podFailurePolicy" in spec
            and "podReplacementPolicy" not in spec
            and policy != _REPLACED_AFTER_FAILURE
        ):
            yield POD_FAILURE_POLICY.at(
                (*draft.root, *SPEC, "podFailurePolicy"),
                f"{NAME} gives the Job podReplacementPolicy: {policy}, which does not fit",
                "write podReplacementPolicy: Failed beside it",
            )
        pod = spec["template"]["spec"]
        account = pod.get("serviceAccountName") or pod.get("serviceAccount")
        if account and account != "default" and account not in self.service_accounts:
            field = "serviceAccountName" if "serviceAccountName" in pod else "serviceAccount"
            yield SERVICE_ACCOUNT_UNDEFINED.at(
                (*draft.root, *POD, field),
                f"the repository defines no ServiceAccount {account}: is it in the cluster?",
                "put it beside the operario, with the Role that it needs",
            )


_REPLACED_AFTER_FAILURE: Final = "Failed"


def _operario(draft: Draft, namespace: str | None, file: SourceFile, document: int) -> Operario:
    return Operario(
        name=draft.name,
        alertname=draft.alertname,
        status=draft.status,
        form=draft.form,
        options=draft.options,
        job=draft.job,
        namespace=namespace,
        origin=Origin(
            path=file.path,
            blob=file.blob,
            commit=file.commit,
            commit_author=file.commit_author,
            commit_time=file.commit_time,
            document=document,
            stale=file.stale,
            verified_signer=file.verified_signer,
        ),
        spec_digest=draft.spec_digest,
    )
