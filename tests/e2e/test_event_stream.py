"""The event stream of a real replica, from an alert to the end of the replica."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.events import listening
from tests.support.replica import PATIENCE_SECONDS, Replica, alert, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.events import EventClient, Received

pytestmark = pytest.mark.cluster


async def find(client: EventClient, event_type: str, **members: str) -> Received:
    """Return the next event of a type with these members; others are passed over."""
    while (event := await client.next()) is not None:
        if event.type == event_type and event.data.items() >= members.items():
            return event
    raise AssertionError("the stream has ended")


async def test_what_happens_is_streamed_until_the_replica_stops(
    tmp_path: Path, kubeconfig: Path, namespace: str
) -> None:
    """A Job's start, an alert without a Job and a new revision are events; SIGTERM ends the stream.

    It ends at once, although deliveries are still accepted for half an hour.
    """
    repository = Repository(tmp_path / "operarios")
    repository.write("hostdown.json", operario("HostDown"))
    repository.commit("Operarios")
    replica = Replica(
        tmp_path,
        name="streaming",
        kubeconfig=kubeconfig,
        namespace=namespace,
        repository=repository.url,
        shutdown_delay="30m",
    )
    with replica:
        await asyncio.to_thread(replica.wait_for, lambda: replica.leads)
        async with asyncio.timeout(PATIENCE_SECONDS), listening(replica.port) as client:
            status, answer = await asyncio.to_thread(
                replica.deliver, alert("HostDown", host="a"), alert("Unknown", host="b")
            )
            assert status == 200, answer
            job = next(item["job"] for item in answer["items"] if item.get("job"))
            started = await find(client, "remediation", job=job, phase="Running")
            assert started.data["operario"] == "openfero-hostdown-firing"
        async with asyncio.timeout(PATIENCE_SECONDS), listening(replica.port) as client:
            await asyncio.to_thread(replica.deliver, alert("Unknown", host="c"))
            heard = await find(client, "alert", alert="Unknown")
            assert heard.data["reason"] == "no-operario"
            repository.write("other.json", operario("Other"))
            commit = repository.commit("Another operario")
        # What comes while the client is not connected is not lost.
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            listening(replica.port, last_id=heard.id) as client,
        ):
            await find(client, "sync", result="activated", commit=commit)
            replica.process.signal(signal.SIGTERM)
            while await client.next() is not None:
                pass
