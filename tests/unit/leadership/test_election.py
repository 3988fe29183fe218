from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.domain.errors import UsageError
from openfero_gitops.domain.lease import LeaseDurations, LeaseRecord
from openfero_gitops.leadership.election import (
    Acquire,
    Create,
    LeadershipReason,
    LeaseCandidate,
    ObservedLease,
    Renew,
    StandBy,
    StepDown,
    acquire_or_wait,
    describe_silent_holder,
    expires_at,
    observe_lease,
    release,
    renew_or_step_down,
)

WALL = datetime(2026, 11, 21, 3, 4, 5, 678901, tzinfo=UTC)
ME = LeaseCandidate("replica-a", 15)
OTHERS = LeaseRecord(
    holder="replica-b",
    duration=7,
    acquired_at=WALL - timedelta(hours=1),
    renewed_at=WALL - timedelta(minutes=1),
    transitions=4,
    resource_version="100",
)
FREE = replace(OTHERS, holder="", duration=1, resource_version="101")
MINE = replace(OTHERS, holder="replica-a", duration=15, transitions=5, resource_version="102")

moments = st.floats(0, 1e6)
walls = st.datetimes(
    datetime(2000, 1, 1),  # noqa: DTZ001, given its zone below
    datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
records = st.builds(
    LeaseRecord,
    holder=st.sampled_from(["", "replica-a", "replica-b", "kube-controller-manager"]),
    duration=st.integers(0, 60),
    acquired_at=st.none() | walls,
    renewed_at=st.none() | walls,
    transitions=st.integers(0, 2**31 - 1),
    resource_version=st.integers(1, 10**6).map(str),
)


def observed(*reads: tuple[LeaseRecord | None, float]) -> ObservedLease:
    """What a replica has observed after it read these records at these times."""
    lease = ObservedLease()
    for record, at in reads:
        lease = observe_lease(lease, record, at)
    return lease


class TestAcquiring:
    """The next step of a replica that does not lead."""

    def test_a_missing_lease_is_created(self) -> None:
        """If there is no Lease and none was seen, it is created with transitions 0."""
        step = acquire_or_wait(ME, ObservedLease(), None, now=5, wall=WALL)
        assert step == Create(LeaseRecord("replica-a", 15, WALL, WALL, 0))

    def test_a_held_lease_is_taken_after_its_own_duration(self) -> None:
        """The record's duration counts from when it was first read, not the candidate's."""
        seen = observed((OTHERS, 100))
        assert acquire_or_wait(ME, seen, None, now=106.9, wall=WALL) == StandBy(
            LeadershipReason.HELD, "replica-b", 107.0
        )
        step = acquire_or_wait(ME, seen, None, now=107, wall=WALL)
        assert step == Acquire(LeaseRecord("replica-a", 15, WALL, WALL, 5), "100")
        assert isinstance(step, Acquire)
        assert step.resource_version == "100"

    def test_a_record_without_a_duration_is_not_taken_at_once(self) -> None:
        """A record without a duration counts with the candidate's."""
        seen = observed((replace(OTHERS, duration=0), 100))
        assert acquire_or_wait(ME, seen, None, now=114, wall=WALL) == StandBy(
            LeadershipReason.HELD, "replica-b", 115.0
        )
        assert isinstance(acquire_or_wait(ME, seen, None, now=115, wall=WALL), Acquire)

    def test_a_record_with_a_duration_of_years_counts_with_a_day(self) -> None:
        """Who writes the lease once keeps nobody from leading for longer than a day."""
        seen = observed((replace(OTHERS, duration=2**31 - 1), 100))
        assert acquire_or_wait(ME, seen, None, now=86_499, wall=WALL) == StandBy(
            LeadershipReason.HELD, "replica-b", 86_500.0
        )
        assert isinstance(acquire_or_wait(ME, seen, None, now=86_500, wall=WALL), Acquire)

    def test_a_holder_that_does_not_renew_is_named(self) -> None:
        """A holder that is silent for longer than the own lease duration is no replica."""
        seen = observed((replace(OTHERS, holder="so\x1bme", duration=3600), 100))
        assert describe_silent_holder(ME, seen, 120) == ""
        words = describe_silent_holder(ME, seen, 131)
        assert 'held by "so\\x1bme" for 3600 s' in words
        assert "delete the Lease" in words
        assert describe_silent_holder(ME, observed((FREE, 100)), 1000) == ""
        renewed = replace(OTHERS, renewed_at=WALL)
        assert describe_silent_holder(ME, observed((OTHERS, 100), (renewed, 130)), 140) == ""

    def test_released_lease_is_taken_at_once(self) -> None:
        """With an empty holder the lease is free."""
        seen = observed((OTHERS, 100), (FREE, 100.1))
        step = acquire_or_wait(ME, seen, None, now=100.1, wall=WALL)
        assert step == Acquire(LeaseRecord("replica-a", 15, WALL, WALL, 5), "101")

    def test_deleted_lease_is_not_free_while_its_holder_may_act(self) -> None:
        """Deleting a lease does not make a second leader before it would have expired."""
        seen = observed((OTHERS, 100), (None, 101))
        assert acquire_or_wait(ME, seen, None, now=106, wall=WALL) == StandBy(
            LeadershipReason.GONE, "replica-b", 107.0
        )
        step = acquire_or_wait(ME, seen, None, now=107, wall=WALL)
        assert step == Create(LeaseRecord("replica-a", 15, WALL, WALL, 5))

    def test_the_own_last_term_need_not_expire(self) -> None:
        """A record that this process wrote is replaced at once, by a new term."""
        seen = observed((MINE, 100))
        step = acquire_or_wait(ME, seen, MINE, now=100, wall=WALL)
        assert step == Acquire(LeaseRecord("replica-a", 15, WALL, WALL, 6), "102")
        assert not step.record.same_term(MINE)

    def test_deleted_lease_of_ones_own_is_created_at_once(self) -> None:
        """A leader whose lease was deleted knows that its own work has ended."""
        seen = observed((MINE, 100), (None, 101))
        step = acquire_or_wait(ME, seen, MINE, now=101, wall=WALL)
        assert step == Create(LeaseRecord("replica-a", 15, WALL, WALL, 6))

    def test_a_replica_of_the_same_name_is_another_one(self) -> None:
        """A record of the same name that this process did not write must expire first."""
        seen = observed((MINE, 100))
        for mine in (None, replace(MINE, transitions=3), replace(MINE, acquired_at=WALL)):
            step = acquire_or_wait(ME, seen, mine, now=101, wall=WALL)
            assert step == StandBy(LeadershipReason.HELD, "replica-a", 115.0)

    def test_transitions_stay_an_int32(self) -> None:
        """The count wraps around: the API server would reject a larger number."""
        seen = observed((replace(FREE, transitions=2**31 - 1), 100))
        step = acquire_or_wait(ME, seen, None, now=100, wall=WALL)
        assert isinstance(step, Acquire)
        assert step.record.transitions == 0

    @given(st.lists(st.tuples(st.floats(0, 20), st.none() | records), min_size=1), walls)
    def test_no_lease_is_taken_before_it_expires(
        self, looks: list[tuple[float, LeaseRecord | None]], wall: datetime
    ) -> None:
        """Whatever is read, a holder has its whole duration after it was last seen to change.

        A model keeps the last moment at which each change was seen; the wall clock is any.
        """
        seen, now = ObservedLease(), 0.0
        holder: LeaseRecord | None = None
        since = 0.0
        for passed, record in looks:
            now += passed
            seen = observe_lease(seen, record, now)
            if record is not None and not record.holder:
                holder = None
            elif record is not None and record != holder:
                holder, since = record, now
            step = acquire_or_wait(ME, seen, None, now=now, wall=wall)
            free = holder is None or now >= since + (holder.duration or ME.duration)
            assert isinstance(step, StandBy) is not free
            if isinstance(step, Create | Acquire):
                assert isinstance(step, Create) is (record is None)
                assert step.record.holder == ME.identity
                assert step.record.acquired_at == step.record.renewed_at == wall
            else:
                assert step.until == expires_at(ME, seen) > now


class TestObserving:
    """What counts as a renewal."""

    def test_a_renewal_restarts_the_duration(self) -> None:
        """A changed record is a renewal."""
        seen = observed((OTHERS, 100))
        renewed = replace(OTHERS, renewed_at=WALL, resource_version="101")
        assert observe_lease(seen, renewed, 102) == ObservedLease(renewed, renewed, 102)

    def test_a_changed_label_is_no_renewal(self) -> None:
        """A new label does not extend the lease, but its version is noted."""
        seen = observed((OTHERS, 100))
        seen = observe_lease(seen, replace(OTHERS, resource_version="101"), 104)
        assert seen.held_at == 100
        step = acquire_or_wait(ME, seen, None, now=107, wall=WALL)
        assert isinstance(step, Acquire)
        assert step.resource_version == "101"

    def test_a_restored_record_is_no_renewal(self) -> None:
        """A record that was deleted and restored expires when it would have."""
        seen = observed((OTHERS, 100), (None, 101), (OTHERS, 102))
        assert seen.held_at == 100

    @given(records, moments, moments)
    def test_wall_clock_of_the_holder_does_not_count(
        self, record: LeaseRecord, at: float, passed: float
    ) -> None:
        """No time in the record decides when the lease may be taken."""
        other = replace(record, acquired_at=WALL, renewed_at=WALL + timedelta(days=1))
        steps = [
            acquire_or_wait(ME, observed((lease, at)), None, now=at + passed, wall=WALL)
            for lease in (record, other)
        ]
        assert steps[0] == steps[1]


class TestRenewing:
    """The next step of a leader."""

    def test_own_lease_is_renewed(self) -> None:
        """A renewal changes only the time."""
        step = renew_or_step_down(replace(MINE, resource_version="110"), MINE, wall=WALL)
        assert step == Renew(replace(MINE, renewed_at=WALL), "110")
        assert step.record.same_term(MINE)

    @given(st.none() | walls, st.lists(st.timedeltas(timedelta(0), timedelta(seconds=1))))
    def test_each_renewal_changes_the_record(
        self, renewed_at: datetime | None, steps: list[timedelta]
    ) -> None:
        """Each record differs, even if the wall clock does not advance."""
        record, wall = replace(MINE, renewed_at=renewed_at), WALL
        records = [record]
        for step in steps:
            wall += step
            renewal = renew_or_step_down(record, MINE, wall=wall)
            assert isinstance(renewal, Renew)
            record = renewal.record
            assert record not in records
            records.append(record)

    @pytest.mark.parametrize(
        "record",
        [
            OTHERS,
            FREE,
            replace(MINE, transitions=6),
            replace(MINE, acquired_at=WALL),
            replace(MINE, holder="replica-c"),
        ],
        ids=["other", "released", "later", "restarted", "renamed"],
    )
    def test_any_other_record_ends_the_term(self, record: LeaseRecord) -> None:
        """A record of the same name, or a later one of this process, is another term."""
        assert renew_or_step_down(record, MINE, wall=WALL) == StepDown(LeadershipReason.TAKEN)

    def test_deleted_lease_ends_the_term(self) -> None:
        """Deleting the Lease causes an election."""
        assert renew_or_step_down(None, MINE, wall=WALL) == StepDown(LeadershipReason.DELETED)


class TestReleasing:
    """Releasing the lease."""

    def test_own_lease_is_freed(self) -> None:
        """The holder is empty, the count of transitions stays."""
        step = release(MINE, MINE, wall=WALL)
        assert step is not None
        assert step.resource_version == "102"
        assert (step.record.holder, step.record.transitions) == ("", 5)
        assert step.record.duration == 1

    @pytest.mark.parametrize("settled", [True, False])
    def test_a_release_says_whether_admissions_are_settled(
        self,
        settled: bool,  # noqa: FBT001, pytest gives it by name
    ) -> None:
        """The next holder's record does not have the mark."""
        step = release(MINE, MINE, wall=WALL, settled=settled)
        assert step is not None
        assert step.record.settled is settled
        taken = acquire_or_wait(ME, observed((step.record, 0.0)), None, now=0.0, wall=WALL)
        assert isinstance(taken, Acquire)
        assert not taken.record.settled
        renewed = renew_or_step_down(taken.record, taken.record, wall=WALL)
        assert isinstance(renewed, Renew)
        assert not renewed.record.settled

    @pytest.mark.parametrize("record", [None, OTHERS, FREE, replace(MINE, transitions=6)])
    def test_another_holder_s_lease_is_not_released(self, record: LeaseRecord | None) -> None:
        """A lease of another holder is not changed."""
        assert release(record, MINE, wall=WALL) is None

    @given(records, moments, walls)
    def test_released_lease_is_free_for_the_next(
        self, record: LeaseRecord, now: float, wall: datetime
    ) -> None:
        """It is taken at once, with the next number of transitions."""
        mine = replace(record, holder="replica-b", acquired_at=wall)
        step = release(mine, mine, wall=wall)
        assert step is not None
        seen = observed((mine, now), (step.record, now))
        taken = acquire_or_wait(ME, seen, None, now=now, wall=wall)
        assert isinstance(taken, Acquire)
        assert taken.record.transitions == (mine.transitions + 1) % 2**31


class TestDurations:
    """The durations of the lease."""

    def test_defaults_are_client_gos(self) -> None:
        """15 s, 10 s and 2 s; a request takes less than half of the deadline."""
        given = LeaseDurations()
        assert (given.lease_duration, given.renew_deadline, given.retry_period) == (15, 10, 2)
        assert 0 < given.request_timeout < given.renew_deadline / 2

    @pytest.mark.parametrize(
        ("lease", "renew", "retry", "named"),
        [
            (2.5, 2, 0.5, "lease-duration"),
            (0, -1, -2, "lease-duration"),
            (float("nan"), 2, 1, "lease-duration"),
            (float("inf"), 2, 1, "lease-duration"),
            (10, 10, 2, "renew-deadline"),
            (15, float("nan"), 2, "renew-deadline"),
            (15, 2.4, 2, "retry-period"),
            (15, 10, float("nan"), "retry-period"),
            (15, 10, 0, "retry-period"),
            (15, 10, -1, "retry-period"),
        ],
    )
    def test_contradicting_durations_are_rejected(
        self, lease: float, renew: float, retry: float, named: str
    ) -> None:
        """The message names the setting to change."""
        with pytest.raises(UsageError, match=named):
            LeaseDurations(lease, renew, retry)

    def test_short_ones_may_be_fractions(self) -> None:
        """Only the lease duration must be whole seconds."""
        assert LeaseDurations(3, 2.0, 0.5).retry_period == 0.5
