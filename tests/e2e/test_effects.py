"""Whether remediations help, as seen by Prometheus: all stories of the file happen at once.

A test's operario is played by kwok and by `Healer`: when the Job of an operario with the annotation
`heals` succeeds, the host's problem is over.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self

import pytest

from openfero_gitops.domain import keys
from openfero_gitops.domain.timestamp import format_time, parse_time
from openfero_gitops.effects.assess import UNKNOWN_AFTER
from tests.cluster.controlplane import binaries
from tests.support.attacks import jobs_path
from tests.support.chart import NAME, install_chart, service_account_kubeconfig
from tests.support.monitoring import (
    Hosts,
    alertmanager_pair,
    alerts_of,
    is_alerting,
    is_silenced,
    prometheus,
    silence,
    webhook_route,
)
from tests.support.replica import Replica, operario
from tests.support.repository import Repository
from tests.support.users import MERGE, Jobs, Users

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.prometheus,
    pytest.mark.alertmanager,
    pytest.mark.usefixtures("kwok"),
]

#: An effect that nothing hinders is settled by then, on a very slow machine too.
PATIENCE_SECONDS: Final = 240.0
#: As Kubernetes and we write it.
TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
SECOND: Final = timedelta(seconds=1)
#: An alert that is healed is resolved in a few seconds, on a very slow machine in a minute.
HEALS_WITHIN: Final = timedelta(minutes=5)
#: Of what `members` returns.
EFFECT_KEYS: Final = (keys.EFFECT, keys.EFFECT_AT, keys.EFFECT_MESSAGE)
DURATION: Final = r"(?:\d+m)?(?:\d+s)?"
HELPS = "ServiceDown"
USELESS = "DiskFull"
RETURNS = "LinkFlapping"
SILENCED = "FanSlow"
PROBLEMS: Final = (HELPS, USELESS, RETURNS, SILENCED)


def options(**given: str) -> dict[str, str]:
    """Return the annotations of an operario: these options, and no cooldown."""
    given = {"cooldown": "0", **given}
    return {f"openfero.io/{name.replace('_', '-')}": value for name, value in given.items()}


def useless(heals_within: str = "1s", rerun_after: str = "2s", **pod: str) -> str:
    """Return the operario whose Job exits with 0 and does nothing, except for what `pod` adds."""
    annotations = options(heals_within=heals_within, rerun_after=rerun_after, max_runs="20")
    return operario(USELESS, annotations=annotations, **pod)


@dataclass
class World:
    """All parts: two replicas, the monitoring of hosts, and the Jobs."""

    replicas: tuple[Replica, Replica]
    repository: Repository
    hosts: Hosts
    healer: Healer
    alertmanagers: list[str]
    kubeconfig: Path
    users: Users
    #: As the administrator, and as the controller.
    jobs: Jobs
    controller_jobs: Jobs

    def remediations(self, problem: str, **query: str) -> list[Any]:
        """Return a problem's remediations in the order of their attempts."""
        filters = "".join(f"&{key}={value}" for key, value in query.items())
        items = self.replicas[0].get(f"/api/remediations?alert={problem}{filters}")["items"]
        return sorted(items, key=lambda item: (item["startsAt"], item["attempt"]))

    def wait_for(self, look: Callable[[], Any]) -> Any:
        """Return the first truthy answer."""
        return self.replicas[0].wait_for(look, PATIENCE_SECONDS)

    def settled(self, problem: str, count: int = 1) -> list[Any]:
        """Wait until the first remediations of a problem have an effect; return these.

        The API shows what is stored.
        """

        def look() -> list[Any]:
            items = self.remediations(problem)[:count]
            stored = [self.annotations(item) for item in items]
            effects = [tuple(each.get(key) for key in EFFECT_KEYS) for each in stored]
            shown = [tuple(members(item).values()) for item in items]
            return items if shown == effects and len(items) == count else []

        return list(self.wait_for(look))

    def annotations(self, item: Any) -> dict[str, str]:
        """Return the annotations of a remediation's Job."""
        return dict(self.jobs.get(item["job"])["metadata"]["annotations"])

    def held(self, problem: str, attempt: int) -> Any:
        """Wait until an attempt waits because its operario does not help; return it."""

        def look() -> list[Any]:
            items = self.remediations(problem, phase="Waiting")
            return [i for i in items if (i["attempt"], i["reason"]) == (attempt, "not-helping")]

        return self.wait_for(look)[0]

    def approve(self, item: Any) -> str:
        """Approve a remediation by the command; return its output."""
        job = f"{item['namespace']}/{item['job']}"
        argv = [sys.executable, "-m", "openfero_gitops", "approve", job]
        done = subprocess.run(
            [*argv, f"--kubeconfig={self.kubeconfig}"],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def counted(self, metric: str, problem: str, **labels: str) -> float:
        """Return the sum of a metric of the problem's operario over all replicas.

        It waits until one has counted something.
        """
        wanted = {"operario": f"openfero-{problem.lower()}-firing", **labels}
        pattern = re.compile(rf"^openfero_gitops_{metric}{{(.*)}} (\S+)$", re.MULTILINE)

        def look() -> float:
            return sum(
                float(value)
                for replica in self.replicas
                for pairs, value in pattern.findall(replica.read("/metrics"))
                if all(f'{name}="{text}"' in pairs for name, text in wanted.items())
            )

        return float(self.wait_for(look))

    def events(self, kubectl: Kubectl, item: Any) -> set[str]:
        """Return the reasons of the Events about a Job, when there is one about its effect."""

        def look() -> set[str]:
            events = kubectl.json(
                "get", "events", "-n", item["namespace"],
                f"--field-selector=involvedObject.name={item['job']}",
            )  # fmt: skip
            reasons = {event["reason"] for event in events["items"]}
            return reasons if reasons & {"Healed", "NotHealed", "EffectUnknown"} else set()

        return set(self.wait_for(look))

    def move_back(self, item: Any, age: timedelta) -> None:
        """Replace the Job of an alert by one that is as much older as is given, else the same.

        No Alertmanager may have the alert any more: its next delivery would create another Job.
        """
        name, problem = item["job"], item["alert"]
        for alertmanager in self.alertmanagers:
            self.wait_for(lambda at=alertmanager: not alerts_of(at, problem))
        job = self.jobs.get(name)
        self.jobs.delete(name)
        self.wait_for(lambda: name not in [item["job"] for item in self.remediations(problem)])

        def earlier(value: Any) -> Any:
            return json.loads(
                TIME.sub(lambda at: format_time(moment(at[0]) - age), json.dumps(value))
            )

        metadata = {key: job["metadata"][key] for key in ("name", "labels", "annotations")}
        # The alert is the same; what was done about it was done earlier.
        times = (keys.RECEIVED_AT, keys.LAST_DELIVERED_AT, keys.ADMITTED_AT, keys.RESOLVED_AT)
        for key in times:
            if key in metadata["annotations"]:
                metadata["annotations"][key] = earlier(metadata["annotations"][key])
        spec = {key: value for key, value in job["spec"].items() if key != "selector"}
        labels = spec["template"]["metadata"]["labels"]
        for key in [key for key in labels if "controller-uid" in key]:
            del labels[key]
        # The chart's policy lets nobody else create such a Job.
        self.controller_jobs.create({"metadata": metadata, "spec": spec | {"suspend": True}})
        self.users.request(
            "system:kube-controller-manager",
            "PATCH",
            f"{jobs_path(item['namespace'])}/{name}/status",
            {"status": earlier(job["status"])},
            groups=["system:masters"],
            content_type=MERGE,
        )


class Healer:
    """Ends the problem of a host when a Job that heals has succeeded there.

    What was healed `once` comes back when the Job has been told that the alert is resolved.
    """

    def __init__(self, users: Users, path: str, hosts: Hosts) -> None:
        self._users, self._path, self._hosts = users, path, hosts
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._returned: set[str] = set()
        #: When each Job healed its host, by the name of the Job.
        self.healed_at: dict[str, datetime] = {}

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.3):
            for job in self._users.request(None, "GET", self._path)["items"]:
                pod = job["spec"]["template"]["metadata"].get("annotations") or {}
                heals = pod.get("kwok.openfero.io/heals")
                if heals and job["status"].get("succeeded"):
                    self._heal(job, once=heals == "once")

    def _heal(self, job: Any, *, once: bool) -> None:
        name, annotations = job["metadata"]["name"], job["metadata"]["annotations"]
        labels = json.loads(annotations[keys.ALERT])["labels"]
        host = labels["alertname"], labels["host"]
        if name not in self.healed_at:
            self._hosts.heal(*host)
            self.healed_at[name] = datetime.now(UTC)
        elif once and keys.RESOLVED_AT in annotations and labels["host"] not in self._returned:
            self._returned.add(labels["host"])
            self._hosts.have(*host)


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory,
    kubeconfig: Path,
    shared_namespace: str,
    jobs_namespace: str,
) -> Iterator[World]:
    """Give all parts, with one host that has each of the problems since a moment ago."""
    folder = tmp_path_factory.mktemp("world")
    repository = Repository(folder / "operarios")
    heals_within = f"{HEALS_WITHIN.seconds}s"
    repository.write(
        "helps.json", operario(HELPS, annotations=options(heals_within=heals_within), heals="yes")
    )
    repository.write("useless.json", useless())
    repository.write(
        "returns.json",
        operario(RETURNS, annotations=options(heals_within=heals_within), heals="once"),
    )
    repository.write("silenced.json", operario(SILENCED, annotations=options()))
    repository.commit("Operarios")
    address = {"repository": {"url": "https://git.example.com/operarios.git"}, "replicaCount": 0}
    install_chart(kubeconfig, shared_namespace, address)
    start = {
        "kubeconfig": service_account_kubeconfig(kubeconfig, shared_namespace, folder),
        "roles": False,
        "namespace": shared_namespace,
        "repository": repository.url,
        "jobs_namespace": jobs_namespace,
    }
    with contextlib.ExitStack() as stack:
        a, b = (stack.enter_context(Replica(folder, name=name, **start)) for name in "ab")
        a.wait_for(lambda: a.leads or b.leads)
        hosts = stack.enter_context(Hosts())
        route = webhook_route([a.url, b.url])
        alertmanagers = stack.enter_context(alertmanager_pair(folder, route))
        rules = [hosts.rule(problem) for problem in PROBLEMS]
        url = stack.enter_context(
            prometheus(folder, rules, alertmanagers, hosts.address, resend="4s")
        )
        a.wait_for(lambda: is_alerting(url, len(alertmanagers)))
        users = stack.enter_context(Users(binaries() / "kubectl", kubeconfig))
        healer = stack.enter_context(Healer(users, jobs_path(jobs_namespace), hosts))
        for problem in PROBLEMS:
            hosts.have(problem, f"host-of-{problem.lower()}")
        accounts = (None, f"system:serviceaccount:{shared_namespace}:{NAME}")
        jobs = (Jobs(users, jobs_namespace, account) for account in accounts)
        yield World((a, b), repository, hosts, healer, alertmanagers, kubeconfig, users, *jobs)


def moment(text: str) -> datetime:
    """Parse a time of the API."""
    parsed = parse_time(text)
    assert parsed is not None
    return parsed


def members(item: Any) -> dict[str, str]:
    """Return what the API says about the effect."""
    return {name: item[name] for name in ("effect", "effectAt", "effectMessage")}


def test_a_remediation_that_helps_is_healed(world: World, kubectl: Kubectl) -> None:
    """Its effect names the moment of the resolution, and is the same on every replica."""
    [item] = world.wait_for(lambda: [i for i in world.remediations(HELPS) if i["resolvedAt"]])
    assert (item["phase"], item["effect"]) == ("Succeeded", "pending")
    # Prometheus sees it at its next scrape, and counts in milliseconds.
    seen_after = moment(item["resolvedAt"]) - world.healer.healed_at[item["job"]]
    assert -SECOND < seen_after < HEALS_WITHIN
    world.move_back(item, 4 * HEALS_WITHIN)
    [item] = world.settled(HELPS)
    assert (item["phase"], item["effect"]) == ("Succeeded", "healed")
    assert re.fullmatch(rf"resolved {DURATION} after the Job ended", item["effectMessage"])
    resolved = moment(item["resolvedAt"])
    assert moment(item["effectAt"]) == resolved

    def others() -> list[Any]:
        items = world.replicas[1].get(f"/api/remediations?alert={HELPS}")["items"]
        return [members(other) for other in items]

    world.wait_for(lambda: others() == [members(item)])
    assert world.counted("effects_total", HELPS, effect="healed") == 1
    took = (resolved - moment(item["receivedAt"])).total_seconds()
    assert world.counted("time_to_heal_seconds_sum", HELPS) == pytest.approx(took)
    assert world.events(kubectl, item) >= {"Healed"}


def test_an_alert_that_is_resolved_and_fires_again_was_not_healed(
    world: World, kubectl: Kubectl
) -> None:
    """The effect is not-healed at the moment in which it fired again, which starts another Job."""
    [item] = world.settled(RETURNS)
    assert item["effect"] == "not-healed"
    assert re.fullmatch(rf"fired again {DURATION} after it was resolved", item["effectMessage"])
    again = world.wait_for(lambda: world.remediations(RETURNS)[1:])[0]
    assert item["effectAt"] == again["startsAt"] > item["resolvedAt"]
    assert world.counted("effects_total", RETURNS, effect="not-healed") == 1
    assert world.events(kubectl, item) >= {"NotHealed"}


def test_a_silenced_alert_gives_an_unknown_effect(world: World) -> None:
    """Nothing is heard of it until six hours later; the same Job of seven hours ago is settled."""
    [item] = world.wait_for(lambda: world.remediations(SILENCED, phase="Succeeded"))
    now = datetime.now(UTC)
    silence(world.alertmanagers[0], SILENCED, format_time(now), format_time(now + 3600 * SECOND))
    # Both have it by gossip.
    for alertmanager in world.alertmanagers:
        world.wait_for(lambda at=alertmanager: is_silenced(at, SILENCED))
    world.hosts.heal(SILENCED, item["labels"]["host"])
    for alertmanager in world.alertmanagers:
        world.wait_for(lambda at=alertmanager: not alerts_of(at, SILENCED))
    time.sleep(3)  # in which Alertmanager would have said so three times
    [item] = world.remediations(SILENCED)
    assert (item["resolvedAt"], item["effect"]) == (None, "pending")
    world.move_back(item, UNKNOWN_AFTER + 3600 * SECOND)
    [item] = world.settled(SILENCED)
    assert item["effect"] == "unknown"
    assert item["effectMessage"] == (
        "the alert was not delivered again for 6h15m after the Job ended; it may be silenced"
    )
    assert world.counted("effects_total", SILENCED, effect="unknown") == 1


def test_an_operario_that_does_not_help_waits_for_a_person_or_a_change(world: World) -> None:
    """After three Jobs without effect no more start, but the approved and those of a new commit."""
    items = world.settled(USELESS, 3)
    assert [(item["phase"], item["effect"]) for item in items] == [("Succeeded", "not-healed")] * 3
    for item in items:
        assert re.fullmatch(rf"still firing {DURATION} after the Job ended", item["effectMessage"])
    fourth = world.held(USELESS, 4)
    assert "did not heal the alert" in fourth["message"]
    assert world.approve(fourth).startswith(f"Job {fourth['namespace']}/{fourth['job']} approved")
    assert world.settled(USELESS, 4)[3]["effect"] == "not-healed"
    fifth = world.held(USELESS, 5)
    time.sleep(3)  # in which Alertmanager repeats the alert
    assert [item["attempt"] for item in world.remediations(USELESS) if item["admittedAt"]] == [
        1, 2, 3, 4,
    ]  # fmt: skip
    text = useless(f"{HEALS_WITHIN.seconds}s", rerun_after="10m", heals="yes")
    world.repository.write("useless.json", text)
    commit = world.repository.commit("Let it help")
    [sixth] = world.wait_for(
        lambda: [
            item
            for item in world.remediations(USELESS)
            if item["commit"] == commit and item["resolvedAt"]
        ]
    )
    world.move_back(sixth, 4 * HEALS_WITHIN)
    world.wait_for(lambda: world.remediations(USELESS, effect="healed"))
    *_, fifth, sixth = world.remediations(USELESS)
    assert (sixth["commit"], sixth["attempt"], sixth["effect"]) == (commit, 6, "healed")
    assert (fifth["phase"], fifth["reason"], fifth["admittedAt"]) == (
        "Refused", "not-helping", None,
    )  # fmt: skip
