"""What commands log."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest
import structlog

from openfero_gitops.cli import log


@pytest.mark.parametrize("form", ["console", "json"])
def test_text_from_outside_cannot_control_the_terminal(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Escape sequences, C1 controls, new lines and marks of text direction are escaped."""
    log.to_stderr(form)
    structlog.get_logger().warning("refused", alert="a\x1b[2J\x9b1m\nb\u202e\x00", other="é")
    [line] = capsys.readouterr().err.splitlines()
    assert not {"\x1b", "\x9b", "\u202e", "\x00"} & set(line)
    assert "[2J" in line
    assert "é" in line


def in_json(script: str) -> tuple[int, list[dict[str, str]]]:
    """Run a script that logs in JSON; return its exit code, and what each line contains."""
    ran = subprocess.run(
        [
            sys.executable,
            *("-X", "dev", "-c"),
            "from openfero_gitops.cli import log\nlog.to_stderr('json')\n"
            + textwrap.dedent(script),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stdout == ""
    events = [json.loads(line) for line in ran.stderr.splitlines()]
    for event in events:
        assert {"event", "level", "timestamp"} <= set(event)
    return ran.returncode, events


@pytest.mark.parametrize(
    ("script", "event", "rest"),
    [
        (
            "import warnings; warnings.warn('old\\nway', DeprecationWarning)",
            "DeprecationWarning: old",
            {"level": "warning", "logger": "py.warnings"},
        ),
        (
            """
            import logging
            try:
                1 / 0
            except ZeroDivisionError:
                logging.getLogger("git.cmd").exception("cannot %s", "fetch")
            """,
            "cannot fetch",
            {"level": "error", "logger": "git.cmd", "exception": "ZeroDivisionError"},
        ),
        (
            "import logging; logging.getLogger('lib').warning('%d of %s', 'three')",
            "%d of %s",
            {"level": "warning", "logger": "lib"},
        ),
        (
            """
            import asyncio
            async def fail():
                raise ValueError("forgotten")
            async def main():
                task = asyncio.create_task(fail())
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                del task
            asyncio.run(main())
            """,
            "Task exception was never retrieved",
            {"level": "error", "logger": "asyncio", "exception": "ValueError: forgotten"},
        ),
        (
            """
            import threading
            def fail():
                raise ValueError("in a thread")
            thread = threading.Thread(target=fail, name="worker")
            thread.start()
            thread.join()
            """,
            "internal error in a thread",
            {"level": "critical", "thread": "worker", "exception": "ValueError: in a thread"},
        ),
        (
            """
            class Closed:
                def __del__(self):
                    raise ValueError("too late")
            Closed()
            """,
            "exception ignored",
            {"level": "error", "exception": "ValueError: too late"},
        ),
        (
            "raise ValueError('nobody caught it')",
            "internal error",
            {"level": "critical", "exception": "ValueError: nobody caught it"},
        ),
        ("open(__import__('os').devnull)", "ResourceWarning", {"logger": "py.warnings"}),
        (
            "import structlog; structlog.get_logger().info('a', lines=['x\\ny'], other='b\\nc')",
            "a",
            {"level": "info", "other": "b\\nc"},
        ),
    ],
    ids=["warning", "library", "format", "task", "thread", "del", "uncaught", "file", "own"],
)
def test_every_line_is_json(script: str, event: str, rest: dict[str, str]) -> None:
    """Whatever is said outside of the program's own log is one line of it."""
    _, events = in_json(script)
    matching = [each for each in events if event in each["event"]]
    assert matching, events
    for name, value in rest.items():
        assert value in matching[0][name]


def test_an_uncaught_exception_is_an_error_of_the_process() -> None:
    """The exit code stays Python's."""
    code, events = in_json("raise ValueError('nobody caught it')")
    assert code == 1
    assert "Traceback" in events[-1]["exception"]
