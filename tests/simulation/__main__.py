"""`python -m tests.simulation --seeds N` plays many seeds; `--seed N` plays one and prints it."""

from __future__ import annotations

import argparse
import os
import sys
import time
from itertools import islice

from tests.simulation.many import play, table
from tests.simulation.sabotage import SABOTAGES
from tests.simulation.simulate import simulate

_TOLD_EVERY = 100  # seeds
_TRIED = 300  # seeds, for a sabotage
_NOTED = 2  # seeds with each sabotage


def main() -> int:
    """Run the given seeds; return 1 if a guarantee was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="tell the story of this one")
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--sabotages", action="store_true", help="find seeds that show each one")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    if given.seed is not None:
        report = simulate(given.seed, tell=True)
        print("\n".join([*report.trace, "", *(report.wrong or ["every promise was kept"])]))
        return bool(report.wrong)
    if given.sabotages:
        return _find_seeds()
    began = time.monotonic()
    seeds = range(given.first, given.first + given.seeds)
    wrong = 0
    reports = []
    for report in play(seeds, given.processes):
        reports.append(report)
        if len(reports) % _TOLD_EVERY == 0:
            print(f"{len(reports)} seeds, {wrong} wrong", file=sys.stderr, flush=True)
        if report.wrong:
            wrong += 1
            print(report.story(), flush=True)
    print(table(reports))
    took = time.monotonic() - began
    print(f"{len(reports)} seeds in {took:.0f} s, {wrong} with a broken promise")
    return bool(wrong)


def _find_seeds() -> int:
    """Print the seeds to note as known with each sabotage; 1 where one has none."""
    missing = 0
    for sabotage in SABOTAGES:
        seeds = tuple(islice(sabotage.exposing(range(_TRIED)), _NOTED))
        missing += not seeds
        print(f"{seeds}  {sabotage.name}", flush=True)
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main())
