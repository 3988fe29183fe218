from __future__ import annotations

import json
from typing import Any

import pytest

from openfero_gitops.catalog.forms import read_document
from openfero_gitops.catalog.validation.schema import schemas_of
from openfero_gitops.domain.alert import Alert, Status
from openfero_gitops.domain.operario import Form, Operario, Origin
from tests.support.build import rendered

SCHEMAS = schemas_of("1.36")
FORMS = [Form.JOB, Form.CONFIG_MAP, Form.OPERARIUS]

#: What real scripts hand to other programs.
OF_OTHER_PROGRAMS = [
    "for p in $(kubectl get pods -o go-template='{{range .items}}{{.metadata.name}} {{end}}'); do",
    "kubectl get nodes -o go-template='{{ if eq .status.phase \"Running\" }}up{{ end }}'",
    "docker ps --format '{{.Names}}'",
    "docker inspect --format '{{json .State.Health.Status}}' web",
    "docker ps --format 'table {{.ID}}\t{{.Image}}'",
    "crictl ps --template '{{ .Label \"x\" }}'",
    "helm template . --set x={{ .Values.image }}",
    "{{- range $i, $e := .Values.list }}\n{{ $e }}\n{{- end }}",
    "ansible localhost -a 'echo {{ item }}'",
    "{% for host in hosts %}{{ host.name | default('x') }}{% endfor %}",
    "echo ${{ secrets.TOKEN }}",
    "awk '{{print $1}}' x",
    "python -c 'print(f\"{{}}\")'",
    '{{ key "service/web" }} {{ with secret "db" }}{{ .Data.password }}{{ end }}',
    "echo '{{ not closed'",
    "echo '}} {{'",
    "{{{ triple }}}",
    "{{ range .Alerts }}{{ .Alerts.Firing | len }}{{ end }}",
    "{{ $alert.Labels.pod }} {{ $labels.pod }} {{ $value }}",
    "{{ {{ nested }} }}",
    "{{range .spec.groups}}{{range .rules}}{{.alert}} {{.expr}}{{end}}{{end}}",
    "{{.spec.alert.labels.severity}} {{.spec.alert.name}}",
    "python3 -c 'print(f\"{{alert}}\")'",
    "{{ alert.title }} {{ alert }}",
]
#: What is mistyped, and a word of the suggestion.
MISTYPED = [
    ("{{ .Alert.Label.pod }}", "did you mean {{ .Alert.Labels.pod }}?"),
    ("{{ .alert.Labels.pod }}", "did you mean {{ .Alert.Labels.pod }}?"),
    ("{{ .Alert.Labels }}", "for example {{ .Alert.Labels.pod }}"),
    ("{{ .Alerts.Labels.pod }}", "did you mean {{ .Alert.Labels.pod }}?"),
    ("{{ .Alret.Labels.pod }}", "did you mean {{ .Alert.Labels.pod }}?"),
    ("{{ .Alert.Lables.pod }}", "did you mean {{ .Alert.Labels.pod }}?"),
    ("{{ Alert.Labels.pod }}", "did you mean {{ .Alert.Labels.pod }}?"),
    ("{{ .Alert.Annotation.summary }}", "did you mean {{ .Alert.Annotations.summary }}?"),
    ("{{- .Alert.Labels.pod -}}", "did you mean {{ .Alert.Labels.pod }}?"),
    ("{{ $.Alert.Labels.pod }}", "write {{ .Alert.Labels.pod }}, with nothing else"),
    ("{{ .Alert.Labels.pod | quote }}", "write {{ .Alert.Labels.pod }}, with nothing else"),
    ("{{ if .Alert.Labels.pod }}", "write {{ .Alert.Labels.pod }}, with nothing else"),
    ('{{ index .Alert.Labels "k8s-app" }}', 'the variable "$OPENFERO_K8S_APP"'),
    ("{{ .Alert.Labels.service.name }}", 'the variable "$OPENFERO_SERVICE_NAME"'),
    ("{{ .Alert.Annotations.run-book }}", 'the variable "$OPENFERO_ANNOTATION_RUN_BOOK"'),
    ("{{ .Alert.Status }}", "OPENFERO_STATUS"),
    ("{{ .Alert.Labels.pod }", "close the placeholder"),
    ("{{ .Alert.Labels.pod", "close the placeholder"),
]


def document(form: Form, text: str, **pod: Any) -> dict[str, Any]:
    """Return an operario of a form with a text as its argument."""
    container = {
        "name": "heal",
        "image": "registry.example/heal:1",
        "args": [text],
        "resources": {"limits": {"memory": "64Mi"}},
    }
    template = {
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "containers": [container],
            **pod,
        }
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "openfero-disk-firing"},
        "spec": {"template": template},
    }
    if form is Form.JOB:
        return job
    if form is Form.CONFIG_MAP:
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "openfero-disk-firing", "labels": {"app": "openfero"}},
            "data": {"Disk": json.dumps(job)},
        }
    return {
        "apiVersion": "openfero.io/v1alpha1",
        "kind": "Operarius",
        "metadata": {"name": "disk"},
        "spec": {
            "alertSelector": {"alertname": "Disk", "status": "firing"},
            "jobTemplate": {"spec": {"template": template}},
        },
    }


def argument_of(form: Form, text: str) -> str:
    """Return the argument of the Job that is created for an alert."""
    reading = read_document(document(form, text), SCHEMAS)
    draft = reading.draft
    assert draft is not None, reading.findings
    operario = Operario(
        name=draft.name,
        alertname=draft.alertname,
        status=draft.status,
        form=draft.form,
        options=draft.options,
        job=draft.job,
        namespace=None,
        origin=Origin("a.yaml", "b" * 40, "c" * 40),
        spec_digest=draft.spec_digest,
    )
    labels = {"alertname": "Disk", "pod": "web-0", "items": "wrong", "Names": "wrong"}
    alert = Alert(Status.FIRING, labels, {}, None, None, "", "")
    container = rendered(alert, operario).manifest["spec"]["template"]["spec"]["containers"][0]
    (argument,) = container["args"]
    return str(argument)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", OF_OTHER_PROGRAMS)
def test_braces_of_other_programs_are_left_as_they_are(text: str, form: Form) -> None:
    """The Job has the text byte for byte; only in an Operarius there is a warning."""
    reading = read_document(document(form, text), SCHEMAS)
    warned = ["not-a-placeholder"] if form is Form.OPERARIUS else []
    assert [finding.rule.id for finding in reading.findings] == warned
    assert argument_of(form, text) == text


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("text", "suggestion"), MISTYPED)
def test_a_mistyped_placeholder_is_an_error(text: str, suggestion: str, form: Form) -> None:
    """It would otherwise reach the container as text; the suggestion says what to write."""
    reading = read_document(document(form, f"x {text}"), SCHEMAS)
    (finding,) = reading.findings
    assert finding.rule.id == "template-syntax"
    assert finding.message.startswith(json.dumps(text)[:-1])
    assert suggestion in finding.suggestion
    assert reading.draft is None


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "text",
    ["{{ .Alert.Labels.pod }}", "{{.Alert.Labels.pod}}", "{{\t.Alert.Labels.pod\n}}"],
)
def test_a_placeholder_beside_other_braces_is_replaced(text: str, form: Form) -> None:
    """Blanks inside its braces do not matter, and the other braces stay."""
    mixed = f"kubectl get pod {text} -o go-template='{{{{.status.phase}}}}' {{{{ x"
    assert argument_of(form, mixed) == (
        "kubectl get pod web-0 -o go-template='{{.status.phase}}' {{ x"
    )


@pytest.mark.parametrize(
    ("text", "in_a_job", "in_an_operarius"),
    [
        ("{{ .Labels.pod }}", "write {{ .Alert.Labels.pod }}", ""),
        ("{{ .Annotations.x }}", "write {{ .Alert.Annotations.x }}", ""),
        ("{{ .GroupKey }}", "read the variable OPENFERO_GROUP_KEY", ""),
        ("{{ .HookMessage.Status }}", "read the variable OPENFERO_STATUS", ""),
        ("{{ .Status }}", "", ""),
        ("{{ .labels.pod }}", "", "did you mean {{ .Alert.Labels.pod }}?"),
        ("{{ .Labels.pod | upper }}", "", "write {{ .Alert.Labels.pod }}, with nothing else"),
        ('{{ if eq .Labels.a "b" }}', "", "write {{ .Alert.Labels.a }}, with nothing else"),
        ("{{ .HookMessage.status }}", "", "did you mean {{ .HookMessage.Status }}?"),
    ],
)
def test_fields_that_only_an_operarius_has(text: str, in_a_job: str, in_an_operarius: str) -> None:
    """In a Job they are text, with a warning where no other program has them."""
    job = read_document(document(Form.JOB, text), SCHEMAS)
    assert job.draft is not None
    assert [finding.rule.id for finding in job.findings] == ["not-a-placeholder"] * bool(in_a_job)
    assert all(in_a_job in finding.suggestion for finding in job.findings)
    operarius = read_document(document(Form.OPERARIUS, text), SCHEMAS)
    assert [f.rule.id for f in operarius.findings] == ["template-syntax"] * bool(in_an_operarius)
    assert all(in_an_operarius in finding.suggestion for finding in operarius.findings)


def test_other_braces_are_allowed_where_other_programs_read_them() -> None:
    """Annotations and the commands of probes may have them, but no placeholders."""
    vault = '{{ with secret "db" }}{{ .Data.password }}{{ end }}'
    job = document(Form.JOB, "run")
    template = job["spec"]["template"]
    template["metadata"] = {"annotations": {"vault.hashicorp.com/agent-inject-template-x": vault}}
    (container,) = template["spec"]["containers"]
    container["lifecycle"] = {"preStop": {"exec": {"command": ["kubectl", "-o", "{{.items}}"]}}}
    assert read_document(job, SCHEMAS).findings == ()
    for text in ("{{.Status}}", "{{ .Labels.pod }}"):  # of `docker ps`, and of Alertmanager
        container["lifecycle"]["preStop"]["exec"]["command"][2] = text
        assert read_document(job, SCHEMAS).findings == ()
    for text in ("{{ .Alert.Labels.pod }}", "{{ .Alert.Label.pod }}"):
        container["lifecycle"]["preStop"]["exec"]["command"][2] = text
        assert [f.rule.id for f in read_document(job, SCHEMAS).findings] == ["template-place"]
    container["image"] = "{{ .Values.image }}:1"
    assert "template-place" in [f.rule.id for f in read_document(job, SCHEMAS).findings]


def test_a_warning_quotes_what_is_in_the_file() -> None:
    """The placeholder is shown as it is written."""
    for text in ("{{ .Alert.Labels.nolabel }}", "{{.Alert.Annotations.a}}", "{{ .Labels.b }}"):
        job = document(Form.OPERARIUS, "")
        pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        pod["containers"][0] |= {"command": ["sh", "-c"], "args": [f"echo {text}"]}
        (finding,) = read_document(job, SCHEMAS).findings
        assert finding.message == f"{text} inserts alert data into a shell script"
