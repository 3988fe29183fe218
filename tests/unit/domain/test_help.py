"""Each message that asks for something names a section that says what to do."""

from __future__ import annotations

import ast
import io
import json
import re
from typing import TYPE_CHECKING

import structlog

from openfero_gitops.cli import ERROR_TOPICS, log
from openfero_gitops.domain import errors
from openfero_gitops.domain.help import (
    CONDITION_TOPICS,
    EVENT_TOPICS,
    HTTP_TOPICS,
    LOG_TOPICS,
    NO_ACTION,
    PAGE,
    REASON_TOPICS,
    link,
    with_link,
)
from openfero_gitops.domain.reason import Reason
from openfero_gitops.inspection.status import Topic
from openfero_gitops.web import conditions
from openfero_gitops.web.errors import problem_response
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

SECTIONS = (ROOT / "docs/troubleshooting/index.md").read_text()
#: Lines whose event is computed: `delivery` has the level of its code.
COMPUTED = {"delivery"}


def calls() -> Iterator[ast.Call]:
    """Yield every call in the package."""
    for file in sorted((ROOT / "openfero_gitops").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                yield node


def logged() -> set[str]:
    """Return the events of the warnings and errors in the code."""
    found: set[str] = set()
    for call in calls():
        name = ast.unparse(call.func)
        match = re.fullmatch(r"(?:self\.)?_?log(?:ger)?\.(warning|error|critical|exception)", name)
        if match:
            found |= texts(call.args[0])
        elif name.endswith("log_failure"):
            found |= texts(call.args[1])
    return found


def texts(node: ast.expr) -> set[str]:
    """Return the texts that an expression can be."""
    match node:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp(body=body, orelse=orelse):
            return texts(body) | texts(orelse)
        case ast.JoinedStr():
            parts = (p.value if isinstance(p, ast.Constant) else None for p in node.values)
            pattern = "".join(".+" if part is None else re.escape(str(part)) for part in parts)
            found = {event for event in LOG_TOPICS if re.fullmatch(pattern, event)}
            assert found, ast.unparse(node)
            return found
        case ast.Name(id="event"):  # of `log_failure`
            return set()
    raise AssertionError(ast.unparse(node))


def test_every_warning_has_a_topic() -> None:
    """A warning or an error in the log has a topic, or is listed as needing no action."""
    assert logged() | COMPUTED == {*LOG_TOPICS, *NO_ACTION}


def test_every_warning_event_has_a_topic() -> None:
    """A Kubernetes Event of type Warning has a topic."""
    reasons = {
        call.args[1].value
        for call in calls()
        if ast.unparse(call.func) == "Event"
        and len(call.args) > 1
        and isinstance(call.args[1], ast.Constant)
        and any(keyword.arg == "warning" for keyword in call.keywords)
    }
    assert reasons == {*EVENT_TOPICS}


def test_every_condition_has_a_topic() -> None:
    """Each condition of a replica has a topic, which it shows when it does not hold."""
    assert {*conditions._TEXTS} == {*CONDITION_TOPICS}


def test_topics_belong_to_something() -> None:
    """Each reason, and each class of error, exists."""
    assert {*REASON_TOPICS} <= {reason.value for reason in Reason}
    assert all(hasattr(errors, name) for name in ERROR_TOPICS)


def test_every_topic_has_a_section_and_every_section_a_topic() -> None:
    """The page has the fragments that messages name, and no others."""
    tables = (LOG_TOPICS, EVENT_TOPICS, CONDITION_TOPICS, REASON_TOPICS, HTTP_TOPICS, ERROR_TOPICS)
    topics = {topic for table in tables for topic in table.values()}
    topics |= {topic.value for topic in Topic}
    sections = re.findall(r"^\(([a-z-]+)\)=$", SECTIONS, re.MULTILINE)
    assert len(sections) == len({*sections})
    assert {*sections} == topics


def test_a_log_line_carries_its_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning has the member `help`; an information has none."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    configuration = structlog.get_config()
    try:
        log.to_stderr("json")
        logger = structlog.get_logger("test")
        logger.warning("mirror not usable")
        logger.info("mirror not usable")
    finally:
        structlog.configure(**configuration)
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["help"] == f"{PAGE}#mirror"
    assert "help" not in second


def test_a_link_fits_into_a_limit() -> None:
    """A long text is cut, the link is not."""
    assert with_link("It failed", "failed", 200) == f"It failed. See {link('failed')}"
    assert with_link("It failed.", "failed", 200) == f"It failed. See {link('failed')}"
    assert with_link("It failed", "", 200) == "It failed"
    cut = with_link("ü" * 500, "failed", 200)
    assert len(cut.encode()) <= 200
    assert cut.endswith(f"… See {link('failed')}")


def test_a_problem_document_names_its_topic() -> None:
    """The `type` of a refused delivery is the section about it."""
    refused = problem_response(413, "too large", topics=HTTP_TOPICS)
    assert json.loads(refused.body or b"")["type"] == f"{PAGE}#delivery-refused"
    assert json.loads(problem_response(413, "no").body or b"")["type"] == "about:blank"
