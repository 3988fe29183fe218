from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections import Counter
from datetime import timedelta
from enum import StrEnum
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from openfero_gitops.author.diff import BehaviorDiff, ChangeEffect, ChangeKind, Side, compare
from openfero_gitops.author.diff.comment import as_markdown
from openfero_gitops.author.diff.fields import envelope_changes, option_changes
from openfero_gitops.author.diff.plain import as_json, as_text
from openfero_gitops.catalog.build import Scope, build_catalog
from openfero_gitops.domain.catalog import Envelope, Revision, Snapshot, SourceFile
from openfero_gitops.domain.errors import CatalogRefusal
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.sentence import Quote
from openfero_gitops.domain.watchdog import Watchdog
from tests.support.build import BLOB
from tests.support.depth import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

SECURE = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def job(
    name: str = "openfero-hostdown-firing",
    options: dict[str, str] | None = None,
    *,
    pod: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    spec: dict[str, Any] | None = None,
    **container: Any,
) -> dict[str, Any]:
    """Make an operario whose container has no privileges."""
    container = {
        "name": "heal",
        "image": "registry.example/heal:1",
        "command": ["heal"],
        "securityContext": SECURE,
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
        **container,
    }
    inner = {"restartPolicy": "Never", "serviceAccountName": "healer", "containers": [container]}
    notes = {f"openfero.io/{key}": value for key, value in (options or {}).items()}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "annotations": notes, **(metadata or {})},
        "spec": {"template": {"spec": inner | (pod or {})}, **(spec or {})},
    }


def role(*rules: dict[str, Any], subject: dict[str, Any] | None = None, **where: str) -> list[Any]:
    """Make a Role (with `namespace`) or ClusterRole, bound to the ServiceAccount of `job()`."""
    kind = "Role" if where else "ClusterRole"
    group = "rbac.authorization.k8s.io"
    return [
        {
            "apiVersion": f"{group}/v1",
            "kind": kind,
            "metadata": {"name": "healer", **where},
            "rules": list(rules),
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": f"{kind}Binding",
            "metadata": {"name": "healer", **where},
            "roleRef": {"apiGroup": group, "kind": kind, "name": "healer"},
            "subjects": [
                subject or {"kind": "ServiceAccount", "name": "healer", "namespace": "jobs"}
            ],
        },
    ]


def rule(verbs: str, resources: str, group: str = "", **more: Any) -> dict[str, Any]:
    """Make one rule of a role."""
    return {
        "verbs": verbs.split(","),
        "resources": resources.split(","),
        "apiGroups": [group],
        **more,
    }


def side(*files: Any, previous: Side | None = None, older: dict[str, Any] | None = None) -> Side:
    """Make a revision of files: objects, lists of them, or text; `NAME: text` chooses a path."""
    sources = []
    for number, file in enumerate(files):
        path, content = file if isinstance(file, tuple) else (f"f{number}.yaml", file)
        sources.append(source(path, content))
    revision = Revision("https://git.example/ops", "main", f"{len(files):040x}")
    snapshot = Snapshot(revision, "", tuple(sources))
    scope = Scope(jobs_namespace="jobs")
    had = previous is not None and previous.catalog.has_envelope
    try:
        catalog = build_catalog(
            snapshot,
            scope,
            {path: [source(path, content)] for path, content in (older or {}).items()},
            previous_has_envelope=had,
        )
    except CatalogRefusal as refusal:
        rest = Snapshot(revision, "", tuple(s for s in sources if s.path != "openfero.yaml"))
        return Side(snapshot, build_catalog(rest, scope), refusal)
    return Side(snapshot, catalog)


def source(path: str, content: Any) -> SourceFile:
    """Make a file."""
    if not isinstance(content, str):
        objects = content if isinstance(content, list) else [content]
        content = yaml.safe_dump_all(objects, sort_keys=False)
    return SourceFile(path, "", content.encode(), BLOB)


def changes_of(before: Side, after: Side) -> list[tuple[ChangeEffect, ChangeKind, str]]:
    """Compare, and return each change with its sentence."""
    difference = compare(before, after)
    return [(change.effect, change.kind, "".join(change.sentence)) for change in difference.changes]


def one_change(before: Any, after: Any) -> tuple[ChangeEffect, ChangeKind, str]:
    """Compare two revisions of one operario that differ in one thing."""
    [change] = changes_of(side(before), side(after))
    return change


# No change in behavior.


def test_text_alone_is_no_change() -> None:
    """Comments, order, quotes and another path are no changes."""
    given_job = job(options={"cooldown": "1h"})
    text = "# why\n" + json.dumps(given_job, sort_keys=True, indent=4)
    before, after = side(("a.yaml", given_job)), side(("moved/b.yaml", text))
    difference = compare(before, after)

    assert (difference.changes, difference.winners, difference.files) == ((), (), 2)
    assert as_text(difference) == "no change in behavior (2 files changed)"
    assert not difference.broken
    assert "no change in behavior" in as_markdown(difference)


def test_the_same_is_no_change() -> None:
    """A revision does not differ from itself."""
    assert as_text(compare(side(job()), side(job()))) == "no change in behavior"


def test_an_option_that_says_the_default_is_no_change() -> None:
    """A default value may be written or left out."""
    assert (
        changes_of(side(job()), side(job(options={"max-concurrent": "5", "cooldown": "600s"})))
        == []
    )


# Operarios.


def test_a_new_operario_is_told_with_what_it_may() -> None:
    """A new operario is reported with its alert, its rights and its grave powers."""
    new = job(
        "openfero-diskfull-firing",
        pod={"volumes": [{"name": "v", "hostPath": {"path": "/var"}}], "hostPID": True},
        metadata={"namespace": "shop"},
    )
    changes = changes_of(side(job()), side(job(), new, role(rule("delete", "pods"))))

    assert (
        ChangeEffect.CHANGES,
        ChangeKind.OPERARIO,
        "is new; it matches alert diskfull (firing)",
    ) in changes
    assert (
        ChangeEffect.WIDENS,
        ChangeKind.SECURITY,
        "mounts /var of its node (hostPath)",
    ) in changes
    assert (
        ChangeEffect.WIDENS,
        ChangeKind.SECURITY,
        "sees the processes of its node (hostPID)",
    ) in changes
    assert (ChangeEffect.WIDENS, ChangeKind.NAMESPACE, "runs in namespace shop") in changes
    rights = compare(side(job()), side(job(), new, role(rule("delete", "pods")))).changes[0]
    assert (rights.kind, rights.effect) == (ChangeKind.RIGHTS, ChangeEffect.WIDENS)


def test_a_removed_operario_allows_less() -> None:
    """A removed operario is reported with the alert that no operario matches now."""
    difference = compare(side(job(), job("openfero-x-firing")), side(job()))

    assert [(change.effect, change.operario) for change in difference.changes] == [
        (ChangeEffect.NARROWS, "openfero-x-firing")
    ]
    assert "alert x (firing): openfero-x-firing → no operario" in as_text(difference)


def test_an_operario_that_answers_another_alert() -> None:
    """Another alert or status is a change, besides the matching operario."""
    after = job(options={"alertname": "HostGone"})
    difference = compare(side(job()), side(after))

    assert "matches alert HostGone (firing) instead of hostdown (firing)" in as_text(difference)
    assert {(winner.alertname, winner.before, winner.after) for winner in difference.winners} == {
        ("hostdown", "openfero-hostdown-firing", ""),
        ("HostGone", "", "openfero-hostdown-firing"),
    }


# Errors.


def test_an_error_is_told_with_what_stays_in_force() -> None:
    """A file that becomes invalid comes first, and its older version stays active."""
    path = "a.yaml"
    before = side((path, job()))
    after = side((path, "a: ["), older={path: job()})
    difference = compare(before, after)

    assert difference.broken
    [change] = difference.changes
    assert change.effect is ChangeEffect.BREAKS
    sentence = "".join(change.sentence)
    assert sentence.startswith("a.yaml:2: ")
    assert "still active: openfero-hostdown-firing of commit 222222222222" in sentence


def test_an_error_without_an_older_version_takes_its_operario_away() -> None:
    """A broken file without active operarios is reported as such."""
    difference = compare(side(("a.yaml", job())), side(("a.yaml", "a: [")))

    assert [change.effect for change in difference.changes] == [
        ChangeEffect.BREAKS,
        ChangeEffect.NARROWS,
    ]
    assert "no operario of this file is active" in as_text(difference)


def test_an_old_error_is_no_news() -> None:
    """Errors that base has are not reported; that a file is repaired is."""
    broken = ("b.yaml", "a: [")

    assert changes_of(side(job(), broken), side(job(), broken)) == []
    [change] = changes_of(side(job(), broken), side(job(), ("b.yaml", "a: []")))
    assert change == (ChangeEffect.CHANGES, ChangeKind.QUARANTINE, "b.yaml no longer has errors")


@pytest.mark.parametrize("envelope", ["paused: perhaps\n", None])
def test_a_revision_that_the_controller_refuses(envelope: str | None) -> None:
    """Errors in openfero.yaml, or its removal, come first."""
    before = side(("openfero.yaml", "paused: false\n"), ("a.yaml", job()))
    files = [("a.yaml", job())] + ([("openfero.yaml", envelope)] if envelope else [])
    after = side(*files, previous=before)
    difference = compare(before, after)

    assert difference.broken
    assert [change.kind for change in difference.changes] == [ChangeKind.REVISION]
    assert "the controller would reject this revision: openfero.yaml" in as_text(difference)


# Options and the envelope.


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ({"approval": "required"}, {}, "approval: required → none"),
        ({"enabled": "false"}, {}, "enabled: false → true"),
        ({"mode": "dry-run"}, {}, "mode: dry-run → run"),
        ({}, {"own-jobs": "true"}, "own-jobs: false → true"),
        ({"cooldown": "1h"}, {"cooldown": "1m"}, "cooldown: 1h → 1m"),
        ({}, {"max-concurrent": "6"}, "max-concurrent: 5 → 6"),
        ({}, {"max-per-hour": "31"}, "max-per-hour: 30 → 31"),
        ({}, {"max-runs": "4"}, "max-runs: 3 → 4"),
        ({}, {"max-wait": "2h"}, "max-wait: 1h → 2h"),
        ({}, {"max-wait": "0"}, "max-wait: 1h → 0"),
        ({}, {"rerun-after": "1h"}, "rerun-after: 0 → 1h"),
        ({"rerun-after": "2h"}, {"rerun-after": "1h"}, "rerun-after: 2h → 1h"),
        ({}, {"on-resolve": "keep"}, "on-resolve: cancel → keep"),
        ({}, {"resolve-delay": "0"}, "resolve-delay: 1m → 0"),
        ({"matchers": 'a="b"'}, {}, 'matchers: a="b" → none'),
    ],
)
def test_options_that_allow_more_or_less(
    before: dict[str, str], after: dict[str, str], sentence: str
) -> None:
    """Each option says whether it allows more; the other way round it allows less."""
    changes = changes_of(side(job(options=before)), side(job(options=after)))
    back = changes_of(side(job(options=after)), side(job(options=before)))

    assert changes == [(ChangeEffect.WIDENS, ChangeKind.OPTION, sentence)]
    assert [(effect, kind) for effect, kind, _ in back] == [
        (ChangeEffect.NARROWS, ChangeKind.OPTION)
    ]


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ({}, {"priority": "7"}, "priority: 0 → 7"),
        ({}, {"target": "pod"}, "target: none → pod"),
    ],
)
def test_options_that_only_choose(
    before: dict[str, str], after: dict[str, str], sentence: str
) -> None:
    """An option that is neither more nor less is a change."""
    change = one_change(job(options=before), job(options=after))

    assert change == (ChangeEffect.CHANGES, ChangeKind.OPTION, sentence)


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("paused: true", "paused: false", "paused: true → false"),
        ("mode: dry-run", "", "mode: dry-run → run"),
        ("", "limits: {concurrent: 21}", "limits.concurrent: 20 → 21"),
        ("", "limits: {perMinute: 61}", "limits.perMinute: 60 → 61"),
        ("remember: 48h", "", "remember: 2d → 1d"),
        ("", "defaults: {backoffLimit: 1}", "defaults.backoffLimit: 0 → 1"),
        ("", "defaults: {activeDeadlineSeconds: 901}", "defaults.activeDeadlineSeconds: 900 → 901"),
        ("namespaces: [jobs]", "", "namespaces: no longer restricted"),
        ("namespaces: [jobs]", "namespaces: [jobs, shop]", "namespaces: also allows shop"),
    ],
)
def test_an_envelope_that_allows_more_or_less(before: str, after: str, sentence: str) -> None:
    """Each key of openfero.yaml says whether it allows more; the reverse allows less."""
    old, new = ("openfero.yaml", before), ("openfero.yaml", after)

    assert changes_of(side(job(), old), side(job(), new)) == [
        (ChangeEffect.WIDENS, ChangeKind.ENVELOPE, sentence)
    ]
    [(effect, _, _)] = changes_of(side(job(), new), side(job(), old))
    assert effect is ChangeEffect.NARROWS


def test_another_watchdog_is_a_change() -> None:
    """It neither allows more nor less; the name comes from the file, so it is quoted."""
    before = side(job(), ("openfero.yaml", "paused: false\n"))
    after = side(job(), ("openfero.yaml", "watchdog: {alertname: '*Dead*', within: 1h}\n"))

    [(effect, kind, sentence)] = changes_of(before, after)
    assert (effect, kind) == (ChangeEffect.CHANGES, ChangeKind.ENVELOPE)
    assert sentence == "watchdog: none → *Dead* within 1h"
    [change] = envelope_changes(Envelope(), Envelope(watchdog=Watchdog("*Dead*")))
    assert Quote("*Dead*") in change.sentence


def leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield, for each field of a value, its name and the value with another there."""
    for field in dataclasses.fields(value):
        old = getattr(value, field.name)
        if dataclasses.is_dataclass(old):
            for name, changed in leaves(old):
                yield f"{field.name}.{name}", dataclasses.replace(value, **{field.name: changed})
            continue
        match old:
            case bool():
                new: Any = not old
            case int():
                new = old + 1
            case timedelta():
                new = old + timedelta(hours=1)
            case StrEnum():
                new = next(member for member in type(old) if member is not old)
            case None if field.name == "watchdog":
                new = Watchdog()
            case _:
                new = ("another",) if field.name != "pod_replacement_policy" else "another"
        yield field.name, dataclasses.replace(value, **{field.name: new})


@pytest.mark.parametrize(("name", "changed"), list(leaves(Envelope())))
def test_every_key_of_the_envelope_is_compared(name: str, changed: Envelope) -> None:
    """Every member of openfero.yaml is compared."""
    assert len(list(envelope_changes(Envelope(), changed))) == 1, name


@pytest.mark.parametrize(("name", "changed"), list(leaves(Options())))
def test_every_option_is_compared(name: str, changed: Options) -> None:
    """Every option is compared."""
    assert len(list(option_changes("a", Options(), changed))) == 1, name


# The Job.


@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        (
            {"image": "registry.example/heal:2"},
            ChangeKind.IMAGE,
            "container heal: image: registry.example/heal:1 → registry.example/heal:2",
        ),
        ({"command": ["heal", "--now"]}, ChangeKind.COMMAND, "container heal: command changed"),
        ({"args": ["--now"]}, ChangeKind.ARGS, "container heal: args was added"),
        (
            {"env": [{"name": "MODE", "value": "fast"}]},
            ChangeKind.ENVIRONMENT,
            "container heal: env MODE: unset → fast",
        ),
        ({"workingDir": "/tmp"}, ChangeKind.JOB, "container heal: workingDir: unset → /tmp"),
        (
            {"spec": {"backoffLimit": 3}},
            ChangeKind.JOB,
            "spec of the Job: backoffLimit: unset → 3",
        ),
        (
            {"pod": {"nodeSelector": {"a": "b"}}},
            ChangeKind.JOB,
            "spec of the Pod: nodeSelector was added",
        ),
        (
            {"metadata": {"labels": {"team": "sre"}}},
            ChangeKind.JOB,
            "labels of the Job: team: unset → sre",
        ),
    ],
)
def test_fields_of_the_job(change: dict[str, Any], kind: ChangeKind, sentence: str) -> None:
    """Each field is named, with short values in the sentence."""
    assert one_change(job(), job(**change)) == (ChangeEffect.CHANGES, kind, sentence)


def test_a_script_is_shown_line_against_line() -> None:
    """A change in a long argument shows only the changed lines."""
    script = "set -e\n" + "\n".join(f"step {number}" for number in range(40))
    before, after = job(args=[script]), job(args=[script.replace("step 20", "step twenty")])
    text = as_text(compare(side(before), side(after)))

    assert "    -  step 20\n    +  step twenty\n" in text
    assert "step 30" not in text


def test_the_order_of_variables_counts() -> None:
    """Kubernetes expands a variable with those before it."""
    first, second = {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)"}
    change = one_change(job(env=[first, second]), job(env=[second, first]))

    assert change == (
        ChangeEffect.CHANGES,
        ChangeKind.ENVIRONMENT,
        "container heal: order of env changed",
    )


def test_containers_come_and_go() -> None:
    """A new container is reported with its image, a removed one by its name."""
    more = job(
        pod={"initContainers": [{"name": "first", "image": "x:1", "securityContext": SECURE}]}
    )

    assert one_change(job(), more)[2] == "init container first was added, with image x:1"
    assert one_change(more, job())[2] == "init container first was removed"


def test_init_containers_in_another_order() -> None:
    """Init containers run one after the other: their order counts."""
    first, second = ({"name": name, "image": "x:1", "securityContext": SECURE} for name in "ab")
    before, after = (
        job(pod={"initContainers": [first, second]}),
        job(pod={"initContainers": [second, first]}),
    )

    assert one_change(before, after)[2] == "order of init containers changed: b, a"


def test_another_service_account() -> None:
    """Another ServiceAccount is reported, whichever of the two fields names it."""
    after = job(pod={"serviceAccountName": "admin"})

    assert one_change(job(), after)[1:] == (
        ChangeKind.SERVICE_ACCOUNT,
        "runs as ServiceAccount admin instead of healer",
    )
    alias = job(pod={"serviceAccount": "healer"})
    del alias["spec"]["template"]["spec"]["serviceAccountName"]
    assert changes_of(side(job()), side(alias)) == []


def test_another_namespace() -> None:
    """Another namespace than before allows more; the jobs namespace does not."""
    objects = job(metadata={"namespace": "kube-system"})

    effect, kind, sentence = one_change(job(), objects)
    assert (effect, kind) == (ChangeEffect.WIDENS, ChangeKind.NAMESPACE)
    assert sentence == "runs in namespace kube-system instead of the jobs namespace"
    assert one_change(objects, job())[0] is ChangeEffect.CHANGES


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"securityContext": SECURE | {"privileged": True, "allowPrivilegeEscalation": True}},
            "container heal is privileged",
        ),
        ({"securityContext": SECURE | {"runAsUser": 0}}, "container heal runs as root"),
        ({"securityContext": SECURE | {"runAsNonRoot": False}}, "container heal may run as root"),
        (
            {"securityContext": SECURE | {"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}},
            "container heal has capability NET_ADMIN",
        ),
        (
            {"securityContext": SECURE | {"capabilities": {}}},
            "container heal keeps the default capabilities",
        ),
        (
            {"securityContext": SECURE | {"seccompProfile": {"type": "Unconfined"}}},
            "container heal has no seccomp profile",
        ),
        (
            {"securityContext": SECURE | {"readOnlyRootFilesystem": False}},
            "container heal can write to its root filesystem",
        ),
        ({"pod": {"hostNetwork": True}}, "uses the network of its node (hostNetwork)"),
        (
            {"pod": {"volumes": [{"name": "v", "secret": {"secretName": "key"}}]}},
            "reads Secret key",
        ),
        ({"envFrom": [{"secretRef": {"name": "key"}}]}, "reads Secret key"),
        (
            {
                "pod": {
                    "volumes": [
                        {"name": "v", "projected": {"sources": [{"secret": {"name": "key"}}]}}
                    ]
                }
            },
            "reads Secret key",
        ),
        (
            {"ports": [{"containerPort": 80, "hostPort": 80}]},
            "container heal listens on port 80 of its node (hostPort)",
        ),
        (
            {"securityContext": SECURE | {"procMount": "Unmasked"}, "pod": {"hostUsers": False}},
            "container heal sees all of /proc (procMount: Unmasked)",
        ),
        (
            {"env": [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}]},
            "reads Secret key",
        ),
    ],
)
def test_what_a_job_may_besides_the_api(change: dict[str, Any], sentence: str) -> None:
    """Access to the node or a Secret is reported as a power that is new, or removed."""
    before, after = side(job()), side(job(**change))

    assert (ChangeEffect.WIDENS, ChangeKind.SECURITY, sentence) in changes_of(before, after)
    assert (ChangeEffect.NARROWS, ChangeKind.SECURITY, f"no longer {sentence}") in changes_of(
        after, before
    )


def test_a_security_context_that_moves_is_no_new_power() -> None:
    """A security context of the Pod is the same as one of each container."""
    own = {
        key: value for key, value in SECURE.items() if key not in ("runAsNonRoot", "seccompProfile")
    }
    around = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    after = job(securityContext=own, pod={"securityContext": around})

    assert {kind for _, kind, _ in changes_of(side(job()), side(after))} == {ChangeKind.JOB}


# Rights.


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        (rule("get", "pods"), rule("get,delete", "pods"), "may now delete pods in all namespaces"),
        (
            rule("get", "pods"),
            rule("*", "pods"),
            "may now do anything with pods in all namespaces",
        ),
        (
            rule("get", "pods"),
            rule("get", "*"),
            (
                "may now get all resources of the core API group in all namespaces; "
                "this includes Secrets"
            ),
        ),
        (
            rule("list", "deployments", "apps"),
            rule("list", "*", "apps"),
            "may now list all resources of API group apps in all namespaces",
        ),
        (
            rule("get", "deployments", "apps", resourceNames=["web"]),
            rule("get", "deployments", "apps"),
            "may now get deployments.apps in all namespaces",
        ),
        (
            rule("get", "pods"),
            {**rule("get", "pods"), "nonResourceURLs": ["/metrics"]},
            "may now get /metrics in all namespaces",
        ),
    ],
)
def test_wider_rights_come_first(
    before: dict[str, Any], after: dict[str, Any], sentence: str
) -> None:
    """More rights of a role are reported for the operario that has them; the reverse as less."""
    old, new = side(job(), role(before)), side(job(), role(after))

    assert changes_of(old, new) == [(ChangeEffect.WIDENS, ChangeKind.RIGHTS, sentence)]
    [(effect, kind, _)] = changes_of(new, old)
    assert (effect, kind) == (ChangeEffect.NARROWS, ChangeKind.RIGHTS)
    assert compare(old, new).changes[0].operario == "openfero-hostdown-firing"


def test_rules_that_say_the_same_are_no_change() -> None:
    """A rule that is split, or that a wider one covers, changes no right."""
    whole = role(rule("get,list", "pods,nodes"))
    split = role(rule("list,get", "nodes"), rule("get", "pods"), rule("list", "pods"))
    wide = role(rule("*", "pods"))
    both = role(rule("*", "pods"), rule("get", "pods", resourceNames=["x"]), rule("get", "pods"))

    assert changes_of(side(job(), whole), side(job(), split)) == []
    assert changes_of(side(job(), wide), side(job(), both)) == []


def test_rights_in_one_namespace() -> None:
    """Rights of a Role have its namespace; a ClusterRole covers them."""
    in_namespace = role(rule("delete", "pods"), namespace="shop")
    everywhere = role(rule("delete", "pods"))

    assert changes_of(side(job()), side(job(), in_namespace)) == [
        (ChangeEffect.WIDENS, ChangeKind.RIGHTS, "may now delete pods in shop")
    ]
    assert changes_of(side(job(), in_namespace), side(job(), everywhere)) == [
        (ChangeEffect.WIDENS, ChangeKind.RIGHTS, "may now delete pods in all namespaces")
    ]


@pytest.mark.parametrize(
    "subject",
    [
        {"kind": "ServiceAccount", "name": "healer"},
        {"kind": "ServiceAccount", "name": "healer", "namespace": "anywhere"},
        {"kind": "User", "name": "system:serviceaccount:jobs:healer"},
        {"kind": "Group", "name": "system:serviceaccounts"},
        {"kind": "Group", "name": "system:serviceaccounts:jobs"},
        {"kind": "Group", "name": "system:authenticated"},
    ],
)
def test_a_binding_reaches_a_service_account_by_many_names(subject: dict[str, str]) -> None:
    """A subject that is, or may be, the operario's ServiceAccount gives it its rights."""
    after = side(job(), role(rule("delete", "pods"), subject=subject))

    [change] = compare(side(job()), after).changes
    assert change.operario == "openfero-hostdown-firing"


def test_a_namespace_that_is_named_must_fit() -> None:
    """An operario that names its namespace has only the rights of the account there."""
    objects = job(metadata={"namespace": "shop"})
    namesake = {"kind": "ServiceAccount", "name": "healer", "namespace": "x"}
    other = role(rule("delete", "pods"), subject=namesake)
    [change] = compare(side(objects), side(objects, other)).changes

    assert change.operario == ""
    assert "".join(change.sentence) == (
        "ServiceAccount healer in x, used by no operario, may now delete pods in all namespaces"
    )


def test_rights_of_a_role_that_is_not_there() -> None:
    """A role that is not in the repository is reported by its name."""
    binding = role()[1]
    binding["roleRef"]["name"] = "cluster-admin"

    assert changes_of(side(job()), side(job(), binding)) == [
        (
            ChangeEffect.WIDENS,
            ChangeKind.RIGHTS,
            "may now do everything that ClusterRole cluster-admin allows in all namespaces",
        )
    ]


def test_an_aggregated_role_has_the_rules_of_others() -> None:
    """An aggregated ClusterRole has the rights of the ClusterRoles it selects."""
    gathering = role()
    gathering[0]["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {"heals": "yes"}}]}
    part = role(rule("delete", "nodes"))[0]
    part["metadata"] = {"name": "part", "labels": {"heals": "yes"}}

    assert changes_of(side(job(), gathering), side(job(), [*gathering, part])) == [
        (ChangeEffect.WIDENS, ChangeKind.RIGHTS, "may now delete nodes in all namespaces")
    ]


def test_objects_in_a_list_count() -> None:
    """RBAC inside of a `List` is RBAC."""
    bundle = {"apiVersion": "v1", "kind": "List", "items": role(rule("delete", "pods"))}

    assert [kind for _, kind, _ in changes_of(side(job()), side(job(), bundle))] == [
        ChangeKind.RIGHTS
    ]


def test_another_service_account_brings_other_rights() -> None:
    """What changes is what the operario may, not only the account's name."""
    roles = role(rule("delete", "nodes"), subject={"kind": "ServiceAccount", "name": "admin"})
    changes = changes_of(side(job(), roles), side(job(pod={"serviceAccountName": "admin"}), roles))

    assert changes[0] == (
        ChangeEffect.WIDENS,
        ChangeKind.RIGHTS,
        "may now delete nodes in all namespaces",
    )


def test_operarios_that_share_an_account_are_told_at_once() -> None:
    """One change of rights for several operarios is one line."""
    operarios = (job(), job("openfero-x-firing"))
    [change] = compare(side(*operarios), side(*operarios, role(rule("get", "pods")))).changes

    assert change.operario == "openfero-hostdown-firing, openfero-x-firing"


def test_malformed_rbac_is_passed_over() -> None:
    """Invalid roles and bindings are skipped."""
    group = "rbac.authorization.k8s.io/v1"
    odd = [
        {"apiVersion": group, "kind": kind, "metadata": 7, "rules": "all", "subjects": [3]}
        for kind in ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "Other")
    ]
    odd.append({"apiVersion": group, "kind": "Role", "rules": [7, {"verbs": [1]}, None]})

    assert changes_of(side(job()), side(job(), odd)) == []


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        (rule("get", "*/scale", "apps"), rule("get", "deployments/scale", "apps")),
        (rule("get", "pods", "*"), rule("get", "pods")),
        (
            {"verbs": ["get"], "nonResourceURLs": ["/logs/*"]},
            {"verbs": ["get"], "nonResourceURLs": ["/logs/a"]},
        ),
    ],
)
def test_what_covers_what(wide: dict[str, Any], narrow: dict[str, Any]) -> None:
    """A right that another covers adds nothing; the wider one adds something to it."""
    both = side(job(), role(wide, narrow))

    assert changes_of(side(job(), role(wide)), both) == []
    assert [kind for _, kind, _ in changes_of(side(job(), role(narrow)), both)] == [
        ChangeKind.RIGHTS
    ]


def test_rights_are_not_mixed_up() -> None:
    """Resources and URLs, one namespace and another, a role by name: none covers another."""
    everything = role(rule("*", "*", "*"), namespace="shop")
    urls = {"verbs": ["get"], "nonResourceURLs": ["/metrics"]}
    elsewhere = role(rule("get", "pods"), namespace="web")
    elsewhere[0]["metadata"]["name"] = elsewhere[1]["roleRef"]["name"] = "other"
    admin = role()[1]
    admin["roleRef"]["name"] = "admin"
    added = changes_of(
        side(job(), everything), side(job(), everything, role(urls), elsewhere, admin)
    )

    expected = (
        "may now get /metrics in all namespaces; do everything that ClusterRole admin allows in all"
        " namespaces; get pods in web"
    )
    assert [sentence for _, _, sentence in added] == [expected]


def test_a_binding_without_a_namespace() -> None:
    """A Role without a namespace is reported as such."""
    objects = role(rule("get", "secrets", resourceNames=["key"]), namespace="x")
    for manifest in objects:
        del manifest["metadata"]["namespace"]

    assert changes_of(side(job()), side(job(), objects)) == [
        (
            ChangeEffect.WIDENS,
            ChangeKind.RIGHTS,
            "may now get secrets named key in the namespace it is applied to",
        )
    ]


def test_rules_beyond_measure() -> None:
    """A rule with too many rights is one right; further clauses are counted."""
    names = [f"n{number}" for number in range(400)]
    huge = {"verbs": names[:60], "resources": names, "apiGroups": [""]}
    many = rule("get", ",".join(names))

    assert (
        "a rule that is too long to compare"
        in changes_of(side(job()), side(job(), role(huge)))[0][2]
    )
    assert changes_of(side(job()), side(job(), role(many)))[0][2].endswith("; and 381 more")


# Who answers.


def test_another_winner_is_told_with_an_example() -> None:
    """If a matcher decides, example labels are shown."""
    general = job("openfero-a", {"alertname": "HostDown", "status": "firing"})
    special = job(
        "openfero-b",
        {
            "alertname": "HostDown",
            "status": "firing",
            "matchers": 'host=~"web-.*"',
            "priority": "5",
        },
    )
    [winner] = compare(side(general), side(general, special)).winners

    assert (winner.before, winner.after, winner.always) == ("openfero-a", "openfero-b", False)
    assert list(winner.labels) == ["host"]
    assert winner.labels["host"].startswith("web-")


@pytest.mark.parametrize("pattern", ["a|b", "web-.+", "(dev|test)-[0-9]+|stage", "x.*y", ".+"])
def test_examples_are_found_for_expressions(pattern: str) -> None:
    """Common regular expressions get an example that they match."""
    first = job("openfero-a", {"alertname": "H", "status": "firing"})
    picky = {"priority": "1", "matchers": f'l=~"{pattern}"'}
    second = job("openfero-b", {"alertname": "H", "status": "firing", **picky})
    difference = compare(side(first), side(first, second))

    assert difference.winners or pattern == "(dev|test)-[0-9]+|stage"


def test_a_priority_that_changes_nothing_is_no_other_winner() -> None:
    """Another priority that changes no match is only a change of an option."""
    difference = compare(side(job()), side(job(options={"priority": "3"})))

    assert difference.winners == ()


@pytest.mark.parametrize(
    ("before", "after", "effect"),
    [
        ('namespace=~"prod-.*"', 'namespace=~"prod-.*|stage"', ChangeEffect.WIDENS),
        ('namespace=~"prod-.*|stage"', 'namespace=~"prod-.*"', ChangeEffect.CHANGES),
        ('namespace="prod"', 'namespace="stage"', ChangeEffect.WIDENS),
    ],
)
def test_matchers_that_match_further_alerts_allow_more(
    before: str, after: str, effect: ChangeEffect
) -> None:
    """A wider expression is not a matcher less, but an alert that had no Job has one now."""
    old, new = job(options={"matchers": before}), job(options={"matchers": after})
    [change] = changes_of(side(old), side(new))
    assert (change[0], change[1]) == (effect, ChangeKind.OPTION)


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (
            {"approval": "required"},
            "openfero-a, which requires approval; its own Jobs start without approval",
        ),
        ({"mode": "dry-run"}, "openfero-a, whose Jobs are dry runs; its own Jobs run"),
    ],
)
@pytest.mark.parametrize("lost", [{"enabled": "false"}, {"priority": "-1"}, None])
def test_an_operario_that_takes_over_without_approval_allows_more(
    option: dict[str, str], sentence: str, lost: dict[str, str] | None
) -> None:
    """An alert whose Jobs no longer wait for approval is reported, whatever the cause."""
    alert = {"alertname": "HostDown", "status": "firing"}
    first = job("openfero-a", {**alert, **option, "priority": "1"})
    after = [] if lost is None else [job("openfero-a", {**alert, **option, **lost})]
    second = job("openfero-b", alert)

    [change] = [
        change
        for change in changes_of(side(first, second), side(second, *after))
        if change[0] is ChangeEffect.WIDENS and "instead" in change[2]
    ]

    assert change[2] == f"matches alert HostDown (firing) instead of {sentence}"


def test_an_operario_that_takes_over_with_approval_allows_no_more() -> None:
    """If both operarios require approval, none is lost; a new requirement is no loss either."""
    needs = {"alertname": "HostDown", "status": "firing", "approval": "required"}
    free = {"alertname": "HostDown", "status": "firing"}
    first, second = job("openfero-a", {**needs, "priority": "1"}), job("openfero-b", needs)

    assert ChangeEffect.WIDENS not in {
        effect
        for before, after in [
            (side(first, second), side(second)),
            (side(job("openfero-b", free)), side(first, job("openfero-b", free))),
        ]
        for effect, _, _ in changes_of(before, after)
    }


# How it is told.

HOSTILE = (
    "`code` ``` |cell| <b>x</b> <!-- c --> **bold** [a](http://e.example) @team #1 &amp; \\| "
    "</code></td></details> www.e.example\n\n# Approved\n\u202egnp.exe $x$ ~~~ ~~s~~"
)
HOSTILES = st.lists(
    st.sampled_from([*HOSTILE.split(), "\n", "\n\n", "```", "`", "|", "\\", "<", "- ", "    "])
).map("".join)
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")


class Skeleton(HTMLParser):
    """The tags of a page, in order; text by where it may stand."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """Note an opening tag."""
        self.tags.append(f"<{tag}>" if not attrs or tag in ("code", "table") else f"<{tag} …>")

    def handle_endtag(self, tag: str) -> None:
        """Note a closing tag."""
        self.tags.append(f"</{tag}>")

    def handle_comment(self, data: str) -> None:
        """Note a comment: there is one, ours."""
        self.tags.append(f"<!--{data}-->")

    def handle_data(self, data: str) -> None:
        """Note the text."""
        self.text.append(data)


def hostile_difference(text: str) -> BehaviorDiff:
    """Make a difference whose every quote is a stranger's text."""
    before = job(options={"matchers": "a=1"}, env=[{"name": "A", "value": "b"}], args=["x\ny"])
    after = copy.deepcopy(before)
    container = after["spec"]["template"]["spec"]["containers"][0]
    container["image"] = f"x{text}"
    container["args"] = [f"x\n{text}\ny"]
    container["env"][0]["value"] = f"c{text}"
    after["metadata"]["annotations"]["openfero.io/matchers"] = f"a={json.dumps(f'2{text}')}"
    after["metadata"]["annotations"]["openfero.io/alertname"] = f"Host{text}"
    after["spec"]["template"]["spec"]["volumes"] = [{"name": "v", "hostPath": {"path": f"/{text}"}}]
    rights = role({"verbs": [f"get{text}"], "resources": [f"pods{text}"], "apiGroups": [""]})
    return compare(side(before), side(after, rights))


def skeleton(difference: BehaviorDiff) -> Skeleton:
    """Render the comment as a forge does."""
    return Skeleton(MARKDOWN.render(as_markdown(difference)))


def test_the_comment_is_a_table_and_lines_to_unfold() -> None:
    """The comment begins with its marker and a summary; scripts are folded."""
    difference = compare(side(job(args=["a\nb"])), side(job(args=["a\nc"])))
    page = skeleton(difference)

    assert as_markdown(difference).startswith(
        "<!-- openfero-gitops diff -->\n### Operarios: 1 change in behavior\n"
    )
    assert {"<h3>", "<table>", "<details>", "<summary>", "<pre>"} <= set(page.tags)


def test_hostile_values_do_not_change_the_comment() -> None:
    """A hostile value renders to the same tags as a harmless one."""
    hostile = skeleton(hostile_difference(HOSTILE))
    harmless = skeleton(hostile_difference(re.sub(r"[^\n]", "z", HOSTILE)))

    # (Rows of one rank are in the order of their words.)
    assert Counter(hostile.tags) == Counter(harmless.tags)
    assert "</code></td></details>" in "".join(hostile.text)


@settings(max_examples=scaled(6))
@given(HOSTILES)
def test_no_text_changes_the_comments_structure(text: str) -> None:
    """The same for any mixture of what Markdown and HTML obey."""
    difference = hostile_difference(text)
    if difference.broken:
        return  # it was no operario any more
    tags = skeleton(difference).tags
    assert tags.count("<table>") == 2
    assert tags.count("<details>") == tags.count("</details>")
    assert not {"<a …>", "<img …>", "<b>", "<h1>", "<strong …>", "<del>", "<s>"} & set(tags)
    assert sum(tag.startswith("<!--") for tag in tags) == 1
    assert tags.count("<h3>") == 1


def test_mentions_and_links_are_no_such_things() -> None:
    """A value with @ or www. is escaped outside of line diffs."""
    comment = as_markdown(hostile_difference("@team www.e.example http://e.example"))
    outside = re.sub(r"^(`{3,})diff\n.*?^\1$", "", comment, flags=re.MULTILINE | re.DOTALL)

    assert "@" not in outside
    assert "www." not in outside
    assert "http:" not in outside


def test_a_large_difference_stays_a_comment() -> None:
    """Rows and line diffs that do not fit into a comment are counted."""
    names = [f"openfero-a{number}-firing" for number in range(120)]
    lines = "\n".join(f"line {number} " + "x" * 80 for number in range(12))
    long = "\n".join(map(str, range(300)))
    before = side(*(job(name, args=["x\n"]) for name in names))
    changed = {"image": "&" * 79, "options": {"alertname": "|" * 900}}
    after = side(
        job(names[0], args=[long], **changed),
        *(job(name, args=[lines], **changed) for name in names[1:]),
    )
    comment = as_markdown(compare(before, after))

    assert len(comment) < 65_536
    assert re.search(r"^\| \| \| and \d+ more \|$", comment, re.MULTILINE)
    assert "do not fit into this comment" in comment
    assert "more lines" in comment


def test_control_characters_are_escaped() -> None:
    """Control characters and bidirectional overrides are escaped."""
    text = as_text(hostile_difference("\x1b[2J\u202e\n"))

    assert not set("\x1b\u202e") & set(text)


def test_programs_get_every_change() -> None:
    """The JSON has the documented members."""
    difference = as_json(compare(side(job()), side(job(image="x:2"))))

    assert list(difference) == ["base", "head", "changes", "alerts", "files"]
    [change] = difference["changes"]
    assert list(change) == ["effect", "kind", "operario", "message", "before", "after"]
    assert (change["effect"], change["kind"]) == ("changes", "image")
    assert json.loads(json.dumps(difference)) == difference


def test_the_most_dangerous_comes_first() -> None:
    """Changes are ordered: breaks, allows more, changes, allows less."""
    before = side(("a.yaml", job()), ("b.yaml", job("openfero-b-firing")))
    after = side(
        ("a.yaml", job(options={"max-runs": "9", "max-per-hour": "1"}, image="x:2")),
        ("b.yaml", "a: ["),
        ("r.yaml", role(rule("*", "*"))),
    )
    effects = [change.effect for change in compare(before, after).changes]

    assert effects == [
        ChangeEffect.BREAKS,
        ChangeEffect.WIDENS,
        ChangeEffect.WIDENS,
        ChangeEffect.CHANGES,
        ChangeEffect.NARROWS,
        ChangeEffect.NARROWS,
    ]
    assert compare(before, after).changes[1].kind is ChangeKind.RIGHTS
