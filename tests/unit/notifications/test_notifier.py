"""When alerts are sent to which Alertmanager."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from openfero_gitops.domain.errors import AlertmanagerError, ClockWrong
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.timestamp import parse_time
from openfero_gitops.jobs.view import View
from openfero_gitops.leadership.term import TermEnded
from openfero_gitops.notifications.notifier import Notifier
from tests.support.build import NOW, catalog, finished, remediation, running
from tests.support.copying import replace
from tests.support.workers import in_virtual_time, seconds_so_far

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

APPROVAL, REMEDIATING = "OpenFeroApprovalNeeded", "OpenFeroRemediating"


class Receiver:
    """Records what it gets; `failing` and `hanging` are faults."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.failing = self.hanging = False
        self.ahead = timedelta(0)  # of its clock
        #: Of each request the time and the alerts: their names, and seconds until they end.
        self.requests: list[tuple[float, list[tuple[str, float]]]] = []
        self.attempts = 0

    async def send(self, alerts: Sequence[Mapping[str, Any]]) -> datetime | None:
        """Accept alerts, or not."""
        self.attempts += 1
        if self.hanging:
            await asyncio.sleep(5)
            raise AlertmanagerError("no answer within 5 s")
        if self.failing:
            raise AlertmanagerError("Connection refused")
        now = now_is()
        ends = [parse_time(alert["endsAt"]) or now for alert in alerts]
        names = [str(alert["labels"]["alertname"]) for alert in alerts]
        left = [(end - now).total_seconds() for end in ends]
        self.requests.append((seconds_so_far(), list(zip(names, left, strict=True))))
        return (now + self.ahead).replace(microsecond=0)

    def of(self, name: str) -> list[tuple[float, float]]:
        """When an alert was sent, and seconds until its end."""
        return [
            (at, left) for at, alerts in self.requests for alert, left in alerts if alert == name
        ]


class Term:
    """A term of leadership that may end."""

    ended = False

    def check(self) -> None:
        """Raise if it has ended."""
        if self.ended:
            raise TermEnded("ended")


class Stage:
    """A notifier with two Alertmanagers."""

    def __init__(self) -> None:
        self.receivers = [Receiver("http://a"), Receiver("http://b")]
        self.view = View()
        self.view.expect(["jobs"])
        self.term = Term()
        self.counted: list[tuple[str, str]] = []
        self.open: Mapping[str, int] = {}
        self.notifier = Notifier(
            receivers=self.receivers,
            view=self.view,
            catalog=catalog,
            counts=self,
            now=self.now,
        )
        self.clock_wrong = False
        self._version = 10

    def now(self) -> datetime:
        """Return the time, unless the replica's clock is wrong."""
        if self.clock_wrong:
            raise ClockWrong("the clock jumped")
        return now_is()

    def notifications(self, alerts: Mapping[str, int]) -> None:
        """Set the gauge."""
        self.open = alerts

    def notified(self, url: str, result: str) -> None:
        """Count a request."""
        self.counted.append((url, result))

    def show(self, *jobs: Any) -> None:
        """Let the view contain these Jobs alone."""
        self._version += 1
        version = str(self._version)
        self.view.replace("jobs", [replace(job, resource_version=version) for job in jobs], version)

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[asyncio.Task[None]]:
        """Run the notifier, and cancel it at the end."""
        task = asyncio.create_task(self.notifier.run(self.term))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait({task})


def now_is() -> datetime:
    """Return the wall clock, which follows virtual time."""
    return NOW + timedelta(seconds=seconds_so_far())


UNAPPROVED = remediation("w", phase=Phase.AWAITING_APPROVAL)


@in_virtual_time
async def test_alerts_are_sent_at_once_and_again() -> None:
    """Those that hold back a page more often, and they end sooner by themselves."""
    stage = Stage()
    stage.show(UNAPPROVED, running("r"))
    async with stage.leading():
        await asyncio.sleep(125)

    for receiver in stage.receivers:
        approvals, holding = receiver.of(APPROVAL), receiver.of(REMEDIATING)
        assert [round(at / 60) for at, _ in approvals] == [0, 1, 2]
        assert {left for _, left in approvals} == {240.0}
        assert {left for _, left in holding} == {30.0}
        assert 12 <= len(holding) <= 15
        gaps = [b - a for (a, _), (b, _) in itertools.pairwise(holding)]
        assert max(gaps) <= 10
    assert {url for url, _ in stage.counted} == {"http://a", "http://b"}


@in_virtual_time
async def test_a_change_is_sent_within_seconds_and_what_is_over_ends() -> None:
    """The end is the time at which it is sent."""
    stage = Stage()
    stage.show(running("r"))
    async with stage.leading():
        await asyncio.sleep(5)
        assert stage.open == {REMEDIATING: 1}
        changed = seconds_so_far()
        stage.show(finished("r", phase=Phase.FAILED))
        await asyncio.sleep(2)
        [receiver, _] = stage.receivers
        at, alerts = receiver.requests[-1]
        assert at - changed < 2
        assert alerts == [("OpenFeroRemediationFailed", 240.0), (REMEDIATING, 0.0)]
        await asyncio.sleep(20)
        assert receiver.of(REMEDIATING)[-1] == (at, 0.0)
    assert stage.open == {}


@in_virtual_time
async def test_a_leader_that_stops_ends_nothing() -> None:
    """The next one sends the same alerts, so that nothing flaps."""
    first, second = Stage(), Stage()
    for stage in (first, second):
        stage.show(UNAPPROVED, running("r"))
        async with stage.leading():
            await asyncio.sleep(5)
    lefts = [left for stage in (first, second) for at, left in stage.receivers[0].of(REMEDIATING)]
    assert 0.0 not in lefts
    assert first.receivers[0].requests[0][1] == second.receivers[0].requests[0][1]


@pytest.mark.parametrize("fault", ["failing", "hanging"])
def test_an_alertmanager_that_does_not_answer_delays_nothing_else(fault: str) -> None:
    """It is tried every few seconds, named as the trouble, and gets the current state later."""

    @in_virtual_time
    async def test() -> None:
        stage = Stage()
        broken, good = stage.receivers
        setattr(broken, fault, True)
        stage.show(UNAPPROVED)
        async with stage.leading():
            await asyncio.sleep(60)
            stage.show(running("r"))
            await asyncio.sleep(2)
            assert good.of(REMEDIATING)
            cause = "Connection refused" if fault == "failing" else "no answer within 5 s"
            assert stage.notifier.trouble == f"cannot send alerts to http://a: {cause}"
            assert ("http://a", "failed") in stage.counted
            assert ("http://b", "failed") not in stage.counted
            assert 3 <= broken.attempts <= 15
            broken.failing = broken.hanging = False
            await asyncio.sleep(16)
            assert stage.notifier.trouble == ""
            assert {left for _, left in broken.of(REMEDIATING)} == {30.0}
            # Whether it accepted the other alert is not known.
            assert [left for _, left in broken.of(APPROVAL)] == [0.0]
        assert stage.notifier.trouble == ""

    test()


@in_virtual_time
async def test_without_alerts_an_empty_request_checks_the_connection() -> None:
    """A wrong address is noticed before somebody must be notified."""
    stage = Stage()
    stage.show()
    async with stage.leading():
        await asyncio.sleep(121)
        receiver, failing = stage.receivers
        assert [alerts for _, alerts in receiver.requests] == [[], [], []]
        failing.failing = True
        await asyncio.sleep(61)
        assert stage.notifier.trouble == "cannot send alerts to http://b: Connection refused"


@in_virtual_time
async def test_nothing_is_sent_before_all_jobs_are_known() -> None:
    """An alert must not end because its Job was not listed yet."""
    stage = Stage()
    async with stage.leading():
        await asyncio.sleep(90)
    assert stage.receivers[0].attempts == 0


@in_virtual_time
async def test_nothing_is_sent_after_the_end_of_the_term() -> None:
    """Another replica may lead, and have ended an alert."""
    stage = Stage()
    stage.show(running("r"))
    async with stage.leading() as task:
        await asyncio.sleep(5)
        sent = len(stage.receivers[0].requests)
        stage.term.ended = True
        with pytest.raises(TermEnded):
            await task
    assert len(stage.receivers[0].requests) == sent


@in_virtual_time
async def test_more_alerts_than_the_limit_are_reported() -> None:
    """The number of those that are not sent is part of the trouble."""
    stage = Stage()
    stage.show(
        *(running(f"r{n}", labels={"alertname": "R", "n": str(n)}) for n in range(1003)),
    )
    async with stage.leading():
        await asyncio.sleep(10)
        assert stage.notifier.trouble == (
            "3 alerts not sent to Alertmanager: the limit is 1000 alerts or 2 MiB; the most urgent "
            "are sent"
        )


@pytest.mark.parametrize(
    ("ahead", "message"),
    [
        (45, "44 s ahead of the controller's, so OpenFeroRemediating ends too early"),
        (-45, "44 s behind the controller's, so OpenFeroRemediating ends too late"),
        (15, ""),
        (-15, ""),
    ],
)
@in_virtual_time
async def test_an_alertmanager_with_another_clock_is_reported(ahead: int, message: str) -> None:
    """It decides by its own clock when an alert has ended."""
    stage = Stage()
    stage.show(running("r"))
    stage.receivers[0].ahead = timedelta(seconds=ahead)
    expected = f"http://a: its clock is {message}; synchronize the clocks" if message else ""
    async with stage.leading():
        await asyncio.sleep(5)
        assert stage.notifier.trouble == expected
        stage.receivers[0].ahead = timedelta(0)
        await asyncio.sleep(20)
        assert stage.notifier.trouble == ""


@in_virtual_time
async def test_a_clock_difference_is_reported_again_only_after_a_change() -> None:
    """Each comparison has a slightly different result, also around the limit."""
    stage = Stage()
    stage.show(running("r"))
    receiver = stage.receivers[0]
    with capture_logs() as entries:
        async with stage.leading():
            for ahead in (22, 20, 23, 19, 22, 40, 41, 39, 10, 0):
                receiver.ahead = timedelta(seconds=ahead)
                await asyncio.sleep(12)
    logged = [entry["error"] for entry in entries if entry["event"].startswith("the clock of")]
    assert [text.partition("is ")[2].partition(" ahead")[0] for text in logged] == ["21 s", "39 s"]


@in_virtual_time
async def test_nothing_is_sent_with_a_wrong_clock() -> None:
    """It ends the term, as for all other work of the leader."""
    stage = Stage()
    stage.show(UNAPPROVED)
    async with stage.leading() as task:
        await asyncio.sleep(5)
        sent = len(stage.receivers[0].requests)
        stage.clock_wrong = True
        await asyncio.sleep(70)
        assert isinstance(task.exception(), ClockWrong)
        assert len(stage.receivers[0].requests) == sent
