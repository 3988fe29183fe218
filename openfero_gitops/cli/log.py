"""Logging of commands: to stderr, one line per event.

In JSON, everything is an event: also what libraries log, Python's warnings, and exceptions that
nobody caught. A program that reads the log can then parse every line.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from openfero_gitops.domain import help as help_page
from openfero_gitops.domain.text import printable

if TYPE_CHECKING:
    import threading
    from collections.abc import MutableMapping
    from types import TracebackType


def to_stderr(form: str, level: str = "info") -> None:
    """Configure logging: JSON for machines, colored text for a terminal."""
    import logging  # noqa: PLC0415

    import structlog  # noqa: PLC0415

    # (Made once: json.dumps would make one for each line.)
    encode = json.JSONEncoder(ensure_ascii=False, default=repr).encode
    renderer: Any = (
        structlog.processors.JSONRenderer(lambda event, **_: encode(event))
        if form == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # With rich installed, the default formatter prints local variables, secrets included.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _escape_controls,
        _add_help,
        *([structlog.processors.format_exc_info] if form == "json" else []),
        renderer,
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # Each line is written at once, so that lines of several threads do not mix.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )

    class Handler(logging.StreamHandler[Any]):
        """Logs what libraries say."""

        def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - of logging
            """Log a message that does not fit its arguments without them."""
            if record.args:
                record.args = None
                self.emit(record)

    handler = Handler(sys.stderr)
    meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.add_logger_name, meta, *processors]
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.captureWarnings(True)  # noqa: FBT003 - signature of the library
    if form == "json":
        _log_uncaught()


def _log_uncaught() -> None:
    """Log exceptions that nobody caught, in place of printing them."""
    import structlog  # noqa: PLC0415

    logger = structlog.get_logger(__name__)

    def of_main_thread(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        logger.critical("internal error", exc_info=(kind, error, traceback))

    def of_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            thread = args.thread.name if args.thread else ""
            logger.critical("internal error in a thread", thread=thread, exc_info=args.exc_value)

    def of_finalizer(args: sys.UnraisableHookArgs) -> None:
        logger.error(
            "exception ignored",
            during=args.err_msg or "finalization",
            object=repr(args.object),
            exc_info=args.exc_value or False,
        )

    import threading  # noqa: PLC0415

    sys.excepthook = of_main_thread
    threading.excepthook = of_thread
    sys.unraisablehook = of_finalizer


def _add_help(
    _logger: object, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Add where to read what to do about a warning or an error."""
    if method not in ("info", "debug"):
        topic = help_page.LOG_TOPICS.get(event["event"])
        if topic is not None:
            event["help"] = help_page.link(topic)
    return event


def _escape_controls(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Escape control characters, so that text from outside writes nothing else on a terminal."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = printable(value, len(value))
    return event
