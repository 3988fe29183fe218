"""Write JUnit XML: a suite of test cases, and its output.

Tools show only one failure per test case, so it contains all problems of the case.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

# Characters that XML 1.0 cannot contain, not even as a reference. Compiled at the first use, since
# it would add 8 ms to every start.
_NO_XML: Final = "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"


@dataclass(frozen=True, slots=True)
class JUnitFailure:
    """Why a test case failed: `message` is one line, `text` has all details."""

    message: str
    text: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class JUnitCase:
    """One test case, at a file and line; it passed if it has no `failure`."""

    name: str
    file: str = ""
    line: int = 0
    failure: JUnitFailure | None = None
    output: str = ""


def suite(name: str, cases: Sequence[JUnitCase], output: str) -> str:
    """Write one suite with its cases in the given order."""
    failures = sum(case.failure is not None for case in cases)
    counts = f'tests="{len(cases)}" failures="{failures}" errors="0" skipped="0"'
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f"<testsuites name={_quoted(name)} {counts}>",
            f"  <testsuite name={_quoted(name)} {counts}>",
            *(_case(name, case) for case in cases),
            f"    <system-out>{_text(output)}</system-out>",
            "  </testsuite>",
            "</testsuites>",
        ]
    )


def _case(name: str, case: JUnitCase) -> str:
    attributes = f"classname={_quoted(name)} name={_quoted(case.name)}"
    if case.file:
        attributes += f" file={_quoted(case.file)}"
    if case.line:
        attributes += f' line="{case.line}"'
    inner = []
    if case.failure:
        kind = f" type={_quoted(case.failure.kind)}" if case.failure.kind else ""
        message = f"message={_quoted(case.failure.message)}"
        inner.append(f"      <failure{kind} {message}>{_text(case.failure.text)}</failure>")
    if case.output:
        inner.append(f"      <system-out>{_text(case.output)}</system-out>")
    if not inner:
        return f"    <testcase {attributes}/>"
    return "\n".join([f"    <testcase {attributes}>", *inner, "    </testcase>"])


def _quoted(value: str) -> str:
    # XML parsers read a line break in an attribute as a space unless it is escaped.
    return f'"{_text(value)}"'.replace("\n", "&#10;").replace("\r", "&#13;").replace("\t", "&#9;")


def _text(value: str) -> str:
    """Escape text for XML; characters that XML cannot contain are replaced."""
    return html.escape(re.sub(_NO_XML, "\ufffd", value))
