"""How many examples the tests draw: few by default, many with `HYPOTHESIS_PROFILE=nightly`."""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, settings

_EXAMPLES: Final = {"quick": 25, "nightly": 1000}
_PROFILE: Final = os.environ.get("HYPOTHESIS_PROFILE", "quick")


def load_profile() -> None:
    """Register the profiles of Hypothesis and load the profile that the environment selects.

    The quick profile draws the same examples in every run, so that a failure is due to a change.
    No profile fails a test because of the time that it takes.
    """
    for name, examples in _EXAMPLES.items():
        settings.register_profile(
            name,
            max_examples=examples,
            deadline=None,
            derandomize=name == "quick",
            database=None,
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow],
        )
    settings.load_profile(_PROFILE)


def scaled(number: int) -> int:
    """Return the number of examples for a test that draws `number` in the quick profile."""
    return number * _EXAMPLES[_PROFILE] // _EXAMPLES["quick"]
