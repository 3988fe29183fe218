"""Texts as pages show them."""

from __future__ import annotations

from openfero_gitops.web.formats import with_times


def test_times_in_a_text_are_elements() -> None:
    """A script can write them in the zone of the reader; all else is shown as text."""
    assert with_times("waiting until 2026-11-21T03:04:05Z for <b>\u202e") == (
        'waiting until <time datetime="2026-11-21T03:04:05Z">2026-11-21T03:04:05Z</time>'
        " for &lt;b&gt;\\u202e"
    )
