"""Which documents are operarios, which are probably meant to be, and which are disabled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.naming import OPERARIO_NAME_PATTERN, advise
from openfero_gitops.catalog.yaml.compose import ENCRYPTED
from openfero_gitops.domain import keys
from openfero_gitops.domain.rule import Finding, Pointer, error, warning
from openfero_gitops.domain.text import did_you_mean, nearest, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

API_VERSION = error(
    "api-version",
    "An operario's `apiVersion` and `kind` must be supported.",
    "In an unknown version the same fields may have another meaning, so the document "
    "is rejected. A mistyped kind is rejected too: if the document was ignored like "
    "other objects in the repository, nothing would handle its alert.",
)
OTHER_JOB = warning(
    "other-job",
    "A Job in the operario folder should name the alert that starts it.",
    "No alert starts this Job. It is probably an operario with a mistyped name.",
)

_NEGATIVE: Final = frozenset({"false", "no", "off", "0", "n"})
MAX_KIND_CHARACTERS: Final = 100
JOB: Final = ("batch/v1", "Job")
CONFIG_MAP: Final = ("v1", "ConfigMap")
OPERARIUS: Final = (f"{keys.PREFIX}v1alpha1", "Operarius")
# Kinds that an author may write for one of the three, including those of OpenFero's first drafts.
_SIMILAR_KINDS: Final = {
    "job": JOB,
    "configmap": CONFIG_MAP,
    "operarius": OPERARIUS,
    "operarii": OPERARIUS,
    "remediationjob": OPERARIUS,
}
#: What SOPS writes instead of a value.
_SOPS_VALUE: Final = "ENC[AES256_GCM,"
_BY_SOPS: Final = "the document is encrypted by SOPS, and is not decrypted here"
_BY_SOPS_VALUE: Final = "is encrypted by SOPS, and is not decrypted here"
_SUPPORTED_KINDS: Final = (JOB[1], CONFIG_MAP[1], OPERARIUS[1])
# Kinds that operarios commonly need, and that may be annotated with the name of an alert.
_COMPANION_KINDS: Final = frozenset(
    {
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "ExternalSecret",
        "Kustomization",
        "LimitRange",
        "Namespace",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "PriorityClass",
        "PrometheusRule",
        "ResourceQuota",
        "Role",
        "RoleBinding",
        "SealedSecret",
        "Secret",
        "ServiceAccount",
    }
)


def looks_like_operario(document: Any) -> bool:
    """Whether a document has an operario's name or annotations."""
    metadata = mapping(mapping(document).get("metadata"))
    annotated = any(
        str(key).startswith(keys.PREFIX) for key in mapping(metadata.get("annotations"))
    )
    return annotated or OPERARIO_NAME_PATTERN.fullmatch(str(metadata.get("name"))) is not None


def is_probably_operario(document: Mapping[str, Any], kind: str, *, is_named: bool) -> bool:
    """Whether a document of an unsupported kind is probably meant to be an operario.

    For kinds that are similar to a supported one, the name alone is enough.
    """
    if kind.endswith("List"):
        items = document.get("items")
        items = items if isinstance(items, list) else []
        return is_named or any(
            looks_like_operario(item)
            and mapping(item).get("kind") not in _COMPANION_KINDS - {CONFIG_MAP[1]}
            for item in items
        )
    if kind in ("", "CronJob") or kind.lower() in _SIMILAR_KINDS or nearest(kind, _SUPPORTED_KINDS):
        return is_named
    annotations = mapping(mapping(document.get("metadata")).get("annotations"))
    return keys.ALERTNAME in annotations and kind not in _COMPANION_KINDS


def other_job(name: str) -> Finding:
    """Report a Job that is no operario."""
    return OTHER_JOB.at(
        ("metadata", "name"),
        f"Job {shown(name)} is not an operario and never runs: it names no alert",
        advise(name),
    )


def unsupported(version: Any, kind: str) -> Finding:
    """Report a probable operario of an unsupported kind or version."""
    similar = _SIMILAR_KINDS.get(kind.lower())
    if similar is None and isinstance(version, str) and version.startswith(keys.PREFIX):
        similar = OPERARIUS
    field = "apiVersion" if similar and similar[1] == kind else "kind"
    if not kind:
        message = "the document looks like an operario but has no kind"
    elif version is None:
        message = f"kind {kind} has no apiVersion"
    else:
        message = f"kind {kind} of {shown(version)} is not supported"
    if similar:
        suggestion = f"write apiVersion: {similar[0]} and kind: {similar[1]}"
    elif kind == "CronJob":
        message = "a CronJob is started by a schedule, an operario by an alert"
        suggestion = "write apiVersion: batch/v1 and kind: Job, with the spec of its jobTemplate"
    elif kind.endswith("List"):
        message = f"operarios in a {kind} are not supported"
        suggestion = "write each as a separate document, separated by ---"
    else:
        suggestion = did_you_mean(kind, _SUPPORTED_KINDS)
    return API_VERSION.at((field,), message, suggestion)


def find_encryption(document: Mapping[str, Any], kind: str, *, is_operario: bool) -> Finding | None:
    """Report an operario that SOPS has encrypted, wholly or in part, or what may be one.

    Args:
        document: the document.
        kind: its kind.
        is_operario: whether it has the name, the annotations or the kind of an operario.
    """
    metadata = mapping(document.get("metadata"))
    is_hidden = str(metadata.get("name")).startswith(_SOPS_VALUE) and kind in _SUPPORTED_KINDS
    is_labelled = mapping(metadata.get("labels")).get("app") == "openfero"
    is_unknown = kind.startswith(_SOPS_VALUE)
    if isinstance(document.get("sops"), dict) and (
        is_operario or is_unknown or is_hidden or is_labelled
    ):
        return ENCRYPTED.at(("sops",), _BY_SOPS)
    return ENCRYPTED.at(("kind",), _BY_SOPS) if is_unknown else None


def find_encrypted_value(value: Any) -> Finding | None:
    """Report the first value that SOPS has encrypted, in what is left of a document."""
    pending: list[tuple[Pointer, Any]] = [((), value)]
    while pending:
        pointer, inner = pending.pop()
        if isinstance(inner, str) and inner.startswith(_SOPS_VALUE):
            return ENCRYPTED.at(pointer, f"the value {_BY_SOPS_VALUE}")
        if isinstance(inner, dict):
            pending += [((*pointer, key), member) for key, member in inner.items()]
        elif isinstance(inner, list):
            pending += [((*pointer, index), item) for index, item in enumerate(inner)]
    return None


def is_encrypted_text(text: str) -> bool:
    """Whether a text contains a value that SOPS has encrypted."""
    return _SOPS_VALUE in text


def without_disabling_label(document: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Remove the label with which OpenFero's users disable a definition.

    OpenFero ignores a ConfigMap that has it with any value. A value that is not quoted is no
    string, which is not worth an error here.

    Returns:
        the document without the label, and why it is disabled, empty if it is not.
    """
    metadata = mapping(document.get("metadata"))
    labels = mapping(metadata.get("labels"))
    value = labels.get(keys.JOB_DISABLED)
    if value is None or value == "":
        return document, ""
    others = {key: label for key, label in labels.items() if key != keys.JOB_DISABLED}
    text = str(value).lower() if isinstance(value, bool) else str(value)
    reason = f"disabled by the label {keys.JOB_DISABLED}: {shown(text)}"
    if text.strip().lower() in _NEGATIVE:
        reason += ", which disables it with any value"
    return {**document, "metadata": {**metadata, "labels": others}}, reason


def mapping(value: Any) -> dict[str, Any]:
    """A value that may be a mapping, as one."""
    return value if isinstance(value, dict) else {}
