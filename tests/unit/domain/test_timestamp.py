"""Times are written as Kubernetes writes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.domain.timestamp import format_seconds, format_time

_ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
_TIMES = st.datetimes(datetime(1000, 1, 2), datetime(8999, 12, 30), timezones=_ZONES)  # noqa: DTZ001


@given(_TIMES | _TIMES.map(lambda time: time.astimezone(UTC).replace(microsecond=0)))
def test_a_time_is_written_as_isoformat_writes_it(time: datetime) -> None:
    """A time has the text that Python's own formatting gives it in UTC, with `Z` for its zone."""
    in_utc = time.astimezone(UTC).replace(tzinfo=None)
    assert format_time(time) == in_utc.isoformat(timespec="microseconds") + "Z"
    assert format_seconds(time) == in_utc.isoformat(timespec="seconds") + "Z"
