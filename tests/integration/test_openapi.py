"""The server against its own OpenAPI document: schemathesis sends what the document allows.

It also sends what it does not allow. Every answer must be one that the document describes.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

from openfero_gitops.web.api.openapi import make_document
from openfero_gitops.web.api.operation import Operation, operations_of
from tests.support.serving import local_server

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = 25
#: Never ends.
STREAM = "/api/events"
#: Bodies are read leniently: an unusable member does not make a delivery unusable.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
#: By summary: several paths do the same.
OPERATIONS = {
    operation.summary: operation
    for operation in operations_of(listener.app for listener in local_server()._listeners)
    if operation.path != STREAM
}.values()
SCHEMA = schemathesis.openapi.from_dict(make_document(OPERATIONS))


def _can_be_wrong(operation: Operation) -> bool:
    """Whether anything can be sent that the document does not allow."""
    has_body = operation.body not in (None, Any)
    return has_body or bool(operation.query and operation.query.model_fields)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Serve the busy sample state, in another thread."""
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    server = local_server()

    def serve() -> None:
        loop.run_until_complete(server.start())
        loop.call_soon(ready.set)
        loop.run_forever()
        loop.run_until_complete(server.stop())
        loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(10)
    yield f"http://127.0.0.1:{server.bound[0].port}"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def _examine(operation: Operation, mode: GenerationMode, address: str, checks: list[Any]) -> None:
    documented = SCHEMA[operation.path][operation.method]
    with requests.Session() as session:

        @given(case=documented.as_strategy(generation_mode=mode))
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def examine(case: Case) -> None:
            response = case.call(base_url=address, session=session, timeout=60)
            case.validate_response(response, checks=checks)

        examine()


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda op: f"{op.method} {op.path}")
def test_answers_to_documented_requests(operation: Operation, address: str) -> None:
    """What the document allows is answered as it describes, and never with 500."""
    _examine(operation, GenerationMode.POSITIVE, address, CHECKS)


@pytest.mark.parametrize(
    "operation",
    [operation for operation in OPERATIONS if _can_be_wrong(operation)],
    ids=lambda op: f"{op.method} {op.path}",
)
def test_answers_to_wrong_requests(operation: Operation, address: str) -> None:
    """What the document does not allow is answered as the document says, and never with 500.

    (Whether it is refused cannot be checked: an object as a parameter may arrive as none.)
    """
    _examine(operation, GenerationMode.NEGATIVE, address, CHECKS)
