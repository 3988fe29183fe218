from __future__ import annotations

import copy
import itertools
import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openfero_gitops.delivery.alertmanager import read_payload
from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.catalog import Envelope, JobDefaults
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.reason import Reason
from openfero_gitops.jobs.environment import LIMITS, record_alert, variables
from openfero_gitops.jobs.options_annotation import read_options, write_options
from openfero_gitops.jobs.render import RENDERER, target
from openfero_gitops.jobs.template import is_safe_argument
from tests.support.build import (
    BLOB,
    COMMIT,
    REVISION,
    alert,
    delivery,
    job_spec,
    operario,
    rendered,
)
from tests.support.depth import scaled
from tests.support.kubelet import command_line, environment, expand

if TYPE_CHECKING:
    from random import Random

    from openfero_gitops.domain.alert import Alert
    from openfero_gitops.jobs.render import Rendered

KIB = 1024


def container(result: Rendered) -> dict[str, Any]:
    """Return the first container of a rendered Job."""
    first: dict[str, Any] = result.manifest["spec"]["template"]["spec"]["containers"][0]
    return first


def labelled(**labels: str) -> Alert:
    """Return the alert with additional labels."""
    return alert(labels={"alertname": "PodCrashLooping"} | labels)


def healed(alert_: Alert, **container_members: Any) -> Rendered:
    """Render the alert with an operario that has such a container."""
    return rendered(alert_, operario(spec=job_spec(**container_members)))


# The Job as a whole.


def test_the_job_has_its_origin_and_its_delivery() -> None:
    """Name, labels and annotations are the documented ones, and the Job is suspended."""
    result = rendered()
    digest, incident = result.occurrence.digest, result.occurrence.incident

    assert result.refusal is None
    assert str(result.key) == f"jobs/podcrashlooping-firing-{digest[:16]}"
    assert {key: result.manifest[key] for key in ("apiVersion", "kind")} == {
        "apiVersion": "batch/v1",
        "kind": "Job",
    }
    assert result.manifest["spec"]["suspend"] is True
    assert result.manifest["metadata"] == {
        "name": f"podcrashlooping-firing-{digest[:16]}",
        "namespace": "jobs",
        "labels": {
            "openfero.io/managed-by": "openfero-gitops",
            "openfero.io/operarius": "restart-pod",
            "openfero.io/alert": "PodCrashLooping",
            "openfero.io/status": "firing",
            "openfero.io/group-key": "alertname-PodCrashLooping",
            "openfero.io/occurrence": digest,
            "openfero.io/incident": incident,
        },
        "annotations": {
            "openfero.io/operarius": "restart-pod",
            "openfero.io/repository": "https://git.example/ops",
            "openfero.io/ref": "main",
            "openfero.io/commit": COMMIT,
            "openfero.io/path": "operarios/restart-pod.yaml",
            "openfero.io/blob": BLOB,
            "openfero.io/commit-author": "Ada",
            "openfero.io/commit-time": "T",
            "openfero.io/spec-digest": "d1ge57",
            "openfero.io/revision": REVISION.commit,
            "openfero.io/renderer": "4",
            "openfero.io/alert": record_alert(alert(), LIMITS[RENDERER]).text,
            "openfero.io/fingerprint": "c0ffee",
            "openfero.io/starts-at": "2026-11-21T03:03:35.678901Z",
            "openfero.io/attempt": "1",
            "openfero.io/received-at": "2026-11-21T03:04:05.678901Z",
            "openfero.io/last-delivered-at": "2026-11-21T03:04:05.678901Z",
            "openfero.io/received-by": "replica-a",
            "openfero.io/delivery": (
                '{"groupKey":"{}:{alertname=\\"PodCrashLooping\\"}","groupStatus":"firing","id":""}'
            ),
            "openfero.io/target": '{"pod":"web-1"}',
            "openfero.io/options": write_options(Options(), RENDERER),
        },
    }


def test_a_stale_operario_has_its_own_commit() -> None:
    """The Job has the commit of the file's last valid version, not the catalog's."""
    stale = replace(operario().origin, commit="3" * 40, stale=True)
    result = rendered(by=operario(origin=stale))
    annotations = result.manifest["metadata"]["annotations"]

    assert annotations[keys.COMMIT] == "3" * 40 != REVISION.commit
    assert environment(container(result))["OPENFERO_COMMIT"] == "3" * 40
    assert annotations[keys.REPOSITORY] == REVISION.repository


def test_the_job_has_the_verified_signer() -> None:
    """Only if signatures are required; no author can write the annotation."""
    signed = replace(operario().origin, verified_signer="ada@git.example SHA256:x")
    theirs = {keys.VERIFIED_SIGNER: "me"}
    result = rendered(by=operario(origin=signed, annotations=theirs))
    other = rendered(by=operario(annotations=theirs))

    assert (
        result.manifest["metadata"]["annotations"][keys.VERIFIED_SIGNER] == signed.verified_signer
    )
    assert keys.VERIFIED_SIGNER == "openfero.io/verified-signer"
    assert keys.VERIFIED_SIGNER not in other.manifest["metadata"]["annotations"]


def test_the_authors_fields_are_kept_and_not_changed() -> None:
    """Labels, annotations and spec are in the Job; the catalog's own do not change."""
    spec = job_spec(args=["{{ .Labels.pod }}"], env=[{"name": "A", "value": "{{ .Labels.pod }}"}])
    spec["parallelism"] = 2
    by = operario(spec=spec, labels={"team": "shop"}, annotations={"note": "n"})
    before = copy.deepcopy(by.job)
    result = rendered(by=by)

    assert by.job == before
    assert result.manifest["metadata"]["labels"]["team"] == "shop"
    assert result.manifest["metadata"]["annotations"]["note"] == "n"
    assert result.manifest["spec"]["parallelism"] == 2
    assert container(result)["image"] == "registry.example/heal:1"


def test_an_author_cannot_set_reserved_labels_or_annotations() -> None:
    """Those of the controller and of Kueue are dropped; the queue's name is held back."""
    theirs = {
        "openfero.io/approved-by": "me",
        "openfero.io/occurrence": "x",
        "kueue.x-k8s.io/queue-name": "nightly",
        "kueue.x-k8s.io/priority-class": "high",
    }
    result = rendered(by=operario(labels=theirs, annotations=theirs))
    labels, annotations = (result.manifest["metadata"][kind] for kind in ("labels", "annotations"))

    assert not [key for key in {**labels, **annotations} if key.startswith("kueue.")]
    assert keys.APPROVED_BY not in {**labels, **annotations}
    assert labels[keys.OCCURRENCE] == result.occurrence.digest
    assert annotations[keys.QUEUE] == "nightly"


def test_the_namespace_is_the_operarios_or_the_jobs_namespace() -> None:
    """A Job is created in its operario's namespace if there is one."""
    assert rendered(by=operario(namespace="shop")).key.namespace == "shop"
    assert rendered(by=operario(namespace="shop")).manifest["metadata"]["namespace"] == "shop"
    assert rendered().key.namespace == "jobs"


def test_missing_fields_have_the_envelopes_defaults() -> None:
    """They were reviewed in openfero.yaml."""
    envelope = Envelope(defaults=JobDefaults(1, 60, "TerminatingOrFailed", 90_000))
    made = rendered(envelope=envelope).manifest["spec"]

    del made["template"]
    assert made == {
        "suspend": True,
        "backoffLimit": 1,
        "activeDeadlineSeconds": 60,
        "podReplacementPolicy": "TerminatingOrFailed",
        "ttlSecondsAfterFinished": 90_000,
    }


def test_the_authors_fields_override_the_envelopes_defaults() -> None:
    """Only `suspend` cannot be overridden."""
    own = {
        "suspend": False,
        "backoffLimit": 4,
        "activeDeadlineSeconds": 5,
        "podReplacementPolicy": "TerminatingOrFailed",
        "ttlSecondsAfterFinished": 100_000,
    }
    made = rendered(by=operario(spec=job_spec() | own)).manifest["spec"]

    del made["template"]
    assert made == own | {"suspend": True}


@pytest.mark.parametrize(
    ("own", "remember", "ttl"),
    [
        (0, timedelta(hours=24), 86_400),
        (86_401, timedelta(hours=24), 86_401),
        (60, timedelta(days=7), 604_800),
        (1, timedelta(milliseconds=1500), 2),
    ],
)
def test_a_ttl_is_never_shorter_than_remember(own: int, remember: timedelta, ttl: int) -> None:
    """Without the Job, a repeated delivery would be a new one."""
    by = operario(spec=job_spec() | {"ttlSecondsAfterFinished": own})
    envelope = Envelope(remember=remember)

    assert rendered(by=by, envelope=envelope).manifest["spec"]["ttlSecondsAfterFinished"] == ttl


def test_each_attempt_is_a_job() -> None:
    """The next attempt has another name and occurrence, and the same incident."""
    first, second = rendered(), rendered(attempt=2)

    assert first.key != second.key
    assert first.occurrence.incident == second.occurrence.incident
    assert second.manifest["metadata"]["annotations"][keys.ATTEMPT] == "2"


def test_without_a_start_every_delivery_gets_a_job() -> None:
    """An alert without startsAt is a new occurrence at each delivery."""
    result = rendered(alert(starts_at=None), delivered=delivery(id="a"))
    other = rendered(alert(starts_at=None), delivered=delivery(id="b"))

    assert result.key != other.key
    assert result.manifest["metadata"]["annotations"][keys.STARTS_AT] == ""


def test_two_replicas_at_two_commits_collide() -> None:
    """The name does not depend on the operario or its commit."""
    assert rendered(by=operario("other")).key == rendered().key


@given(st.randoms(use_true_random=False))
def test_rendering_is_a_function_of_its_inputs(random: Random) -> None:
    """The order of labels and annotations in a delivery has no effect."""
    labels = {"alertname": "A", "pod": "p", "x-y": "1", "b": "2"}
    annotations = {"s": "t", "u": "v"}
    shuffled = [list(labels.items()), list(annotations.items())]
    for items in shuffled:
        random.shuffle(items)

    assert rendered(alert(labels=labels, annotations=annotations)) == rendered(
        alert(labels=dict(shuffled[0]), annotations=dict(shuffled[1]))
    )


# What is being healed.


@pytest.mark.parametrize(
    ("labels", "chosen", "expected"),
    [
        ({"alertname": "A", "severity": "page", "pod": "p", "ns": "n"}, (), '{"ns":"n","pod":"p"}'),
        ({"alertname": "A", "pod": "p", "ns": "n"}, ("pod",), '{"pod":"p"}'),
        ({"alertname": "A", "pod": "p"}, ("pod", "absent"), '{"pod":"p"}'),
        ({"alertname": "A", "severity": "page"}, ("severity",), '{"severity":"page"}'),
        ({"alertname": "A", "severity": "page"}, (), '{"alertname":"A"}'),
        ({"alertname": "A", "pod": "p"}, ("absent",), '{"alertname":"A"}'),
        ({"alertname": "A", "pod": ""}, ("pod",), '{"alertname":"A"}'),
        ({}, (), '{"alertname":""}'),
    ],
)
def test_the_target_consists_of_labels(
    labels: dict[str, str], chosen: tuple[str, ...], expected: str
) -> None:
    """The labels in `target`, or all but alertname and severity, or the alert's name."""
    by = operario(options=Options(target=chosen))

    assert target(alert(labels=labels), by) == expected


def test_the_options_are_recorded() -> None:
    """Admission reads them from the Job, whatever the active catalog is then."""
    chosen = Options(
        priority=7,
        cooldown=timedelta(seconds=90),
        max_concurrent=1,
        max_per_hour=2,
        max_wait=timedelta(0),
        rerun_after=timedelta(minutes=5),
        max_runs=9,
        approval=True,
        resolve_delay=timedelta(hours=2),
        own_jobs=True,
    )
    annotations = rendered(by=operario(options=chosen)).manifest["metadata"]["annotations"]

    assert read_options(annotations[keys.OPTIONS]) == chosen


# Variables.


def test_injected_variables_come_before_the_operarios_own() -> None:
    """The operario's variables in any container can refer to them."""
    spec = job_spec(env=[{"name": "OWN", "value": "$(OPENFERO_POD)"}])
    spec["template"]["spec"]["initContainers"] = [{"name": "i", "image": "i"}]
    pod = rendered(by=operario(spec=spec)).manifest["spec"]["template"]["spec"]
    names = [variable["name"] for variable in pod["containers"][0]["env"]]

    assert names[-1] == "OWN"
    assert "OPENFERO_POD" in names
    assert environment(pod["containers"][0])["OWN"] == "web-1"
    assert environment(pod["initContainers"][0])["OPENFERO_POD"] == "web-1"


def test_a_variable_of_the_operario_is_not_overridden() -> None:
    """It is neither replaced nor set twice, wherever its value is from."""
    own = [
        {"name": "OPENFERO_POD", "value": "mine"},
        {"name": "OPENFERO_STATUS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]
    made = container(healed(alert(), env=copy.deepcopy(own)))["env"]

    assert made[-2:] == own
    assert len({variable["name"] for variable in made}) == len(made)


# References to fields.


def test_field_references_are_replaced_in_commands_and_variables() -> None:
    """Command, args and env values get the alert's values, under either name."""
    result = container(
        healed(
            alert(),
            command=["heal", "--pod={{ .Alert.Labels.pod }}"],
            args=["{{ .Labels.severity }}", "{{ .Status }}", "{{ .HookMessage.Status }}"],
            env=[
                {"name": "WHY", "value": "<{{ .Alert.Annotations.summary }}>"},
                {"name": "GROUP", "value": "{{ .GroupKey }}{{ .HookMessage.GroupKey }}"},
            ],
        )
    )

    assert result["command"] == ["heal", "--pod=web-1"]
    assert result["args"] == ["page", "firing", "firing"]
    assert environment(result)["WHY"] == "<web-1 restarts>"
    assert environment(result)["GROUP"] == delivery().group_key * 2


def test_the_status_of_an_alert_differs_from_its_groups() -> None:
    """A resolved alert in a firing group is resolved."""
    by = operario(spec=job_spec(args=["{{ .Status }}", "{{ .HookMessage.Status }}"]))
    result = rendered(alert(status=Status.RESOLVED), by)

    assert container(result)["args"] == ["resolved", "firing"]


def test_field_references_are_replaced_nowhere_else() -> None:
    """Images, names, probes and annotations are text."""
    text = "{{ .Labels.pod }}"
    probe = {"exec": {"command": [text]}}
    by = operario(
        spec=job_spec(image=text, workingDir=text, livenessProbe=probe), annotations={"a": text}
    )
    result = rendered(by=by)

    assert container(result)["image"] == container(result)["workingDir"] == text
    assert container(result)["livenessProbe"] == probe
    assert result.manifest["metadata"]["annotations"]["a"] == text


# What must not reach a command.

UNSAFE = [
    "--all",
    "",
    "a b",
    "..",
    "a/../../b",
    "/etc/passwd",
    "$(SECRET)",
    "$SECRET",
    "'; rm -rf / #",
    '"',
    "`id`",
    "a\nb",
    "a\0b",
    "{{ .Alert.Labels.pod }}",
    "🙈",
    "x" * 10_000 + "!",
]

#: Ways in which a label's value would become part of a command.
WAYS: list[dict[str, Any]] = [
    {"command": ["sh", "-c", "echo {{ .Labels.x }}"]},
    {"args": ["{{ .Alert.Labels.x }}"]},
    {"args": ["$(OPENFERO_X)"]},
    {"args": ["$$$(OPENFERO_X)"]},
    {"args": ["--pod=$(OWN)"], "env": [{"name": "OWN", "value": "$(OPENFERO_X)"}]},
    {"args": ["$(OWN)"], "env": [{"name": "OWN", "value": "-{{ .Labels.x }}"}]},
    {
        "args": ["$(B)"],
        "env": [{"name": "A", "value": "$(OPENFERO_X)"}, {"name": "B", "value": "$(A)"}],
    },
    {
        "args": ["$(B)"],
        "env": [
            {"name": "A", "value": "{{ .Labels.x }}"},
            {"name": "B", "value": "$(A)"},
            {"name": "A", "value": "harmless"},
        ],
    },
    {"args": ["$(C{{ .Labels.y }} $(OPENFERO_X)"]},
    {"livenessProbe": {"exec": {"command": ["check", "$(OPENFERO_X)"]}}},
    {
        "startupProbe": {"exec": {"command": ["$(OWN)"]}},
        "env": [{"name": "OWN", "value": "{{ .Labels.x }}"}],
    },
    {"volumeMounts": [{"name": "v", "mountPath": "/v", "subPathExpr": "of/$(OPENFERO_X)"}]},
]


@pytest.mark.parametrize("value", UNSAFE)
@pytest.mark.parametrize("way", WAYS)
def test_an_unsafe_value_reaches_no_command(way: dict[str, Any], value: str) -> None:
    """The remediation is refused, also for indirect references; its Job has no alert data."""
    before = job_spec(**copy.deepcopy(way))
    result = healed(labelled(x=value, y="ok"), **copy.deepcopy(way))
    annotations = result.manifest["metadata"]["annotations"]

    assert result.refusal is Reason.UNSAFE_VALUE
    assert annotations[keys.DECISION] == "refused"
    assert annotations[keys.REASON] == "unsafe-value"
    assert annotations[keys.MESSAGE] == result.message
    assert result.manifest["spec"]["template"] == before["template"]
    assert result.manifest["spec"]["suspend"] is True


def test_a_refused_job_has_no_alert_data_in_any_container() -> None:
    """If a later container is refused, the earlier ones have none, either."""
    spec = job_spec(args=["{{ .Labels.pod }}"], env=[{"name": "OWN", "value": "{{ .Labels.pod }}"}])
    spec["template"]["spec"]["containers"].append({"name": "b", "args": ["$(OPENFERO_X)"]})
    result = rendered(labelled(pod="web-1", x="--all"), operario(spec=copy.deepcopy(spec)))

    assert result.refusal is Reason.UNSAFE_VALUE
    assert result.manifest["spec"]["template"] == spec["template"]


@pytest.mark.parametrize("way", WAYS)
def test_a_safe_value_may_reach_a_command(way: dict[str, Any]) -> None:
    """Operarios need no shell to use plain values."""
    result = healed(labelled(x="web-1", y="ok"), **copy.deepcopy(way))

    assert result.refusal is None
    line = command_line(container(result))
    assert not line or any("web-1" in word for word in line)


def test_an_unsafe_value_may_be_a_variable() -> None:
    """If no command uses it, any value is passed unchanged."""
    for value in UNSAFE:
        result = healed(
            labelled(x=value), args=["run"], env=[{"name": "OWN", "value": "<{{ .Labels.x }}>"}]
        )
        actual = environment(container(result), {"SECRET": "s3cret"})

        assert result.refusal is None
        assert actual["OPENFERO_X"] == value.replace("\0", "")
        assert actual["OWN"] == f"<{value.replace(chr(0), '')}>"
        assert json.loads(actual["OPENFERO_ALERT_JSON"])["labels"]["x"] == value


def test_the_refusal_says_what_is_unsafe_and_what_to_do() -> None:
    """The message has the reference and its value; a long value is cut."""
    assert "$(OPENFERO_X) is '--all'" in healed(labelled(x="--all"), args=["$(OPENFERO_X)"]).message
    long = healed(labelled(x="!" * 10_000), args=["{{ .Labels.x }}"])
    assert "{{ .Labels.x }} is '!!!" in long.message
    assert "from an environment variable" in long.message
    assert len(long.message) < 400


@pytest.mark.parametrize(
    ("way", "named"),
    [
        ({"args": ["{{ .Labels.absent }}"]}, ".Labels.absent"),
        ({"command": ["{{ .Annotations.absent }}"]}, ".Annotations.absent"),
        ({"env": [{"name": "OWN", "value": "{{ .Annotations.absent }}"}]}, ".Annotations.absent"),
        ({"args": ["$(OPENFERO_ABSENT)"]}, "OPENFERO_ABSENT"),
        (
            {"args": ["$(OWN)"], "env": [{"name": "OWN", "value": "$(OPENFERO_ABSENT)"}]},
            "OPENFERO_ABSENT",
        ),
        ({"args": ["$(OPENFERO_A_B)"]}, "OPENFERO_A_B"),
        ({"args": ["$(OPENFERO_" + "X" * 2000 + ")"]}, "OPENFERO_XXX"),
    ],
)
def test_a_value_that_is_missing_refuses_the_remediation(way: dict[str, Any], named: str) -> None:
    """So does a variable whose name two labels share."""
    result = healed(alert(labels={"alertname": "A", "a-b": "1", "a_b": "2"}), **way)

    assert result.refusal is Reason.MISSING_VALUE
    assert named in result.message
    assert len(result.message) <= 1024


def test_references_to_other_variables_are_not_checked() -> None:
    """Constants, Secrets and services are not alert data."""
    result = healed(
        labelled(x="--all"),
        args=["$(CONSTANT)", "$(FROM_SECRET)", "$(WEB_SERVICE_HOST)", "$$(OPENFERO_X)", "$"],
        env=[
            {"name": "CONSTANT", "value": "--all"},
            {"name": "FROM_SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ],
    )

    assert result.refusal is None
    assert command_line(container(result)) == [
        "--all",
        "from elsewhere",
        "$(WEB_SERVICE_HOST)",
        "$(OPENFERO_X)",
        "$",
    ]


def test_circular_references_are_followed_once() -> None:
    """The check of references terminates."""
    env = [{"name": "A", "value": "$(B)"}, {"name": "B", "value": "$(A)$(OPENFERO_POD)"}]

    assert healed(alert(), args=["$(A)"], env=env).refusal is None


def test_shell_syntax_is_kept() -> None:
    """Command substitution and parameters next to a reference keep their meaning."""
    script = (
        "for i in $(seq 3); do echo $i $(date) {{ .Labels.pod }} $HOME $(id -u {{ .Status }}); done"
    )
    result = healed(alert(), command=["sh", "-c", script])

    assert command_line(container(result))[2] == (
        "for i in $(seq 3); do echo $i $(date) web-1 $HOME $(id -u firing); done"
    )


# Every hostile value at once: what Kubernetes makes of it is what the author wrote.

HOSTILE = st.sampled_from(
    [
        *UNSAFE,
        "\ud800",
        "web-1",
        "A",
        "SECRET",
        "(SECRET)",
        ")",
        "$",
        "$$",
        "$$(SECRET)",
        "$(OPENFERO_Y)",
        "OPENFERO_Y",
        "{{",
        "}}",
    ]
) | st.text(max_size=8)
WRITTEN = st.sampled_from(
    ["$", "$$", "$(", "(", ")", "$(SECRET)", "$(OPENFERO_X)", "$(OPENFERO_Y)", " ", "a", "$(OWN)"]
)
REFERENCE = st.sampled_from(["{{ .Labels.x }}", "{{.Alert.Labels.y}}", "{{ .Annotations.z }}"])
TEMPLATE = st.lists(WRITTEN | REFERENCE, max_size=6)


class Model:
    """The expected result: the author's text expanded on its own, with values inserted."""

    def __init__(self, values: dict[str, str], known: dict[str, str], unsafe: set[str]) -> None:
        self.values = values
        self.known = known
        self.unsafe = unsafe

    def runs(self, pieces: list[str]) -> list[str]:
        """Yield the author's text between references."""
        made = [""]
        for piece in pieces:
            if "{{" in piece:
                made += [piece, ""]
            else:
                made[-1] += piece
        return made

    def text(self, pieces: list[str]) -> str:
        """Return what the kubelet should make of it."""
        return "".join(
            self.values[run] if "{{" in run else expand(run, self.known)
            for run in self.runs(pieces)
        )

    def is_unsafe(self, pieces: list[str]) -> bool:
        """Whether any alert data in it is not allowed in a command."""
        used: set[str] = set()

        class Spy(dict[str, str]):
            def get(self, key: str, default: str | None = None) -> str:  # type: ignore[override]
                used.add(key)
                return default or ""

        for run in self.runs(pieces):
            if "{{" in run and not is_safe_argument(self.values[run]):
                return True
            expand(run if "{{" not in run else "", Spy())
        return bool(used & self.unsafe)


@settings(max_examples=scaled(30))
@given(HOSTILE, HOSTILE, HOSTILE, TEMPLATE, TEMPLATE)
def test_alert_data_is_data(x: str, y: str, z: str, own: list[str], argument: list[str]) -> None:
    """A value of an alert in a variable or a command is only ever a value.

    Kubernetes expands the author's text around references as it would without them. A command with
    an unsafe value is refused, and no other is.
    """
    body = {"status": "firing", "labels": {"x": x, "y": y}, "annotations": {"z": z}}
    (delivered,) = read_payload(json.dumps(body)).alerts
    limits = LIMITS[RENDERER]
    ours = variables(record_alert(delivered, limits), delivery().group_key, COMMIT, limits)
    plain = {name: value.replace("\0", "") for name, value in ours.items()}
    references = {
        "{{ .Labels.x }}": delivered.labels["x"],
        "{{.Alert.Labels.y}}": delivered.labels["y"],
        "{{ .Annotations.z }}": delivered.annotations["z"],
    }
    env = [{"name": "OWN", "value": "".join(own)}]
    result = healed(delivered, command=["run"], args=["".join(argument)], env=copy.deepcopy(env))

    unsafe = {name for name, value in ours.items() if not is_safe_argument(value)}
    of_own = Model(references, plain | {"SECRET": "s3cret"}, unsafe)
    own_value = of_own.text(own).replace("\0", "")
    if of_own.is_unsafe(own):
        unsafe = unsafe | {"OWN"}
    of_argument = Model(references, of_own.known | {"OWN": own_value}, unsafe)
    if of_argument.is_unsafe(argument):
        assert result.refusal is Reason.UNSAFE_VALUE
        assert container(result)["env"] == env
        assert container(result)["args"] == ["".join(argument)]
        return
    assert result.refusal is None
    actual = environment(container(result), {"SECRET": "s3cret"})
    assert actual == of_argument.known
    assert command_line(container(result), {"SECRET": "s3cret"}) == [
        "run",
        of_argument.text(argument),
    ]


# What does not fit.


def weight(manifest: dict[str, Any]) -> int:
    """Return the bytes of a Job as JSON."""
    return len(json.dumps(manifest, ensure_ascii=False, separators=(",", ":")).encode())


SHORT_NAMES = ["".join(letters) for letters in itertools.product("abcdefghijklm", repeat=3)]
HEAVY = [
    *(dict.fromkeys(SHORT_NAMES[:count], "") for count in range(1500, 2197, 100)),
    *(
        {"a": letter * length}
        for letter in ["x", "$", '"', "\\", "\x01", "é", "🙈"]
        for length in (2000, 2700, 4000, 8000, 16_000, 10**6)
    ),
]


@pytest.mark.parametrize(
    "group_key",
    ["", "\x01" * 10**5, "🙈" * 10**5, "$" * 10**5],
    ids=["none", "control", "emoji", "dollar"],
)
def test_no_alert_makes_a_heavy_job(group_key: str) -> None:
    """Whatever an alert contains, it adds less than 256 KiB to a Job with one container."""
    empty = weight(rendered(alert(labels={}, annotations={})).manifest)
    delivered = delivery(group_key=group_key)
    others = {"fingerprint": group_key, "generator_url": group_key}
    added = [
        weight(rendered(alert(**values, **others), delivered=delivered).manifest) - empty
        for heavy in HEAVY
        for values in (
            {"labels": heavy, "annotations": {}},
            {"labels": {"alertname": "A"}, "annotations": heavy},
        )
    ]

    assert max(added) < 256 * KIB


def test_an_alert_with_too_long_labels_is_a_refused_job() -> None:
    """The Job has only the alert's name, and Kubernetes accepts it."""
    result = rendered(alert(labels={"alertname": "A" * 2000, "pod": "x" * 300 * KIB}))
    annotations = result.manifest["metadata"]["annotations"]

    assert result.refusal is Reason.TOO_LARGE
    assert json.loads(annotations[keys.ALERT]) == {
        "status": "firing",
        "labels": {"alertname": "A" * 1024},
        "annotations": {},
        "truncated": True,
    }
    assert sum(len(k) + len(v.encode()) for k, v in annotations.items()) < 16 * KIB
    assert result.manifest["spec"]["template"] == job_spec()["template"]
    assert len(json.dumps(result.manifest)) < 32 * KIB


def test_annotations_that_would_not_fit_together_refuse_the_remediation() -> None:
    """The author's are dropped, the controller's are kept; there is no alert data."""
    by = operario(annotations={"note": "x" * 250_000}, spec=job_spec(args=["{{ .Labels.pod }}"]))
    result = rendered(by=by)
    annotations = result.manifest["metadata"]["annotations"]

    assert result.refusal is Reason.TOO_LARGE
    assert "256 KiB" in annotations[keys.MESSAGE]
    assert "note" not in annotations
    assert annotations[keys.COMMIT] == COMMIT
    assert (
        container(result)
        == job_spec(args=["{{ .Labels.pod }}"])["template"]["spec"]["containers"][0]
    )


def test_a_refused_job_fits_too() -> None:
    """A remediation refused for a value does not fail because of its annotations' size."""
    by = operario(annotations={"note": "x" * 250_000}, spec=job_spec(args=["{{ .Labels.pod }}"]))
    result = rendered(labelled(pod="--all"), by)

    assert result.refusal is Reason.UNSAFE_VALUE
    assert "note" not in result.manifest["metadata"]["annotations"]


@pytest.mark.parametrize("note", [200_000, 240_000, 245_000, 250_000])
def test_annotations_leave_room_for_what_is_decided(note: int) -> None:
    """A Job that is accepted has room for the annotations that are added later."""
    result = rendered(alert(annotations={}), operario(annotations={"note": "x" * note}))
    annotations = result.manifest["metadata"]["annotations"]
    total = sum(len(key) + len(value.encode()) for key, value in annotations.items())

    assert total + 16 * KIB <= 256 * KIB


def test_a_variable_that_exceeds_linux_limit_refuses_the_remediation() -> None:
    """An author's text with values can exceed what a process accepts."""
    long = alert(labels={"x": "v" * 15 * KIB})
    env = [{"name": "OWN", "value": "{{ .Labels.x }}" * 9}]
    result = healed(long, env=env)

    assert result.refusal is Reason.TOO_LARGE
    assert "OWN" in result.message
    assert healed(long, env=[{"name": "OWN", "value": "{{ .Labels.x }}" * 8}]).refusal is None


def test_dollars_do_not_count_twice() -> None:
    """The length is that of the value in the process."""
    env = [{"name": "OWN", "value": "{{ .Labels.x }}" * 5}]
    result = healed(alert(labels={"x": "$" * 15 * KIB}), env=env)

    assert result.refusal is None
    assert environment(container(result))["OWN"] == "$" * 75 * KIB


def test_a_field_has_the_value_that_is_recorded() -> None:
    """A long annotation is cut everywhere, so that the Job can be rendered again."""
    result = healed(
        alert(annotations={"a": "x" * 300 * KIB}),
        env=[{"name": "OWN", "value": "{{ .Annotations.a }}"}],
    )
    actual = environment(container(result))

    assert actual["OWN"] == actual["OPENFERO_ANNOTATION_A"] == "x" * 4096 + "…[cut]"


def test_a_long_group_key_is_cut_wherever_it_is_used() -> None:
    """A group key may contain labels of any length."""
    by = operario(spec=job_spec(env=[{"name": "OWN", "value": "{{ .GroupKey }}"}]))
    result = rendered(by=by, delivered=delivery(group_key="k" * 300 * KIB))
    actual = environment(container(result))

    assert result.refusal is None
    assert actual["OWN"] == actual["OPENFERO_GROUP_KEY"]
    assert actual["OWN"] == "k" * 4 * KIB + "…[cut]"


# The record of options.


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "null", '"a"', "{}", "[" * 100_000, '{"cooldown": 1, "priority": "a"}']
)
def test_damaged_options_have_safe_defaults(text: str) -> None:
    """Damaging the annotation is not a way around approval."""
    assert read_options(text) == Options(approval=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"approval": false, "on-resolve": "burn"}', Options()),
        ('{"approval": false, "cooldown": "soon", "max-runs": true}', Options()),
        ('{"approval": null}', Options(approval=True)),
        ('{"approval": "no"}', Options(approval=True)),
        ('{"approval": false, "max-concurrent": 0}', Options(max_concurrent=0)),
    ],
)
def test_each_damaged_option_has_its_default(text: str, expected: Options) -> None:
    """The other options keep their values."""
    assert read_options(text) == expected


def test_backoff_limit_per_index_prevents_the_default_backoff_limit() -> None:
    """A Job with backoffLimitPerIndex gets no backoffLimit."""
    spec = job_spec() | {"completionMode": "Indexed", "completions": 3, "backoffLimitPerIndex": 2}
    assert "backoffLimit" not in rendered(by=operario(spec=spec)).manifest["spec"]


def test_jobs_of_one_operario_follow_its_sources() -> None:
    """What is prepared for an operario is not used for another one that only has its name."""
    first = operario(spec=job_spec(command=["/heal", "$(OPENFERO_POD)"]))
    moved = replace(first, origin=replace(first.origin, commit="f" * 40))
    other = operario(spec=job_spec(command=["/heal", "{{ .Alert.Labels.pod }}"]))
    commits, commands = [], []
    for source in (first, moved, other, first):
        job = rendered(alert(), source).manifest
        commits.append(job["metadata"]["annotations"][keys.COMMIT])
        commands.append(job["spec"]["template"]["spec"]["containers"][0]["command"][1])
    assert commits == [first.origin.commit, "f" * 40, other.origin.commit, first.origin.commit]
    assert commands == ["$(OPENFERO_POD)", "$(OPENFERO_POD)", "web-1", "$(OPENFERO_POD)"]
