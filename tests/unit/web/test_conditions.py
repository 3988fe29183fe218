from __future__ import annotations

import pytest

from openfero_gitops.domain.health import Condition
from openfero_gitops.web.conditions import show_condition


@pytest.mark.parametrize(
    ("condition", "text", "tone"),
    [
        (Condition("foreign jobs", holds=True), "no foreign Jobs", "ok"),
        (Condition("foreign jobs", holds=False, message="x"), "foreign Jobs found", "bad"),
        (Condition("watchdog", holds=True), "watchdog alert received", "ok"),
        (
            Condition("watchdog", holds=True, configured=False),
            "watchdog: not configured",
            "idle",
        ),
        (Condition("job policy", holds=False, advice="Safer"), "Jobs not protected", "warn"),
        (Condition("of a newer version", holds=True), "of a newer version", "ok"),
        (Condition("of a newer version", holds=False), "of a newer version failed", "bad"),
    ],
)
def test_a_badge_says_what_is_so(condition: Condition, text: str, tone: str) -> None:
    """A badge names the good state, the failing condition, or the part that is off."""
    shown = show_condition(condition)

    assert (shown.text, shown.tone) == (text, tone)
