"""`make bench`: every benchmark, or the named ones (`make bench ARGS=alerts`)."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys

import structlog

from tests.bench import (
    admission,
    alerts,
    attacks,
    capacity,
    failover,
    figures,
    git,
    growth,
    idle,
    pages,
    replicas,
    same_jobs,
    starts,
    streams,
    syncs,
    validate,
)
from tests.support import record

MEASURES = {
    "alerts": alerts.main,
    "replicas": replicas.main,
    "git": git.main,
    "growth": growth.main,
    "validate": validate.main,
    "starts": starts.main,
    "admission": admission.main,
    "idle": idle.main,
    "failover": failover.main,
    "pages": pages.main,
    "syncs": syncs.main,
    "attacks": attacks.main,
    "streams": streams.main,
    "same-jobs": same_jobs.main,
}
#: What changes the figures so much that they must not be recorded.
UNRECORDED = ("PROFILE", "TREE")
LONG = {
    "growth",
    "idle",
    "replicas",
    "syncs",
    "attacks",
    "streams",
    "same-jobs",
}  # run only when named


def main() -> int:
    """Run the selected benchmarks in order."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=")
    parser.add_argument("measures", nargs="*", choices=[[], *MEASURES], help=", ".join(MEASURES))
    parser.add_argument("--keep", action="store_true", help="record the results in docs/, too")
    arguments = parser.parse_args()
    if arguments.keep and (used := [name for name in UNRECORDED if os.environ.get(name)]):
        parser.error(f"--keep does not go together with {' and '.join(used)}")
    quiet = structlog.make_filtering_bound_logger(logging.WARNING)
    structlog.configure(wrapper_class=quiet)  # keeps thousands of log lines out of the table
    for name in arguments.measures or [name for name in MEASURES if name not in LONG]:
        result = MEASURES[name]()
        if isinstance(result, figures.Measured):
            print(result.render(figures.earlier(name)), flush=True)
        if arguments.keep and result is not None:
            keep(name, result)
    return 0


def keep(name: str, result: figures.Measured | str) -> None:
    """Record a result in docs/: its figures, and its text if a page has a block for it."""
    if isinstance(result, figures.Measured):
        figures.keep(name, result)
        capacity.keep()
        result = result.render()
    with contextlib.suppress(LookupError):
        record.keep(name, result)


if __name__ == "__main__":
    sys.exit(main())
