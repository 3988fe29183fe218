"""Alerts that differ in replica labels alone: those of a high-availability pair."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.audit.verify import Proof, verify
from openfero_gitops.delivery.pairs import with_own_job
from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.answer import Verdict
from openfero_gitops.domain.labels import REPLICA_LABELS, with_replica_labels
from openfero_gitops.domain.matcher_parser import parse_matchers
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Foreign, Outcome, Phase, Remediation
from openfero_gitops.jobs.observe import observe, recorded_replica_labels
from openfero_gitops.jobs.render import target
from tests.support import build
from tests.support.build import (
    JOBS_NAMESPACE,
    NOW,
    alert,
    catalog,
    delivery,
    minutes,
    operario,
    rendered,
    stored,
)
from tests.support.workers import Replica, World, in_virtual_time, resolved, until

if TYPE_CHECKING:
    from openfero_gitops.domain.alert import Alert
    from openfero_gitops.domain.answer import Answer

PLAIN = {"alertname": "PodCrashLooping", "namespace": "web", "pod": "api-0"}


def of_member(member: str, label: str = "prometheus_replica", **given: Any) -> Alert:
    """Return the alert as one member of a pair sends it."""
    return alert(labels={**PLAIN, "severity": "page", label: member}, **given)


def outcomes(answer: Answer) -> list[tuple[Outcome, Reason | None]]:
    """Return the outcome and reason of each alert."""
    return [(item.outcome, item.reason) for item in answer.items]


async def started(world: World) -> list[Remediation]:
    """Return the Jobs that were admitted."""
    return [job for job in await world.jobs() if job.admitted_at is not None]


class TestRendering:
    """A Job's identity and target."""

    @pytest.mark.parametrize("label", sorted(REPLICA_LABELS))
    def test_both_members_have_one_job(self, label: str) -> None:
        """Name, occurrence, incident and target do not depend on a replica label."""
        jobs = [rendered(of_member(member, label)) for member in ("a", "b")]
        without = rendered(alert(labels={**PLAIN, "severity": "page"}))
        for job in jobs:
            assert job.key == without.key
            metadata = job.manifest["metadata"]
            assert metadata["labels"] == without.manifest["metadata"]["labels"]
            assert json.loads(metadata["annotations"][keys.TARGET]) == {
                "namespace": "web",
                "pod": "api-0",
            }

    def test_the_member_stays_in_the_record_and_the_environment(self) -> None:
        """People and scripts can still read which member sent the alert."""
        manifest = rendered(of_member("prometheus-k8s-1")).manifest
        annotations = manifest["metadata"]["annotations"]
        assert json.loads(annotations[keys.ALERT])["labels"]["prometheus_replica"] == (
            "prometheus-k8s-1"
        )
        assert annotations[keys.REPLICA_LABELS] == '["prometheus_replica"]'
        (container,) = manifest["spec"]["template"]["spec"]["containers"]
        variable = {"name": "OPENFERO_PROMETHEUS_REPLICA", "value": "prometheus-k8s-1"}
        assert variable in container["env"]

    def test_a_configured_label_counts_besides_the_known_ones(self) -> None:
        """A label of `--replica-label` does not replace the fixed list."""
        both = with_replica_labels(("cluster-member", "host.name"))
        jobs = {
            rendered(
                alert(labels={**PLAIN, "host.name": member, "__replica__": member}),
                replica_labels=both,
            ).key
            for member in "ab"
        }
        assert jobs == {rendered(alert(labels=PLAIN)).key}

    @pytest.mark.parametrize("label", ["replica", "prometheus", "Prometheus_Replica", "cluster"])
    def test_other_labels_identify_an_alert(self, label: str) -> None:
        """Only the exact names are replica labels."""
        assert rendered(of_member("a", label)).key != rendered(of_member("b", label)).key

    def test_an_alert_without_replica_labels_is_rendered_as_before(self) -> None:
        """Its Job has no annotation for them."""
        assert keys.REPLICA_LABELS not in rendered().manifest["metadata"]["annotations"]

    def test_a_target_never_contains_a_replica_label(self) -> None:
        """Not even if the operario names it: both members are about the same target."""
        by = operario(options=Options(target=("pod", "prometheus_replica")))
        assert target(of_member("a"), by, ("prometheus_replica",)) == '{"pod":"api-0"}'

    def test_an_alert_too_large_to_be_recorded_is_one_of_the_pair_too(self) -> None:
        """Its refused Job has the name that the other member's has."""
        jobs = [
            rendered(alert(labels={**PLAIN, "note": "x" * 70_000, "rule_replica": member}))
            for member in "ab"
        ]
        assert jobs[0].key == jobs[1].key
        assert jobs[0].refusal is Reason.TOO_LARGE
        assert isinstance(observe(stored(jobs[0].manifest)), Remediation)


class TestReading:
    """A Job is recognized whatever the setting is now."""

    @pytest.mark.parametrize(
        "replica_labels",
        [REPLICA_LABELS, with_replica_labels(("pod", "severity")), frozenset[str]()],
        ids=["default", "more", "none"],
    )
    def test_a_job_is_ours_and_verified_under_any_setting(
        self, replica_labels: frozenset[str]
    ) -> None:
        """What was left out is recorded on the Job, and read from there."""
        job = stored(rendered(of_member("a"), replica_labels=replica_labels).manifest)
        assert isinstance(observe(job), Remediation)
        verification = verify(job, catalog(operario()), jobs_namespace=JOBS_NAMESPACE)
        assert verification.proof is Proof.VERIFIED

    def test_a_job_of_an_earlier_release_is_ours_and_verified(self) -> None:
        """Renderer version 2 left no label out."""
        made = rendered(of_member("a"), renderer=2, replica_labels=frozenset())
        job = stored(made.manifest)
        assert isinstance(observe(job), Remediation)
        verification = verify(job, catalog(operario()), jobs_namespace=JOBS_NAMESPACE)
        assert verification.proof is Proof.VERIFIED

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            (None, "its label openfero.io/occurrence does not belong"),
            ("[]", "its label openfero.io/occurrence does not belong"),
            ("{", "its label openfero.io/occurrence does not belong"),
            ('{"prometheus_replica":1}', "its label openfero.io/occurrence does not belong"),
            ("[1]", "its label openfero.io/occurrence does not belong"),
            ("[" * 5000, "its label openfero.io/occurrence does not belong"),
            ('["pod"]', "its label openfero.io/occurrence does not belong"),
            ('["prometheus_replica","pod"]', "its label openfero.io/occurrence does not belong"),
            ('["prometheus_replica","x"]', "its annotation openfero.io/replica-labels names"),
            ('["alertname"]', "its annotation openfero.io/replica-labels names"),
        ],
    )
    def test_a_changed_list_makes_a_job_foreign(self, text: str | None, why: str) -> None:
        """Name and labels no longer follow from the recorded alert."""
        job = stored(rendered(of_member("a")).manifest, annotations={keys.REPLICA_LABELS: text})
        foreign = observe(job)
        assert isinstance(foreign, Foreign)
        assert foreign.why.startswith(why)
        verification = verify(job, catalog(operario()), jobs_namespace=JOBS_NAMESPACE)
        assert verification.proof is Proof.DIFFERS

    def test_the_longest_list_of_the_setting_can_be_read(self) -> None:
        """What the setting accepts, a Job's record holds."""
        name = '"' * 400
        names = with_replica_labels((name,))
        made = rendered(alert(labels={**PLAIN, **dict.fromkeys(names, "x")}), replica_labels=names)
        job = stored(made.manifest)
        assert set(recorded_replica_labels(job["metadata"]["annotations"])) == names
        assert isinstance(observe(job), Remediation)


class TestOneDelivery:
    """Both members' alerts in one group."""

    @in_virtual_time
    async def test_both_alerts_have_one_job(self) -> None:
        """The answer names it for both; only one is counted as created."""
        world = World()
        replica = world.replica()
        async with replica.watching():
            first = await replica.deliver(of_member("a"), of_member("b"))
            again = await replica.deliver(of_member("b"), of_member("a"))
        (job,) = await world.jobs()
        assert outcomes(first) == [(Outcome.CREATED, None), (Outcome.EXISTS, None)]
        assert outcomes(again) == [(Outcome.EXISTS, None)] * 2
        assert {item.job for item in (*first.items, *again.items)} == {job.key}
        assert [item.alert.labels["prometheus_replica"] for item in first.items] == ["a", "b"]
        assert again.verdict is Verdict.ACCEPTED

    @in_virtual_time
    async def test_an_operario_that_matches_one_member_heals(self) -> None:
        """Matchers see replica labels: the member that does not match costs nothing."""
        by = operario(options=Options(matchers=parse_matchers('prometheus_replica="b"')))
        world = World()
        replica = world.replica(catalog=catalog(by))
        async with replica.watching():
            answer = await replica.deliver(of_member("a"), of_member("b"))
        assert outcomes(answer) == [
            (Outcome.NO_MATCH, Reason.MATCHERS),
            (Outcome.CREATED, None),
        ]
        assert len(await world.jobs()) == 1

    @in_virtual_time
    async def test_a_failure_is_that_of_both(self) -> None:
        """The whole delivery is repeated if the one Job was not created."""
        from openfero_gitops.domain.errors import Throttled  # noqa: PLC0415

        async def trouble(request: Any, act: Any) -> Any:
            if request.verb == "create":
                raise Throttled("later")
            return await act()

        replica = World().replica()
        replica.wire.trouble = trouble
        async with replica.watching():
            answer = await replica.deliver(of_member("a"), of_member("b"))
        assert outcomes(answer) == [(Outcome.ERROR, Reason.API_UNAVAILABLE)] * 2
        assert answer.verdict is Verdict.REPEAT

    @in_virtual_time
    async def test_an_alert_without_start_has_one_job(self) -> None:
        """Each delivery of it is another occurrence, of both members together."""
        world = World()
        replica = world.replica()
        async with replica.watching():
            await replica.deliver(of_member("a", starts_at=None), of_member("b", starts_at=None))
        assert len(await world.jobs()) == 1


class TestDifferentStarts:
    """The members evaluate their rules at different moments."""

    @pytest.mark.parametrize("later", [1, 45, 900])
    @in_virtual_time
    async def test_one_delivery_makes_one_job_of_the_earliest_start(self, later: int) -> None:
        """Alertmanager would merge the two, and a member that was restarted changes nothing."""
        world = World()
        replica = world.replica()
        first = of_member("a", starts_at=NOW - timedelta(seconds=30))
        second = of_member("b", starts_at=NOW + timedelta(seconds=later))
        async with replica.watching():
            answer = await replica.deliver(second, first)
            again = await replica.deliver(first, second)
        (job,) = await world.jobs()
        assert job.starts_at == first.starts_at
        assert job.labels["prometheus_replica"] == "a"
        assert outcomes(answer) == [(Outcome.EXISTS, None), (Outcome.CREATED, None)]
        assert outcomes(again) == [(Outcome.EXISTS, None)] * 2
        assert [item.alert.labels["prometheus_replica"] for item in answer.items] == ["b", "a"]

    @pytest.mark.parametrize("later", [-45, -15, 15, 45])
    @in_virtual_time
    async def test_two_deliveries_have_one_job(self, later: int) -> None:
        """The second member's alert belongs to the Job of the first."""
        world = World()
        replica = world.replica()
        start = NOW - timedelta(seconds=30)
        first = of_member("a", starts_at=start)
        second = of_member("b", starts_at=start + timedelta(seconds=later))
        async with replica.watching(), replica.leading():
            for delivered in (first, second):
                answer = await replica.deliver(delivered)
            await until(lambda: all(not job.waiting for job in replica.view))
        (job,) = await world.jobs()
        assert outcomes(answer) == [(Outcome.EXISTS, None)]
        assert (answer.items[0].job, answer.items[0].alert) == (job.key, second)

    @pytest.mark.parametrize("later", [15, 45])
    @in_virtual_time
    async def test_two_deliveries_at_once_are_healed_once(self, later: int) -> None:
        """Each start has a Job, and the leader refuses all but one as the same incident."""
        world = World()
        replica, other = world.replica(), world.replica("other")
        start = NOW - timedelta(seconds=30)
        first = of_member("a", starts_at=start)
        second = of_member("b", starts_at=start + timedelta(seconds=later))
        async with replica.watching(), other.watching():
            await asyncio.gather(replica.deliver(first), other.deliver(second))
            async with replica.leading():
                await until(lambda: all(not job.waiting for job in replica.view))
                await replica.deliver(first, second)
        jobs = await world.jobs()
        assert len(await started(world)) == 1
        assert [(job.phase, job.reason) for job in jobs if job.admitted_at is None] == [
            (Phase.REFUSED, Reason.SAME_INCIDENT)
        ]

    @pytest.mark.parametrize("known", ["both fired", "one fired", "nothing"])
    @pytest.mark.parametrize("later", [20, 120, 1500])
    @in_virtual_time
    async def test_the_later_member_goes_on_firing(self, known: str, later: int) -> None:
        """The start of the member that was resolved stays that of the one Job."""
        world = World()
        replica, after = world.replica(), world.replica("after a restart")
        start = NOW - timedelta(seconds=30)
        first = of_member("a", starts_at=start)
        second = of_member("b", starts_at=start + timedelta(seconds=later))
        end = start + timedelta(seconds=later + 10)
        async with replica.watching(), replica.leading():
            if known != "nothing":
                await replica.deliver(first)
                await until(lambda: all(job.started for job in replica.view))
            await asyncio.sleep(later + 60)
            if known == "both fired":
                await replica.deliver(first, second)
            await replica.deliver(resolved(first, end), second)
            await asyncio.sleep(300)
            await replica.deliver(second)
        async with after.watching():
            await after.deliver(second)
        (job,) = await world.jobs()
        assert (job.starts_at, job.resolved_at) == (start, None)

    @in_virtual_time
    async def test_a_member_that_was_resolved_before_is_another_incident(self) -> None:
        """The alert fires again after an end that was not delivered: it is healed again."""
        world = World()
        replica = world.replica()
        first = of_member("a", starts_at=NOW)
        second = of_member("b", starts_at=NOW + timedelta(minutes=5))
        async with replica.watching(), replica.leading():
            await replica.deliver(first)
            await asyncio.sleep(360)
            answer = await replica.deliver(resolved(first, NOW + minutes(4)), second)
            assert answer.items[1].outcome is Outcome.CREATED
            await asyncio.sleep(30)
        assert [job.phase for job in await world.jobs()].count(Phase.REFUSED) == 0

    @pytest.mark.parametrize("member", ["a", "b"])
    @in_virtual_time
    async def test_without_resolved_deliveries_the_next_incident_is_healed(
        self, member: str
    ) -> None:
        """The sender has `send_resolved: false`; the alert fires again a day later."""
        world = World()
        replica = world.replica()
        later = NOW + timedelta(days=1)
        async with replica.watching(), replica.leading():
            await replica.deliver(of_member("a", starts_at=NOW), of_member("b", starts_at=NOW))
            await asyncio.sleep(24 * 3600 + 30)
            await replica.deliver(of_member(member, starts_at=later))
            await replica.deliver(
                of_member("b", starts_at=later), of_member("a", starts_at=later + minutes(1))
            )
            await until(lambda: len(replica.view) == 2)
            await asyncio.sleep(30)
        jobs = await world.jobs()
        assert {job.starts_at for job in jobs} == {NOW, later}
        assert [job.phase for job in jobs].count(Phase.REFUSED) == 0


class TestResolvedAlone:
    """The members' alerts come in separate deliveries, and one is resolved before its Job ran."""

    @pytest.mark.parametrize("apart", [0, 20, 200])
    @pytest.mark.parametrize("resolving", ["a", "b"])
    @in_virtual_time
    async def test_the_member_that_still_fires_is_healed(self, apart: int, resolving: str) -> None:
        """The Job of the first was refused as resolved, and a repetition makes another attempt."""
        world = World()
        replica = world.replica()
        one, other = (
            of_member(member, starts_at=NOW + timedelta(seconds=seconds))
            for member, seconds in (("a", 0), ("b", apart))
        )
        gone, firing = (one, other) if resolving == "a" else (other, one)
        end = NOW + timedelta(seconds=apart + 20)
        async with replica.watching():
            await replica.deliver(one)
            await asyncio.sleep(apart)
            await replica.deliver(other)
            await asyncio.sleep(30)
            await replica.deliver(resolved(gone, end))
            async with replica.leading():
                await until(lambda: not any(job.waiting for job in replica.view))
                assert not await started(world)
                await asyncio.sleep(120)
                answer = await replica.deliver(firing)
                await until(lambda: any(job.started for job in replica.view))
                await replica.deliver(resolved(gone, end))  # a late repetition
                again = await replica.deliver(firing)
                await replica.deliver(gone)
                await until(lambda: not any(job.waiting for job in replica.view))
        (job,) = await started(world)
        assert (answer.items[0].outcome, answer.items[0].job) == (Outcome.CREATED, job.key)
        assert (again.items[0].outcome, again.items[0].job) == (Outcome.EXISTS, job.key)
        assert job.resolved_at is None

    @in_virtual_time
    async def test_a_job_that_started_is_not_repeated(self) -> None:
        """Its incident was remediated, whatever the other member says later."""
        world = World()
        replica = world.replica()
        async with replica.watching(), replica.leading():
            await replica.deliver(of_member("a", starts_at=NOW))
            await until(lambda: all(job.started for job in replica.view))
            await asyncio.sleep(60)
            await replica.deliver(resolved(of_member("a", starts_at=NOW), NOW + minutes(1)))
            for seconds in (0, 20, 50):
                await asyncio.sleep(300)
                start = NOW + timedelta(seconds=seconds)
                await replica.deliver(of_member("b", starts_at=start))
        assert len(await world.jobs()) == 1

    @in_virtual_time
    async def test_the_last_member_resolves_the_attempt(self) -> None:
        """Both ends are recorded, and nothing runs after the second."""
        world = World()
        replica = world.replica()
        async with replica.watching(), replica.leading():
            replica.paused = True
            await replica.deliver(of_member("a"))
            await replica.deliver(resolved(of_member("a"), NOW + timedelta(seconds=5)))
            await until(lambda: not any(job.waiting for job in replica.view))
            await asyncio.sleep(120)
            await replica.deliver(of_member("b"))
            await replica.deliver(resolved(of_member("b"), NOW + minutes(3)))
            await until(lambda: not any(job.waiting for job in replica.view))
        jobs = await world.jobs()
        assert {job.resolved_at for job in jobs} == {
            NOW + timedelta(seconds=5),
            NOW + minutes(3),
        }
        assert {job.reason for job in jobs} == {Reason.RESOLVED}


class TestResolved:
    """An alert is resolved once the last member says so."""

    @in_virtual_time
    async def test_the_other_member_still_fires(self) -> None:
        """Nothing is recorded, and no Job for the resolved alert is created."""
        world = World()
        both = catalog(operario(), operario("undo", status=Status.RESOLVED))
        replica = world.replica(catalog=both)
        late = NOW + timedelta(minutes=5)
        async with replica.watching():
            await replica.deliver(of_member("a"), of_member("b"))
            answer = await replica.deliver(resolved(of_member("a"), late), of_member("b"))
            (job,) = await world.jobs()
            assert outcomes(answer) == [
                (Outcome.NO_MATCH, Reason.STILL_FIRING),
                (Outcome.EXISTS, None),
            ]
            assert job.resolved_at is None
            answer = await replica.deliver(resolved(of_member("b"), late))
        assert outcomes(answer) == [(Outcome.CREATED, None)]
        firing = next(job for job in await world.jobs() if job.status is Status.FIRING)
        assert firing.resolved_at == late

    @in_virtual_time
    async def test_either_member_resolves_the_job_of_the_pair(self) -> None:
        """The Job was created for one member, and the other's alert ends it."""
        world = World()
        replica = world.replica()
        late = NOW + timedelta(minutes=5)
        async with replica.watching():
            await replica.deliver(of_member("a"))
            await replica.deliver(resolved(of_member("b"), late))
        (job,) = await world.jobs()
        assert job.resolved_at == late

    @in_virtual_time
    async def test_one_undo_for_both_members(self) -> None:
        """The resolved Job belongs to the pair, and waits for the firing Job of the pair."""
        world = World()
        options = Options(resolve_delay=timedelta(0))
        both = catalog(operario(), operario("undo", status=Status.RESOLVED, options=options))
        replica = world.replica(catalog=both)
        late = NOW + timedelta(minutes=5)
        async with replica.watching(), replica.leading():
            await replica.deliver(of_member("a"))
            await until(lambda: any(job.started for job in replica.view))
            await replica.deliver(resolved(of_member("b"), late), resolved(of_member("a"), late))
            await until(
                lambda: any(
                    decision.reason is Reason.FIRING_RUNS
                    for _, decision in replica.admitter.decisions
                )
            )
        assert len(await world.jobs()) == 2


class TestChangedSetting:
    """The setting changes while an alert fires, or the controller is upgraded."""

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (frozenset[str](), REPLICA_LABELS),
            (REPLICA_LABELS, with_replica_labels(("severity",))),
            (with_replica_labels(("severity",)), REPLICA_LABELS),
        ],
        ids=["upgrade", "one more", "one less"],
    )
    @in_virtual_time
    async def test_a_firing_alert_is_not_healed_again(
        self, before: frozenset[str], after: frozenset[str]
    ) -> None:
        """The alert gets a Job of its new name, which is refused as the same incident."""
        world = World()
        old = world.replica("old", replica_labels=before)
        async with old.watching(), old.leading():
            await old.deliver(of_member("a"))
            await until(lambda: any(job.started for job in old.view))
        new = world.replica("new", replica_labels=after)
        async with new.watching(), new.leading():
            await new.deliver(of_member("a"))
            await until(lambda: len(new.view) == 2 and not any(j.waiting for j in new.view))
        assert len(await started(world)) == 1
        refused = next(job for job in await world.jobs() if job.admitted_at is None)
        assert (refused.phase, refused.reason) == (Phase.REFUSED, Reason.SAME_INCIDENT)

    @in_virtual_time
    async def test_a_job_of_before_is_resolved(self) -> None:
        """Its label has another incident, and it is still found."""
        world = World()
        old = world.replica("old", replica_labels=frozenset())
        async with old.watching():
            await old.deliver(of_member("a"))
        new: Replica = world.replica("new")
        late = NOW + timedelta(minutes=5)
        async with new.watching():
            await new.deliver(resolved(of_member("a"), late))
        (job,) = await world.jobs()
        assert job.resolved_at == late

    @in_virtual_time
    async def test_two_replicas_with_different_settings_heal_once(self) -> None:
        """The leader's setting decides which Jobs belong to one incident."""
        world = World()
        one = world.replica("one", replica_labels=with_replica_labels(("severity",)))
        other = world.replica("other")
        async with one.watching(), other.watching(), one.leading():
            await one.deliver(of_member("a"))
            await other.deliver(of_member("a"))
            await until(lambda: len(one.view) == 2 and not any(j.waiting for j in one.view))
        assert len(await started(world)) == 1


def test_a_delivery_is_read_again_from_a_job_with_replica_labels() -> None:
    """The remediation has all labels, and the names of those that do not count."""
    made = rendered(of_member("a"), delivered=delivery(id="f" * 32))
    remediation = observe(stored(made.manifest))
    assert isinstance(remediation, Remediation)
    assert remediation.labels["prometheus_replica"] == "a"
    assert remediation.replica_labels == ("prometheus_replica",)
    assert (
        remediation.incident
        == build.rendered(alert(labels={**PLAIN, "severity": "page"})).occurrence.incident
    )


@pytest.mark.parametrize("order", [1, -1])
def test_one_alert_of_a_pair_has_the_job(order: int) -> None:
    """It is the one that starts first; other alerts have Jobs of their own."""
    late = of_member("b", starts_at=NOW)
    early = of_member("a", starts_at=NOW - timedelta(minutes=1))
    other = alert(labels=PLAIN)
    resolved_one = of_member("a", status=Status.RESOLVED)
    alerts = [late, early, other, resolved_one][::order]
    assert set(map(id, with_own_job(alerts, REPLICA_LABELS))) == {
        id(early),
        id(other),
        id(resolved_one),
    }
