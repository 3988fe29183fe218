from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import Any

import pytest

from openfero_gitops.catalog.forms import Draft, Reading, read_document
from openfero_gitops.catalog.validation.schema import schemas_of
from openfero_gitops.catalog.yaml.document import load_text
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.operario import Form

SCHEMAS = schemas_of("1.36")

# Operarios in the forms of OpenFero's generations.

FIRST = """\
apiVersion: batch/v1
kind: Job
metadata:
  name: openfero-KubeQuotaAlmostReached-firing
  labels:
    app: openfero
spec:
  parallelism: 1
  completions: 1
  template:
    labels:
      app: openfero
    spec:
      containers:
        - name: raise-quota
          image: python:3.14
          args: [bash, -c, echo raising]
      imagePullPolicy: Always
      restartPolicy: Never
      serviceAccount: quota-raiser
      serviceAccountName: quota-raiser
"""

SECOND = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: openfero-kubequotaalmostreached-resolved
  namespace: openfero
  labels:
    app: openfero
  annotations:
    openfero.io/cooldown: 5m
    openfero.io/priority: "7"
data:
  KubeQuotaAlmostReached: |-
    apiVersion: batch/v1
    kind: Job
    metadata:
      name: whatever-it-was-called
      labels:
        app: openfero
      annotations:
        openfero.io/priority: "9"
        team: storage
    spec:
      ttlSecondsAfterFinished: 100
      template:
        spec:
          restartPolicy: OnFailure
          containers:
            - name: lower-quota
              image: registry.example/quota:2
              imagePullPolicy: Always
"""

THIRD = """\
apiVersion: openfero.io/v1alpha1
kind: Operarius
metadata:
  name: quota-almost-full
  namespace: openfero
  labels: {app: openfero}
  annotations:
    openfero.io/matchers: namespace=~"team-.*"
spec:
  alertSelector:
    alertname: KubeQuotaAlmostFull
    status: firing
    labels:
      severity: warning
  jobTemplate:
    metadata:
      labels:
        app: openfero
        kueue.x-k8s.io/queue-name: healing
      annotations:
        description: Raises the quota
        openfero.io/template-variables: namespace,resource
    spec:
      backoffLimit: 3
      template:
        spec:
          restartPolicy: Never
          containers:
            - name: adjust
              image: registry.example/quota:latest
              env:
                - name: NAMESPACE
                  value: "{{ .Alert.Labels.namespace }}"
              command: [adjust, "{{ .Alert.Labels.resource }}"]
              resources:
                limits: {cpu: 100m, memory: 128Mi}
  deduplication:
    enabled: true
    ttl: 300
  priority: 100
  enabled: true
"""


def read(text: str) -> Reading:
    """Read a text of one document."""
    (document,) = load_text(text)
    return read_document(document, SCHEMAS)


def draft(text: str) -> Draft:
    """Read a document that must be an operario, and return its draft."""
    operario = read(text).draft
    assert operario is not None
    return operario


def rules(reading: Reading) -> list[str]:
    """Return the rules of all findings, in order."""
    return [finding.rule.id for finding in reading.findings]


def test_a_plain_job_of_the_first_generation() -> None:
    """A Job's name has alert and status, in any case; a misplaced field is a warning."""
    reading = read(FIRST)
    assert rules(reading) == ["unknown-field", "unknown-field", "no-limits"]
    suggestions = [finding.suggestion for finding in reading.findings[:2]]
    assert suggestions == [
        "did you mean template.metadata.labels?",
        "did you mean spec.containers[].imagePullPolicy?",
    ]
    operario = draft(FIRST)
    assert operario.name == "openfero-KubeQuotaAlmostReached-firing"
    assert (operario.alertname, operario.status) == ("KubeQuotaAlmostReached", Status.FIRING)
    assert operario.form is Form.JOB
    assert operario.job["labels"] == {"app": "openfero"}
    assert "labels" not in operario.job["spec"]["template"]
    assert "imagePullPolicy" not in operario.job["spec"]["template"]["spec"]
    assert (operario.namespace, operario.outer_namespace, operario.root) == (None, None, ())


def test_a_config_map_of_the_second_generation() -> None:
    """A ConfigMap wraps a Job under the alert's name; the Job's options have priority."""
    operario = draft(SECOND)
    assert rules(read(SECOND)) == ["no-limits", "default-account"]
    assert operario.name == "openfero-kubequotaalmostreached-resolved"
    assert (operario.alertname, operario.status) == ("KubeQuotaAlmostReached", Status.RESOLVED)
    assert operario.form is Form.CONFIG_MAP
    assert operario.options.priority == 9
    assert operario.options.cooldown == timedelta(minutes=5)
    assert operario.job["annotations"] == {"team": "storage"}
    assert operario.job["spec"]["ttlSecondsAfterFinished"] == 100
    assert (operario.namespace, operario.outer_namespace) == (None, "openfero")
    assert operario.root == ("data", "KubeQuotaAlmostReached")


def test_an_operarius_of_the_third_generation() -> None:
    """Selector, priority and deduplication of an Operarius become options."""
    operario = draft(THIRD)
    assert rules(read(THIRD)) == ["no-effect", "image-tag", "default-account"]
    assert operario.name == "quota-almost-full"
    assert (operario.alertname, operario.status) == ("KubeQuotaAlmostFull", Status.FIRING)
    assert operario.form is Form.OPERARIUS
    assert [str(matcher) for matcher in operario.options.matchers] == [
        'severity="warning"',
        'namespace=~"team-.*"',
    ]
    assert operario.options.priority == 100
    assert operario.options.enabled
    assert operario.options.cooldown == timedelta(minutes=5)
    assert operario.job["labels"] == {"app": "openfero", "kueue.x-k8s.io/queue-name": "healing"}
    assert operario.job["annotations"] == {"description": "Raises the quota"}
    assert operario.root == ("spec", "jobTemplate")


@pytest.mark.parametrize(
    ("deduplication", "cooldown"),
    [
        ("{enabled: false}", timedelta(0)),
        ("{enabled: false, ttl: 300}", timedelta(0)),
        ("{ttl: 0}", timedelta(0)),
        ("{enabled: true}", timedelta(minutes=10)),
        ("{}", timedelta(minutes=10)),
    ],
)
def test_deduplication_becomes_the_cooldown(deduplication: str, cooldown: timedelta) -> None:
    """Disabled deduplication is a cooldown of 0; without a ttl it is the default cooldown."""
    before = "  deduplication:\n    enabled: true\n    ttl: 300\n"
    assert before in THIRD
    text = THIRD.replace(before, f"  deduplication: {deduplication}\n")
    assert draft(text).options.cooldown == cooldown


def test_an_annotation_overrides_a_field_of_an_operarius() -> None:
    """Annotations for priority, enabled and cooldown override the fields of an Operarius."""
    notes = (
        "    openfero.io/priority: '1'\n    openfero.io/enabled: 'false'\n"
        "    openfero.io/cooldown: 1h\n"
    )
    text = THIRD.replace("  annotations:\n", f"  annotations:\n{notes}", 1)
    options = draft(text).options
    assert (options.priority, options.enabled) == (1, False)
    assert options.cooldown == timedelta(hours=1)


JOB = """\
apiVersion: batch/v1
kind: Job
metadata:
  name: {name}
  annotations: {annotations}
spec:
  template:
    spec:
      restartPolicy: Never
      automountServiceAccountToken: false
      containers:
        - name: a
          image: b:1
          resources: {{limits: {{memory: 1Mi}}}}
"""


@pytest.mark.parametrize(
    ("name", "annotations", "alert"),
    [
        ("openfero-diskfull-firing", {}, ("diskfull", Status.FIRING)),
        ("openfero-disk-almost-full-resolved", {}, ("disk-almost-full", Status.RESOLVED)),
        ("OPENFERO-DiskFull-Firing", {}, ("DiskFull", Status.FIRING)),
        ("openfero-firing-firing", {}, ("firing", Status.FIRING)),
        ("x", {"alertname": "Disk Full", "status": "firing"}, ("Disk Full", Status.FIRING)),
        ("openfero-a-firing", {"alertname": "B"}, ("B", Status.FIRING)),
        ("openfero-a-firing", {"status": "resolved"}, ("a", Status.RESOLVED)),
        ("openfero-a-expand", {"alertname": "A", "status": " Firing"}, ("A", Status.FIRING)),
    ],
)
def test_the_alert_is_in_annotations_or_in_the_name(
    name: str, annotations: dict[str, str], alert: tuple[str, Status]
) -> None:
    """Annotations override the name, which ends in a dash and the alert's status."""
    notes = json.dumps({f"openfero.io/{key}": value for key, value in annotations.items()})
    operario = draft(JOB.format(name=name, annotations=notes))
    assert (operario.alertname, operario.status) == alert


@pytest.mark.parametrize(
    ("name", "annotations", "rule", "pointer"),
    [
        ("x", {"status": "firing"}, "no-alert", ("metadata", "name")),
        ("x", {"alertname": "", "status": "firing"}, "no-alert", None),
        ("x", {"alertname": "A"}, "alert-status", ("metadata", "name")),
        ("x", {"alertname": "A", "status": "pending"}, "alert-status", None),
        ("openfero-a-fring", {}, "no-alert", ("metadata", "name")),
        ("openfero-firing", {}, "no-alert", ("metadata", "name")),
        ("openfero-a_b-firing", {}, "operario-name", ("metadata", "name")),
        ("''", {"alertname": "A", "status": "firing"}, "operario-name", ("metadata", "name")),
    ],
)
def test_an_operario_without_a_valid_alert_or_name_is_an_error(
    name: str, annotations: dict[str, str], rule: str, pointer: tuple[str, ...] | None
) -> None:
    """A Job that resembles an operario but has no valid alert, status or name is an error."""
    notes = json.dumps({f"openfero.io/{key}": value for key, value in annotations.items()})
    reading = read(JOB.format(name=name, annotations=notes))
    (finding,) = reading.findings
    assert finding.rule.id == rule
    assert finding.pointer[:2] == (pointer or ("metadata", "annotations"))
    assert finding.is_error
    assert reading.draft is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("- a\n- b\n", ""),
        ("plain\n", ""),
        ("a: 1\n", ""),
        ("kind: 5\n", ""),
        ("{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}}", "ConfigMap"),
        ("{apiVersion: v1, kind: ConfigMap, metadata: {name: openfero-catalog}}", "ConfigMap"),
        ("{apiVersion: rbac.authorization.k8s.io/v1, kind: Role}", "Role"),
        ("{apiVersion: batch.volcano.sh/v1alpha1, kind: Job, metadata: {name: x}}", "Job"),
        ("{apiVersion: batch/v1, kind: CronJob, metadata: {name: x}}", "CronJob"),
        ("{apiVersion: monitoring.coreos.com/v1, kind: PrometheusRule}", "PrometheusRule"),
    ],
)
def test_other_documents_are_ignored(text: str, kind: str) -> None:
    """A document that is no operario is ignored without a finding."""
    assert read(text) == Reading(ignored=kind)


SIGNS = {
    "CLAIMED": "metadata: {name: x, annotations: {openfero.io/alertname: A}}",
    "NAMED": "metadata: {name: openfero-a-firing}",
}


def signed(text: str) -> Reading:
    """Read a document after inserting the metadata of an operario."""
    for sign, metadata in SIGNS.items():
        text = text.replace(sign, metadata)
    return read(text)


@pytest.mark.parametrize(
    ("text", "pointer", "words", "suggestion"),
    [
        (
            "{apiVersion: batch/v1, kind: Jobb, CLAIMED}",
            "kind",
            'kind Jobb of "batch/v1"',
            "Job?",
        ),
        (
            "{apiVersion: batch/v1, kind: Jobs, NAMED}",
            "kind",
            "is not supported",
            "did you mean Job?",
        ),
        ("{apiVersion: v1, kind: ConfigMaps, NAMED}", "kind", "", "did you mean ConfigMap?"),
        ("{kind: Operario, CLAIMED}", "kind", "has no apiVersion", "did you mean Operarius?"),
        (
            "{apiVersion: batch/v1, kind: CronJob, NAMED}",
            "kind",
            "by a schedule",
            "its jobTemplate",
        ),
        (
            "{apiVersion: apps/v1, kind: Deployment, CLAIMED}",
            "kind",
            "",
            "one of Job, ConfigMap",
        ),
        (
            "{apiVersion: v1, kind: List, CLAIMED}",
            "kind",
            "in a List are not supported",
            "separate document",
        ),
        (
            "{apiVersion: v1, kind: List, items: [{kind: Job, NAMED}]}",
            "kind",
            "in a List are not supported",
            "write each as a separate document",
        ),
        (
            "{apiVersion: batch/v1, CLAIMED}",
            "kind",
            "has no kind",
            "write one of Job, ConfigMap",
        ),
        ("{apiVersion: batch/v1, kind: 5, NAMED}", "kind", "has no kind", "write one of Job"),
        (
            "{kind: Job, CLAIMED}",
            "apiVersion",
            "kind Job has no apiVersion",
            "write apiVersion: batch/v1 and kind: Job",
        ),
        ("{apiVersion: openfero.io/v1alpha1, spec: {}}", "kind", "has no kind", "kind: Operarius"),
    ],
)
def test_an_operario_of_an_unsupported_kind_is_an_error(
    text: str, pointer: str, words: str, suggestion: str
) -> None:
    """A document with the metadata of an operario is not ignored for its wrong kind."""
    reading = signed(text)
    assert reading.ignored is None
    (finding,) = reading.findings
    assert (finding.rule.id, finding.pointer) == ("api-version", (pointer,))
    assert words in finding.message
    assert suggestion in finding.suggestion


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, CLAIMED}", "Role"),
        ("{apiVersion: v1, kind: PersistentVolumeClaim, CLAIMED}", "PersistentVolumeClaim"),
        ("{apiVersion: apps/v1, kind: Deployment, NAMED}", "Deployment"),
        ("{apiVersion: v1, kind: List, items: [{kind: Role, CLAIMED}]}", "List"),
        ("{apiVersion: v1, kind: List, items: 5}", "List"),
    ],
)
def test_related_objects_may_have_the_alert_of_an_operario(text: str, kind: str) -> None:
    """Objects that an operario needs may have its annotations and name."""
    assert signed(text) == Reading(ignored=kind)


def test_a_service_account_is_recorded() -> None:
    """A ServiceAccount is ignored, and its name is kept in the reading."""
    reading = read("{apiVersion: v1, kind: ServiceAccount, metadata: {name: healer}}")
    assert (reading.ignored, reading.service_account) == ("ServiceAccount", "healer")


def test_a_job_without_an_alert_is_a_warning() -> None:
    """A Job without the metadata of an operario is ignored with a warning."""
    reading = read(JOB.format(name="backup", annotations="{team: storage}"))
    assert reading.ignored == "Job"
    assert rules(reading) == ["other-job"]
    assert not reading.findings[0].is_error


@pytest.mark.parametrize(
    ("text", "version", "kind"),
    [
        (THIRD.replace("v1alpha1", "v1"), "openfero.io/v1alpha1", "Operarius"),
        (THIRD.replace("kind: Operarius", "kind: Operarii"), "openfero.io/v1alpha1", "Operarius"),
        (FIRST.replace("batch/v1", "batch/v1beta1"), "batch/v1", "Job"),
        (FIRST.replace("kind: Job", "kind: job"), "batch/v1", "Job"),
        (SECOND.replace("apiVersion: v1", "apiVersion: v2", 1), "v1", "ConfigMap"),
    ],
)
def test_an_operario_of_an_unsupported_version_is_an_error(
    text: str, version: str, kind: str
) -> None:
    """A wrong kind or version is an error; the file is not ignored."""
    reading = read(text)
    assert reading.ignored is None
    (finding,) = reading.findings
    assert finding.rule.id == "api-version"
    assert finding.suggestion == f"write apiVersion: {version} and kind: {kind}"


WRAPPED = ("data", "KubeQuotaAlmostReached")


@pytest.mark.parametrize(
    ("before", "after", "pointer", "words"),
    [
        (
            "KubeQuotaAlmostReached: |-",
            "KubeQuota: |-",
            ("data",),
            "no Job under the name of its alert",
        ),
        ("\ndata:", "\nnothing:", ("data",), "no Job under the name of its alert"),
        ("kind: Job", "kind: Pod", WRAPPED, "the text is not a Job"),
        ("    kind: Job\n", "    kind: Job\n    ---\n    a: 1\n", WRAPPED, "but has 2"),
    ],
)
def test_a_config_map_must_contain_one_job_for_its_alert(
    before: str, after: str, pointer: tuple[str, ...], words: str
) -> None:
    """A ConfigMap that does not wrap a single Job is an error that says what is missing."""
    reading = read(SECOND.replace(before, after))
    (finding,) = [finding for finding in reading.findings if finding.is_error]
    assert (finding.rule.id, finding.pointer) == ("wrapped-job", pointer)
    assert words in finding.message
    assert reading.draft is None


def test_the_alert_of_a_config_map_can_be_in_annotations() -> None:
    """The alertname annotation must equal a key of the ConfigMap, in any case."""
    text = SECOND.replace(
        "name: openfero-kubequotaalmostreached-resolved", "name: raise-quota"
    ).replace(
        "    openfero.io/cooldown: 5m\n",
        "    openfero.io/alertname: kubequotaalmostreached\n    openfero.io/status: firing\n",
    )
    operario = draft(text)
    assert (operario.name, operario.alertname) == ("raise-quota", "kubequotaalmostreached")
    assert operario.status is Status.FIRING


def test_other_keys_of_a_config_map_have_no_effect() -> None:
    """A key other than the alert's is a warning."""
    reading = read(SECOND + "  notes: see wiki\n")
    assert rules(reading) == ["no-effect", "no-limits", "default-account"]
    assert reading.findings[0].pointer == ("data", "notes")


def test_a_syntax_error_in_a_config_map_has_its_line() -> None:
    """A syntax error in the wrapped text has a line of that text."""
    reading = read(SECOND.replace("    kind: Job\n", "    kind: Job: x\n"))
    (finding,) = reading.findings
    assert (finding.rule.id, finding.inside) == ("syntax", (2, 10))
    assert finding.pointer == ("data", "KubeQuotaAlmostReached")


SELECTOR = ("spec", "alertSelector")
POD = ("spec", "jobTemplate", "spec", "template", "spec")
NOTES = ("metadata", "annotations")


@pytest.mark.parametrize(
    ("before", "after", "pointer", "rule"),
    [
        ("    status: firing\n", "", (*SELECTOR, "status"), "required-field"),
        ("status: firing", "status: pending", (*SELECTOR, "status"), "alert-status"),
        ("    alertname: Kube", "    alert: Kube", (*SELECTOR, "alertname"), "required-field"),
        ("severity: warning", "severity: 3", (*SELECTOR, "labels", "severity"), "wrong-type"),
        ("jobTemplate", "jobTemplat", ("spec", "jobTemplate"), "required-field"),
        ("priority: 100", "priority: high", ("spec", "priority"), "wrong-type"),
        ("ttl: 300", "ttl: -1", ("spec", "deduplication", "ttl"), "option-value"),
        ("ttl: 300", "ttl: 5m", ("spec", "deduplication", "ttl"), "wrong-type"),
        ("restartPolicy: Never", "dnsPolicy: Default", (*POD, "restartPolicy"), "restart-policy"),
        ('"team-.*"', '"("', (*NOTES, "openfero.io/matchers"), "option-value"),
    ],
)
def test_all_fields_of_an_operarius_are_checked(
    before: str, after: str, pointer: tuple[str, ...], rule: str
) -> None:
    """Each error in an Operarius is reported once, with its pointer."""
    assert before in THIRD
    reading = read(THIRD.replace(before, after))
    errors = [
        (finding.pointer, finding.rule.id) for finding in reading.findings if finding.is_error
    ]
    assert errors == [(pointer, rule)]
    assert reading.draft is None


def test_fields_of_the_controller_are_dropped() -> None:
    """A Job loses suspend and all openfero.io and Kueue keys except the queue label."""
    text = JOB.format(
        name="openfero-a-firing",
        annotations="{kueue.x-k8s.io/queue-name: q, openfero.io/priority: '1', team: x}",
    ).replace(
        "spec:\n  template",
        "  labels: {openfero.io/x: z, kueue.x-k8s.io/queue-name: q, kueue.x-k8s.io/x: z, a: b}\n"
        "  finalizers: [example.com/x]\nspec:\n  suspend: true\n  template",
        1,
    )
    reading = read(text)
    operario = reading.draft
    assert operario is not None
    assert operario.job["labels"] == {"kueue.x-k8s.io/queue-name": "q", "a": "b"}
    assert operario.job["annotations"] == {"team": "x"}
    assert sorted(operario.job) == ["annotations", "labels", "spec"]
    assert "suspend" not in operario.job["spec"]
    assert sorted(rules(reading)) == ["no-effect", "reserved-key", "reserved-key", "reserved-key"]
    assert "no-effect" not in rules(read(text.replace("suspend: true", "suspend: false")))


def test_a_priority_of_kueue_belongs_into_the_pod_template() -> None:
    """The label is not copied, and the suggestion says what has the same effect."""
    labels = "  labels: {kueue.x-k8s.io/queue-name: q, kueue.x-k8s.io/priority-class: high}\n"
    text = JOB.format(name="openfero-a-firing", annotations="{}")
    reading = read(text.replace("spec:\n  template", f"{labels}spec:\n  template", 1))
    assert reading.draft is not None
    assert reading.draft.job["labels"] == {"kueue.x-k8s.io/queue-name": "q"}
    [finding] = [each for each in reading.findings if each.rule.id == "reserved-key"]
    assert "priorityClassName" in finding.suggestion


def test_the_spec_digest_is_the_digest_of_the_canonical_json() -> None:
    """The digest depends on the content of the Job, not on the order of its keys."""
    operario = draft(FIRST)
    text = json.dumps(operario.job, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert operario.spec_digest == hashlib.sha256(text.encode()).hexdigest()
    rewritten: dict[str, Any] = dict(reversed(load_text(FIRST)[0].items()))
    again = read_document(rewritten, SCHEMAS).draft
    assert again is not None
    assert again.spec_digest == operario.spec_digest
    assert draft(FIRST.replace("python:3.14", "python:3.15")).spec_digest != operario.spec_digest


def test_a_delay_after_a_resolution_is_for_resolved_alerts() -> None:
    """On an operario for firing alerts it changes nothing; as `0` it is only the default."""
    labels = "  labels:\n    app: openfero\nspec"
    assert labels in FIRST
    delayed = FIRST.replace(labels, '  annotations: {openfero.io/resolve-delay: "2h"}\nspec')
    assert "no-effect" in rules(read(delayed))
    assert "no-effect" not in rules(read(delayed.replace('"2h"', '"0"')))
