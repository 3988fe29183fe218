from __future__ import annotations

import pytest

from openfero_gitops.catalog.forms import Reading, read_document
from openfero_gitops.catalog.naming import OPERARIO_NAME_PATTERN, nearest_name
from openfero_gitops.catalog.validation.schema import schemas_of
from openfero_gitops.catalog.yaml.document import load_text
from openfero_gitops.domain.alert import Status

SCHEMAS = schemas_of("1.36")
JOB = """\
apiVersion: batch/v1
kind: Job
metadata:
  name: {name}
  labels: {labels}
  annotations: {annotations}
spec:
  template:
    spec:
      restartPolicy: Never
      automountServiceAccountToken: false
      containers:
        - name: fix
          image: registry.example/fix:1
          resources: {{limits: {{memory: 64Mi}}}}
"""
ANNOTATED = "{openfero.io/alertname: Disk, openfero.io/status: firing}"


def job(name: str, labels: str = "{}", annotations: str = "{}") -> str:
    """Return a Job."""
    return JOB.format(name=name, labels=labels, annotations=annotations)


def config_map(
    name: str,
    *,
    labels: str = "{app: openfero}",
    annotations: str = "{}",
    key: str = "Disk",
    inner: str = "openfero-disk-firing",
) -> str:
    """Return a ConfigMap that wraps a Job."""
    text = job(inner).replace("\n", "\n    ")
    return (
        f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  labels: {labels}\n"
        f"  annotations: {annotations}\ndata:\n  {key}: |\n    {text}\n"
    )


def read(text: str) -> Reading:
    """Read a text of one document."""
    (document,) = load_text(text)
    return read_document(document, SCHEMAS)


MISNAMED = [
    ("openfero-disk-fireing", "openfero-disk-firing"),
    ("openferro-disk-firing", "openfero-disk-firing"),
    ("open-fero-disk-resolved", "openfero-disk-resolved"),
    ("openfero_disk_firing", "openfero-disk-firing"),
    ("openfero-disk", "openfero-disk-firing"),
    ("openfero-firing-disk", "openfero-disk-firing"),
    ("openfero-disk-resolve", "openfero-disk-resolved"),
    ("OPENFERO-Disk-FIRNG", "openfero-disk-firing"),
]


@pytest.mark.parametrize(("name", "meant"), MISNAMED)
def test_a_misnamed_operario_is_an_error_that_names_the_right_name(name: str, meant: str) -> None:
    """Its author would otherwise wait for a Job that never comes."""
    for text in (job(name), config_map(name)):
        reading = read(text)
        errors = [finding for finding in reading.findings if finding.is_error]
        assert "no-alert" in {finding.rule.id for finding in errors}
        assert reading.draft is None
        (finding,) = [finding for finding in errors if finding.rule.id == "no-alert"]
        assert f"did you mean {meant}?" in finding.suggestion
        assert finding.pointer == ("metadata", "name")
        # The advice is right itself.
        draft = read(text.replace(f"name: {name}\n", f"name: {meant}\n", 1)).draft
        assert draft is not None
        assert draft.alertname.lower() == "disk"


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        (config_map("disk-firing"), "did you mean openfero-disk-firing?"),
        (config_map("disk-firing", labels="{}"), "did you mean openfero-disk-firing?"),
        (config_map("firing-openfero-disk"), "did you mean openfero-disk-firing?"),
        (config_map("heal-disk", inner="x"), "did you mean openfero-disk-firing?"),
        (
            config_map("openfero-disk-firing-7g2k9m5t4h"),
            "kustomize has added a hash to the name: add the annotations openfero.io/alertname",
        ),
        (
            config_map("disks", key="My Alert"),
            'add the annotations openfero.io/alertname: "My Alert" and openfero.io/status: firing',
        ),
        (config_map("disks", key='"Disk"'), "did you mean openfero-disk-firing?"),
        (
            (
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: openfero-x}\n"
                'data:\n  Disk: \'{"apiVersion": "batch/v1", "kind": "Job"}\'\n'
            ),
            "did you mean openfero-disk-firing?",
        ),
    ],
)
def test_a_config_map_with_a_job_but_no_alert_is_an_error(text: str, suggestion: str) -> None:
    """It has OpenFero's label, or its name or its Job is like that of an operario."""
    reading = read(text)
    (finding,) = reading.findings
    assert (finding.rule.id, finding.is_error) == ("no-alert", True)
    assert suggestion in finding.suggestion
    assert "but its name does not give an alert and a status" in finding.message


@pytest.mark.parametrize(
    "text",
    [
        config_map("settings", labels="{}", inner="nightly"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: openfero-settings}\ndata: {a: b}\n",
        config_map("x").replace("kind: Job", "kind: Deployment"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, labels: {app: openfero}}\n",
    ],
)
def test_other_config_maps_are_ignored(text: str) -> None:
    """They wrap no Job, or one of another program."""
    assert read(text) == Reading(ignored="ConfigMap")


@pytest.mark.parametrize("name", [name.lower() for name, _ in MISNAMED if "_" not in name])
def test_annotations_say_the_alert_whatever_the_name(name: str) -> None:
    """With both annotations, a ConfigMap of any name is read."""
    draft = read(config_map(name, annotations=ANNOTATED)).draft
    assert draft is not None
    assert (draft.alertname, draft.status) == ("Disk", Status.FIRING)


@pytest.mark.parametrize(
    "name", ["nightly-backup", "cleanup", "openshift-x", "openapi-gen", "x", "opera-firing-x"]
)
def test_jobs_of_other_programs_get_a_warning_only(name: str) -> None:
    """Their names do not begin like that of an operario."""
    reading = read(job(name))
    assert [finding.rule.id for finding in reading.findings] == ["other-job"]
    assert reading.ignored == "Job"


def test_a_suggested_name_is_one() -> None:
    """Every name that is suggested names an alert and a status, and Kubernetes accepts it."""
    for name in ("openfero-", "openfero-firing", "-", "", "x" * 300, "firing", "openfero--firing"):
        for alertname in ("", "Disk", "My Alert", "x" * 300):
            meant = nearest_name(name, alertname)
            assert not meant or OPERARIO_NAME_PATTERN.fullmatch(meant)
            assert len(meant) <= 253


@pytest.mark.parametrize(
    "alertname", ["*", ".*", "Kube*", "~foo", "Kube.+", "^Kube", "Disk$", "Disk|Memory", "Disk[AB]"]
)
def test_the_name_of_an_alert_is_no_pattern(alertname: str) -> None:
    """A warning says so, wherever the name is written."""
    operarius = (
        "apiVersion: openfero.io/v1alpha1\nkind: Operarius\nmetadata: {name: disk}\nspec:\n"
        f"  alertSelector: {{alertname: '{alertname}', status: firing}}\n"
        "  jobTemplate:\n    spec:\n"
    )
    text = job("x").partition("spec:\n")[2].replace("\n", "\n    ")
    for document, pointer in (
        (f"{operarius}    {text}\n", ("spec", "alertSelector", "alertname")),
        (
            job(
                "x",
                annotations=f"{{openfero.io/alertname: '{alertname}', openfero.io/status: firing}}",
            ),
            ("metadata", "annotations", "openfero.io/alertname"),
        ),
    ):
        reading = read(document)
        (finding,) = reading.findings
        assert (finding.rule.id, finding.is_error) == ("alert-pattern", False)
        assert finding.pointer == pointer
        assert "matches only an alert with exactly this name" in finding.message
        assert "openfero.io/matchers" in finding.suggestion
        assert reading.draft is not None


@pytest.mark.parametrize(
    "alertname", ["Disk", "Disk full (critical)", "kube.disk", "disk-full", "Is it up?", "100% CPU"]
)
def test_an_ordinary_name_of_an_alert_gets_no_warning(alertname: str) -> None:
    """Prometheus allows any text."""
    notes = f"{{openfero.io/alertname: '{alertname}', openfero.io/status: firing}}"
    assert read(job("x", annotations=notes)).findings == ()


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("[namespace, pod]", "namespace,pod"),
        ("namespace pod", "namespace,pod"),
        ("- namespace\n- pod", "namespace,pod"),
        ("namespace;pod", "namespace,pod"),
        ("namespace|pod", "namespace,pod"),
        ("namespace and pod", "namespace,pod"),
        ("(namespace, pod)", "namespace,pod"),
        ("by (namespace)", "namespace"),
        ("$labels.pod", "pod"),
        ("{{ .Labels.pod }}", "pod"),
        (".Labels.pod", "pod"),
        ("'namespace','pod'", "namespace,pod"),
        ("namespace,,pod", "namespace,pod"),
        ("*", ""),
    ],
)
def test_a_target_that_is_no_list_of_label_names_is_an_error(target: str, meant: str) -> None:
    """It would silently be one target for all alerts; the suggestion is what was meant."""
    notes = f"{{openfero.io/target: {json_text(target)}}}"
    (finding,) = read(job("openfero-a-firing", annotations=notes)).findings
    assert (finding.rule.id, finding.is_error) == ("option-value", True)
    assert (f"did you mean {meant}?" in finding.message) == bool(meant)
    if meant:
        notes = f"{{openfero.io/target: '{meant}'}}"
        assert read(job("openfero-a-firing", annotations=notes)).findings == ()


@pytest.mark.parametrize(
    "target", ["namespace", "namespace, pod", "service.name", "k8s-app", "größe"]
)
def test_label_names_are_accepted(target: str) -> None:
    """Since Prometheus 3 and OpenTelemetry, a name may have dots."""
    notes = f"{{openfero.io/target: '{target}'}}"
    draft = read(job("openfero-a-firing", annotations=notes)).draft
    assert draft is not None
    assert draft.options.target == tuple(name.strip() for name in target.split(","))


def json_text(text: str) -> str:
    """Write a text as a value in YAML."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
