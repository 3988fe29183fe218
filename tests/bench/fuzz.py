"""`make fuzz`: files and payloads that nobody wrote with care, from a seed.

Half of the cases are files: fixtures and generated Jobs, torn, spliced and repeated, or text that
is made of what YAML gives a meaning. They are judged as a repository is, and what is in force is
rendered. The other half are bodies of deliveries, read, matched and rendered. A case fails by
raising anything, by taking longer than `PATIENCE`, and by a finding without words or beside its
file; all of them fail by memory beyond `MEMORY`. Time is the processor's: what is judged is pure
and waits for nothing, so that a busy machine makes no case slow, and no loop goes unnoticed.

    make fuzz N=100000 SEED=7      so many, on both cores
    make fuzz SEED=7 CASE=4711     that one again, with its traceback and its bytes in a file
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import multiprocessing
import random
import re
import secrets
import signal
import sys
import tempfile
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from openfero_gitops.catalog.build import Scope, build_catalog
from openfero_gitops.delivery.alertmanager import read_payload
from openfero_gitops.delivery.match import Match, match
from openfero_gitops.domain.catalog import Revision, Snapshot, SourceFile
from openfero_gitops.domain.errors import CatalogRefusal, PayloadError
from openfero_gitops.jobs.render import render
from tests.support.build import alert, delivery
from tests.support.mutated_jobs import mutants, sound_jobs
from tests.support.paths import FIXTURES, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openfero_gitops.domain.alert import AlertGroup
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.problem import Problem

# Seconds of a processor for one case. Half of 30,000 took 0.1 ms, the slowest 50 ms.
PATIENCE: Final = 1.0
# Bytes that a process may have at its peak. It has 52 MiB, nearly all of them code.
MEMORY: Final = 96 * 1024 * 1024
CHUNK: Final = 500

REVISION: Final = Revision("repository", "main", "commit")
SCOPE: Final = Scope("jobs", ("jobs",))

_YAML: Final = (
    *("a", "b", "kind", "metadata", "apiVersion: batch/v1\nkind: Job\n", "openfero.io/matchers: "),
    *(": ", ":", "- ", "-", "? ", "[", "]", "{", "}", ", ", "&a ", "*a", "<<: ", "!!int ", "!x "),
    *("|", "|-", ">", "'", '"', "%YAML 1.1\n", "---\n", "...\n", "#", "\n", "\n  ", "\n    ", "\t"),
    *("\r\n", "\r", "\ufeff", "\u2028", "\x85", "\0", "\x07", "🙈", "é", "~", "null", "yes", "NO"),
    *(
        "017",
        "1e400",
        ".inf",
        ".nan",
        "0x",
        "2001-01-01",
        "1_000",
        "\\",
        "\\x",
        "@",
        "`",
        "{{ .a }}",
    ),
)
_VALUES: Final = (
    *("", "a", "web-1", "--all", "$(SECRET)", "{{ .Labels.pod }}", "a\nb", "\0", "\ud800", "🙈"),
    *("x" * 10_000, "..", "'; rm -rf / #", 0, -1, 1.5, True, None, [], {}, ["a"], {"a": "b"}),
    *("2026-11-21T03:04:05Z", "0001-01-01T00:00:00Z", "2026-11-21", "firing", "resolved", "1e999"),
)
_MEMBERS: Final = (
    *("alerts", "labels", "annotations", "status", "startsAt", "endsAt", "fingerprint", "groupKey"),
    *("generatorURL", "receiver", "truncatedAlerts", "alertname", "pod", "a-b", "a_b", "é", ""),
)


@functools.cache
def _corpus() -> tuple[bytes, ...]:
    """Files that are nearly right, or wrong in one way."""
    folders = [FIXTURES / "rules" / "bad", ROOT / "operarios-example"]
    files = sorted(path for folder in folders for path in folder.rglob("*.yaml"))
    return tuple(content for path in files if (content := path.read_bytes()))


@functools.cache
def _catalog() -> Catalog:
    """The operarios that deliveries are rendered with."""
    files = tuple(
        SourceFile(f"{name}.json", "", json.dumps(job).encode(), "commit")
        for name, job in _answering().items()
    )
    return build_catalog(Snapshot(REVISION, "", files), SCOPE)


def _answering() -> dict[str, object]:
    found: dict[str, object] = {}
    for name, job in sound_jobs().items():
        metadata = {"name": name, "annotations": {"openfero.io/alertname": "DiskFull"}}
        for status in ("firing", "resolved"):
            notes = metadata["annotations"] | {"openfero.io/status": status}  # type: ignore[operator]
            one = {"name": f"{name}-{status}", "annotations": notes}
            found[f"{name}-{status}"] = {**job, "metadata": one}
    return found


# Making cases.


def content(seed: int, number: int) -> tuple[str, bytes]:
    """The kind of a case, `file` with its extension or `payload`, and its bytes."""
    draw = random.Random(f"{seed}/{number}")  # noqa: S311 (the same cases in every run)
    if number % 2:
        return "payload", _payload(draw)
    kind = draw.choice(["torn", "torn", "spliced", "job", "text", "text", "bytes"])
    extension = draw.choice(["yaml", "yaml", "yaml", "json"])
    if kind == "job":
        (mutant,) = mutants(draw.randrange(2**32), 1)
        dump = json.dumps if extension == "json" or draw.random() < 0.5 else yaml.safe_dump
        return extension, dump(mutant.job).encode(errors="surrogatepass")
    if kind == "text":
        pieces = draw.choices(_YAML, k=draw.randrange(1, 60))
        return extension, ("".join(pieces) * draw.choice([1, 1, 1, 2, 50])).encode()
    if kind == "bytes":
        return extension, draw.randbytes(draw.randrange(200))
    whole = draw.choice(_corpus())
    if kind == "spliced":
        other = draw.choice(_corpus())
        return extension, whole[: draw.randrange(len(whole))] + other[draw.randrange(len(other)) :]
    return extension, _torn(whole, draw)


def _torn(whole: bytes, draw: random.Random) -> bytes:
    """A text with a few lines dropped, doubled, moved in, or replaced in the middle."""
    lines = whole.split(b"\n")
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(len(lines))
        line = lines[at]
        match draw.randrange(6):
            case 0:
                del lines[at : at + draw.randrange(1, 4)]
            case 1:
                lines[at:at] = [line] * draw.choice([1, 2, 300])
            case 2:
                lines[at] = b" " * draw.randrange(1, 9) + line
            case 3:
                lines[at] = line.lstrip()
            case 4:
                piece = draw.choice(_YAML).encode()
                cut = draw.randrange(len(line) + 1)
                lines[at] = line[:cut] + piece + line[cut:]
            case _:
                key, colon, _ = line.partition(b":")
                lines[at] = key + colon + b" " + draw.choice(_YAML).encode()
        lines = lines or [b""]
    return b"\n".join(lines)


def _payload(draw: random.Random) -> bytes:
    labels = {"alertname": "DiskFull", "pod": "web-1", "severity": "page"}
    one: dict[str, object] = {
        "status": draw.choice(["firing", "resolved"]),
        "labels": labels,
        "annotations": {"summary": "full"},
        "startsAt": "2026-11-21T03:04:05Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "fingerprint": "c0ffee",
    }
    group: dict[str, object] = {
        "version": "4",
        "groupKey": "{}:{}",
        "status": "firing",
        "alerts": [one] * draw.choice([0, 1, 1, 2]),
    }
    for _ in range(draw.randrange(4)):
        where: dict[str, object] = draw.choice([group, one, labels])  # type: ignore[assignment]
        if where and draw.random() < 0.3:
            del where[draw.choice(sorted(where))]
        else:
            where[draw.choice(_MEMBERS)] = draw.choice(_VALUES)
    body = json.dumps(draw.choice([group, group, one])).encode()
    if draw.random() < 0.2:
        cut = draw.randrange(len(body) + 1)
        body = body[:cut] + draw.choice([b"", b"\xff", b"{", b'"', b"[" * 5000]) + body[cut + 1 :]
    return body


# Judging them.


def judge(kind: str, given: bytes) -> None:
    """Do with a case what the controller does; raises whatever goes wrong."""
    if kind == "payload":
        _deliver(given)
    else:
        _read(kind, given)


def problems_of(extension: str, given: bytes) -> tuple[Problem, ...]:
    """What is wrong with a repository that has one such file."""
    return _built(extension, given).problems


def _built(extension: str, given: bytes) -> Catalog:
    files = (SourceFile(f"a.{extension}", "", given, "commit"),)
    try:
        return build_catalog(Snapshot(REVISION, "", files), SCOPE)
    except CatalogRefusal as refusal:
        raise AssertionError("a file that is no envelope refused the revision") from refusal


def _read(extension: str, given: bytes) -> None:
    catalog = _built(extension, given)
    lines = given.count(b"\n") + given.count(b"\r") + 2
    lines += given.count("\u2028".encode()) + given.count("\u0085".encode())
    for problem in catalog.problems:
        assert problem.message, problem
        assert 0 <= problem.line <= lines, problem
        assert problem.column >= 0, problem
        (problem.message + problem.suggestion + problem.pointer).encode()
    for operario in catalog.operarios:
        one = alert(
            status=operario.status, labels={"alertname": operario.alertname, "pod": "web-1"}
        )
        made = render(one, operario, catalog.envelope, REVISION, delivery(), jobs_namespace="jobs")
        json.dumps(made.manifest, ensure_ascii=False).encode()


def rendered_from(group: AlertGroup) -> Iterator[dict[str, Any]]:
    """The Jobs of a delivery, by the operarios that answer DiskFull."""
    told = delivery(group_key=group.group_key, group_status=group.status)
    for one in group.alerts:
        found = match(one, _catalog(), ())
        if isinstance(found, Match):
            yield render(
                one, found.operario, _catalog().envelope, REVISION, told, jobs_namespace="jobs"
            ).manifest


def _deliver(body: bytes) -> None:
    try:
        group = read_payload(body)
    except PayloadError as reason:
        str(reason).encode()  # as an answer will be
        return
    for manifest in rendered_from(group):
        json.dumps(manifest, ensure_ascii=False).encode()


@dataclass(frozen=True)
class Failure:
    """A case that went wrong: its number and the traceback."""

    number: int
    trace: str


class TooLongError(Exception):
    """A case took longer than `PATIENCE`."""


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Interrupt what takes too long, wherever it is."""

    def interrupt(*_: object) -> None:
        raise TooLongError(f"more than {PATIENCE} s of a processor")

    before = signal.signal(signal.SIGPROF, interrupt)
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def run(seed: int, first: int, count: int) -> list[Failure]:
    """Judge so many cases, from a number on; the failures of them."""
    found = []
    for number in range(first, first + count):
        try:
            with _patience():
                judge(*content(seed, number))
        except Exception:  # noqa: BLE001 (that is what is looked for)
            found.append(Failure(number, traceback.format_exc()))
    return found


def peak() -> int:
    """The most memory that this process has had, in bytes.

    (Not what `getrusage` says: Linux counts there what the process had that started this one.)
    """
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError("/proc/self/status tells no VmHWM")
    return int(found[1]) * 1024


def workers(number: int | None = None) -> ProcessPoolExecutor:
    """Processes for `measured`, one for each core; nothing of this one is in their memory."""
    return ProcessPoolExecutor(number, mp_context=multiprocessing.get_context("spawn"))


def measured(seed: int, first: int, count: int) -> tuple[list[Failure], int]:
    """Do as `run`; the failures, and the peak of the process that did."""
    return run(seed, first, count), peak()


def main() -> int:
    """Run what the command line says; 1 where a case failed."""
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    parser.add_argument("--case", type=int)
    chosen = parser.parse_args()
    if chosen.case is not None:
        return _again(chosen.seed, chosen.case)
    print(f"fuzz: {chosen.count} cases, SEED={chosen.seed}", flush=True)
    began = time.monotonic()
    done = most = 0
    failures: list[Failure] = []
    with workers() as pool:
        waiting = {
            pool.submit(measured, chosen.seed, first, min(CHUNK, chosen.count - first)): first
            for first in range(0, chosen.count, CHUNK)
        }
        for finished in as_completed(waiting):
            found, memory = finished.result()
            done += min(CHUNK, chosen.count - waiting[finished])
            most = max(most, memory)
            failures += found
            for failure in found[:3]:
                print(f"\n{failure.trace}make fuzz SEED={chosen.seed} CASE={failure.number}\n")
            if done % 10_000 == 0 or done == chosen.count:
                spent = time.monotonic() - began
                print(
                    f"{done:>8} cases, {done / spent:.0f}/s, {len(failures)} failed,"
                    f" at most {most / 1024 / 1024:.0f} MiB",
                    flush=True,
                )
    if most > MEMORY:
        print(f"a process had more than {MEMORY // 1024 // 1024} MiB")
    return 1 if failures or most > MEMORY else 0


def _again(seed: int, number: int) -> int:
    kind, given = content(seed, number)
    with tempfile.NamedTemporaryFile(
        prefix=f"fuzz-{seed}-{number}.", suffix=f".{kind}", delete=False
    ) as file:
        file.write(given)
    print(f"{len(given)} bytes in {file.name}", flush=True)
    with _patience():
        judge(kind, given)
    print("nothing wrong")
    return 0


if __name__ == "__main__":
    sys.exit(main())
