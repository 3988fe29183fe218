"""Logging of commands: to stderr, one line per event."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from openfero_gitops.domain.text import printable

if TYPE_CHECKING:
    from collections.abc import MutableMapping


def to_stderr(form: str, level: str = "info") -> None:
    """Configure logging: JSON for machines, colored text for a terminal."""
    import logging  # noqa: PLC0415

    import structlog  # noqa: PLC0415

    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if form == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # With rich installed, the default formatter prints local variables, secrets included.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _escape_controls,
            *([structlog.processors.format_exc_info] if form == "json" else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)


def _escape_controls(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Escape control characters, so that text from outside writes nothing else on a terminal."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = printable(value, len(value))
    return event
