"""`make bench`: every measure, or those that are named (`make bench ARGS=deliveries`)."""

from __future__ import annotations

import argparse
import sys

from tests.bench import deliveries, git, validate

MEASURES = {"deliveries": deliveries.main, "git": git.main, "validate": validate.main}


def main() -> int:
    """Run the measures that were asked for, in order."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=")
    parser.add_argument("measures", nargs="*", choices=[[], *MEASURES], help=", ".join(MEASURES))
    chosen = parser.parse_args().measures or list(MEASURES)
    for name in chosen:
        MEASURES[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
