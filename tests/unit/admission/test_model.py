"""Admission compared with its specification: both must make the same decisions.

Hypothesis generates deliveries, actions of people, ends of Jobs and passing time. One side is the
controller's code: Jobs are rendered, patched and read back as by the API server. The other side is
`tests.support.model`, which only knows the rules.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from openfero_gitops.admission.decide import Admit, Refuse, decide
from openfero_gitops.admission.requirements import with_requirements
from openfero_gitops.delivery.attempt import healing_job, is_next_attempt_due, runs_so_far
from openfero_gitops.demo.cluster.jsonpatch import apply_patch
from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.catalog import Envelope, Limits
from openfero_gitops.domain.effect import FINAL_EFFECTS
from openfero_gitops.domain.errors import Invalid
from openfero_gitops.domain.operario import Mode, OnResolve, Operario
from openfero_gitops.domain.operario import Options as Written
from openfero_gitops.domain.pause import Pause, PauseCause
from openfero_gitops.domain.remediation import Phase, Remediation
from openfero_gitops.effects.assess import assess, is_still_firing
from openfero_gitops.jobs import patches
from openfero_gitops.jobs.observe import observe
from openfero_gitops.jobs.render import render
from tests.support import build
from tests.support.copying import replace
from tests.support.depth import scaled
from tests.support.model import Options, Rules, Run

_BEGIN = build.NOW.replace(microsecond=0)
_PHASES = {
    "waiting": {Phase.WAITING, Phase.AWAITING_APPROVAL},
    "running": {Phase.RUNNING},
    "queued": {Phase.QUEUED},
    "held": {Phase.HELD},
    "succeeded": {Phase.SUCCEEDED},
    "failed": {Phase.FAILED},
    "refused": {Phase.REFUSED},
    "cancelled": {Phase.CANCELLED},
}


def _mostly(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    """Draw the usual value, and now and then another one."""
    return st.sampled_from((usual,) * (5 * len(others)) + others)


_PAUSE = Pause(PauseCause.COMMAND, "ada paused admission", "ada")
_SELDOM = _mostly(*(False, True))


def _time(usual: int, *others: int) -> st.SearchStrategy[timedelta]:
    return _mostly(usual, *others).map(lambda count: timedelta(seconds=count))


_OPTIONS = st.builds(
    Options,
    priority=st.integers(0, 2),
    cooldown=_time(30, 0, 600),
    max_concurrent=_mostly(5, 0, 1),
    max_per_hour=_mostly(30, 0, 1, 2),
    max_wait=_time(3600, 0, 60),
    rerun_after=_time(30, 0),
    max_runs=_mostly(3, 1),
    approval=_SELDOM,
    on_resolve=st.sampled_from(("cancel", "keep", "cancel-running")),
    resolve_delay=_time(30, 0, 0),
    dry_run=_SELDOM,
    heals_within=_time(60, 1, 600),
    stop_after=_mostly(3, None, 1, 1, 2),
)
_PODS = _mostly("web-1", "web-2")
_NAMESPACES = _mostly("jobs", "jobs", "other")
#: Seconds from the delivery of another alert, or from now, to when this one began.
_BEGAN = st.sampled_from((-30, 0, 1, 60, 61, 600, 600, 600))
_ANY = st.integers(0, 1_000_000)


def operario(name: str, alertname: str, status: Status, options: Options, queue: str) -> Operario:
    """Make an operario with these options."""
    written = Written(
        priority=options.priority,
        mode=Mode.DRY_RUN if options.dry_run else Mode.RUN,
        target=("pod",),
        cooldown=options.cooldown,
        max_concurrent=options.max_concurrent,
        max_per_hour=options.max_per_hour,
        max_wait=options.max_wait,
        rerun_after=options.rerun_after,
        max_runs=options.max_runs,
        approval=options.approval,
        on_resolve=OnResolve(options.on_resolve),
        resolve_delay=options.resolve_delay,
        heals_within=options.heals_within,
        stop_after_not_healed=options.stop_after,
    )
    labels = {keys.KUEUE_QUEUE: queue} if queue else None
    return build.operario(
        name,
        options=written,
        alertname=alertname,
        status=status,
        labels=labels,
        spec_digest=f"{name}-0",
    )


class Story(RuleBasedStateMachine):
    """The same events for both sides; `jobs` are those in the API server."""

    def __init__(self) -> None:
        super().__init__()
        self.now: datetime = _BEGIN
        self.rules = Rules()
        self.runs: dict[str, Run] = {}  # by uid
        self.jobs: dict[str, dict[str, Any]] = {}
        self.admitted: dict[str, datetime] = {}
        self.noted: dict[str, datetime] = {}
        self.count = 0

    @initialize(
        mend=_OPTIONS,
        undo=_OPTIONS,
        other=_OPTIONS,
        concurrent=_mostly(20, 0, 1, 1, 1),
        per_minute=_mostly(60, 0, 1, 2),
    )
    def begin(
        self, mend: Options, undo: Options, other: Options, concurrent: int, per_minute: int
    ) -> None:
        """Draw the operarios."""
        self.rules.concurrent, self.rules.per_minute = concurrent, per_minute
        self.operarios = {
            ("Crash", "firing"): (operario("mend", "Crash", Status.FIRING, mend, ""), mend),
            ("Crash", "resolved"): (operario("undo", "Crash", Status.RESOLVED, undo, ""), undo),
            ("Full", "firing"): (operario("other", "Full", Status.FIRING, other, "batch"), other),
        }

    # Deliveries.

    @rule(
        name=st.sampled_from(("Crash", "Full")),
        pod=_PODS,
        which=_ANY,
        began=_BEGAN,
        namespace=_NAMESPACES,
        heard=_mostly(*(True, False)),
        then=_SELDOM,
    )
    def fire(
        self,
        name: str,
        pod: str,
        which: int,
        began: int,
        namespace: str,
        *,
        heard: bool,
        then: bool,
    ) -> None:
        """An alert fires; the next attempt is created if there must be one.

        That it still fires is written on the Jobs that should have healed it, unless that fails.
        """
        labels = {"alertname": name, "pod": pod}
        starts = self._near(which, began)
        views = {uid: observe(job) for uid, job in self.jobs.items()}
        in_namespace = {uid: job for uid, job in views.items() if job.key.namespace == namespace}
        healing: list[Remediation] = []
        owed: int | None = None
        for attempt in range(1, 10):
            same_attempt = [
                job
                for job in in_namespace.values()
                if (job.labels, job.status, job.starts_at, job.attempt)
                == (labels, Status.FIRING, starts, attempt)
            ]
            if not same_attempt:
                owed = attempt
                break
            incident = [job for job in views.values() if job.incident == same_attempt[0].incident]
            healing.append(healing_job(same_attempt[0], incident))
            if not is_next_attempt_due(healing[-1], runs_so_far(healing), self.now):
                break
        if all(job.key.namespace == namespace for job in views.values()):
            assert owed == self.rules.next_attempt(tuple(sorted(labels.items())), starts, self.now)
        if owed is not None:
            self._create(name, "firing", pod, starts, namespace, owed)
        for uid, run in self.runs.items() if heard else ():
            job = observe(self.jobs[uid])
            still = run.labels == tuple(sorted(labels.items())) and self.rules.still_firing(
                run, starts, self.now
            )
            assert still == (job.labels == labels and is_still_firing(job, starts, self.now))
            if still:
                self._patch(uid, patches.still_firing(job, self.now))
                run.heard = self.now
        if then:
            self.look()

    @rule(
        name=st.sampled_from(("Crash", "Full")),
        pod=_PODS,
        times=st.integers(1, 5),
        seconds=st.sampled_from((1, 30, 61, 700)),
        anew=st.booleans(),
        heard=_mostly(*(True, False)),
        changed=_SELDOM,
    )
    def fire_on(
        self,
        name: str,
        pod: str,
        times: int,
        seconds: int,
        *,
        anew: bool,
        heard: bool,
        changed: bool,
    ) -> None:
        """An alert goes on firing, or fires again, whatever runs for it.

        Then a commit may change what did not help.
        """
        began = self.now
        for _ in range(times):
            self.fire(
                name,
                pod,
                0,
                0 if anew else int((began - self.now).total_seconds()),
                "jobs",
                heard=heard,
                then=True,
            )
            self.kueue(0)
            self.wait(1, ends=True, then=False)
            self.wait(seconds, ends=False, then=False)
        if changed:
            self.change((name, "firing"))
            self.look()

    def _near(self, which: int, began: int) -> datetime:
        """Return a time near another alert's, or near now."""
        moments = [self.now]
        moments += [run.received for run in self.runs.values()]
        moments += [run.starts for run in self.runs.values() if run.starts]
        moments += [run.resolved for run in self.runs.values() if run.resolved]
        return moments[which % len(moments)] + timedelta(seconds=began)

    @rule(pod=_PODS, which=_ANY, began=_BEGAN, ended=_BEGAN, namespace=_NAMESPACES)
    def resolve(self, pod: str, which: int, began: int, ended: int, namespace: str) -> None:
        """An alert is resolved: that is recorded, and a resolved Job may be created."""
        starts = self._near(which, began)
        ends = max(starts, self.now + timedelta(seconds=ended))
        for uid, run in self.runs.items():
            if (run.status, dict(run.labels)) != ("firing", {"alertname": "Crash", "pod": pod}):
                continue
            if run.starts is not None and run.starts <= ends and run.resolved is None:
                self._patch(uid, patches.resolve(observe(self.jobs[uid]), ends))
                run.resolved = ends
        taken = any(
            job.status is Status.RESOLVED and job.starts_at == starts and job.labels["pod"] == pod
            for job in map(observe, self.jobs.values())
            if job.key.namespace == namespace
        )
        if not taken:
            self._create("Crash", "resolved", pod, starts, namespace, 1)

    def _create(
        self, name: str, status: str, pod: str, starts: datetime, namespace: str, attempt: int
    ) -> None:
        by, options = self.operarios[name, status]
        alert = build.alert(
            status=Status(status), labels={"alertname": name, "pod": pod}, starts_at=starts
        )
        self.count += 1
        rendered = render(
            alert,
            by,
            Envelope(),
            build.REVISION,
            build.delivery(received_at=self.now),
            jobs_namespace=namespace,
            attempt=attempt,
        )
        uid = f"uid-{self.count}"
        manifest = rendered.manifest
        stored = {"uid": uid, "resourceVersion": "1", "creationTimestamp": _written(self.now)}
        metadata = {**manifest["metadata"], **stored}
        self.jobs[uid] = {**manifest, "metadata": metadata, "status": {}}
        run = Run(
            name=f"{rendered.key.name} {namespace}",
            operario=by.name,
            labels=tuple(sorted(alert.labels.items())),
            status=status,
            starts=starts,
            attempt=attempt,
            received=self.now,
            target=pod,
            options=options,
            version=self.rules.versions.get(by.name, 0),
        )
        self.runs[uid] = run
        self.rules.runs.append(run)

    # The leader.

    @rule(paused=_SELDOM, blind=_SELDOM)
    def look(self, *, paused: bool = False, blind: bool = False) -> None:
        """The leader decides, and the rules check its decisions."""
        self.rules.paused, self.rules.catalog = paused, not blind
        limits = Limits(self.rules.concurrent, self.rules.per_minute)
        envelope = Envelope(limits=limits) if self.rules.catalog else None
        catalog = build.catalog(*(by for by, _ in self.operarios.values()))
        views = with_requirements(
            map(observe, self.jobs.values()), catalog if self.rules.catalog else None
        )
        decided = decide(views, envelope, pause=_PAUSE if paused else None, now=self.now)
        decisions = {job.uid: decision for job, decision in decided}
        self._expect(decisions)
        for remediation in views:
            if remediation.has_unrecorded_start:
                self._patch(remediation.uid, patches.started_by_other(remediation, self.now))
                self.noted[remediation.uid] = remediation.started_at or self.now
        for run in self.runs.values():
            run.unwritten = False
        for remediation, decision in decided:
            if isinstance(decision, Admit):
                self._patch(
                    remediation.uid, patches.admit(remediation, "stamp", "replica", self.now)
                )
                self.admitted[remediation.uid] = self.now
                self.runs[remediation.uid].began = self.now
                if remediation.queue is None:
                    self._controller_starts(remediation.uid)
            elif isinstance(decision, Refuse):
                self._patch(
                    remediation.uid,
                    patches.refuse(remediation, "stamp", decision.reason, decision.message),
                )

    def _expect(self, decisions: dict[str, Any]) -> None:
        """Compare each decision with the rules."""
        waiting = {uid: run for uid, run in self.runs.items() if run.waits}
        assert set(decisions) == set(waiting)
        by_age = sorted(waiting, key=lambda uid: waiting[uid].place)
        for uid in sorted(by_age, key=lambda uid: waiting[uid].status == "resolved"):
            if why := self.rules.refusals(waiting[uid], self.now):
                self._refused(waiting.pop(uid), why, decisions[uid])
        by_age = [uid for uid in by_age if uid in waiting]
        for uid in sorted(by_age, key=lambda uid: -waiting[uid].options.priority):
            run, decision = waiting[uid], decisions[uid]
            if why := self.rules.doubles(run):
                self._refused(run, why, decision)
            elif why := self.rules.holds(run, self.now):
                assert decision.reason.value in why, (run, decision, why)
            else:
                assert isinstance(decision, Admit), (run, decision)
                run.started = self.now
                queued = run.operario == "other"
                run.state, run.pods = ("queued", run.pods) if queued else ("running", True)

    @staticmethod
    def _refused(run: Run, why: set[str], decision: Any) -> None:
        assert isinstance(decision, Refuse), (run, why, decision)
        assert decision.reason.value in why, (run, why, decision)
        run.state, run.reason, run.unwritten = "refused", decision.reason.value, True

    @rule()
    def settle(self) -> None:
        """The leader settles the effects that are known."""
        views = [observe(job) for job in self.jobs.values()]
        for job in views:
            incident = [other for other in views if other.incident == job.incident]
            assessment = assess(job, incident, self.now)
            if assessment is None or assessment.effect not in FINAL_EFFECTS or job.effect:
                continue
            run = self.runs[job.uid]
            if not job.started:
                continue  # a dry run
            assert assessment.effect == self.rules.effect(run, self.now), (run, assessment)
            assert assessment.at is not None
            patch = patches.settle(job, assessment.effect, assessment.at, assessment.message)
            self._patch(job.uid, patch)
            run.effect = assessment.effect.value

    @rule(alert=st.sampled_from((("Crash", "firing"), ("Full", "firing"))))
    def change(self, alert: tuple[str, str]) -> None:
        """A commit changes the Job of an operario."""
        by, options = self.operarios[alert]
        version = self.rules.versions.get(by.name, 0) + 1
        self.rules.versions[by.name] = version
        self.operarios[alert] = replace(by, spec_digest=f"{by.name}-{version}"), options

    # Jobs, and those who change them.

    def _some(self, which: int, *states: str) -> str | None:
        uids = [uid for uid, run in self.runs.items() if run.state in states]
        return uids[which % len(uids)] if uids else None

    @rule(which=_ANY, ill=_SELDOM, then=st.booleans())
    def end(self, which: int, *, ill: bool, then: bool) -> None:
        """A running Job ends."""
        uids = [uid for uid, run in self.runs.items() if run.pods and self._runs(uid)]
        if not uids:
            return
        uid = uids[which % len(uids)]
        run = self.runs[uid]
        if run.state == "running":
            run.state = "failed" if ill else "succeeded"
        self._controller_ends(uid, "Failed" if ill else "Complete")
        run.pods, run.ended = False, self.now
        if then:
            self.look()

    @rule(which=_ANY)
    def kueue(self, which: int) -> None:
        """Kueue starts a queued Job."""
        if (uid := self._some(which, "queued")) is not None:
            self._controller_starts(uid)
            self.runs[uid].state, self.runs[uid].pods = "running", True

    @rule(which=_ANY)
    def approve(self, which: int) -> None:
        """A person approves."""
        uid = self._some(which, "waiting")
        if uid is not None and not self.runs[uid].approved:
            self._patch(uid, patches.approve(observe(self.jobs[uid]), "ada"))
            self.runs[uid].approved = True

    @rule(which=_ANY)
    def refuse(self, which: int) -> None:
        """A person refuses."""
        if (uid := self._some(which, "waiting")) is not None:
            self._patch(uid, patches.refuse_by_hand(observe(self.jobs[uid]), "ada"))
            self.runs[uid].state, self.runs[uid].reason = "refused", "refused-by-human"

    @rule(which=_ANY)
    def cancel(self, which: int) -> None:
        """A person cancels a waiting or running Job."""
        uid = self._some(which, "waiting", "running", "queued", "held")
        if uid is not None:
            self._patch(uid, patches.cancel_by_hand(observe(self.jobs[uid]), "ada"))
            self.runs[uid].state, self.runs[uid].reason = "cancelled", "cancelled-by-human"

    @rule(which=_ANY)
    def suspend(self, which: int) -> None:
        """A person suspends a running Job; its Pods are deleted later."""
        uid = self._some(which, "running")
        if uid is None:
            return
        job, run = self.jobs[uid], self.runs[uid]
        job["spec"]["suspend"] = True
        job["status"].pop("startTime", None)
        job["status"] |= {"active": 0, "terminating": 1}
        queued = keys.KUEUE_QUEUE in job["metadata"]["labels"]
        run.state = "queued" if queued and uid in self.admitted else "held"
        # Of one on which no leader noted it nobody knows any more when it started.
        run.started = (self.admitted | self.noted).get(uid, self.now)
        run.began = (self.admitted | self.noted).get(uid)

    @rule(which=_ANY)
    def start(self, which: int) -> None:
        """A person starts a Job, even if it was refused."""
        uid = self._some(which, "waiting", "held", "refused")
        if uid is None or self.runs[uid].ended is not None:
            return
        self._pods_go(uid)
        self._controller_starts(uid)
        run = self.runs[uid]
        run.state = "refused" if run.state == "refused" else "running"
        run.started, run.pods = self.now, True

    @rule(which=_ANY)
    def delete(self, which: int) -> None:
        """A person deletes a Job."""
        if self.runs:
            uid = list(self.runs)[which % len(self.runs)]
            self.rules.runs.remove(self.runs.pop(uid))
            del self.jobs[uid]

    @rule(
        seconds=st.sampled_from((1, 29, 30, 30, 60, 61, 600, 3600)),
        ends=st.booleans(),
        then=st.booleans(),
    )
    def wait(self, seconds: int, *, ends: bool, then: bool) -> None:
        """Time passes; suspended Jobs have stopped, running ones may have ended."""
        if ends:
            for _ in self.runs:
                self.end(0, ill=False, then=False)
        for uid in self.runs:
            self._pods_go(uid)
        self.now += timedelta(seconds=seconds)
        if then:
            self.look()

    # What the Job controller writes.

    def _runs(self, uid: str) -> bool:
        return not self.jobs[uid]["spec"]["suspend"]

    def _controller_starts(self, uid: str) -> None:
        self.runs[uid].began = self.now
        self.jobs[uid]["spec"]["suspend"] = False
        self.jobs[uid]["status"] = {"startTime": _written(self.now), "active": 1}

    def _controller_ends(self, uid: str, how: str) -> None:
        time = _written(self.now)
        condition = {"type": how, "status": "True", "lastTransitionTime": time, "reason": how}
        status = {"conditions": [condition], "startTime": self.jobs[uid]["status"]["startTime"]}
        if how == "Complete":
            status["completionTime"] = time
        self.jobs[uid]["status"] = status

    def _pods_go(self, uid: str) -> None:
        run, job = self.runs[uid], self.jobs[uid]
        if job["status"].get("terminating"):
            job["status"]["terminating"] = 0
            run.pods = False
            if uid not in self.admitted | self.noted:  # no leader has looked since it was started
                run.started = None
                run.state = "waiting" if run.state == "held" else run.state
        elif run.state == "cancelled" and run.pods:
            self._controller_ends(uid, "Failed")
            run.pods, run.ended = False, self.now

    def _patch(self, uid: str, patch: patches.Patch) -> None:
        try:
            self.jobs[uid] = apply_patch(self.jobs[uid], patch)
        except Invalid:
            pytest.fail(f"a test of this patch failed: {patch}")

    @invariant()
    def agree(self) -> None:
        """Every Job has the same phase on both sides."""
        for uid, run in self.runs.items():
            assert observe(self.jobs[uid]).phase in _PHASES[run.state], run

    @precondition(lambda self: self.runs)
    @invariant()
    def within_limits(self) -> None:
        """The Jobs that the leader starts are within the limits."""
        mine = [uid for uid in self.admitted if uid in self.runs and self.runs[uid].busy]
        resumed = [uid for uid in mine if self.runs[uid].started != self.admitted[uid]]
        assert len(mine) - len(resumed) <= self.rules.concurrent


def _written(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


Story.TestCase.settings = settings(max_examples=scaled(20), stateful_step_count=40)
TestAdmission = Story.TestCase
