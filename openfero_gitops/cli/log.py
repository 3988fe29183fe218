"""Logging of commands: to stderr, one line per event."""

from __future__ import annotations

import sys
from typing import Any


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
            *([structlog.processors.format_exc_info] if form == "json" else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
