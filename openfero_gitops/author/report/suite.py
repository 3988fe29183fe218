"""JUnit's XML, whatever is told in it: a suite of test cases, and what is said of all of them.

A reader of this format shows one failure of a case, so everything that failed stands in one.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

# What XML 1.0 cannot write, not even as a reference.
_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class JUnitFailure:
    """Why a case failed: `kind` is a word for it, `message` a line, `text` all of it."""

    message: str
    text: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class JUnitCase:
    """One case; without a `failure` it has passed. `file` and `line` are where to look."""

    name: str
    file: str = ""
    line: int = 0
    failure: JUnitFailure | None = None
    output: str = ""


def suite(name: str, cases: Sequence[JUnitCase], output: str) -> str:
    """Write one suite, in the order that is given."""
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
    where = f"classname={_quoted(name)} name={_quoted(case.name)}"
    if case.file:
        where += f" file={_quoted(case.file)}"
    if case.line:
        where += f' line="{case.line}"'
    inner = []
    if case.failure:
        kind = f" type={_quoted(case.failure.kind)}" if case.failure.kind else ""
        message = f"message={_quoted(case.failure.message)}"
        inner.append(f"      <failure{kind} {message}>{_text(case.failure.text)}</failure>")
    if case.output:
        inner.append(f"      <system-out>{_text(case.output)}</system-out>")
    if not inner:
        return f"    <testcase {where}/>"
    return "\n".join([f"    <testcase {where}>", *inner, "    </testcase>"])


def _quoted(value: str) -> str:
    # (A reader takes a line break in an attribute for a space, unless it is written as this.)
    return f'"{_text(value)}"'.replace("\n", "&#10;").replace("\r", "&#13;").replace("\t", "&#9;")


def _text(value: str) -> str:
    """A text as XML, without what XML cannot write."""
    return html.escape(_NO_XML.sub("\ufffd", value))
