"""Read the operario that a document defines, in any of OpenFero's three forms.

- a `batch/v1` **Job**. The annotations `openfero.io/alertname` and `openfero.io/status`, otherwise
  the name `openfero-<alertname>-<status>` in any case, give the alert and its status; the status
  follows the last dash.
- a **ConfigMap** with such a name, or with annotations `openfero.io/…`, whose data has the Job's
  YAML under the alert's name. Options can be set on the ConfigMap and on the Job; the Job's take
  precedence.
- an `openfero.io/v1alpha1` **Operarius**. Its `alertSelector` names the alert, and the labels
  there become matchers; `priority`, `enabled` and `deduplication` become options. Annotations,
  also those of `jobTemplate`, take precedence over them.

The operario is named after the outer object. Other documents are ignored. A Job that does not look
like an operario gets a warning, because nothing will ever run it; an incomplete operario (a name
`openfero-…`, an annotation `openfero.io/…`) is an error. So is a document of another kind that
names an alert, unless operarios commonly need this kind: with a mistyped kind an operario would
otherwise disappear silently.

What depends on the envelope (namespaces, `remember`) is checked later, by `catalog.build`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.effort import TOO_COMPLEX, Effort
from openfero_gitops.catalog.kinds import (
    CONFIG_MAP,
    JOB,
    MAX_KIND_CHARACTERS,
    OPERARIUS,
    find_encrypted_value,
    find_encryption,
    is_encrypted_text,
    is_probably_operario,
    looks_like_operario,
    mapping,
    other_job,
    unsupported,
    without_disabling_label,
)
from openfero_gitops.catalog.naming import (
    OPERARIO_NAME_PATTERN,
    advise,
    has_similar_prefix,
    is_misnamed_config_map,
    wrapped_keys,
)
from openfero_gitops.catalog.options import (
    OPTION_VALUE,
    AnnotationValue,
    check_resolve_delay,
    read_options,
)
from openfero_gitops.catalog.validation.checks.advice import NO_EFFECT
from openfero_gitops.catalog.validation.validate import check_body, clean
from openfero_gitops.catalog.yaml.compose import Unreadable
from openfero_gitops.catalog.yaml.document import load_text
from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.dns import is_dns_subdomain
from openfero_gitops.domain.matcher import Matcher, Operator
from openfero_gitops.domain.operario import Form, Options
from openfero_gitops.domain.rule import Finding, Pointer, error, related, warning
from openfero_gitops.domain.text import did_you_mean, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from openfero_gitops.catalog.validation.schema import Schema, Schemas
    from openfero_gitops.catalog.validation.schema.gates import Release

NO_ALERT = error(
    "no-alert",
    "An operario must name the alert that it matches.",
    "The document looks like an operario, but no alert could start it.",
)
ALERT_STATUS = error(
    "alert-status",
    "An operario must name the status of the alerts that it matches: `firing` or `resolved`.",
    "The status is the value of `openfero.io/status`, or the end of the operario's name, or "
    "`status` in the `alertSelector` of an Operarius. Alertmanager has no other status, so the "
    "operario would never run.",
)
ALERT_PATTERN = warning(
    "alert-pattern",
    "The name of an alert should not look like a pattern.",
    "An alert is found by its exact name, so that it is clear which operario handles it. An "
    "operario for `Kube*` would never run.",
)
OPERARIO_NAME = error(
    "operario-name",
    "An operario must have a valid Kubernetes name.",
    "The name is written to every Job as a label, so it can contain only lower-case "
    "letters, digits, `-` and `.`.",
)
WRAPPED_JOB = error(
    "wrapped-job",
    "An operario ConfigMap must contain exactly one Job, under the name of its alert.",
    "The ConfigMap names an alert but has no Job for it, so nothing would run.",
)
RESERVED_KEY = warning(
    "reserved-key",
    "A Job should not set labels or annotations that are reserved for the controller.",
    "The controller and Kueue manage the Job by these keys. An author who could set "
    "them could, for example, mark a Job as approved. They are removed from the Job.",
)

# Globs and regular expressions; names of alerts are words, sometimes with spaces.
_LIKE_PATTERN: Final = re.compile(r"[*|^$\\]|\.\+|\.\?|^[~!=]|\[[^\]]+\]|\(\?")
# A compiled regular expression can take half a megabyte, of thirty characters.
_MIN_EXPRESSION_CHARACTERS: Final = 300
_CHARACTERS_PER_INSTRUCTION: Final = 10
_INSTRUCTIONS_PER_STEP: Final = 4


@dataclass(frozen=True, slots=True)
class Draft:
    """An operario whose namespace is not checked yet.

    Attributes:
        root: the place of the Job in the document.
        namespace: the namespace of the Job.
        outer_namespace: the namespace of the object that contains the Job.
    """

    name: str
    alertname: str
    status: Status
    form: Form
    options: Options
    job: Mapping[str, Any]
    spec_digest: str
    root: Pointer
    namespace: str | None
    outer_namespace: str | None


@dataclass(frozen=True, slots=True)
class Reading:
    """The result of reading one document.

    Attributes:
        ignored: its kind if it is not an operario, or is disabled; None if it is an operario.
        reason: why it is ignored, if that is not its kind.
        name: the operario's name, if it has one.
        draft: the operario, if no finding is an error.
        service_account: the name of the ServiceAccount that it defines.
        characters: of the Job as JSON; a regular expression counts as as many characters as take
            its memory.
    """

    ignored: str | None = None
    reason: str = ""
    name: str = ""
    draft: Draft | None = None
    findings: tuple[Finding, ...] = ()
    service_account: str = ""
    characters: int = 0


def read_document(document: Any, schemas: Schemas, effort: Effort | None = None) -> Reading:
    """Read a document, which may be an operario.

    One that is disabled by OpenFero's label is ignored if it has errors: whatever is wrong with it,
    its author does not want an earlier version of it to run.

    Raises:
        Unreadable: the file has reached the limit of its effort.
    """
    effort = effort or Effort()
    disabled = ""
    if isinstance(document, dict):
        document, disabled = without_disabling_label(document)
    reading = _read_document(document, schemas, effort)
    if reading.ignored is not None:
        is_encrypted = isinstance(document, dict) and isinstance(document.get("sops"), dict)
        return replace(reading, reason="encrypted by SOPS") if is_encrypted else reading
    if disabled and reading.draft is None:
        return Reading(ignored=_kind_of(document), reason=disabled)
    if reading.draft is not None and (disabled or not reading.draft.options.enabled):
        draft = replace(reading.draft, options=replace(reading.draft.options, enabled=False))
        reason = disabled or "disabled (enabled: false)"
        return replace(reading, draft=draft, ignored=_kind_of(document), reason=reason)
    return reading


def _kind_of(document: Mapping[str, Any]) -> str:
    kind = document.get("kind")
    return kind[:MAX_KIND_CHARACTERS] if isinstance(kind, str) else ""


def _read_document(  # noqa: PLR0911 - one return for each thing that a document may be
    document: Any, schemas: Schemas, effort: Effort
) -> Reading:
    if not isinstance(document, dict):
        return Reading(ignored="")
    version, kind = document.get("apiVersion"), _kind_of(document)
    metadata = mapping(document.get("metadata"))
    name = metadata["name"] if isinstance(metadata.get("name"), str) else ""
    is_named = looks_like_operario(document)
    is_meant = is_named or has_similar_prefix(name) or kind == OPERARIUS[1]
    if encryption := find_encryption(document, kind, is_operario=is_meant):
        return Reading(name=name, findings=(encryption,))
    match (version, kind):
        case ("batch/v1", "Job") if is_named or has_similar_prefix(name):
            return _assemble(_job(document, schemas, effort), schemas.release, effort)
        case ("batch/v1", "Job"):
            return Reading(ignored=kind, findings=(other_job(name),))
        case ("v1", "ConfigMap") if is_named:
            return _assemble(_config_map(document, schemas, effort), schemas.release, effort)
        case (_, "Operarius") if version == OPERARIUS[0]:
            return _assemble(_operarius(document, schemas, effort), schemas.release, effort)
        case ("v1", "ServiceAccount"):
            return Reading(ignored=kind, service_account=name)
        case ("v1", "ConfigMap"):
            return _other_config_map(name, metadata, mapping(document.get("data")))
    has_own_version = isinstance(version, str) and version.startswith(keys.PREFIX)
    if has_own_version or is_probably_operario(document, kind, is_named=is_named):
        return Reading(name=name, findings=(unsupported(version, kind),))
    return Reading(ignored=kind)


def _other_config_map(name: str, metadata: Mapping[str, Any], data: Mapping[str, Any]) -> Reading:
    """Read a ConfigMap that has no operario's name or annotations."""
    if not is_misnamed_config_map(name, mapping(metadata.get("labels")), data):
        return Reading(ignored=CONFIG_MAP[1])
    wrapped = wrapped_keys(data)
    message = (
        f"ConfigMap {shown(name)} contains a Job, but its name does not give an alert and a status"
    )
    suggestion = advise(name, wrapped[0] if len(wrapped) == 1 else "")
    return Reading(name=name, findings=(NO_ALERT.at(("metadata", "name"), message, suggestion),))


# The three forms, converted to the same parts.


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the three forms have in common.

    Attributes:
        metadata: of the outer object.
        job: None if there is none.
        root: the place of the Job.
        job_findings: the findings in the Job, with pointers from its root.
        alertname: what the form itself says; annotations take precedence over it, and it takes
            precedence over the name.
        status: the same.
    """

    form: Form
    metadata: Mapping[str, Any]
    findings: tuple[Finding, ...]
    job: Mapping[str, Any] | None
    root: Pointer = ()
    job_findings: tuple[Finding, ...] = ()
    alertname: str = ""
    status: str = ""
    options: Options = field(default_factory=Options)


def _job(document: Mapping[str, Any], schemas: Schemas, effort: Effort) -> _Parts:
    job, findings = clean(document, schemas.job, effort)
    return _Parts(
        Form.JOB, mapping(job.get("metadata")), tuple(findings), job, job_findings=tuple(findings)
    )


def _config_map(document: Mapping[str, Any], schemas: Schemas, effort: Effort) -> _Parts:
    cleaned, findings = clean(document, schemas.config_map, effort)
    metadata = mapping(cleaned.get("metadata"))
    data: Mapping[str, str] = cleaned.get("data", {})
    name_match = OPERARIO_NAME_PATTERN.fullmatch(metadata.get("name", ""))
    annotated = mapping(metadata.get("annotations")).get(keys.ALERTNAME, "")
    alertname = annotated or (name_match["alert"] if name_match else "")
    key = {key.lower(): key for key in data}.get(alertname.lower())
    if key is None:
        message = "the ConfigMap has no Job under the name of its alert"
        suggestion = f"write the Job's YAML under the key {alertname or '<alertname>'}: |"
        if not any(finding.is_error for finding in findings):
            findings.append(WRAPPED_JOB.at(("data",), message, suggestion))
        return _Parts(Form.CONFIG_MAP, metadata, tuple(findings), None)
    root = ("data", key)
    findings += (
        NO_EFFECT.at(
            ("data", other_key), f"{other_key} is ignored: only {key} is read", "delete it"
        )
        for other_key in data
        if other_key != key and effort.admits(NO_EFFECT)
    )
    job, inner = _unwrap(data[key], schemas.job, effort)
    findings += (finding.below(root) for finding in inner)
    return _Parts(
        Form.CONFIG_MAP,
        metadata,
        tuple(findings),
        job,
        root,
        tuple(inner),
        alertname=annotated or key,
    )


def _unwrap(
    text: str, schema: Schema, effort: Effort
) -> tuple[dict[str, Any] | None, list[Finding]]:
    """Parse the Job in a ConfigMap's data; pointers of the findings start at the Job."""
    try:
        documents = [document for document in load_text(text, effort.spend) if document is not None]
    except Unreadable as problem:
        if problem.rule is TOO_COMPLEX:  # that is not about the text, but about the whole file
            raise
        place = (problem.line, problem.column)
        return None, [Finding(problem.rule, (), problem.message, problem.suggestion, place)]
    if len(documents) != 1:
        message = f"the text must contain exactly one YAML document, but has {len(documents)}"
        return None, [WRAPPED_JOB.at((), message, "put every Job into its own ConfigMap")]
    job = documents[0]
    if isinstance(job, str) and is_encrypted_text(job) and (encrypted := find_encrypted_value(job)):
        return None, [encrypted]
    if not isinstance(job, dict) or (job.get("apiVersion"), job.get("kind")) != JOB:
        suggestion = "write apiVersion: batch/v1 and kind: Job"
        return None, [WRAPPED_JOB.at((), "the text is not a Job", suggestion)]
    return clean(job, schema, effort)


def _operarius(document: Mapping[str, Any], schemas: Schemas, effort: Effort) -> _Parts:
    cleaned, findings = clean(document, schemas.operarius, effort)
    root = ("spec", "jobTemplate")
    spec = mapping(cleaned.get("spec"))
    selector = mapping(spec.get("alertSelector"))
    default = Options()
    options = Options(
        matchers=tuple(
            Matcher(name, Operator.EQUAL, value)
            for name, value in mapping(selector.get("labels")).items()
        ),
        priority=spec.get("priority", default.priority),
        enabled=spec.get("enabled", default.enabled),
    )
    deduplication = mapping(spec.get("deduplication"))
    ttl = deduplication.get("ttl")
    if ttl is not None and ttl < 0:
        message = f"ttl must not be negative, but is {ttl}"
        findings.append(
            OPTION_VALUE.at(("spec", "deduplication", "ttl"), message, "write ttl: 300")
        )
    elif deduplication.get("enabled") is False:
        options = replace(options, cooldown=timedelta(0))
    elif ttl is not None:
        options = replace(options, cooldown=timedelta(seconds=ttl))
    return _Parts(
        Form.OPERARIUS,
        mapping(cleaned.get("metadata")),
        tuple(findings),
        spec.get("jobTemplate"),
        root,
        tuple(
            replace(finding, pointer=finding.pointer[len(root) :])
            for finding in findings
            if finding.pointer[: len(root)] == root
        ),
        alertname=selector.get("alertname", ""),
        status=selector.get("status", ""),
        options=options,
    )


# From the parts to one operario.


def _assemble(parts: _Parts, release: Release, effort: Effort) -> Reading:
    findings = list(parts.findings)
    name = parts.metadata.get("name", "")
    inner = mapping(parts.job.get("metadata")) if parts.job else {}
    annotations = _option_annotations(parts.metadata, ())
    if parts.root:
        annotations |= _option_annotations(inner, parts.root)
    if not _has_error(findings, ("metadata",)) and not is_dns_subdomain(name.lower()):
        findings.append(_invalid_name(name))
    options, option_findings = read_options(annotations, parts.options, effort)
    if options.matchers is not parts.options.matchers:
        # The annotation's matchers apply in addition to those of an alertSelector.
        options = replace(options, matchers=parts.options.matchers + options.matchers)
    findings += option_findings
    sizes = [matcher.program_size for matcher in options.matchers if matcher.program_size]
    effort.spend(sum(sizes) // _INSTRUCTIONS_PER_STEP)
    alertname, status = _alert(parts, name, annotations, findings)
    if status is not None:
        findings += check_resolve_delay(options, status, annotations)
    labels = _without_reserved("labels", inner, parts.root, findings, effort)
    job_annotations = _without_reserved("annotations", inner, parts.root, findings, effort)
    if parts.job is None or "spec" not in parts.job:
        return Reading(name=name, findings=tuple(findings))
    spec = parts.job["spec"]
    if "suspend" in spec:
        if spec["suspend"]:
            findings.append(_suspend_without_effect().below(parts.root))
        spec = {key: value for key, value in spec.items() if key != "suspend"}
    job = {"labels": labels, "annotations": job_annotations, "spec": spec}
    errors = [finding for finding in parts.job_findings if finding.is_error]
    canonical, breaches = check_body(job, release, errors, effort, parts.form)
    findings += (finding.below(parts.root) for finding in breaches)
    if is_encrypted_text(canonical) and (encrypted := find_encrypted_value(job)):
        findings.append(_from_job(encrypted).below(parts.root))
    has_error = effort.hides_error or any(finding.is_error for finding in findings)
    if status is None or has_error:
        return Reading(name=name, findings=tuple(findings))
    draft = Draft(
        name=name,
        alertname=alertname,
        status=status,
        form=parts.form,
        options=options,
        job=job,
        spec_digest=hashlib.sha256(canonical.encode()).hexdigest(),
        root=parts.root,
        namespace=inner.get("namespace"),
        outer_namespace=parts.metadata.get("namespace") if parts.root else None,
    )
    return Reading(
        name=name,
        draft=draft,
        findings=tuple(findings),
        characters=len(canonical)
        + sum(_MIN_EXPRESSION_CHARACTERS + size * _CHARACTERS_PER_INSTRUCTION for size in sizes),
    )


def _from_job(finding: Finding) -> Finding:
    """Point into the Job's metadata instead of the labels and annotations taken from there."""
    if finding.pointer[0] in ("labels", "annotations"):
        return finding.below(("metadata",))
    return finding


def _has_error(findings: Iterable[Finding], pointer: Pointer) -> bool:
    """Whether there is an error at a place, or above or below it."""
    return any(finding.is_error and related(finding.pointer, pointer) for finding in findings)


def _option_annotations(metadata: Mapping[str, Any], root: Pointer) -> dict[str, AnnotationValue]:
    return {
        key: AnnotationValue(value, (*root, "metadata", "annotations", key))
        for key, value in mapping(metadata.get("annotations")).items()
    }


def _alert(
    parts: _Parts, name: str, annotations: Mapping[str, AnnotationValue], findings: list[Finding]
) -> tuple[str, Status | None]:
    """Find the alert and its status: in annotations, then in the form itself, then in the name."""
    has_error = _has_error(parts.findings, ("metadata",)) or _has_error(
        parts.findings, ("spec", "alertSelector")
    )
    name_match = OPERARIO_NAME_PATTERN.fullmatch(name) if parts.form is not Form.OPERARIUS else None
    alert_option = annotations.get(keys.ALERTNAME)
    status_option = annotations.get(keys.STATUS)
    alertname = (
        alert_option.value
        if alert_option
        else parts.alertname or (name_match["alert"] if name_match else "")
    )
    alertname = alertname.strip()
    if not alertname and not has_error:
        pointer = alert_option.pointer if alert_option else ("metadata", "name")
        findings.append(NO_ALERT.at(pointer, "the operario names no alert", advise(name)))
    if _LIKE_PATTERN.search(alertname):
        in_form = ("spec", "alertSelector", "alertname")
        pointer = in_form if parts.form is Form.OPERARIUS else parts.root or ("metadata", "name")
        findings.append(_pattern(alertname, alert_option.pointer if alert_option else pointer))
    text = (
        status_option.value
        if status_option
        else parts.status or (name_match["status"] if name_match else "")
    )
    try:
        return alertname, Status(text.strip().lower())
    except ValueError:
        pointer = ("spec", "alertSelector", "status") if parts.status else ("metadata", "name")
        pointer = status_option.pointer if status_option else pointer
        if text:
            message = f"{shown(text)} is not an alert status"
            suggestion = did_you_mean(text, [status.value for status in Status])
        else:
            message = "the operario does not say whether it is for firing or resolved alerts"
            suggestion = "add openfero.io/status: firing"
        if not has_error and (text or alertname):
            findings.append(ALERT_STATUS.at(pointer, message, suggestion))
        return alertname, None


def _pattern(alertname: str, pointer: Pointer) -> Finding:
    return ALERT_PATTERN.at(
        pointer,
        f"alert name {shown(alertname)} is not a pattern: it matches only an alert with exactly"
        " this name",
        "write the name of one alert, and another operario for each other alert;"
        " openfero.io/matchers can match other labels by regular expressions",
    )


def _invalid_name(name: str) -> Finding:
    if not name:
        message = "an operario must have a name"
        return OPERARIO_NAME.at(("metadata", "name"), message, "add metadata: {name: …}")
    valid = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.")
    message = f"{shown(name)} is not a valid name: letters, digits, - and ., at most 253"
    return OPERARIO_NAME.at(("metadata", "name"), message, f"write {valid}" if valid else "")


def _suspend_without_effect() -> Finding:
    return NO_EFFECT.at(
        ("spec", "suspend"),
        "suspend has no effect: every Job is created suspended and started when limits allow",
        'to disable the operario, set openfero.io/enabled: "false"',
    )


def _without_reserved(
    kind: str,
    metadata: Mapping[str, Any],
    root: Pointer,
    findings: list[Finding],
    effort: Effort,
) -> dict[str, str]:
    """Return the Job's labels or annotations without those of this controller or of Kueue.

    The label of a Kueue queue is kept: it is applied when the Job is started.
    """
    copied: dict[str, str] = {}
    for key, value in mapping(metadata.get(kind)).items():
        is_own, is_kueue = key.startswith(keys.PREFIX), key.startswith(keys.KUEUE_PREFIX)
        if (kind == "labels" and key == keys.KUEUE_QUEUE) or not (is_own or is_kueue):
            copied[key] = value
        elif (kind == "labels" or is_kueue) and effort.admits(RESERVED_KEY):
            if is_own:
                suggestion = "options must be annotations"
            elif key == keys.KUEUE_QUEUE:
                suggestion = "use the label of this name to select a queue"
            elif key == keys.KUEUE_PRIORITY:
                suggestion = "set priorityClassName in the Pod template, which Kueue also uses"
            else:
                suggestion = "delete it"
            message = f"{key} is reserved and is not copied to the Job"
            findings.append(RESERVED_KEY.at((*root, "metadata", kind, key), message, suggestion))
    return copied
