"""`make fuzz`: generated files and payloads, reproducible from a seed.

Half of the cases are files: fixtures and generated Jobs that are torn, spliced and repeated, or
text made of YAML's special characters. They are validated like a repository, and the valid
operarios are rendered. The other half are bodies of deliveries, which are read, matched and
rendered. A case fails if it raises anything, takes longer than `MAX_CASE_SECONDS`, or yields a
problem without a message or outside its file; the run fails above `MEMORY`. Time is CPU time: the
judged code is pure and never blocks, so that a busy machine slows no case and an endless loop is
noticed.

    make fuzz N=100000 SEED=7      N cases, on all cores
    make fuzz SEED=7 CASE=4711     that case again, with its traceback and its bytes in a file
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
import zlib
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from openfero_gitops.catalog.build import Scope, build_catalog
from openfero_gitops.catalog.validation.schema import versions
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

# CPU seconds for one case. Half of 30,000 took 0.1 ms, the slowest 50 ms.
MAX_CASE_SECONDS: Final = 1.0
# Peak memory of a process in bytes. It uses 52 MiB, nearly all of them code.
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
    """Return files that are nearly valid, or invalid in one way."""
    folders = [FIXTURES / "rules" / "bad", ROOT / "operarios-example"]
    files = sorted(path for folder in folders for path in folder.rglob("*.yaml"))
    return tuple(content for path in files if (content := path.read_bytes()))


@functools.cache
def _catalog() -> Catalog:
    """Return the catalog that deliveries are matched and rendered with."""
    files = tuple(
        SourceFile(f"{name}.json", "", json.dumps(job).encode(), "commit")
        for name, job in _answering().items()
    )
    return build_catalog(Snapshot(REVISION, "", files), SCOPE)


def _answering() -> dict[str, object]:
    jobs: dict[str, object] = {}
    for name, job in sound_jobs().items():
        metadata = {"name": name, "annotations": {"openfero.io/alertname": "DiskFull"}}
        for status in ("firing", "resolved"):
            notes = metadata["annotations"] | {"openfero.io/status": status}  # type: ignore[operator]
            variant = {"name": f"{name}-{status}", "annotations": notes}
            jobs[f"{name}-{status}"] = {**job, "metadata": variant}
    return jobs


# Generating cases.


def content(seed: int, number: int) -> tuple[str, bytes]:
    """Return the kind of a case, `file` with its extension or `payload`, and its bytes."""
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
    head = draw.choice(_corpus())
    if kind == "spliced":
        tail = draw.choice(_corpus())
        return extension, head[: draw.randrange(len(head))] + tail[draw.randrange(len(tail)) :]
    return extension, _torn(head, draw)


def _torn(content: bytes, draw: random.Random) -> bytes:
    """Return a text with a few lines dropped, doubled, inserted or replaced."""
    lines = content.split(b"\n")
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
    sent_alert: dict[str, object] = {
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
        "alerts": [sent_alert] * draw.choice([0, 1, 1, 2]),
    }
    for _ in range(draw.randrange(4)):
        where: dict[str, object] = draw.choice([group, sent_alert, labels])  # type: ignore[assignment]
        if where and draw.random() < 0.3:
            del where[draw.choice(sorted(where))]
        else:
            where[draw.choice(_MEMBERS)] = draw.choice(_VALUES)
    body = json.dumps(draw.choice([group, group, sent_alert])).encode()
    if draw.random() < 0.2:
        cut = draw.randrange(len(body) + 1)
        body = body[:cut] + draw.choice([b"", b"\xff", b"{", b'"', b"[" * 5000]) + body[cut + 1 :]
    return body


# Judging cases.


def judge(kind: str, content: bytes) -> None:
    """Process a case like the controller does; raise whatever goes wrong."""
    if kind == "payload":
        _deliver(content)
    else:
        _read(kind, content)


def problems_of(extension: str, content: bytes) -> tuple[Problem, ...]:
    """Return the problems of a repository with one such file."""
    return _built(extension, content).problems


def _built(extension: str, content: bytes) -> Catalog:
    files = (SourceFile(f"a.{extension}", "", content, "commit"),)
    try:
        return build_catalog(Snapshot(REVISION, "", files), _scope(content))
    except CatalogRefusal as refusal:
        raise AssertionError("a file that is no envelope refused the revision") from refusal


def _scope(content: bytes) -> Scope:
    """Choose the Kubernetes version by the content: the oldest, the newest or the default."""
    known = versions()
    version = (known[0], known[-1], SCOPE.kubernetes_version)[zlib.crc32(content) % 3]
    return replace(SCOPE, kubernetes_version=version)


def _read(extension: str, content: bytes) -> None:
    catalog = _built(extension, content)
    lines = content.count(b"\n") + content.count(b"\r") + 2
    lines += content.count("\u2028".encode()) + content.count("\u0085".encode())
    for problem in catalog.problems:
        assert problem.message, problem
        assert 0 <= problem.line <= lines, problem
        assert problem.column >= 0, problem
        (problem.message + problem.suggestion + problem.pointer).encode()
    for operario in catalog.operarios:
        fired = alert(
            status=operario.status, labels={"alertname": operario.alertname, "pod": "web-1"}
        )
        made = render(
            fired, operario, catalog.envelope, REVISION, delivery(), jobs_namespace="jobs"
        )
        json.dumps(made.manifest, ensure_ascii=False).encode()


def rendered_from(group: AlertGroup) -> Iterator[dict[str, Any]]:
    """Render the Jobs of a delivery, with the operarios that match DiskFull."""
    received = delivery(group_key=group.group_key, group_status=group.status)
    for fired in group.alerts:
        outcome = match(fired, _catalog(), ())
        if isinstance(outcome, Match):
            yield render(
                fired,
                outcome.operario,
                _catalog().envelope,
                REVISION,
                received,
                jobs_namespace="jobs",
            ).manifest


def _deliver(body: bytes) -> None:
    try:
        group = read_payload(body)
    except PayloadError as reason:
        str(reason).encode()  # as in a response
        return
    for manifest in rendered_from(group):
        json.dumps(manifest, ensure_ascii=False).encode()


@dataclass(frozen=True)
class Failure:
    """A failed case: its number and its traceback."""

    number: int
    trace: str


class TooLongError(Exception):
    """A case took longer than `MAX_CASE_SECONDS`."""


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Interrupt code that takes too long."""

    def interrupt(*_: object) -> None:
        raise TooLongError(f"more than {MAX_CASE_SECONDS} s of a processor")

    before = signal.signal(signal.SIGPROF, interrupt)
    signal.setitimer(signal.ITIMER_PROF, MAX_CASE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def run(seed: int, first: int, count: int) -> list[Failure]:
    """Judge `count` cases from number `first` on, and return the failures."""
    failures = []
    for number in range(first, first + count):
        try:
            with _patience():
                judge(*content(seed, number))
        except Exception:  # noqa: BLE001 (any exception is a failed case)
            failures.append(Failure(number, traceback.format_exc()))
    return failures


def peak() -> int:
    """Return the peak memory of this process in bytes.

    (Not from `getrusage`: on Linux that includes the memory of the parent process.)
    """
    match_ = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if match_ is None:
        raise RuntimeError("/proc/self/status tells no VmHWM")
    return int(match_[1]) * 1024


def workers(number: int | None = None) -> ProcessPoolExecutor:
    """Return a process pool for `measured`, one per core, that inherits no memory."""
    return ProcessPoolExecutor(number, mp_context=multiprocessing.get_context("spawn"))


def measured(seed: int, first: int, count: int) -> tuple[list[Failure], int]:
    """Run cases like `run`; return the failures, and the peak memory of the process."""
    return run(seed, first, count), peak()


def main() -> int:
    """Run the command line; return 1 if a case failed."""
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
            batch, memory = finished.result()
            done += min(CHUNK, chosen.count - waiting[finished])
            most = max(most, memory)
            failures += batch
            for failure in batch[:3]:
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
    kind, body = content(seed, number)
    with tempfile.NamedTemporaryFile(
        prefix=f"fuzz-{seed}-{number}.", suffix=f".{kind}", delete=False
    ) as file:
        file.write(body)
    print(f"{len(body)} bytes in {file.name}", flush=True)
    with _patience():
        judge(kind, body)
    print("nothing wrong")
    return 0


if __name__ == "__main__":
    sys.exit(main())
