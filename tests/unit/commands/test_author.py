"""Files as in real repositories, and the messages of `validate` for each."""

from __future__ import annotations

import resource
import time
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.author.report import FORMATS
from openfero_gitops.commands.author import CatalogSource, check
from tests.support.paths import FIXTURES

if TYPE_CHECKING:
    from pathlib import Path

SOUND = ((FIXTURES / "rules" / "good") / "probe.yaml").read_bytes()
LIMITS = b"limits: {memory: 64Mi}"
BOMB = b"a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (level, level, b", ".join([b"*a%d" % (level - 1)] * 10))
    for level in range(1, 12)
)


def put(before: bytes, after: bytes) -> bytes:
    """The valid operario with one replacement."""
    assert before in SOUND
    return SOUND.replace(before, after, 1)


FINE = {
    "anchor": put(LIMITS, b"limits: &all {memory: 64Mi}\n            requests: *all"),
    "merge-key": put(LIMITS, b"limits: &all {memory: 64Mi}\n            requests: {<<: *all}"),
    "crlf": SOUND.replace(b"\n", b"\r\n"),
    "byte-order-mark": b"\xef\xbb\xbf" + SOUND,
    "quoted-norway": put(b"metadata:\n", b"metadata:\n  labels: {country: 'NO'}\n"),
    "among-empty-documents": b"---\n---\n" + SOUND + b"---\n# the end\n",
}
WITHOUT_OPERARIO = {
    "empty": b"",
    "empty-documents": b"---\n---\n---\n",
    "comments": b"# nothing yet\n# nor here\n",
    "json": b'{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}}',
    "ten-thousand-documents": b"---\na: 1\n" * 10_000,
}
WRONG = [
    (
        "duplicate-key",
        put(b"metadata:\n", b"metadata:\n  name: openfero-a-firing\n"),
        'disks/full.yaml:5:3: error: key "name" occurs twice',
    ),
    ("alias-bomb", BOMB, "error: the aliases (*name) expand to more than 100000 values"),
    (
        "tab",
        put(b"  template", b"\ttemplate"),
        "disks/full.yaml:6:1: error: a tab indents the line: use spaces",
    ),
    (
        "utf-16",
        SOUND.decode().encode("utf-16"),
        "disks/full.yaml:1:1: error: the file is UTF-16 (save the file as UTF-8;",
    ),
    (
        "latin-1",
        put(b"clean-up", b"cl\xe9an"),
        "disks/full.yaml:13:23: error: byte 0xe9 is not valid UTF-8 (save the file as UTF-8)",
    ),
    (
        "ten-megabytes",
        SOUND + b"#" + b"x" * 10 * 1024 * 1024,
        "disks/full.yaml: error: the file has 10486166 bytes, more than 524288",
    ),
    (
        "ten-thousand-documents",
        b"---\na: 1\n" * 10_000 + b"---\n" + SOUND,
        "error: the file has more than 1000 documents (split the file",
    ),
    (
        "norway",
        put(b"metadata:\n", b"metadata:\n  labels: {country: NO}\n"),
        "disks/full.yaml:4:12: error: country must be a string, not false (put it in quotes:",
    ),
    (
        "picture",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 100,
        "disks/full.yaml:1:1: error: byte 0x89 is not valid UTF-8",
    ),
    (
        "program",
        b"\x7fELF\x02\x01\x01" + b"\0" * 1000,
        "disks/full.yaml:1:1: error: character U+007F is not allowed in YAML",
    ),
]


async def read(folder: Path, content: bytes) -> tuple[int, list[str]]:
    """The number of operarios of a folder with one such file, and a line for each problem."""
    (folder / "disks").mkdir()
    (folder / "disks" / "full.yaml").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.monotonic()
    findings = await check(CatalogSource(str(folder)))
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert time.monotonic() - began < 60
    assert after.ru_maxrss - before.ru_maxrss < 300 * 1024  # KiB
    lines = FORMATS["text"](findings).splitlines()
    return findings.operarios, lines[: len(findings.problems)]


@pytest.mark.parametrize("name", FINE)
async def test_valid_yaml_is_accepted(name: str, tmp_path: Path) -> None:
    """Anchors, merge keys, CRLF and a byte order mark are accepted."""
    assert await read(tmp_path, FINE[name]) == (1, [])


@pytest.mark.parametrize("name", WITHOUT_OPERARIO)
async def test_files_without_operarios_are_no_errors(name: str, tmp_path: Path) -> None:
    """Empty files and other objects are no errors."""
    assert await read(tmp_path, WITHOUT_OPERARIO[name]) == (0, [])


@pytest.mark.parametrize(("name", "content", "message"), WRONG, ids=[name for name, *_ in WRONG])
async def test_each_problem_is_one_line(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    """The message says where the problem is and what to do, without a traceback."""
    assert name
    operarios, (line,) = await read(tmp_path, content)
    assert operarios == 0
    assert message in line
