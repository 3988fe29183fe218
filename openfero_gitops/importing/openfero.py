"""Sort the objects of an OpenFero installation into the files of a repository.

Definitions keep their form, since all three forms of OpenFero are read as they are. ServiceAccounts
and the roles that they are bound to are copied for those that a Job names. Secrets never are.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.forms import Draft, Reading, read_document
from openfero_gitops.catalog.kinds import mapping
from openfero_gitops.catalog.validation.schema import DEFAULT, schemas_of
from openfero_gitops.catalog.validation.validate import UNKNOWN_FIELD
from openfero_gitops.catalog.yaml.dump import to_yaml
from openfero_gitops.domain.catalog import Envelope
from openfero_gitops.domain.problem import Severity
from openfero_gitops.domain.text import plural
from openfero_gitops.importing.differences import FOR_ALL, Difference, differences

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from openfero_gitops.importing.manifests import Manifest

#: Not read by the controller, as its name begins with `_`.
INVALID: Final = "_invalid"
_BINDINGS: Final = ("ClusterRoleBinding", "RoleBinding")
_ROLES: Final = ("ClusterRole", "Role")
_NOT_SLUG: Final = re.compile(r"[^a-z0-9.-]+")
#: ClusterRoles that every cluster has, so that no repository has to define them.
_BUILT_IN: Final = frozenset({"admin", "cluster-admin", "edit", "view"})
_DEFAULT_ACCOUNT: Final = "default"


@dataclass(frozen=True, slots=True)
class ImportedDefinition:
    """A definition with its file, and what changed in meaning.

    `errors` are the reasons why it is no operario; it is then kept in a folder that is not read.
    """

    name: str
    origin: str
    path: str
    alertname: str = ""
    status: str = ""
    namespace: str = ""
    account: str = ""
    differences: tuple[Difference, ...] = ()
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Import:
    """The files of a new repository, by path, and what to know about them.

    `notes` say what was left out, and what is missing.
    """

    files: dict[str, str]
    definitions: tuple[ImportedDefinition, ...]
    notes: tuple[str, ...]
    for_all: tuple[Difference, ...] = field(default=FOR_ALL)

    @property
    def is_complete(self) -> bool:
        """Whether there is a definition, and each one became an operario."""
        return bool(self.definitions) and not any(
            definition.errors for definition in self.definitions
        )


def convert(manifests: Iterable[Manifest]) -> Import:
    """Make a repository of the objects of an OpenFero installation."""
    objects, notes = _without_repetitions(manifests)
    files: dict[str, str] = {}
    names: set[str] = set()
    definitions = [
        _define(manifest, reading, names, files)
        for manifest in objects
        if (reading := _read(manifest)) is not None
    ]
    notes += [*_left_out(objects), *_tied(definitions)]
    accounts = {
        (definition.namespace, definition.account or _DEFAULT_ACCOUNT)
        for definition in definitions
        if not definition.errors
    }
    notes += _namespaces(definitions)
    rbac = _rbac(objects, accounts, notes)
    files |= rbac
    if rbac:
        files["kustomization.yaml"] = _kustomization(rbac)
    namespaces = sorted(
        {
            definition.namespace
            for definition in definitions
            if definition.namespace and not definition.errors
        }
    )
    files["openfero.yaml"] = _envelope(namespaces)
    return Import(files, tuple(definitions), tuple(notes))


def _without_repetitions(manifests: Iterable[Manifest]) -> tuple[list[Manifest], list[str]]:
    """Return each object once, sorted, and a note for those that are defined in two ways."""
    objects: dict[tuple[str, str, str], Manifest] = {}
    notes = []
    for manifest in manifests:
        key = (manifest.kind, manifest.namespace, manifest.name)
        if not manifest.kind or not manifest.name:
            continue
        first = objects.setdefault(key, manifest)
        if first.body != manifest.body:
            notes.append(
                f"{manifest.kind} {manifest.name} is defined differently in {first.origin} and in "
                f"{manifest.origin}. The first one is used."
            )
    return [objects[key] for key in sorted(objects)], notes


def _read(manifest: Manifest) -> Reading | None:
    """Read a definition; None if the object is none."""
    reading = read_document(manifest.body, schemas_of(DEFAULT))
    is_definition = reading.draft is not None or (reading.ignored is None and reading.findings)
    return reading if is_definition else None


def _define(
    manifest: Manifest, reading: Reading, names: set[str], files: dict[str, str]
) -> ImportedDefinition:
    draft = reading.draft
    if draft is None:
        path = _free(f"{INVALID}/{_slug(manifest.name) or 'unnamed'}.yaml", files)
        files[path] = manifest.text
        errors = tuple(
            finding.message
            for finding in reading.findings
            if finding.rule.severity is Severity.ERROR
        )
        return ImportedDefinition(manifest.name, manifest.origin, path, errors=errors)
    name, text, renamed = draft.name, manifest.text, []
    if name in names:
        name = f"{name}-{draft.outer_namespace or 'copy'}"
        text = to_yaml([{**manifest.body, "metadata": {**manifest.metadata, "name": name}}])
        message = f"Its name was {draft.name}, which another operario has."
        renamed.append(Difference("renamed", message))
    names.add(name)
    path = _free(f"{_slug(draft.alertname)}/{_slug(name)}.yaml", files)
    files[path] = text
    dropped = [
        Difference("field-dropped", f"{finding.message}. The API server drops this field, too.")
        for finding in reading.findings
        if finding.rule is UNKNOWN_FIELD
    ]
    return ImportedDefinition(
        name,
        manifest.origin,
        path,
        draft.alertname,
        draft.status.value,
        draft.namespace or draft.outer_namespace or "",
        _account(draft),
        (*renamed, *differences(draft, manifest.body, Envelope()), *dropped),
    )


def _account(draft: Draft) -> str:
    pod = draft.job["spec"]["template"]["spec"]
    return str(pod.get("serviceAccountName") or pod.get("serviceAccount") or "")


def _slug(name: str) -> str:
    return _NOT_SLUG.sub("-", name.lower()).strip("-.")


def _free(path: str, files: dict[str, str]) -> str:
    """Return the path, with a number if another file has it."""
    stem = path.removesuffix(".yaml")
    number = 2
    while path in files:
        path = f"{stem}-{number}.yaml"
        number += 1
    return path


def _left_out(objects: list[Manifest]) -> Iterator[str]:
    secrets = [manifest.name for manifest in objects if manifest.kind == "Secret"]
    if secrets:
        yield (
            f"{plural(len(secrets), 'Secret')} not copied: {', '.join(secrets)}. Secrets do not "
            "belong in Git; create them in the namespace of the Jobs."
        )


def _namespaces(definitions: Iterable[ImportedDefinition]) -> Iterator[str]:
    named = sorted(
        {
            definition.namespace
            for definition in definitions
            if definition.namespace and not definition.errors
        }
    )
    if named:
        yield (
            f"Jobs run in the namespace that their definition names ({', '.join(named)}) only if "
            "the controller may use it (--allowed-namespace, allowedNamespaces of the chart). "
            "Otherwise they run in its jobs namespace, where their ServiceAccounts are missing: "
            "change the namespace in rbac/, too."
        )


def _tied(definitions: Iterable[ImportedDefinition]) -> Iterator[str]:
    count = Counter(
        (definition.alertname, definition.status)
        for definition in definitions
        if not definition.errors
    )
    for (alertname, status), number in sorted(count.items()):
        if number > 1:
            yield (
                f"{number} operarios for {alertname} ({status}): of those that match, the one "
                "with the highest priority is used, then the first name. OpenFero uses any of "
                "those with the highest priority."
            )


def _rbac(
    objects: list[Manifest], accounts: set[tuple[str, str]], notes: list[str]
) -> dict[str, str]:
    """Return the files with the accounts that Jobs use, and what binds them to which roles."""
    texts: dict[str, list[str]] = {}
    copied: set[tuple[str, str, str]] = set()
    missing: set[str] = set()
    for namespace, account in sorted(accounts):
        wanted = [*_account_objects(objects, namespace, account, missing)]
        if account != _DEFAULT_ACCOUNT and not any(m.kind == "ServiceAccount" for m in wanted):
            where = f" of namespace {namespace}" if namespace else ""
            missing.add(f"ServiceAccount {account}{where}")
        for manifest in wanted:
            key = (manifest.kind, manifest.namespace, manifest.name)
            if key not in copied:
                copied.add(key)
                texts.setdefault(f"rbac/{_slug(account)}.yaml", []).append(manifest.text)
    if missing:
        notes.append(
            f"Not found, so it is not in rbac/: {', '.join(sorted(missing))}. A Job without its "
            "ServiceAccount gets no Pod."
        )
    return {path: "---\n".join(parts) for path, parts in sorted(texts.items())}


def _account_objects(
    objects: list[Manifest], namespace: str, account: str, missing: set[str]
) -> Iterator[Manifest]:
    roles = {
        (manifest.kind, manifest.namespace, manifest.name): manifest
        for manifest in objects
        if manifest.kind in _ROLES
    }
    for manifest in objects:
        if manifest.kind == "ServiceAccount" and manifest.name == account:
            if not namespace or manifest.namespace in ("", namespace):
                yield manifest
        elif manifest.kind in _BINDINGS and _binds(manifest, namespace, account):
            reference = mapping(manifest.body.get("roleRef"))
            kind, name = str(reference.get("kind")), str(reference.get("name"))
            yield manifest
            if kind == "ClusterRole" and (name in _BUILT_IN or name.startswith("system:")):
                continue
            role = roles.get((kind, manifest.namespace if kind == "Role" else "", name))
            if role is None:
                missing.add(f"{kind} {name}")
            else:
                yield role


def _binds(binding: Manifest, namespace: str, account: str) -> bool:
    subjects: Any = binding.body.get("subjects")
    return any(
        isinstance(subject, dict)
        and subject.get("kind") == "ServiceAccount"
        and subject.get("name") == account
        and (not namespace or subject.get("namespace", binding.namespace) in ("", namespace))
        for subject in (subjects if isinstance(subjects, list) else ())
    )


def _kustomization(paths: Iterable[str]) -> str:
    resources = "".join(f"  - {path}\n" for path in paths)
    return (
        "# The permissions of the Jobs: kubectl apply -k .\n"
        "# The controller does not apply them.\n"
        "apiVersion: kustomize.config.k8s.io/v1beta1\n"
        "kind: Kustomization\n"
        f"resources:\n{resources}"
    )


def _envelope(namespaces: list[str]) -> str:
    listed = "".join(f"#   - {namespace}\n" for namespace in namespaces) or "#   - openfero-jobs\n"
    return f"""\
# Limits for all operarios of this repository. An error in this file refuses the whole commit.

# With dry-run, each Job is sent to the API server as a dry run and then refused. Nothing runs.
# Change it to run when you have seen what the controller would do.
mode: dry-run

limits:
  # Maximum number of Jobs that run at the same time.
  concurrent: 20
  # Maximum number of Jobs that start within a minute.
  perMinute: 60

# The namespaces in which Jobs may run. If you list them, list the controller's jobs namespace, too.
# The imported operarios name these:
# namespaces:
{listed}
# How long a finished Job is kept after the last delivery of its alert.
remember: 24h

# For Jobs that do not set these fields.
defaults:
  backoffLimit: 0
  activeDeadlineSeconds: 900
  podReplacementPolicy: Failed
  ttlSecondsAfterFinished: 86400
"""
