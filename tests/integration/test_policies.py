"""The chart's admission policy for Jobs on a real API server: what each user may do, and may not.

Every forbidden change is tried in two namespaces: it is refused in that of the chart, and accepted
in one without the policy, which shows that nothing else refuses it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.commands.operator import APPROVE, CANCEL, REFUSE, act_on_job
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import UsageError
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Foreign
from openfero_gitops.jobs import patches
from openfero_gitops.jobs.observe import observe
from tests.support import build
from tests.support.chart import NAME, install_chart, service_account_kubeconfig
from tests.support.cluster import require_kubectl, temporary_namespace
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository
from tests.support.users import Jobs, RequestRefused, Users

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from openfero_gitops.domain.remediation import Remediation
    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster

PATIENCE = 300.0
ADDRESS = {"repository": {"url": "https://git.example.com/operarios.git"}, "replicaCount": 0}
KUEUE = "system:serviceaccount:kueue-system:kueue-controller-manager"
CONTROLLER_MANAGER = "system:kube-controller-manager"
JOB_CONTROLLER = "system:serviceaccount:kube-system:job-controller"
GARBAGE_COLLECTOR = "system:serviceaccount:kube-system:generic-garbage-collector"
#: Patches Jobs as the ClusterRole `admin` allows, and writes their status.
EVE = "eve"
ADA = "ada"
USERS = (EVE, ADA, KUEUE, CONTROLLER_MANAGER, JOB_CONTROLLER, GARBAGE_COLLECTOR)
SERIAL = itertools.count()

Change = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """A namespace with Jobs: who is the controller there, and which users there are."""

    namespace: str
    users: Users
    controller: str | None

    def jobs(self, user: str | None) -> Jobs:
        """Return the Jobs as a user may access them."""
        return Jobs(self.users, self.namespace, user)

    def waiting(
        self, *, approval: bool = False, queue: str | None = None, label: str | None = None
    ) -> str:
        """Create a waiting Job as the controller does; return its name.

        `label` is the queue that Kueue's webhook gives a new Job.
        """
        manifest = job(self.namespace, approval=approval, queue=queue)
        if label is not None:
            manifest["metadata"]["labels"] = {
                **manifest["metadata"]["labels"],
                keys.KUEUE_QUEUE: label,
            }
        return str(self.jobs(self.controller).create(manifest)["metadata"]["name"])

    def read(self, name: str) -> Remediation:
        """Return what the controller reads from a Job."""
        remediation = observe(self.jobs(self.controller).get(name))
        assert not isinstance(remediation, Foreign)
        return remediation

    def running(self, *, queue: str | None = None) -> str:
        """Create a Job, and admit it as the leader does; return its name."""
        name = self.waiting(queue=queue)
        patch = patches.admit(self.read(name), "term", "replica-a", build.NOW)
        self.jobs(self.controller).patch(name, patch)
        return name

    def approved_by_ada(self) -> str:
        """Create a Job that waits for approval, and approve it as Ada; return its name."""
        name = self.waiting(approval=True)
        self.jobs(ADA).patch(name, patches.approve(self.read(name), ADA))
        return name

    def refused(self) -> str:
        """Create a Job, and refuse it as the leader does; return its name."""
        name = self.waiting()
        patch = patches.refuse(self.read(name), "term", Reason.MAX_WAIT, "")
        self.jobs(self.controller).patch(name, patch)
        return name

    def failed(self) -> str:
        """Create a Job that failed, as the controller records it; return its name."""
        name = self.running()
        controller = self.jobs(self.controller)
        controller.merge(name, {"spec": {"activeDeadlineSeconds": 0}})
        wait_until(lambda: self.read(name).finished)
        return name


def job(namespace: str, *, approval: bool = False, queue: str | None = None) -> Change:
    """Return the Job that the controller renders for an alert of its own."""
    labels = {"alertname": "PodCrashLooping", "pod": f"web-{next(SERIAL)}"}
    operario = build.operario(options=Options(approval=approval))
    manifest = build.rendered(build.alert(labels=labels), operario).manifest
    metadata = manifest["metadata"]
    annotations = {**metadata["annotations"], keys.TERM: "before"}
    if queue:
        annotations[keys.QUEUE] = queue
    return {
        **manifest,
        "metadata": {**metadata, "namespace": namespace, "annotations": annotations},
    }


def wait_until(probe: Callable[[], object]) -> None:
    """Wait until a probe returns a true value."""
    deadline = time.monotonic() + PATIENCE
    while not probe():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def users(request: pytest.FixtureRequest, kubeconfig: Path) -> Iterator[Users]:
    """Give requests in the names of users."""
    with Users(require_kubectl(request.config), kubeconfig) as users:
        yield users


@pytest.fixture(scope="module")
def other_namespace(shared_namespace: str, kubectl: Kubectl) -> Iterator[str]:
    """Give a further namespace of the chart, which a test may delete."""
    with temporary_namespace(kubectl, f"{shared_namespace}-other") as name:
        yield name


@pytest.fixture(scope="module")
def protected(
    kubeconfig: Path,
    kubectl: Kubectl,
    users: Users,
    shared_namespace: str,
    jobs_namespace: str,
    other_namespace: str,
) -> Place:
    """Install the chart; give its namespace for Jobs, in which Eve and Ada are admins."""
    install_chart(kubeconfig, shared_namespace, {**ADDRESS, "allowedNamespaces": [other_namespace]})
    controller = f"system:serviceaccount:{shared_namespace}:{NAME}"
    for namespace in (jobs_namespace, other_namespace):
        grant(kubectl, namespace)
        place = Place(namespace, users, controller)
        probe = job(namespace)
        probe["metadata"]["annotations"][keys.POLICY_PROBE] = "1"

        def is_in_force(place: Place = place, probe: Change = probe) -> bool:
            try:
                place.jobs(controller).create(probe)
            except RequestRefused as refusal:
                return "policy version 1" in str(refusal)
            place.jobs(None).delete(probe["metadata"]["name"])
            return False

        # It takes the API server a while until a policy is active.
        wait_until(is_in_force)
    return Place(jobs_namespace, users, controller)


@pytest.fixture(scope="module")
def unprotected(kubectl: Kubectl, users: Users, shared_namespace: str) -> Place:
    """Give a namespace without the policy, with the same rights for Eve and Ada."""
    grant(kubectl, shared_namespace)
    return Place(shared_namespace, users, None)


def grant(kubectl: Kubectl, namespace: str) -> None:
    """Let users and Kueue do in a namespace what RBAC can allow on Jobs."""
    kubectl.create(
        namespace,
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "status"},
            "rules": [
                {
                    "apiGroups": ["batch"],
                    "resources": ["jobs", "jobs/status"],
                    "verbs": ["get", "patch", "update"],
                }
            ],
        },
        *(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": f"users-{name}"},
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io",
                    "kind": kind,
                    "name": name,
                },
                "subjects": [
                    *({"kind": "User", "name": user} for user in USERS),
                    {"kind": "ServiceAccount", "name": "default", "namespace": namespace},
                ],
            }
            for kind, name in (("ClusterRole", "admin"), ("Role", "status"))
        ),
    )


def annotated(**values: str | None) -> Change:
    """Return a merge patch that sets annotations `openfero.io/*`."""
    return {
        "metadata": {
            "annotations": {keys.PREFIX + k.replace("_", "-"): v for k, v in values.items()}
        }
    }


def verdict(decision: str, reason: str, message: str) -> Change:
    """Return a merge patch that records a decision."""
    return annotated(decision=decision, reason=reason, message=message)


WAITING, RUNNING = Place.waiting, Place.running
OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "1"}
CONDITION = {"status": "True", "lastTransitionTime": "2026-11-21T03:04:05Z"}
FAILED = {
    "status": {
        "startTime": "2026-11-21T03:04:05Z",
        "conditions": [{**CONDITION, "type": kind} for kind in ("FailureTarget", "Failed")],
    }
}


#: The state of the Job that Eve changes, her change, the subresource, and part of the refusal.
FORBIDDEN: dict[str, tuple[Callable[[Place], str], Change, str, str]] = {
    "start": (WAITING, {"spec": {"suspend": False}}, "", "only the controller starts this Job"),
    "start-without-suspend": (
        WAITING,
        {"spec": {"suspend": None}},
        "",
        "only the controller starts this Job",
    ),
    "template-label": (
        WAITING,
        {"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}},
        "",
        "spec.template",
    ),
    "template-node": (
        WAITING,
        {"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": "a"}}}}},
        "",
        "spec.template",
    ),
    "template-toleration": (
        WAITING,
        {"spec": {"template": {"spec": {"tolerations": [{"operator": "Exists"}]}}}},
        "",
        "spec.template",
    ),
    "parallelism": (RUNNING, {"spec": {"parallelism": 20}}, "", "spec.parallelism"),
    "backoff-limit": (RUNNING, {"spec": {"backoffLimit": 20}}, "", "spec.backoffLimit"),
    "ttl": (WAITING, {"spec": {"ttlSecondsAfterFinished": 0}}, "", "spec.ttlSecondsAfterFinished"),
    "deadline": (RUNNING, {"spec": {"activeDeadlineSeconds": 0}}, "", "openfero-gitops cancel"),
    "owner": (
        WAITING,
        {"metadata": {"ownerReferences": [OWNER]}},
        "",
        "owner references must not be changed",
    ),
    "finalizer": (
        WAITING,
        {"metadata": {"finalizers": ["example.org/never"]}},
        "",
        "finalizers must not be added",
    ),
    "finalizer-through-status": (
        WAITING,
        {"metadata": {"finalizers": ["example.org/never"]}},
        "/status",
        "finalizers must not be added",
    ),
    "disown": (
        WAITING,
        {"metadata": {"labels": {keys.MANAGED_BY: None}}},
        "",
        f"only the controller writes these labels: {keys.MANAGED_BY}",
    ),
    "rename-owner": (
        WAITING,
        {"metadata": {"labels": {keys.MANAGED_BY: "openfero"}}},
        "/status",
        f"only the controller writes these labels: {keys.MANAGED_BY}",
    ),
    "queue": (WAITING, {"metadata": {"labels": {keys.KUEUE_QUEUE: "q"}}}, "", "these labels"),
    "other-label": (
        WAITING,
        {"metadata": {"labels": {"openfero.io/new": "x"}}},
        "/status",
        "these labels: openfero.io/new",
    ),
    "status": (WAITING, FAILED, "/status", "only Kubernetes and Kueue write the status"),
    "approve-for-another": (
        lambda place: place.waiting(approval=True),
        annotated(approved_by=ADA),
        "",
        'must be the name of the requesting user, "eve"',
    ),
    "approve-for-another-through-status": (
        lambda place: place.waiting(approval=True),
        annotated(approved_by=ADA),
        "/status",
        'must be the name of the requesting user, "eve"',
    ),
    "take-approval-over": (
        Place.approved_by_ada,
        annotated(approved_by=EVE),
        "",
        "another user's approval must not be changed",
    ),
    "withdraw-approval-of-another": (
        Place.approved_by_ada,
        annotated(approved_by=None),
        "",
        "another user's approval must not be changed",
    ),
    "approve-what-runs": (RUNNING, annotated(approved_by=EVE), "", "approved-by"),
    "approve-what-is-refused": (Place.refused, annotated(approved_by=EVE), "", "approved-by"),
    "approve-for-another-with-a-reason": (
        lambda place: place.waiting(approval=True),
        annotated(approved_by=ADA, approval_reason="as agreed"),
        "",
        'must be the name of the requesting user, "eve"',
    ),
    "change-the-reason-of-an-approval": (
        Place.approved_by_ada,
        annotated(approval_reason="as agreed"),
        "",
        "openfero.io/approval-reason",
    ),
    "approve-and-more": (
        lambda place: place.waiting(approval=True),
        annotated(approved_by=EVE, options="{}"),
        "",
        "openfero.io/options",
    ),
    "refuse-for-another": (
        WAITING,
        verdict("refused", "refused-by-human", "refused by ada"),
        "",
        "openfero.io/message",
    ),
    "refuse-for-another-with-a-reason": (
        WAITING,
        verdict("refused", "refused-by-human", "refused by evelyn: no"),
        "",
        "openfero.io/message",
    ),
    "refuse-for-another-reason": (
        WAITING,
        verdict("refused", "max-wait", "refused by eve"),
        "",
        "openfero.io/reason",
    ),
    "refuse-what-runs": (
        RUNNING,
        verdict("refused", "refused-by-human", "refused by eve"),
        "",
        "openfero.io/decision",
    ),
    "refuse-what-is-refused": (
        Place.refused,
        verdict("refused", "refused-by-human", "refused by eve"),
        "",
        "openfero.io/message",
    ),
    "undo-refusal": (
        Place.refused,
        annotated(decision=None, reason=None, message=None),
        "",
        "openfero.io/decision",
    ),
    "cancel-without-deadline": (
        RUNNING,
        verdict("cancelled", "cancelled-by-human", "cancelled by eve"),
        "",
        "openfero.io/decision",
    ),
    "cancel-with-deadline-later": (
        RUNNING,
        {
            **verdict("cancelled", "cancelled-by-human", "cancelled by eve"),
            "spec": {"activeDeadlineSeconds": 100},
        },
        "",
        "openfero.io/decision",
    ),
    "cancel-for-another": (
        RUNNING,
        {
            **verdict("cancelled", "cancelled-by-human", "cancelled by ada"),
            "spec": {"activeDeadlineSeconds": 0},
        },
        "",
        "openfero.io/message",
    ),
    "cancel-what-failed": (
        Place.failed,
        {
            **verdict("cancelled", "cancelled-by-human", "cancelled by eve"),
            "spec": {"activeDeadlineSeconds": 0},
        },
        "",
        "openfero.io/decision",
    ),
    "cancel-and-more": (
        RUNNING,
        {
            **verdict("cancelled", "cancelled-by-human", "cancelled by eve"),
            "spec": {"activeDeadlineSeconds": 0, "ttlSecondsAfterFinished": 0},
        },
        "",
        "spec.ttlSecondsAfterFinished",
    ),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_users_cannot_change_what_the_controller_decided(
    name: str, protected: Place, unprotected: Place
) -> None:
    """The policy refuses the change with its reason; without the policy it succeeds."""
    state, change, subresource, message = FORBIDDEN[name]
    target = state(protected)
    before = protected.jobs(EVE).get(target)
    with pytest.raises(RequestRefused) as refusal:
        protected.jobs(EVE).merge(target, change, subresource)
    assert refusal.value.code == 403
    assert message in str(refusal.value)
    after = protected.jobs(EVE).get(target)
    assert [after["spec"], after["metadata"]["labels"], after["metadata"]["annotations"]] == [
        before["spec"],
        before["metadata"]["labels"],
        before["metadata"]["annotations"],
    ]
    unprotected.jobs(EVE).merge(state(unprotected), change, subresource)


@pytest.mark.parametrize("subresource", ["", "/status"])
@pytest.mark.parametrize("user", [EVE, KUEUE, "default"])
def test_nobody_else_writes_labels_and_annotations_of_the_controller(
    user: str, subresource: str, protected: Place
) -> None:
    """Each one that a Job has or may get is neither added, changed nor removed by others."""
    if user == "default":  # a remediation that was taken over
        user = f"system:serviceaccount:{protected.namespace}:default"
    target = protected.running(queue="q")
    jobs = protected.jobs(user)
    metadata = jobs.get(target)["metadata"]
    later = (
        keys.ADMITTED_AT, keys.ADMITTED_BY, keys.APPROVED_BY, keys.DECISION, keys.LAST_DELIVERED_AT,
        keys.MESSAGE, keys.OPTIONS, keys.REASON, keys.RECEIVED_AT, keys.RESOLVED_AT, keys.TARGET,
        keys.TERM, keys.VERIFIED_SIGNER, keys.STILL_FIRING_AT, keys.EFFECT, keys.EFFECT_AT,
        keys.EFFECT_MESSAGE, keys.PREFIX + "new",
    )  # fmt: skip
    tried = 0
    for field, more in (("annotations", later), ("labels", (keys.MIRROR,))):
        for key in {*metadata[field], *more}:
            for value in ("x", None) if key in metadata[field] else ("x",):
                with pytest.raises(RequestRefused) as refusal:
                    jobs.merge(target, {"metadata": {field: {key: value}}}, subresource)
                assert refusal.value.code == 403, (key, value)
                assert key in str(refusal.value)
                tried += 1
    assert tried > 50
    assert jobs.get(target)["metadata"]["annotations"] == metadata["annotations"]


@pytest.mark.parametrize(
    "user",
    [None, EVE, KUEUE, "default", CONTROLLER_MANAGER, JOB_CONTROLLER],
    ids=["administrator", "user", "kueue", "remediation", "controller-manager", "job-controller"],
)
def test_only_the_controller_creates_its_jobs(
    user: str | None, protected: Place, unprotected: Place
) -> None:
    """Nobody else does, nor takes a Job over; Jobs without the label are as they were.

    A CronJob, or another controller of Kubernetes, creates none for a user either.
    """
    if user == "default":
        user = f"system:serviceaccount:{protected.namespace}:default"
    forged = job(protected.namespace)
    with pytest.raises(RequestRefused, match=r"only the controller .* creates Jobs with"):
        protected.jobs(user).create(forged)
    with pytest.raises(RequestRefused, match=r"only the controller .* creates Jobs with"):
        protected.jobs(user).apply(forged)
    if user not in (CONTROLLER_MANAGER, JOB_CONTROLLER):
        plain = job(protected.namespace)
        del plain["metadata"]["labels"][keys.MANAGED_BY]
        name = protected.jobs(user).create(plain)["metadata"]["name"]
        adopt = {"metadata": {"labels": {keys.MANAGED_BY: keys.MANAGER}}}
        for subresource in ("", "/status"):
            with pytest.raises(RequestRefused, match="only the controller writes these labels"):
                protected.jobs(user).merge(name, adopt, subresource)
        free = {"metadata": {"annotations": {keys.APPROVED_BY: "x", keys.DECISION: "refused"}}}
        protected.jobs(user).merge(name, {**free, "spec": {"suspend": False}})
        protected.jobs(user).delete(name)
    if user in (None, EVE):
        unprotected.jobs(user).create(job(unprotected.namespace))


def test_a_probe_is_refused_to_everybody(protected: Place) -> None:
    """The controller recognizes the policy by that, and its version."""
    probe = job(protected.namespace)
    probe["metadata"]["annotations"][keys.POLICY_PROBE] = "1"
    for user in (protected.controller, None):
        with pytest.raises(RequestRefused, match="policy version 1 is active"):
            protected.jobs(user).create(probe)
    approved = job(protected.namespace)
    approved["metadata"]["annotations"][keys.APPROVED_BY] = ADA
    with pytest.raises(RequestRefused, match="must be the name of the requesting user"):
        protected.jobs(protected.controller).create(approved)


def test_the_controller_writes_only_its_own_config_maps(
    protected: Place, users: Users, shared_namespace: str
) -> None:
    """A stolen token cannot replace those of others, not even by deleting and creating them."""
    path = f"/api/v1/namespaces/{shared_namespace}/configmaps"
    controller = protected.controller

    def write(user: str | None, method: str, name: str) -> None:
        body = {"metadata": {"name": name}} if method == "POST" else None
        users.request(user, method, path if method == "POST" else f"{path}/{name}", body)

    own = [f"openfero-{part}-{'0a' * 16}" for part in ("catalog", "alerts")]
    for name in ("openfero-catalog", "openfero-dry-runs", *own):
        write(controller, "POST", name)
        write(controller, "DELETE", name)

    def is_in_force() -> bool:
        try:
            write(controller, "POST", "another")
        except RequestRefused:
            return True
        write(None, "DELETE", "another")
        return False

    wait_until(is_in_force)
    write(None, "POST", "openfero-catalog-of-another")
    for method, name in (
        ("POST", f"{NAME}-signers"),
        ("DELETE", "openfero-catalog-of-another"),
        ("DELETE", "kube-root-ca.crt"),
    ):
        with pytest.raises(RequestRefused, match="only its own ConfigMaps") as refusal:
            write(controller, method, name)
        assert refusal.value.code == 403


def test_users_may_do_what_is_theirs(protected: Place) -> None:
    """They label, annotate, suspend and delete Jobs, and withdraw their own approval."""
    eve, ada = protected.jobs(EVE), protected.jobs(ADA)
    waiting, running = protected.waiting(), protected.running()
    note = {"metadata": {"labels": {"team": "a"}, "annotations": {"example.org/note": "b"}}}
    eve.merge(waiting, note)
    eve.merge(waiting, {"metadata": {"labels": {"team": None}}}, "/status")
    assert eve.merge(running, {"spec": {"suspend": True}})["spec"]["suspend"] is True
    with pytest.raises(RequestRefused, match="only the controller starts this Job"):
        eve.merge(running, {"spec": {"suspend": False}})
    approved = protected.approved_by_ada()
    ada.merge(approved, annotated(approved_by=None))
    eve.patch(approved, patches.approve(protected.read(approved), EVE, "the disk is full"))
    eve.merge(approved, annotated(approved_by=None))
    eve.patch(approved, patches.approve(protected.read(approved), EVE))
    assert protected.read(approved).approval_reason == ""
    other = protected.waiting()
    eve.patch(other, patches.refuse_by_hand(protected.read(other), EVE, "I do this myself"))
    assert protected.read(other).message == "refused by eve: I do this myself"
    eve.patch(waiting, patches.cancel_by_hand(protected.read(waiting), EVE))
    queued = protected.running(queue="q")
    for name in (running, queued, protected.running()):
        remediation = protected.read(name)
        assert not remediation.waiting
        without_version = [
            operation
            for operation in patches.cancel_by_hand(remediation, EVE, "it does not help")
            if operation["path"] != "/metadata/resourceVersion"
        ]
        eve.patch(name, without_version)
    for name in (waiting, running, approved, queued):
        eve.delete(name)


def test_kueue_starts_and_suspends_what_was_handed_over_to_it(protected: Place) -> None:
    """It admits, preempts and writes its own keys; other Jobs and other fields it cannot change.

    A Job that has the label of a queue from its creation is handed over when it is admitted.
    """
    kueue = protected.jobs(KUEUE)
    handed_over, waiting = protected.running(queue="q"), protected.waiting(queue="q")
    assert kueue.get(handed_over)["spec"]["suspend"] is True
    template = {
        "metadata": {"labels": {"kueue.x-k8s.io/podset": "main"}},
        "spec": {"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}]},
    }
    mine = {"kueue.x-k8s.io/workload": "w"}
    metadata = {"labels": mine, "annotations": mine}
    start = {"metadata": metadata, "spec": {"suspend": False, "template": template}}
    with pytest.raises(RequestRefused):
        kueue.merge(waiting, start)
    kueue.merge(handed_over, start)
    defaulted = protected.waiting(label="default")
    with pytest.raises(RequestRefused, match="only the controller"):
        kueue.merge(defaulted, {"spec": {"suspend": False}})
    admission = patches.admit(protected.read(defaulted), "term", "replica-a", build.NOW)
    protected.jobs(protected.controller).patch(defaulted, admission)
    assert kueue.get(defaulted)["spec"]["suspend"] is True, "Kueue starts it"
    kueue.merge(defaulted, start)
    for change, message in (
        ({"spec": {"parallelism": 9}}, "spec.parallelism"),
        ({"spec": {"activeDeadlineSeconds": 0}}, "spec.activeDeadlineSeconds"),
        ({"metadata": {"labels": {keys.KUEUE_QUEUE: "another"}}}, keys.KUEUE_QUEUE),
    ):
        with pytest.raises(RequestRefused, match=message):
            kueue.merge(handed_over, change)
    stop = kueue.merge(handed_over, {"spec": {"suspend": True}})
    assert stop["spec"]["suspend"] is True
    wait_until(lambda: "startTime" not in kueue.get(handed_over).get("status", {}))
    kueue.merge(handed_over, {"status": {"startTime": None}}, "/status")


def test_kubernetes_controllers_are_not_hindered(
    protected: Place, kubectl: Kubectl, users: Users
) -> None:
    """Status, TTL, and deletion with each propagation policy work, with Pods and without."""
    eve = protected.jobs(EVE)
    names = {how: protected.running() for how in ("Background", "Foreground", "Orphan")}
    pods = (
        f"/api/v1/namespaces/{protected.namespace}/pods?labelSelector=batch.kubernetes.io/job-name="
    )

    def pods_of(name: str) -> list[Change]:
        return list(users.request(None, "GET", pods + name)["items"])

    for name in names.values():
        wait_until(lambda name=name: pods_of(name))
    for propagation, name in names.items():
        eve.delete(name, propagation)
    for name in names.values():
        wait_until(lambda name=name: is_gone(eve, name))
    for propagation in ("Background", "Foreground"):
        wait_until(lambda name=names[propagation]: not pods_of(name))
    assert pods_of(names["Orphan"])
    # A Job that ended is deleted by its TTL.
    failed = protected.failed()
    ttl = [{"op": "add", "path": "/spec/ttlSecondsAfterFinished", "value": 0}]
    protected.jobs(protected.controller).patch(failed, ttl)
    wait_until(lambda: is_gone(eve, failed))
    # With an account for each controller, as most clusters have it.
    waiting = protected.waiting()
    kubectl("annotate", "job", waiting, "-n", protected.namespace, "example.org/a=b")
    protected.jobs(JOB_CONTROLLER).merge(waiting, {"status": {"ready": 0}}, "/status")
    protected.jobs(GARBAGE_COLLECTOR).merge(waiting, {"metadata": {"finalizers": None}})


@pytest.mark.usefixtures("kwok")
def test_a_namespace_with_jobs_can_be_deleted(
    protected: Place, kubectl: Kubectl, other_namespace: str
) -> None:
    """The policy does not keep its waiting and running Jobs."""
    other = Place(other_namespace, protected.users, protected.controller)
    other.waiting()
    other.running()
    kubectl("delete", "namespace", other_namespace, "--wait=false")
    wait_until(lambda: not kubectl("get", "namespace", other_namespace, "--ignore-not-found"))


def is_gone(jobs: Jobs, name: str) -> bool:
    """Whether a Job does not exist any more."""
    try:
        jobs.get(name)
    except RequestRefused as refusal:
        return refusal.code == 404
    return False


def test_a_job_with_very_many_annotations_is_still_the_controllers(protected: Place) -> None:
    """What users add does not make the policy too expensive for the controller or Kubernetes."""
    target = protected.waiting()
    many = {f"example.org/{number}": "" for number in range(3_000)}
    protected.jobs(EVE).merge(target, {"metadata": {"annotations": many}})
    patch = patches.admit(protected.read(target), "term", "replica-a", build.NOW)
    protected.jobs(protected.controller).patch(target, patch)
    protected.jobs(JOB_CONTROLLER).merge(target, {"status": {"ready": 0}}, "/status")
    wait_until(lambda: protected.read(target).started_at)


#: Their Jobs are of different targets, and stay for an hour.
FREE = {"openfero.io/cooldown": "0", "openfero.io/target": "host"}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Create operarios: one that needs approval, and two whose Jobs never end."""
    repository = Repository(tmp_path_factory.mktemp("repository") / "operarios")
    for name, more in {
        "Quick": {},
        "Slow": {},
        "Risky": {"openfero.io/approval": "required"},
        "Stoppable": {"openfero.io/on-resolve": "cancel-running"},
    }.items():
        pod = {"run_for": "forever"} if name in ("Slow", "Stoppable") else {}
        text = operario(name, annotations={**FREE, **more}, **pod)
        repository.write(f"{name.lower()}.json", text)
    repository.write("openfero.yaml", "remember: 1m\n")
    repository.commit("Operarios")
    return repository


@pytest.fixture(scope="module")
def replica(
    protected: Place,
    repository: Repository,
    tmp_path_factory: pytest.TempPathFactory,
    kubeconfig: Path,
    shared_namespace: str,
) -> Iterator[Replica]:
    """Start a replica with the chart's ServiceAccount, which leads."""
    folder = tmp_path_factory.mktemp("replica")
    with Replica(
        folder,
        name="a",
        kubeconfig=service_account_kubeconfig(kubeconfig, shared_namespace, folder),
        roles=False,
        namespace=shared_namespace,
        repository=repository.url,
        jobs_namespace=protected.namespace,
    ) as started:
        started.wait_for(lambda: started.leads, PATIENCE)
        yield started


@pytest.mark.usefixtures("kwok")
def test_the_commands_work_for_users_in_their_own_names(
    replica: Replica, protected: Place, tmp_path: Path, kubeconfig: Path
) -> None:
    """`approve`, `refuse` and `cancel` are recorded, and the approver's name is verified."""
    namespace = protected.namespace
    person = service_account_kubeconfig(kubeconfig, namespace, tmp_path, account="default")
    user = f"system:serviceaccount:{namespace}:default"
    metric = f'openfero_gitops_job_policy_version{{jobs_namespace="{namespace}"}} 1.0'
    replica.wait_for(lambda: metric in replica.read("/metrics"), PATIENCE)
    approved = replica.remediate("Risky", "one", "AwaitingApproval")
    asyncio.run(act_on_job(APPROVE, approved, person, namespace))
    replica.wait_for(lambda: replica.remediation(approved)["phase"] == "Succeeded", PATIENCE)
    shown = replica.remediation(approved)
    assert (shown["approvedBy"], shown["approvalVerified"]) == (user, True)
    refused = replica.remediate("Risky", "two", "AwaitingApproval")
    asyncio.run(act_on_job(REFUSE, refused, person, namespace))
    cancelled = replica.remediate("Slow", "three", "Running")
    asyncio.run(act_on_job(CANCEL, cancelled, person, namespace))
    for job, verb in ((refused, "refused"), (cancelled, "cancelled")):
        message = f"{verb} by {user}"
        replica.wait_for(
            lambda job=job, message=message: replica.remediation(job)["message"] == message,  # type: ignore[misc]
            PATIENCE,
        )
    with pytest.raises(UsageError, match="cannot be approved"):
        asyncio.run(act_on_job(APPROVE, refused, person, namespace))
    conditions = {item["name"]: item["holds"] for item in replica.get("/readyz")["conditions"]}
    assert conditions["job policy"] is True


@pytest.mark.usefixtures("kwok")
def test_the_controller_manages_its_jobs_to_the_end(replica: Replica, protected: Place) -> None:
    """It starts, keeps alive, cancels for a resolved alert, and leaves deletion to the TTL."""
    stopped = replica.remediate("Stoppable", "four", "Running")
    replica.deliver(alert("Stoppable", "resolved", host="four"))
    replica.wait_for(lambda: replica.remediation(stopped)["phase"] == "Cancelled", PATIENCE)
    done = replica.remediate("Quick", "five", "Succeeded")
    jobs = protected.jobs(None)
    received = jobs.get(done)["metadata"]["annotations"][keys.LAST_DELIVERED_AT]

    def is_kept_alive() -> bool:
        replica.deliver(alert("Quick", host="five"))
        return jobs.get(done)["metadata"]["annotations"][keys.LAST_DELIVERED_AT] != received

    replica.wait_for(is_kept_alive, PATIENCE)


@pytest.mark.usefixtures("kwok")
def test_a_replica_reports_that_the_policy_is_missing(
    repository: Repository, tmp_path: Path, kubeconfig: Path, namespace: str
) -> None:
    """Readiness, page and metric say so, and what to do; approvers are unverified."""
    with Replica(
        tmp_path, name="b", kubeconfig=kubeconfig, namespace=namespace, repository=repository.url
    ) as b:
        metric = f'openfero_gitops_job_policy_version{{jobs_namespace="{namespace}"}} 0.0'
        b.wait_for(lambda: metric in b.read("/metrics"), PATIENCE)
        answer = b.get("/readyz")
        assert answer["status"] == "ok"
        [condition] = [each for each in answer["conditions"] if each["name"] == "job policy"]
        assert condition["holds"] is False
        assert (
            f"patch Jobs in namespace {namespace} can also start, approve" in condition["message"]
        )
        assert "jobPolicy.create=true" in condition["message"]
        page = b.read("/")
        assert "Users can change Jobs of the controller" in page
        assert condition["message"].partition("'")[0] in page
        job = b.remediate("Risky", "six", "AwaitingApproval")
        asyncio.run(act_on_job(APPROVE, job, kubeconfig, namespace))
        b.wait_for(lambda: b.remediation(job)["phase"] == "Succeeded", PATIENCE)
        assert b.remediation(job)["approvalVerified"] is False
