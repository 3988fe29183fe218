"""What is read about one remediation, in limited time."""

from __future__ import annotations

import asyncio
import tracemalloc
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.domain.errors import Forbidden, Invalid, NotFound, SourceError, Unavailable
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.web import evidence, slots
from openfero_gitops.web.evidence import TAIL_BYTES, EvidenceReader, read_tail, trace_of
from openfero_gitops.web.slots import Slots
from tests.support.copying import replace
from tests.support.evidence import SampleReader, different
from tests.support.pages import busy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from openfero_gitops.audit.verify import Verification
    from openfero_gitops.domain.errors import ApiError
    from openfero_gitops.domain.remediation import JobKey, Remediation
    from openfero_gitops.web.evidence import Evidence

NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)


async def read(**changes: Any) -> Evidence:
    """Read the sample evidence about the failed remediation."""
    reader = SampleReader(busy(NOW), **changes)
    return await EvidenceReader(reader, reader.verify).read(failed())


def failed() -> Remediation:
    """Return the failed remediation of the busy state."""
    return next(job for job in busy(NOW).jobs if job.phase is Phase.FAILED)


async def test_everything_is_read() -> None:
    """Job, Pods, Events, logs and the verification are read; nothing is missing."""
    found = await read(verification=different())
    assert found.job
    assert found.job["metadata"]["uid"] == failed().uid
    assert len(found.events) == 2
    assert found.logs[0].text.endswith("ready\n")
    assert found.verification == different()
    assert (found.missing, found.unverified) == ((), "")


async def test_only_pods_of_the_job_are_read() -> None:
    """A Pod of somebody else with the label of the Job is not shown, nor its log."""
    found = await read()
    assert [pod["metadata"]["name"] for pod in found.pods] == [f"{failed().key.name}-x7k2p"]
    assert {log.pod for log in found.logs} == {f"{failed().key.name}-x7k2p"}


async def test_api_server_that_fails() -> None:
    """What cannot be read is named with the reason, and the Job is not verified."""
    found = await read(failure=Unavailable("10.0.0.1:6443: no response within 10 s"))
    assert found.job is None
    assert [text.partition(":")[0] for text in found.missing] == [
        "the Job",
        "its Pods",
        "its Events",
    ]
    assert found.unverified == "the Job could not be read"


class Hanging(SampleReader):
    """An API server that does not answer."""

    async def manifest(self, *_: Any) -> dict[str, Any]:
        """Hang."""
        await asyncio.Event().wait()
        raise AssertionError

    pods = events = manifest  # type: ignore[assignment]


async def test_api_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """An API server that does not answer delays the page by the limit only."""
    monkeypatch.setattr(evidence, "_READ_SECONDS", 0.05)
    found = await asyncio.wait_for(EvidenceReader(Hanging(busy(NOW))).read(failed()), 2)
    assert "the Job: the API server did not answer in time" in found.missing
    assert found.unread_pods == "the API server did not answer in time"


async def test_api_server_that_hangs_delays_all_pages_equally(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many remediations are looked at, each page comes in time, with what is known."""
    monkeypatch.setattr(evidence, "_READ_SECONDS", 0.3)
    monkeypatch.setattr(evidence, "Slots", partial(Slots, max_wait_seconds=0.1))
    reader = EvidenceReader(Hanging(busy(NOW)))
    jobs = [replace(failed(), uid=str(number)) for number in range(30)]
    read_all = asyncio.gather(*map(reader.read, jobs))
    found = await asyncio.wait_for(read_all, 2)
    assert [page.unread_pods for page in found[:4]] == ["the API server did not answer in time"] * 4
    assert {page.unread_pods.partition(";")[0] for page in found[4:]} == {
        "4 other remediations are being read from the API server"
    }


def test_the_time_to_read_is_within_the_time_of_a_page() -> None:
    """The wait for a slot and the read end seconds before a page gives up, after 8 s."""
    assert slots.MAX_WAIT_SECONDS + evidence._TOTAL_SECONDS <= 5


class Counting(SampleReader):
    """Counts the reads of Jobs; each takes a moment."""

    reads = 0

    async def manifest(self, key: JobKey) -> dict[str, Any]:
        """Return a Job, later."""
        self.reads += 1
        await asyncio.sleep(0.02)
        return await super().manifest(key)


async def test_requests_for_one_remediation_share_a_read() -> None:
    """Of several requests for a remediation at once, one reads, also if it is cancelled."""
    counting = Counting(busy(NOW))
    reader = EvidenceReader(counting, counting.verify)
    requests = [asyncio.create_task(reader.read(failed())) for _ in range(10)]
    await asyncio.sleep(0.01)
    requests[0].cancel()
    found = await asyncio.gather(*requests[1:])
    assert {id(page) for page in found} == {id(found[0])}
    assert found[0].job
    assert counting.reads == 1
    await reader.read(failed())
    assert counting.reads == 2


async def test_nothing_is_read_for_a_request_that_ended() -> None:
    """A read ends with its last request, and is not begun for a client that left."""
    counting = Counting(busy(NOW))
    reader = EvidenceReader(counting)
    request = asyncio.create_task(reader.read(failed()))
    while not counting.reads:  # noqa: ASYNC110 - a counter has no event
        await asyncio.sleep(0)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    found = await reader.read(failed(), lambda: False)
    assert found.missing == ("the Job, its Pods and its Events: the client disconnected",)
    assert counting.reads == 1


async def test_job_that_was_replaced() -> None:
    """A Job of the same name with another uid is not shown as this one."""
    reader = SampleReader(busy(NOW))
    found = await EvidenceReader(reader, reader.verify).read(replace(failed(), uid="other"))
    assert found.job is None
    assert found.missing == ("the Job was deleted, and another one has its name",)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Forbidden("pods is forbidden"), "set logs.enabled=true"),
        (NotFound("gone"), "the Pod was deleted"),
        (Invalid("container heal is waiting to start"), "no log yet: container heal is"),
        (Unavailable("no response"), "no response"),
    ],
)
async def test_logs_that_cannot_be_read(error: ApiError, text: str) -> None:
    """The page says why there is no log and what to do; everything else is shown."""
    found = await read(log_failure=error)
    assert text in found.logs[0].missing
    assert found.job is not None
    assert found.missing == ()


async def test_verification_that_fails() -> None:
    """If Git cannot be read, the reason is kept."""

    async def verify(_: Mapping[str, Any]) -> Verification:
        raise SourceError("git fetch: could not resolve host git.example.com")

    found = await EvidenceReader(SampleReader(busy(NOW)), verify).read(failed())
    assert found.verification is None
    assert found.unverified == "git fetch: could not resolve host git.example.com"


async def test_verification_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verification that takes too long is given up."""
    monkeypatch.setattr(evidence, "_TOTAL_SECONDS", 0.05)

    async def verify(_: Mapping[str, Any]) -> Verification:
        await asyncio.Event().wait()
        raise AssertionError

    found = await EvidenceReader(SampleReader(busy(NOW)), verify).read(failed())
    assert found.unverified == "it takes longer than 0.05 s"


class Writing(SampleReader):
    """A container with very long lines; records how many lines were asked for."""

    def __init__(self, *lines: bytes) -> None:
        super().__init__(busy(NOW))
        self.lines = lines
        self.asked: list[int] = []
        self.sent = 0

    async def log(self, *_: Any, **options: Any) -> AsyncGenerator[bytes]:
        """Yield the last lines, up to the limit."""
        self.asked.append(options["tail_lines"])
        content = b"".join(self.lines[-options["tail_lines"] :])[: options["limit_bytes"]]
        self.sent += len(content)
        yield content


async def tail(*lines: bytes) -> tuple[Writing, str, bool]:
    """Read the end of a log."""
    writing = Writing(*lines)
    return writing, *(await read_tail(writing, "ns", "pod", "heal"))


async def test_the_end_of_a_log() -> None:
    """The last lines are shown, in memory that does not depend on the length of lines."""
    writing, text, cut = await tail(*([b"x" * 2**20 + b"\n"] * 40), b"the end\n")
    assert text.endswith("the end\n")
    assert len(text) <= TAIL_BYTES
    assert cut
    assert writing.asked == [200, 20, 2, 1]
    assert writing.sent < 2 * 2**20


class LongLog(SampleReader):
    """A log that is as long as what is read of it."""

    async def log(self, *_: Any, **options: Any) -> AsyncGenerator[bytes]:
        """Yield it in pieces, each of which is new."""
        for number in range(options["limit_bytes"] // 2**14 - 1):
            yield bytes([97 + number % 26]) * 2**14


async def test_only_the_end_of_a_log_is_kept() -> None:
    """While a log of half a MiB is read, little more than its end is in memory."""
    tracemalloc.start()
    try:
        text, cut = await read_tail(LongLog(busy(NOW)), "ns", "pod", "heal")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(text), cut) == (TAIL_BYTES, True)
    assert peak < 5 * TAIL_BYTES


async def test_a_short_log_is_whole() -> None:
    """A short log is shown in full, without the colors of terminals."""
    _, text, cut = await tail(b"\x1b[31mred\x1b[0m\r\n", b"\xff\x1b]0;t\x07\n")
    assert text == "red\n\ufffd\x1b]0;t\x07\n"
    assert not cut


async def test_trace_of_what_was_read() -> None:
    """The trace has the moments of the Job, its container and its Events, in order."""
    state = busy(NOW)
    texts = [moment.text for moment in trace_of(failed(), await read(), state, NOW).timeline]
    assert texts[0] == "the alert started firing"
    assert texts.index("Waiting: target-busy: another Job runs") < texts.index(
        "admitted by the leader, after waiting 2s"
    )
    assert any("exited with code 1" in text for text in texts)
