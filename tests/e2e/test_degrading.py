"""What a replica does and reports while the API server or its own clock is faulty."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web

from tests.support.chart import controller_kubeconfig
from tests.support.cluster import temporary_namespace
from tests.support.gateway import Gateway, forward, status
from tests.support.optional import require
from tests.support.replica import PATIENCE_SECONDS, Replica, alert, group, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.cluster import Kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("kwok")]


@pytest.fixture(scope="module")
def other_namespace(kubectl: Kubectl, shared_namespace: str) -> Iterator[str]:
    """Give a second namespace for Jobs."""
    with temporary_namespace(kubectl, f"{shared_namespace}-other") as name:
        yield name


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, other_namespace: str) -> Repository:
    """Give a repository with an operario for each of two namespaces."""
    made = Repository(tmp_path_factory.mktemp("repository") / "operarios")
    made.write("here.json", operario("Here"))
    elsewhere = json.loads(operario("There"))
    elsewhere["metadata"]["namespace"] = other_namespace
    made.write("there.json", json.dumps(elsewhere))
    made.commit("Operarios")
    return made


@pytest.fixture(scope="module")
def shared_gateway(
    tmp_path_factory: pytest.TempPathFactory,
    kubeconfig: Path,
    shared_namespace: str,
    other_namespace: str,
) -> Iterator[Gateway]:
    """Start a proxy between the replica and the API server."""
    folder = tmp_path_factory.mktemp("gateway")
    controller = controller_kubeconfig(
        kubeconfig, shared_namespace, folder, jobs_namespaces=[shared_namespace, other_namespace]
    )
    with Gateway(controller, folder) as made:
        yield made


@pytest.fixture(scope="module")
def replica(
    tmp_path_factory: pytest.TempPathFactory,
    shared_gateway: Gateway,
    shared_namespace: str,
    other_namespace: str,
    repository: Repository,
) -> Iterator[Replica]:
    """Start a replica and wait until it leads. All tests share it; each has alerts of its own."""
    with Replica(
        tmp_path_factory.mktemp("replica"),
        name="a",
        kubeconfig=shared_gateway.kubeconfig,
        roles=False,
        namespace=shared_namespace,
        repository=repository.url,
        allowed_namespace=other_namespace,
        # On a busy machine the work of a term may take seconds to stop, and the process exits if
        # that takes longer than the lease allows.
        lease_duration="15s",
        renew_deadline="10s",
        retry_period="1s",
    ) as made:
        made.wait_for(lambda: made.leads)
        yield made


@pytest.fixture
def gateway(shared_gateway: Gateway, replica: Replica) -> Iterator[Gateway]:
    """Give the gateway; after the test it forwards everything again, and the replica is ready."""
    yield shared_gateway
    shared_gateway.rule = forward
    replica.wait_for(lambda: readiness(replica) == (200, {}))


def readiness(replica: Replica) -> tuple[int, dict[str, str]]:
    """Return the status of /readyz, and the messages of the conditions that do not hold.

    The chart is not installed here, so that its policy is missing.
    """
    url = replica.url + "/readyz"
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
            code, body = answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            code, body = error.code, json.load(error)
    failing = {c["name"]: c["message"] for c in body["conditions"] if not c["holds"]}
    failing.pop("job policy", None)
    return code, failing


def phases(replica: Replica) -> dict[str, str]:
    """The phase of each remediation, by its alert's host."""
    items = replica.get("/api/remediations")["items"]
    return {item["labels"]["host"]: item["phase"] for item in items}


def is_healed(replica: Replica, *hosts: str) -> Callable[[], bool]:
    """Return a function that returns whether the alerts of these hosts are healed."""
    return lambda: all(phases(replica).get(host) == "Succeeded" for host in hosts)


def creates(request: web.Request) -> bool:
    """Whether it is the creation of a Job."""
    return request.method == "POST" and request.path.endswith("/jobs")


def test_a_slow_api_server_is_reported(gateway: Gateway, replica: Replica) -> None:
    """The response is 503 in time, the replica is not ready, and a repeated delivery is healed."""

    async def slowly(request: web.Request) -> None:
        if creates(request):
            await asyncio.sleep(60)

    gateway.rule = slowly
    code, answer = replica.deliver(alert("Here", host="slow"))
    assert code == 503
    assert answer["items"][0]["reason"] == "api-unavailable"
    code, amiss = readiness(replica)
    assert (code, list(amiss)) == (503, ["deliveries"])
    assert "does not accept Jobs" in amiss["deliveries"]
    gateway.rule = forward
    assert replica.deliver(alert("Here", host="slow"))[0] == 200
    assert readiness(replica) == (200, {})
    replica.wait_for(is_healed(replica, "slow"))


def test_retry_after_is_respected(gateway: Gateway, replica: Replica) -> None:
    """Deliveries are answered with 503; admission waits for as long as Retry-After says."""

    async def throttle(request: web.Request) -> web.Response | None:
        if creates(request) or (request.method == "PATCH" and "/jobs/" in request.path):
            return status(429, "TooManyRequests", "too many requests", {"Retry-After": "5"})
        return None

    assert replica.deliver(alert("Here", host="first"))[0] == 200
    gateway.rule = throttle
    code, _ = replica.deliver(alert("Here", host="second"))
    assert code == 503
    code, amiss = readiness(replica)
    assert (code, list(amiss)) == (503, ["deliveries"])
    assert "throttles" in amiss["deliveries"]

    async def throttle_admission(request: web.Request) -> web.Response | None:
        return None if creates(request) else await throttle(request)

    gateway.rule = throttle_admission
    before = gateway.count("PATCH", "/jobs/here-firing-")
    assert replica.deliver(alert("Here", host="third"))[0] == 200
    replica.wait_for(lambda: gateway.count("PATCH", "/jobs/here-firing-") > before)
    before, began = gateway.count("PATCH", "/jobs/"), time.monotonic()
    time.sleep(10)
    requests, seconds = gateway.count("PATCH", "/jobs/") - before, time.monotonic() - began
    # (Who asks nobody tries each second; a lease that a busy machine loses costs a try more.)
    assert requests <= seconds / 2, "each retry waits for the five seconds of Retry-After"
    gateway.rule = forward
    replica.wait_for(is_healed(replica, "third"))


def test_one_forbidden_namespace_leaves_the_others(
    gateway: Gateway, replica: Replica, other_namespace: str
) -> None:
    """The replica is ready, reports that namespace, and heals alerts of the others."""

    async def forbid(request: web.Request) -> web.Response | None:
        if f"/namespaces/{other_namespace}/" in request.path:
            return status(403, "Forbidden", "no right to Jobs there")
        return None

    gateway.rule = forbid
    gateway.break_watches()
    amiss = {"jobs": f"{other_namespace}: no right to Jobs there"}
    replica.wait_for(lambda: readiness(replica) == (200, amiss))
    code, answer = replica.deliver(alert("There", host="forbidden-there"))
    assert (code, answer["items"][0]["reason"]) == (503, "api-forbidden")
    assert replica.deliver(alert("Here", host="forbidden"))[0] == 200
    replica.wait_for(is_healed(replica, "forbidden"))
    gateway.rule = forward
    replica.wait_for(lambda: readiness(replica) == (200, {}))
    assert replica.deliver(alert("There", host="forbidden-there"))[0] == 200
    replica.wait_for(is_healed(replica, "forbidden", "forbidden-there"))


def test_an_expired_watch_begins_with_a_list(gateway: Gateway, replica: Replica) -> None:
    """After 410 Gone nothing is lost, and the replica becomes ready again."""
    expired = 0

    async def expire(request: web.Request) -> web.Response | None:
        nonlocal expired
        if request.query.get("watch") == "true" and request.path.endswith("/jobs") and expired < 4:
            expired += 1
            return status(410, "Expired", "too old resource version")
        return None

    gateway.rule = expire
    gateway.break_watches()
    assert replica.deliver(alert("Here", host="expired"))[0] == 200
    replica.wait_for(is_healed(replica, "expired"))
    replica.wait_for(lambda: expired == 4)
    replica.wait_for(lambda: readiness(replica) == (200, {}))


def test_a_stalled_watch_is_detected(gateway: Gateway, replica: Replica) -> None:
    """A watch without an event for a Job that was created is replaced by a new list."""
    gateway.silence()
    assert replica.deliver(alert("Here", host="silent"))[0] == 200
    replica.wait_for(is_healed(replica, "silent"), 300)
    assert "the watch is stalled" in replica.process.output
    # Watches that began meanwhile stay silent.
    gateway.speak()
    gateway.break_watches()
    assert replica.deliver(alert("Here", host="heard"))[0] == 200
    replica.wait_for(is_healed(replica, "heard"))


def test_a_full_queue_is_reported(gateway: Gateway, replica: Replica) -> None:
    """Further deliveries are answered with 503 at once, and the replica is not ready.

    Each sender repeats its delivery until it is accepted, as Alertmanager does. So the queue is
    full at some time, however slow the machine is.
    """
    held = asyncio.Event()

    async def hold(request: web.Request) -> None:
        if creates(request):
            await held.wait()

    gateway.rule = hold
    reasons: set[str] = set()

    async def repeat(http: aiohttp.ClientSession, host: str) -> None:
        body = group(alert("Here", host=host))
        while True:
            async with http.post(replica.url + "/alerts", json=body) as answer:
                items = (await answer.json())["items"]
            if answer.status == 200:
                return
            reasons.update(item["reason"] for item in items)
            await asyncio.sleep(1)

    def sender(source: str) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=0, local_addr=(source, 0))
        return aiohttp.ClientSession(connector=connector)

    async def storm() -> None:
        async with (
            asyncio.timeout(600),
            # One source may not have as many connections as there may be deliveries.
            sender("127.0.0.1") as first,
            sender("127.0.0.2") as second,
            asyncio.TaskGroup() as senders,
        ):
            for number in range(300):
                senders.create_task(repeat((first, second)[number % 2], f"h{number}"))
            full = {"deliveries": "256 deliveries are in progress; no more are accepted"}
            seen = None
            while "busy" not in reasons or seen != (503, full):
                await asyncio.sleep(0.05)
                seen = await asyncio.to_thread(readiness, replica)
            gateway._loop.call_soon_threadsafe(held.set)

    asyncio.run(storm())
    assert reasons <= {"busy", "api-unavailable"}
    replica.wait_for(lambda: readiness(replica)[0] == 200)


def test_a_clock_that_jumps_an_hour_stops_its_replica_alone(
    tmp_path: Path,
    kubeconfig: Path,
    kubectl: Kubectl,
    namespace: str,
    repository: Repository,
) -> None:
    """It becomes unready and hands over, another replica remediates, and it recovers."""
    require("faketime", "apt-get install faketime", "faketime")
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    start = {
        "kubeconfig": kubeconfig,
        "namespace": namespace,
        "repository": repository.url,
        "development": False,
    }
    fake = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",  # seconds; reading it for every question takes a core
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with Replica(tmp_path, name="even", **start) as even:
        # (With faketime a sleep may end in EINVAL, and a sync with it: the mirror stands in.)
        kubectl.wait(namespace, "configmap/openfero-catalog", "create")
        with Replica(tmp_path, name="odd", environment=fake, **start) as odd:
            even.process.end()
            odd.wait_for(lambda: odd.leads)
            even.process.start()
            for number, jump in enumerate(("+1h", "-1h")):
                clock.write_text(f"{jump}\n")
                odd.wait_for(lambda: readiness(odd)[0] == 503)
                amiss = readiness(odd)[1]
                assert list(amiss) == ["clock"]
                assert "the clock of this replica" in amiss["clock"]
                code, answer = odd.deliver(alert("Here", host=f"h{number}"))
                assert (code, answer["items"][0]["reason"]) == (503, "clock-wrong")
                even.wait_for(lambda: even.leads)
                assert even.deliver(alert("Here", host=f"h{number}"))[0] == 200
                even.wait_for(is_healed(even, f"h{number}"))
                clock.write_text("+0\n")
                odd.wait_for(lambda: readiness(odd) == (200, {}))
                assert odd.deliver(alert("Here", host=f"h{number}"))[0] == 200
                jobs = even.get("/api/remediations")["items"]
                assert sum(job["labels"]["host"] == f"h{number}" for job in jobs) == 1
