"""`make chaos SEED= OCCURRENCES= FAULTS=`: faults on real parts, and whether promises are kept."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

from tests.chaos.faults import LEASE
from tests.chaos.run import report, run
from tests.support import record

#: Alerts to each fault, where the number of faults is not given.
_TO_A_FAULT = 125


def main() -> int:
    """Run it; 0 where every promise was kept, 1 where one was broken."""
    parser = argparse.ArgumentParser(prog="make chaos")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one")
    parser.add_argument("--occurrences", type=int, default=5000)
    parser.add_argument("--faults", type=int, default=None, help="default: one per 125 alerts")
    parser.add_argument("--lease", type=float, default=LEASE, help="seconds; longer where busy")
    parser.add_argument("--folder", type=Path, help="for what a failure leaves behind")
    parser.add_argument(
        "--keep", metavar="BLOCK", help="write it to docs/explanation/reliability.md: chaos-1"
    )
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else secrets.randbelow(10**6)
    faults = given.faults if given.faults is not None else max(4, given.occurrences // _TO_A_FAULT)
    folder = given.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    print(f"seed {seed}, {given.occurrences} occurrences, {faults} faults; logs are in {folder}")
    outcome = asyncio.run(
        run(
            seed,
            given.occurrences,
            faults,
            folder,
            lambda line: print(line, flush=True),
            given.lease,
        )
    )
    print(report(outcome))
    for violation in outcome.violations[:50]:
        print(violation)
    for note in outcome.notes[:50]:
        print(note)
    if given.keep:
        record.keep(given.keep, report(outcome))
    return 0 if outcome.kept and not outcome.notes else 1


if __name__ == "__main__":
    sys.exit(main())
