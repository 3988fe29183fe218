"""The permissions of the chart's Roles, each taken away from two running replicas.

The API server's audit log shows what they ask for.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.domain import keys
from openfero_gitops.domain.timestamp import format_time
from scripts.chart_permissions import JOBS, PERMISSIONS, RELEASE, ChartPermission
from tests.support import build
from tests.support.audit_log import AccessRequest, requests_in
from tests.support.chart import NAME, Object, render_chart, service_account_kubeconfig
from tests.support.cluster import require_binaries, require_kubectl, temporary_namespace
from tests.support.optional import missing
from tests.support.process import ProcessError
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository
from tests.support.users import MERGE, Users

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.support.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("kwok")]

#: Not the name of other controllers, whose requests are checked after all tests.
ACCOUNT = "examined"
QUEUE = "kueue.x-k8s.io/queue-name"
VALUES: dict[str, Any] = {
    "repository": {"url": "https://git.example.com/operarios.git"},
    "serviceAccount": {"name": ACCOUNT},
}
#: Every value that adds a permission.
ALL_VALUES = {**VALUES, "logs": {"enabled": True}, "kueue": {"readWorkloads": True}}
KINDS = ("ServiceAccount", "Role", "RoleBinding")
SERIAL = itertools.count()

Check = Callable[[], object]


def granted(roles: Sequence[Object]) -> list[tuple[str, str, str, str, str]]:
    """Return what Roles of the chart grant: namespace, group, resource, name and verb."""
    return [
        (JOBS if role["metadata"]["name"].endswith("-jobs") else RELEASE, *each, verb)
        for role in roles
        if role["kind"] == "Role"
        for rule in role["rules"]
        for each in itertools.product(
            rule["apiGroups"], rule["resources"], rule.get("resourceNames", [""])
        )
        for verb in rule["verbs"]
    ]


@dataclass
class World:
    """Two replicas with the Roles of the chart."""

    folder: Path
    control_plane: Cluster
    users: Users
    namespace: str
    jobs_namespace: str
    repository: Repository
    start: dict[str, Any]
    replicas: list[Replica] = field(default_factory=list)
    more: list[Replica] = field(default_factory=list)  # until the permission is granted again
    taken: set[tuple[str, str, str, str, str]] = field(default_factory=set)

    @property
    def audit_log(self) -> Path:
        """What the API server recorded."""
        assert self.control_plane.audit_log is not None
        return self.control_plane.audit_log

    @property
    def any(self) -> Replica:
        """One of the replicas."""
        return self.replicas[0]

    def set_permission(self, permission: ChartPermission, *, granted: bool) -> None:
        """Grant a permission or take it away, and wait until the API server knows it."""
        rules = [
            {
                "apiGroups": [each.group],
                "resources": [each.resource],
                "verbs": [each.verb],
                **({"resourceNames": [each.name]} if each.name else {}),
            }
            for each in PERMISSIONS
            if each.namespace == permission.namespace and (granted or each != permission)
        ]
        name = NAME if permission.namespace == RELEASE else f"{NAME}-jobs"
        roles = "rbac.authorization.k8s.io/v1/roles"
        self.change(roles, permission.namespace, name, {"rules": rules})
        self.any.wait_for(lambda: self.may(permission) is granted)

    def place(self, namespace: str) -> str:
        """Return the name of the namespace that the table of permissions names so."""
        return self.namespace if namespace == RELEASE else self.jobs_namespace

    def may(self, permission: ChartPermission) -> bool:
        """Ask the API server whether the controller has a permission."""
        resource, _, subresource = permission.resource.partition("/")
        attributes = {
            "namespace": self.place(permission.namespace),
            "group": permission.group,
            "resource": resource,
            "subresource": subresource,
            "name": permission.name,
            "verb": permission.verb,
        }
        user = f"system:serviceaccount:{self.namespace}:{ACCOUNT}"
        kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
        review = {**kind, "spec": {"user": user, "resourceAttributes": attributes}}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        return bool(self.users.request(None, "POST", path, review)["status"]["allowed"])

    def requests(self, start: int = 0) -> list[AccessRequest]:
        """Return what the replicas asked of the API server since a position in its log."""
        user = f"system:serviceaccount:{self.namespace}:{ACCOUNT}"
        return list(requests_in(self.audit_log, containing=f'"username":"{user}"', start=start))

    def keys_of(self, requests: Sequence[AccessRequest]) -> set[tuple[str, str, str, str, str]]:
        """Return requests as the table of permissions names them."""
        named = {permission.key for permission in PERMISSIONS if permission.name}
        namespaces = {self.namespace: RELEASE, self.jobs_namespace: JOBS}
        keys = set()
        for request in requests:
            where = namespaces.get(request.namespace, request.namespace)
            key = (where, request.group, request.resource, request.name, request.verb)
            # RBAC grants it for all names.
            keys.add(key if key in named else (*key[:3], "", key[4]))
        return keys

    @contextlib.contextmanager
    def without(self, permission: ChartPermission) -> Iterator[None]:
        """Take a permission away for as long as the block lasts."""
        self.taken.add(permission.key)
        self.set_permission(permission, granted=False)
        try:
            yield
        finally:
            self.end_more()
            self.set_permission(permission, granted=True)

    def end_more(self) -> None:
        """End the replicas that were started besides the two."""
        while self.more:
            self.more.pop().process.end()

    def used(self) -> set[tuple[str, str, str, str, str]]:
        """Return the permissions that requests have used so far."""
        return self.keys_of([request for request in self.requests() if request.allowed])

    def log(self, text: str) -> Check:
        """Return a check that a replica logs a text from now on."""
        lengths = [len(replica.process.output) for replica in self.replicas]
        return lambda: any(
            text in replica.process.output[length:]
            for replica, length in zip(self.replicas, lengths, strict=True)
        )

    def condition(self, name: str, text: str) -> Check:
        """Return a check that a condition of some replica does not hold, with a text."""
        return lambda: any(
            condition["name"] == name and not condition["holds"] and text in condition["message"]
            for replica in self.replicas
            for condition in replica.get("/readyz?verbose")["conditions"]
        )

    def has_leader(self) -> bool:
        """Whether one of the replicas leads."""
        return any(replica.leads for replica in self.replicas)

    def path(self, resource: str, namespace: str, name: str) -> str:
        """Return the path of an object: of `batch/v1/jobs`, for example."""
        *api, plural = resource.split("/")
        root = f"/apis/{'/'.join(api)}" if len(api) > 1 else f"/api/{api[0]}"
        return f"{root}/namespaces/{self.place(namespace)}/{plural}/{name}".rstrip("/")

    def change(self, resource: str, namespace: str, name: str, change: object) -> None:
        """Change an object as an administrator."""
        path = self.path(resource, namespace, name)
        self.users.request(None, "PATCH", path, change, content_type=MERGE)

    def new_term(self) -> None:
        """Release the Lease for its leader, which notices it and takes it again."""
        before = {self.leader_since()}
        self.change(LEASES, RELEASE, NAME, {"spec": {"holderIdentity": ""}})
        self.any.wait_for(lambda: {self.leader_since()} != before)

    def leader_since(self) -> Any:
        """Return when the Lease was taken, and how often before."""
        lease = self.users.request(None, "GET", self.path(LEASES, RELEASE, NAME))
        return lease["spec"].get("acquireTime"), lease["spec"].get("leaseTransitions")

    def commit(self) -> None:
        """Commit a change of the Jobs of all operarios."""
        for name, text in operarios().items():
            self.repository.write(f"{name}.json", text)
        self.repository.commit("Operarios")

    def remediate(self, name: str, phase: str) -> str:
        """Deliver an alert of its own, and return the Job once it is in a phase."""
        return self.any.remediate(name, f"host-{next(SERIAL)}", phase)

    def events_of(self, job: str) -> set[str]:
        """Return the reasons of the controller's Events about a Job."""
        path = self.path("events.k8s.io/v1/events", JOBS, "")
        events = self.users.request(None, "GET", path)["items"]
        about = [event for event in events if event["regarding"]["name"] == job]
        return {
            event["reason"]
            for event in about
            if event["reportingController"] == "openfero.io/openfero-gitops"
        }

    def succeeded(self) -> str:
        """Return a Job that has succeeded."""
        jobs = self.any.get("/api/remediations")["items"]
        done = [str(job["job"]) for job in jobs if job["phase"] == "Succeeded"]
        return done[0] if done else self.remediate("Quick", "Succeeded")

    def page(self, job: str) -> str:
        """Return the page of a remediation."""
        return self.any.read(f"/remediations/{self.jobs_namespace}/{job}")


def operarios() -> dict[str, str]:
    """Return operarios by the names of their files; their Jobs are new ones in every call."""
    pod = {"serial": f"number {next(SERIAL)}"}
    queued = json.loads(operario("Queued", annotations=FREE, **pod))
    queued["metadata"]["labels"] = {QUEUE: "any"}
    account = json.loads(operario("Account", annotations=FREE, **pod))
    account["spec"]["template"]["spec"]["serviceAccountName"] = "default"
    return {
        "quick": operario("Quick", annotations=FREE, **pod),
        "endless": operario("Endless", annotations=FREE, run_for="forever", **pod),
        "failing": operario("Failing", annotations=FREE, fail="true", **pod),
        "queued": json.dumps(queued),
        "account": json.dumps(account),
    }


#: Their Jobs are of different targets, and start at once.
FREE = {"openfero.io/cooldown": "0", "openfero.io/target": "host"}
LEASES = "coordination.k8s.io/v1/leases"
CONTROL = "openfero-control"


def _no_leader(world: World) -> Check:
    """Make the replicas read the Lease again."""
    check = world.condition("leader", "is forbidden")
    world.change(LEASES, RELEASE, NAME, {"spec": {"holderIdentity": ""}})
    return lambda: check() and not world.has_leader()


def _no_lease(world: World) -> Check:
    """Delete the Lease."""
    check = world.condition("leader", "is forbidden")
    world.users.request(None, "DELETE", world.path(LEASES, RELEASE, NAME))
    return lambda: check() and not world.has_leader()


def _lease_is_polled(world: World) -> Check:
    """Let the other replica watch the Lease again; count how often it reads the Lease."""
    world.new_term()
    start = world.audit_log.stat().st_size
    return lambda: (
        sum(
            (request.resource, request.verb) == ("leases", "get")
            for request in world.requests(start)
        )
        >= 5
    )


def _pause_is_unknown(world: World) -> Check:
    """Let a replica begin to lead."""
    world.new_term()
    return world.condition("control", f"cannot read ConfigMap {CONTROL}")


def _pause_is_not_confirmed(world: World) -> Check:
    check = world.log("cannot acknowledge a request yet")
    request = f"request-{next(SERIAL)}"
    world.change("v1/configmaps", RELEASE, CONTROL, {"data": {"request": request}})
    return check


def _sync_has_no_event(world: World) -> Check:
    check = world.log("cannot write an Event")
    world.repository.write("broken.json", f"broken {next(SERIAL)}: {{")
    world.repository.commit("Broken")
    return check


def _leader_has_no_event(world: World) -> Check:
    check = world.log("cannot write an Event")
    world.new_term()
    world.new_term()
    return check


def _delivery_is_refused(world: World) -> Check:
    def is_refused() -> bool:
        status, answer = world.any.deliver(alert("Quick", host=f"host-{next(SERIAL)}"))
        return (status, answer["items"][0]["reason"]) == (503, "api-forbidden")

    return is_refused


def _commit_logs(text: str) -> Callable[[World], Check]:
    """Return a probe that commits an operario; then a replica logs a text."""

    def commit(world: World) -> Check:
        check = world.log(text)
        world.commit()
        return check

    return commit


def _alert_logs(name: str, text: str) -> Callable[[World], Check]:
    """Return a probe that delivers a new alert of a name; then a replica logs a text."""

    def deliver(world: World) -> Check:
        check = world.log(text)
        world.any.deliver(alert(name, host=f"host-{next(SERIAL)}"))
        return check

    return deliver


def _page_lacks(text: str) -> Callable[[World], Check]:
    def page_lacks(world: World) -> Check:
        job = world.succeeded()
        return lambda: text in world.page(job)

    return page_lacks


def _start_logs(text: str) -> Callable[[World], Check]:
    """Start a further replica, and find a text in its log."""

    def start_logs(world: World) -> Check:
        name = f"more-{next(SERIAL)}"
        replica = Replica(world.folder, name=name, ready=False, **world.start)
        world.more.append(replica)
        with contextlib.suppress(ProcessError):  # it may have ended
            replica.process.start()
        return lambda: text in replica.process.output

    return start_logs


def _job_does_not_start(world: World) -> Check:
    check = world.log("API server rejects changes to a Job")
    _, answer = world.any.deliver(alert("Quick", host=f"host-{next(SERIAL)}"))
    job = answer["items"][0]["job"]
    return lambda: check() and world.any.remediation(job)["phase"] == "Waiting"


def _old_job_stays(world: World) -> Check:
    """Create a refused Job of last week, which a new leader deletes."""
    check = world.log("cannot delete an old Job")
    labels = {"alertname": "Quick", "host": f"host-{next(SERIAL)}"}
    manifest = build.rendered(build.alert(labels=labels), build.operario()).manifest
    long_ago = format_time(datetime.now(UTC) - timedelta(days=7))
    manifest["metadata"]["namespace"] = world.jobs_namespace
    manifest["metadata"]["annotations"] |= {
        keys.RECEIVED_AT: long_ago,
        keys.LAST_DELIVERED_AT: long_ago,
        keys.DECISION: "refused",
        keys.REASON: "max-wait",
    }
    path, job = world.path("batch/v1/jobs", JOBS, ""), manifest["metadata"]["name"]
    world.users.request(None, "POST", path, manifest)
    for replica in world.replicas:
        replica.wait_for(lambda replica=replica: replica.remediation(job)["phase"] == "Refused")  # type: ignore[misc]
    world.new_term()
    return check


def _failure_has_no_message(world: World) -> Check:
    check = world.log("cannot record why a Job failed")
    world.remediate("Failing", "Failed")
    return check


def _repetition_has_no_event(world: World) -> Check:
    """Suspend a Job, resume it, and suspend it again."""
    check = world.log("cannot write an Event")
    job = world.remediate("Endless", "Running")
    for suspend, event in ((True, "Held"), (False, "Resumed"), (True, "Held")):
        world.change("batch/v1/jobs", JOBS, job, {"spec": {"suspend": suspend}})
        world.any.wait_for(lambda event=event: event in world.events_of(job))  # type: ignore[misc]
    return check


#: By the name of a permission: does something that needs it, and returns a check that it failed.
PROBES: dict[str, Callable[[World], Check]] = {
    "release-get-leases-openfero-gitops": _no_leader,
    "release-update-leases-openfero-gitops": _no_leader,
    "release-create-leases": _no_lease,
    "release-watch-leases": _lease_is_polled,
    "release-get-configmaps": _pause_is_unknown,
    "release-list-configmaps": _alert_logs("Unknown", "alerts without a Job are not shared"),
    "release-create-configmaps": _commit_logs("mirror not written"),
    "release-delete-configmaps": _commit_logs("mirror not written"),
    "release-update-configmaps-openfero-catalog": _commit_logs("mirror not written"),
    "release-update-configmaps-openfero-dry-runs": _commit_logs(
        "dry run results could not be saved"
    ),
    "release-patch-configmaps-openfero-control": _pause_is_not_confirmed,
    "release-create-events": _sync_has_no_event,
    "release-patch-events": _leader_has_no_event,
    "jobs-create-jobs": _delivery_is_refused,
    "jobs-get-jobs": _page_lacks("the Job: "),
    "jobs-list-jobs": _start_logs("cannot list Jobs in namespace"),
    "jobs-watch-jobs": _start_logs("cannot watch resource"),
    "jobs-patch-jobs": _job_does_not_start,
    "jobs-delete-jobs": _old_job_stays,
    "jobs-list-pods": _failure_has_no_message,
    "jobs-get-serviceaccounts": _commit_logs("dry runs are not allowed"),
    "jobs-create-events": _alert_logs("Quick", "cannot write an Event"),
    "jobs-patch-events": _repetition_has_no_event,
    "jobs-list-events": _page_lacks("its Events: "),
    "jobs-get-pods-log": _page_lacks("logs.enabled=true"),
    "jobs-list-workloads": _start_logs("the reasons of queued Jobs are not shown"),
}


@pytest.fixture(scope="module")
def world(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    control_plane: Cluster,
    shared_namespace: str,
) -> Iterator[World]:
    """Start two replicas with the chart's Roles, and a remediation that waits for Kueue."""
    if control_plane.audit_log is None:
        missing("the audit log of the API server", "unset KUBECONFIG")
    require_binaries(request.config)
    kubectl, folder = control_plane.kubectl, tmp_path_factory.mktemp("world")
    repository = Repository(folder / "operarios")
    with contextlib.ExitStack() as stack:
        name = f"{shared_namespace}-jobs"
        jobs_namespace = stack.enter_context(temporary_namespace(kubectl, name))
        roles = [each for each in render_chart(shared_namespace, ALL_VALUES)
                 if each["kind"] in KINDS]  # fmt: skip
        kubectl.create(
            shared_namespace,
            *(each for each in roles if each["metadata"]["namespace"] == shared_namespace),
        )
        kubectl.create(
            jobs_namespace,
            *(each for each in roles if each["metadata"]["namespace"] == jobs_namespace),
        )
        world = World(
            folder=folder,
            control_plane=control_plane,
            users=stack.enter_context(
                Users(require_kubectl(request.config), control_plane.kubeconfig)
            ),
            namespace=shared_namespace,
            jobs_namespace=jobs_namespace,
            repository=repository,
            start={
                "kubeconfig": service_account_kubeconfig(
                    control_plane.kubeconfig, shared_namespace, folder, account=ACCOUNT
                ),
                "roles": False,
                "namespace": shared_namespace,
                "jobs_namespace": jobs_namespace,
                "repository": repository.url,
                "development": False,
            },
        )
        world.commit()
        for name in "ab":
            replica = Replica(folder, name=name, **world.start)
            world.replicas.append(stack.enter_context(replica))
        world.any.wait_for(world.has_leader)
        world.remediate("Queued", "Queued")
        yield world


def test_the_table_lists_what_the_roles_grant() -> None:
    """Each permission is once in the Roles and once in the table, with the value that adds it."""
    everything = granted(render_chart("openfero", ALL_VALUES))
    assert sorted(everything) == sorted(permission.key for permission in PERMISSIONS)
    assert sorted(granted(render_chart("openfero", VALUES))) == sorted(
        permission.key for permission in PERMISSIONS if not permission.value
    )
    assert len({str(permission) for permission in PERMISSIONS}) == len(PERMISSIONS)


@pytest.mark.parametrize(
    "values", [VALUES, ALL_VALUES, {**ALL_VALUES, "allowedNamespaces": ["payments", "shop"]}]
)
def test_the_controller_alone_has_roles_and_none_of_the_whole_cluster(
    values: dict[str, Any],
) -> None:
    """Each Role is in the table and bound once, to the controller; there is no ClusterRole."""
    objects = render_chart("openfero", values)
    roles, bindings = (
        {
            (each["metadata"]["namespace"], each["metadata"]["name"]): each
            for each in objects
            if each["kind"] == kind
        }
        for kind in ("Role", "RoleBinding")
    )
    assert {each["kind"] for each in objects if "Role" in each["kind"]} == {"Role", "RoleBinding"}
    assert {namespace for namespace, _ in roles} == {
        "openfero",
        "openfero-jobs",
        *values.get("allowedNamespaces", ()),
    }
    assert bindings.keys() == roles.keys()
    controller = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": "openfero"}
    for (_, name), binding in bindings.items():
        group = "rbac.authorization.k8s.io"
        assert binding["roleRef"] == {"apiGroup": group, "kind": "Role", "name": name}
        assert binding["subjects"] == [controller]
    assert {*granted([*roles.values()])} <= {permission.key for permission in PERMISSIONS}


@pytest.mark.parametrize("permission", PERMISSIONS, ids=str)
def test_something_fails_without_a_permission(world: World, permission: ChartPermission) -> None:
    """Without a permission, what the table says fails, and no other request is forbidden."""
    probe = PROBES[str(permission)]
    start = world.audit_log.stat().st_size
    with world.without(permission):
        fails = probe(world)
        world.any.wait_for(fails)
        forbidden = world.keys_of([each for each in world.requests(start) if not each.allowed])
        assert permission.key in forbidden
        assert forbidden <= world.taken
    world.any.wait_for(world.has_leader)
    if permission.key not in world.used():
        again = probe(world)
        world.any.wait_for(lambda: (again(), permission.key in world.used())[-1])
        world.end_more()
    assert permission.key in (used := world.used())
    assert used <= {each.key for each in PERMISSIONS}
