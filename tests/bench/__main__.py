"""`make bench`: every measure, or those that are named (`make bench ARGS=deliveries`)."""

from __future__ import annotations

import argparse
import sys

from tests.bench import admission, deliveries, failover, git, validate
from tests.support import record

MEASURES = {
    "deliveries": deliveries.main,
    "git": git.main,
    "validate": validate.main,
    "admission": admission.main,
    "failover": failover.main,
}


def main() -> int:
    """Run the measures that were asked for, in order."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=")
    parser.add_argument("measures", nargs="*", choices=[[], *MEASURES], help=", ".join(MEASURES))
    parser.add_argument("--keep", action="store_true", help="write it to docs/reliability.md, too")
    given = parser.parse_args()
    for name in given.measures or list(MEASURES):
        text = MEASURES[name]()
        if given.keep and text is not None:
            record.keep(name, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
