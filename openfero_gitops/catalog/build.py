"""Build the catalog of a snapshot: a pure function with the same result on every replica.

A file with an error is quarantined alone. The newest older version of it that is valid under the
current envelope replaces it as a whole and is marked stale; without such a version, the valid
operarios of the broken file remain. If two operarios have the same name, the first path keeps it,
and a stale version never takes a name from a current one.

`openfero.yaml` is different: a revision whose envelope cannot be followed is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain, islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.effort import MAX_FILE_PROBLEMS, Watch, first_problems, with_rest
from openfero_gitops.catalog.envelope import NAME, ttl_below
from openfero_gitops.catalog.envelope_file import (
    Scope,
    envelope_paths,
    find_envelope,
    granted_namespaces,
    sorted_problems,
)
from openfero_gitops.catalog.files import FileMemo, at
from openfero_gitops.catalog.ignore import select_considered
from openfero_gitops.catalog.validation.body import POD, SPEC
from openfero_gitops.catalog.validation.checks.job import POD_FAILURE_POLICY
from openfero_gitops.catalog.yaml.locate import Locator
from openfero_gitops.domain.catalog import Catalog
from openfero_gitops.domain.dns import is_dns_label
from openfero_gitops.domain.errors import CatalogRefusal
from openfero_gitops.domain.operario import Operario, Origin
from openfero_gitops.domain.problem import Ignored, Problem
from openfero_gitops.domain.rule import error, warning
from openfero_gitops.domain.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from openfero_gitops.catalog.files import FileReading
    from openfero_gitops.catalog.forms import Draft
    from openfero_gitops.domain.catalog import Envelope, Revision, Snapshot, SourceFile
    from openfero_gitops.domain.rule import Finding

__all__ = ["Scope", "broken_paths", "build_catalog"]

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
SERVICE_ACCOUNT_UNDEFINED = warning(
    "service-account-undefined",
    "The ServiceAccount of a Job should be defined in the repository.",
    "The API server accepts a Job whose ServiceAccount does not exist, but no Pod is "
    "created for it. The Job waits until its deadline.",
)

# Budgets of a revision; one that exceeds them is refused as a whole, like one with too many files.
#: About a hundred seconds; ten thousand operarios take a twentieth of it.
MAX_STEPS: Final = 10_000_000
#: Of all operarios as JSON, with aliases expanded: as many as the bytes of all files may be.
MAX_CHARACTERS: Final = 64 * 1024 * 1024
#: That are kept with their details; of later files, one problem each.
MAX_PROBLEMS: Final = 10_000
#: Of older versions of broken files.
MAX_OLDER_BYTES: Final = 64 * 1024 * 1024


def build_catalog(
    snapshot: Snapshot,
    scope: Scope,
    older: Mapping[str, Sequence[SourceFile]] | None = None,
    *,
    previous_has_envelope: bool = False,
    memo: FileMemo | None = None,
    watch: Watch | None = None,
) -> Catalog:
    """Build a catalog.

    Args:
        snapshot: the files of one revision.
        scope: the settings of the controller.
        older: for paths with errors (`broken_paths`), older versions of the file, newest first.
        previous_has_envelope: whether there was an `openfero.yaml` before this revision.
        memo: a cache of files read before; it must be for the scope's Kubernetes version.
        watch: measures processor time, and says when to stop.

    Raises:
        CatalogRefusal: the envelope is broken, it was deleted, or the files exceed a budget.
        UsageError: the scope's Kubernetes version is not known.
        Interrupted: `watch` says that the result is no longer wanted.
    """
    memo = memo or FileMemo(scope.kubernetes_version)
    watch = watch or Watch()
    reserved = envelope_paths(snapshot.root)
    envelopes: list[SourceFile] = []
    files: list[SourceFile] = []
    for file in sorted(snapshot.files, key=attrgetter("path")):
        (envelopes if file.path.lower() in reserved else files).append(file)
    envelope, problems, envelope_file = find_envelope(
        snapshot, envelopes, scope, previous=previous_has_envelope
    )
    considered, ignored = select_considered(snapshot, envelope)
    if ignored:
        paths = {file.path for file in considered.files}
        files = [file for file in files if file.path in paths]
    budget = _Budget(memo, watch, snapshot.root, paused=envelope.paused)
    readings = [budget.read(file) for file in files]
    context = _Context(
        snapshot.revision,
        envelope,
        scope.jobs_namespace,
        granted_namespaces(scope),
        None if envelope.namespaces is None else frozenset(envelope.namespaces),
        frozenset(chain.from_iterable(reading.service_accounts for reading in readings)),
    )
    current = {
        file.path: budget.shortened(context.judge(file, reading))
        for file, reading in zip(files, readings, strict=True)
    }
    current |= _losers_of_names(current.values())
    problems += considered.problems
    problems += chain.from_iterable(
        with_rest(version.problems, version.more) for version in current.values()
    )
    chosen = _with_older(current, older, budget, context) if older else list(current.values())
    return Catalog(
        revision=snapshot.revision,
        envelope=envelope,
        operarios=tuple(chain.from_iterable(version.operarios for version in chosen)),
        problems=sorted_problems(snapshot, problems),
        ignored=(
            *considered.ignored,
            *ignored,
            *(
                Ignored(file.path, kind, reason)
                for file, reading in zip(files, readings, strict=True)
                for kind, reason in reading.ignored
            ),
        ),
        files=(
            *([envelope_file] if envelope_file else []),
            *(version.file for version in chosen if version.operarios),
        ),
        has_envelope=envelope_file is not None,
        root=snapshot.root,
    )


def broken_paths(catalog: Catalog) -> tuple[str, ...]:
    """List the files with errors, which older versions may replace."""
    reserved = envelope_paths(catalog.root)
    broken = {problem.path for problem in catalog.problems if problem.is_error}
    return tuple(sorted(path for path in broken if path.lower() not in reserved))


# Files.


class _Budget:
    """Reads the files of a revision, in the order of their paths, within its budgets."""

    def __init__(self, memo: FileMemo, watch: Watch, root: str, *, paused: bool) -> None:
        self._memo = memo
        self._watch = watch
        self._root = root
        self._paused = paused
        self._steps = 0
        self._characters = 0
        self._details = 0
        self._problems = 0

    def read(self, file: SourceFile) -> FileReading:
        """Read a file.

        Raises:
            CatalogRefusal: the files up to this one exceed a budget.
            Interrupted: the result is no longer wanted.
        """
        reading = self._memo.read(file, self._watch)
        self._steps += reading.steps
        self._characters += reading.characters
        if not self.has_steps:
            raise self._exceeded(f"take more than {MAX_STEPS} steps to check")
        if self._characters > MAX_CHARACTERS:
            raise self._exceeded(f"define operarios of more than {MAX_CHARACTERS} characters")
        details = len(reading.problems) + len(reading.ignored)
        self._details += details
        if self._details > MAX_PROBLEMS and details > 1:
            self._memo.forget(file)
            reading = reading.without_details()
        return reading

    def shortened(self, version: _FileVersion) -> _FileVersion:
        """Keep one problem of a file, if there are too many."""
        self._problems += len(version.problems)
        if self._problems <= MAX_PROBLEMS or len(version.problems) <= 1:
            return version
        kept = first_problems(version.problems, 1)
        more = version.more + len(version.problems) - len(kept)
        return replace(version, problems=kept, more=more)

    @property
    def has_steps(self) -> bool:
        """Whether more files can be read."""
        return self._steps <= MAX_STEPS

    def read_older(self, file: SourceFile) -> FileReading:
        """Read an older version, of which nothing but the operarios is used."""
        reading = self._memo.read(file, self._watch)
        self._steps += reading.steps
        return reading

    def _exceeded(self, what: str) -> CatalogRefusal:
        where = self._root or "the repository"
        return CatalogRefusal(
            f"the YAML and JSON files in {where} {what}; set --path to the folder of the operarios,"
            " or remove the files that are not; the active catalog is kept",
            (),
            paused=self._paused,
        )


@dataclass(frozen=True, slots=True)
class _FileVersion:
    """One version of one file: its valid operarios and its problems.

    `names` are the folded names of all its operarios, valid or not, each with its document. `more`
    is the number of problems that are not kept.
    """

    file: SourceFile
    reading: FileReading
    operarios: tuple[Operario, ...]
    problems: tuple[Problem, ...]
    names: tuple[tuple[int, str], ...]
    more: int

    @property
    def is_broken(self) -> bool:
        return any(problem.is_error for problem in self.problems)


def _folded(name: str) -> str:
    """Fold the case of a name: Kubernetes' names have no upper case, OpenFero's examples do."""
    return name.lower()


def _losers_of_names(versions: Iterable[_FileVersion]) -> dict[str, _FileVersion]:
    """Give every name to the first path and document that has it.

    Returns:
        by path, the versions that lose an operario to that.
    """
    owners: dict[str, tuple[str, int]] = {}
    losers: dict[str, _FileVersion] = {}
    for version in versions:
        path = version.file.path
        taken: dict[int, str] = {}
        for document, name in version.names:
            owner, _ = owners.setdefault(name, (path, document))
            if owners[name] != (path, document):
                taken[document] = "earlier in this file" if owner == path else f"in {owner}"
        if taken:
            losers[path] = _without(version, taken)
    return losers


def _without(version: _FileVersion, taken: Mapping[int, str]) -> _FileVersion:
    """Remove the operarios of the documents whose name is taken, and say by which file."""
    names = {index: reading.name for index, reading in version.reading.documents}
    locator = Locator(version.file.content)
    problems = [
        version.reading.locate(
            DUPLICATE_NAME.at(
                ("metadata", "name"),
                f"the name {shown(names[document])} is already used {where}; that operario is kept",
                "rename one of them; openfero.io/alertname can name the alert instead",
            ),
            version.file,
            document,
            locator,
        )
        for document, where in islice(taken.items(), MAX_FILE_PROBLEMS)
    ]
    problems = [*problems, *version.problems]
    kept = first_problems(problems)
    return replace(
        version,
        operarios=tuple(
            operario for operario in version.operarios if operario.origin.document not in taken
        ),
        problems=kept,
        more=version.more + len(version.problems) + len(taken) - len(kept),
    )


def _with_older(
    current: Mapping[str, _FileVersion],
    older: Mapping[str, Sequence[SourceFile]],
    budget: _Budget,
    context: _Context,
) -> list[_FileVersion]:
    """Replace every broken file by its newest acceptable older version; ordered by path."""
    chosen = dict(current)
    owners = {name: path for path, version in current.items() for name in _names_of(version)}
    for path in sorted(older):
        broken = current.get(path)
        if broken is not None and not broken.is_broken:
            continue
        for file in older[path]:
            if not budget.has_steps:
                break
            version = context.judge(replace(file, stale=True), budget.read_older(file))
            names = {name for _, name in version.names}
            is_acceptable = not version.is_broken and len(names) == len(version.names)
            if is_acceptable and all(owners.get(name, path) == path for name in names):
                for name in _names_of(broken) if broken else ():
                    del owners[name]
                owners |= dict.fromkeys(names, path)
                chosen[path] = version
                break
    return [chosen[path] for path in sorted(chosen)]


def _names_of(version: _FileVersion) -> list[str]:
    return [_folded(operario.name) for operario in version.operarios]


@dataclass(frozen=True, slots=True)
class _Context:
    """What the operarios of a file are judged by besides the file."""

    revision: Revision
    envelope: Envelope
    jobs_namespace: str
    granted: frozenset[str] | None
    listed: frozenset[str] | None
    service_accounts: frozenset[str]

    def judge(self, file: SourceFile, reading: FileReading) -> _FileVersion:
        """Find a file's valid operarios, and everything wrong with them."""
        operarios: list[Operario] = []
        problems = [at(problem, file) for problem in reading.problems]
        locator = Locator(file.content)
        names: list[tuple[int, str]] = []
        for index, document in reading.documents:
            if document.name:
                names.append((index, _folded(document.name)))
            draft = document.draft
            if draft is None:
                continue
            namespace, findings = self._namespace(draft)
            findings += self._body(draft)
            problems += (reading.locate(finding, file, index, locator) for finding in findings)
            if not any(finding.is_error for finding in findings):
                operarios.append(_make_operario(draft, namespace, self._origin(file, index)))
        kept = first_problems(problems)
        more = reading.more + len(problems) - len(kept)
        return _FileVersion(file, reading, tuple(operarios), kept, tuple(names), more)

    def _origin(self, file: SourceFile, document: int) -> Origin:
        """The place of a document; a file without a commit is of the snapshot's revision."""
        revision = self.revision
        return Origin(
            path=file.path,
            blob=file.blob,
            commit=file.commit or revision.commit,
            commit_author=file.commit_author if file.commit else revision.author,
            commit_time=file.commit_time if file.commit else revision.time,
            document=document,
            stale=file.stale,
            verified_signer=file.verified_signer if file.commit else revision.verified_signer,
        )

    def _namespace(self, draft: Draft) -> tuple[str | None, list[Finding]]:
        """Find the Job's namespace, None for the jobs namespace, and what is wrong with it."""
        named = draft.namespace
        findings: list[Finding] = []
        if named is None and draft.outer_namespace is not None:
            if reason := self._refused(draft.outer_namespace):
                message = f"{reason}; the Job runs in the jobs namespace"
                suggestion = "delete it, or name an allowed namespace"
                findings.append(
                    NAMESPACE_IGNORED.at(("metadata", "namespace"), message, suggestion)
                )
            else:
                named = draft.outer_namespace
        pointer = (*draft.root, "metadata", "namespace")
        reason = self._refused(named or self.jobs_namespace)
        if reason and (named or self.jobs_namespace):
            if named is None:
                reason += ", which is the default namespace of Jobs"
            findings.append(
                NAMESPACE_NOT_ALLOWED.at(pointer, reason, "name one of the allowed namespaces")
            )
        return named, findings

    def _refused(self, name: str) -> str:
        """Why no Job may run in a namespace; empty if it may."""
        granted, listed = self.granted, self.listed
        if not is_dns_label(name):
            return f"{shown(name)} is not a valid namespace name"
        if granted is not None and name not in granted:
            return f"namespace {name} is not granted to the controller"
        if listed is not None and name not in listed:
            return f"namespace {name} is not listed in {NAME}"
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
                f"podFailurePolicy requires podReplacementPolicy: Failed, but {NAME} sets {policy}",
                "add podReplacementPolicy: Failed to the Job",
            )
        pod = spec["template"]["spec"]
        account = pod.get("serviceAccountName") or pod.get("serviceAccount")
        if account and account != "default" and account not in self.service_accounts:
            field = "serviceAccountName" if "serviceAccountName" in pod else "serviceAccount"
            yield SERVICE_ACCOUNT_UNDEFINED.at(
                (*draft.root, *POD, field),
                f"ServiceAccount {account} is not defined in the repository",
                "add it and its Role to the repository, or make sure that the cluster has it",
            )


_REPLACED_AFTER_FAILURE: Final = "Failed"


def _make_operario(draft: Draft, namespace: str | None, origin: Origin) -> Operario:
    return Operario(
        name=draft.name,
        alertname=draft.alertname,
        status=draft.status,
        form=draft.form,
        options=draft.options,
        job=draft.job,
        namespace=namespace,
        origin=origin,
        spec_digest=draft.spec_digest,
    )
