"""What `status` says about a controller, and what it says needs a person."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from openfero_gitops.domain.catalog import Envelope
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.help import link
from openfero_gitops.domain.lease import LeaseRecord
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.pause import Pause, PauseCause
from openfero_gitops.domain.remediation import Foreign, JobKey, Phase, Remediation
from openfero_gitops.domain.sync import RefusedRevision
from openfero_gitops.domain.sync_report import QuarantinedFile, SyncReport
from openfero_gitops.domain.watchdog import Watchdog, write_delivery
from openfero_gitops.inspection.status import Records, Topic, summarize
from openfero_gitops.inspection.status_text import as_members, as_text
from tests.support import build
from tests.support.build import NOW, minutes, seconds

LEASE = LeaseRecord("replica-a", 15, NOW - minutes(90), NOW - seconds(2), 1)


def records(*jobs: Remediation, **changes: Any) -> Records:
    """Return what is read of a healthy controller with these Jobs."""
    healthy = Records(
        "openfero",
        jobs,
        lease=LEASE,
        revision=build.REVISION,
        active_since=NOW - minutes(5),
        report=SyncReport(operarios=1),
        catalog=build.catalog(build.operario()),
    )
    return replace(healthy, **changes)


def finished(name: str = "job-1", phase: Phase = Phase.FAILED, **changes: Any) -> Remediation:
    """Return a remediation whose Job ended ten minutes ago."""
    values = {
        "phase": phase,
        "reason": "BackoffLimitExceeded" if phase is Phase.FAILED else "",
        "admitted_at": NOW - minutes(12),
        "received_at": NOW - minutes(12),
        "finished_at": NOW - minutes(10),
        "finished": True,
        "suspended": False,
    }
    return build.remediation(name, **values | changes)


def topics(*jobs: Remediation, **changes: Any) -> list[str]:
    """Return what needs a person."""
    return [action.topic.value for action in summarize(records(*jobs, **changes), NOW).actions]


def test_the_absence_of_the_watchdog_needs_a_person() -> None:
    """Not before its time has passed since the commit that may have named it became active."""
    catalog = build.catalog(build.operario(), envelope=Envelope(watchdog=Watchdog()))
    long_ago, lately = NOW - minutes(60), NOW - minutes(14)
    delivered = write_delivery("Watchdog", lately)
    assert topics(catalog=catalog, active_since=long_ago) == ["watchdog"]
    assert topics(catalog=catalog, active_since=long_ago, watchdog=delivered) == []
    assert topics(catalog=catalog, active_since=lately) == []
    assert topics(active_since=long_ago) == []
    old = write_delivery("Watchdog", NOW - minutes(20))
    status = summarize(records(catalog=catalog, active_since=long_ago, watchdog=old), NOW)
    assert status.actions[0].message.startswith('the watchdog alert "Watchdog" was last delivered')


def test_a_healthy_controller_needs_nobody() -> None:
    """One screen names the leader, the commit and the Jobs, and ends with that."""
    waiting = build.remediation("job-2", labels={"alertname": "PodCrashLooping", "pod": "web-2"})
    text = as_text(summarize(records(build.running(), waiting), NOW))
    assert text.splitlines() == [
        "Leader     replica-a, since 2026-11-21T01:34:05Z (1h30m)",
        "Commit     111111111111, active for 5m, by Ada <ada@git.example>",
        "           https://git.example/ops main",
        "Sync       ok",
        "Operarios  1 active, 0 files quarantined",
        "Admission  not paused",
        "Jobs       1 running, 1 waiting (1 target-busy)",
        "Last 24h   1 started: 1 running",
        "           effects: 1 pending",
        "",
        "No action needed.",
    ]


def test_a_job_that_waits_for_approval_needs_a_person() -> None:
    """The alert, its target, how long it waits, and the command to approve it."""
    job = build.remediation(
        phase=Phase.AWAITING_APPROVAL,
        options=Options(approval=True),
        received_at=NOW - minutes(12),
        target='{"pod":"web-1"}',
    )
    lines = as_text(summarize(records(job), NOW)).splitlines()
    assert lines[-4:] == [
        "1 action needed:",
        '  approval  12m  PodCrashLooping pod="web-1": the Job must be approved before it starts',
        "                 openfero-gitops approve jobs/job-1",
        f"                 See {link('approval')}",
    ]


def test_a_job_is_judged_as_the_leader_judges_it() -> None:
    """The operario in Git may require an approval that is not recorded on the Job."""
    strict = build.catalog(build.operario(options=Options(approval=True)))
    assert topics(build.remediation(), catalog=strict) == ["approval"]


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (finished(), ["failed"]),
        (finished(resolved_at=NOW), []),
        (finished(finished_at=NOW - timedelta(days=2)), []),
        (finished(phase=Phase.SUCCEEDED), []),
        (
            finished(
                phase=Phase.SUCCEEDED,
                effect=Effect.NOT_HEALED,
                effect_at=NOW,
                effect_message="still firing 16m after the Job ended",
            ),
            ["not-healed"],
        ),
        (build.running(pod_waiting="ErrImagePull: no such image"), ["pod-waiting"]),
        (build.running(phase=Phase.HELD, suspended=True), ["held"]),
        (build.remediation(phase=Phase.QUEUED, reason="Inadmissible"), ["stuck-in-queue"]),
        (build.remediation(phase=Phase.QUEUED, reason="Pending"), []),
    ],
)
def test_a_remediation_that_does_not_help_needs_a_person(
    job: Remediation, expected: list[str]
) -> None:
    """As long as its alert fires; a day later it is an old story."""
    assert topics(job) == expected


def test_a_failure_counts_until_its_alert_is_resolved() -> None:
    """Another attempt does not end it; if both fail, the newest is shown."""
    second = build.running("job-2", attempt=2, received_at=NOW - minutes(1))
    status = summarize(records(finished(), second), NOW)
    assert [action.command for action in status.actions] == ["openfero-gitops trace jobs/job-1"]
    assert status.recent.phases == {Phase.FAILED: 1, Phase.RUNNING: 1}
    second = finished("job-2", attempt=2, received_at=NOW - minutes(1))
    status = summarize(records(finished(), second), NOW)
    assert [action.command for action in status.actions] == ["openfero-gitops trace jobs/job-2"]


def test_a_job_that_kueue_has_not_started_is_not_counted_as_started() -> None:
    """One that Kueue stopped is: it has run."""
    queued = {"phase": Phase.QUEUED, "queue": "healing", "suspended": True, "admitted_at": NOW}
    waiting = build.remediation("job-1", **queued)
    stopped = build.remediation("job-2", **queued, starts=1, started_at=NOW)
    status = summarize(records(waiting, stopped), NOW)
    assert (status.phases[Phase.QUEUED], status.recent.started) == (2, 1)


def test_remember_limits_how_long_a_failure_is_shown() -> None:
    """The mirror has the openfero.yaml of the repository."""
    catalog = build.catalog(envelope=Envelope(remember=timedelta(hours=1)))
    old = finished(finished_at=NOW - timedelta(hours=2))
    assert topics(old) == ["failed"]
    assert topics(old, catalog=catalog) == []


def test_an_operario_that_does_not_help_waits_for_a_person() -> None:
    """The reason is that of the leader's decision, and the way out is to approve it."""
    earlier = [
        finished(
            f"job-{number}",
            Phase.SUCCEEDED,
            attempt=number,
            admitted_at=NOW - minutes(100 * number),
            received_at=NOW - minutes(100 * number),
            finished_at=NOW - minutes(100 * number - 1),
            effect=Effect.NOT_HEALED,
            effect_at=NOW - minutes(100 * number - 20),
            effect_message="still firing 16m after the Job ended",
        )
        for number in (1, 2, 3)
    ]
    waiting = build.remediation("job-4", attempt=4)
    status = summarize(records(*earlier, waiting), NOW)
    assert status.waiting == {"not-helping": 1}
    [action] = [action for action in status.actions if action.topic is Topic.NOT_HELPING]
    assert action.command == "openfero-gitops approve jobs/job-4"
    pause = Pause(PauseCause.COMMAND, "ada paused admission")
    paused = summarize(records(*earlier, waiting, pause=pause), NOW)
    assert paused.waiting == {"paused": 1}
    assert action in paused.actions


@pytest.mark.parametrize(
    "lease", [None, replace(LEASE, holder=""), replace(LEASE, renewed_at=NOW - minutes(2))]
)
def test_a_controller_without_a_leader_needs_a_person(lease: LeaseRecord | None) -> None:
    """No Lease, a released one, and one that is not renewed any more."""
    status = summarize(records(lease=lease), NOW)
    assert status.leader is None
    assert [action.topic for action in status.actions] == [Topic.LEADER]
    assert as_text(status).startswith("Leader     none\n")


def test_a_failing_sync_and_files_with_errors_need_a_person() -> None:
    """The text says since when, why, and which files."""
    files = tuple(QuarantinedFile(f"{name}.yaml", "line 3: no such field") for name in "abcdefg")
    report = SyncReport("cannot reach git.example", NOW - minutes(30), 5, 7, files)
    status = summarize(records(report=report), NOW)
    assert [action.topic.value for action in status.actions] == ["sync", "quarantined"]
    lines = as_text(status).splitlines()
    assert lines[3:11] == [
        "Sync       failing for 30m: cannot reach git.example",
        "Operarios  5 active, 7 files quarantined",
        *(f"           {name}.yaml: line 3: no such field" for name in "abcde"),
        "           and 2 more files",
    ]


def test_a_refused_commit_needs_a_person() -> None:
    """It is named, with the reason."""
    refused = RefusedRevision("e" * 40, "openfero.yaml is invalid", "2026-11-21T02:54:05Z")
    report = SyncReport("openfero.yaml is invalid", NOW - minutes(10), 5)
    status = summarize(records(report=report, refused=refused), NOW)
    assert [action.topic for action in status.actions] == [Topic.REVISION_REFUSED]
    assert (
        "Sync       commit eeeeeeeeeeee was refused 10m ago: openfero.yaml is invalid"
        in as_text(status)
    )


def test_a_pause_is_shown_and_needs_nobody() -> None:
    """Somebody paused admission on purpose: it is shown with its cause."""
    pause = Pause(PauseCause.COMMAND, "ada paused admission", "ada", NOW - minutes(3))
    status = summarize(records(build.remediation(), pause=pause), NOW)
    assert status.actions == ()
    assert "Admission  paused by ada 3m ago; run openfero-gitops resume to resume\n" in as_text(
        status
    )
    assert status.waiting == {"paused": 1}


@pytest.mark.parametrize(
    ("period", "until"), [(60, "04:04:05Z"), (24 * 60, "2026-11-22T03:04:05Z")]
)
def test_a_pause_that_ends_by_itself_is_shown_with_its_end(period: int, until: str) -> None:
    """With the day if that is not today; and with its reason."""
    since, end = NOW - minutes(5), NOW + minutes(period)
    pause = Pause(PauseCause.COMMAND, "ada paused admission", "ada", since, end, "migration")
    line = f"Admission  paused by ada 5m ago, until {until}: migration; run openfero-gitops resume"
    assert line in as_text(summarize(records(pause=pause), NOW))


def test_a_pause_in_git_is_shown_with_its_message() -> None:
    """It says how to resume."""
    pause = Pause(PauseCause.CONFIGURATION, "openfero.yaml sets paused: true", "openfero.yaml")
    line = "Admission  paused: openfero.yaml sets paused: true\n"
    assert line in as_text(summarize(records(pause=pause), NOW))


def test_a_watchdog_that_is_silent_needs_a_person() -> None:
    """The screen says when it was last delivered; that is too long ago, or never."""
    catalog = build.catalog(build.operario(), envelope=Envelope(watchdog=Watchdog()))
    given = {"catalog": catalog, "active_since": NOW - minutes(60)}
    silent = write_delivery("Watchdog", NOW - minutes(20))
    status = summarize(records(watchdog=silent, **given), NOW)
    assert [action.topic for action in status.actions] == [Topic.WATCHDOG]
    assert "Watchdog   Watchdog, delivered 20m ago" in as_text(status)
    heard = write_delivery("Watchdog", NOW - minutes(1))
    status = summarize(records(watchdog=heard, **given), NOW)
    assert status.actions == ()
    assert as_members(status)["watchdog"]["within"] == "15m"
    assert "Watchdog   Watchdog, not delivered yet" in as_text(summarize(records(**given), NOW))


def test_a_new_commit_does_not_hide_a_silent_watchdog() -> None:
    """What was delivered counts from its delivery, whenever the commit became active."""
    catalog = build.catalog(build.operario(), envelope=Envelope(watchdog=Watchdog()))
    silent = write_delivery("Watchdog", NOW - minutes(20))
    assert topics(catalog=catalog, active_since=NOW - minutes(1), watchdog=silent) == ["watchdog"]


def test_without_a_mirror_reasons_are_not_invented() -> None:
    """Without the catalog, only what the Jobs themselves say is shown."""
    jobs = [build.remediation(), build.remediation("job-2", phase=Phase.AWAITING_APPROVAL)]
    status = summarize(records(*jobs, catalog=None, mirror_error="the mirror is damaged"), NOW)
    assert status.waiting == {"unknown": 1, "approval": 1}
    assert [action.topic.value for action in status.actions] == ["catalog", "approval"]


def test_foreign_jobs_need_a_person() -> None:
    """They are named."""
    foreign = Foreign(JobKey("jobs", "theirs"), "uid", "1", "its name does not belong")
    status = summarize(records(foreign=[foreign]), NOW)
    assert status.actions[0].message == (
        "1 Job has the controller's label, but the controller did not create it: jobs/theirs"
    )
    assert [action.topic for action in status.actions] == [Topic.FOREIGN_JOBS]
    assert "jobs/theirs" in as_text(status)


def test_many_actions_are_cut_in_the_text_only() -> None:
    """The text says how many more there are; the JSON has all of them."""
    jobs = [
        finished(f"job-{n}", labels={"alertname": "A", "pod": f"{n}"}, target=f"t{n}")
        for n in range(25)
    ]
    status = summarize(records(*jobs), NOW)
    assert as_text(status).endswith("  and 5 more; -o json lists all")
    members = as_members(status)
    assert len(members["actions"]) == 25
    assert members["actions"][0]["job"] == "job-0"
    assert members["recent"]["phases"] == {"Failed": 25}


def test_no_text_controls_the_terminal() -> None:
    """Control characters of alerts and messages are escaped."""
    job = finished(message="\x1b[2Jgone", labels={"alertname": "A\nB"}, alertname="A\nB")
    text = as_text(summarize(records(job), NOW))
    assert "\x1b" not in text
    assert "A\\nB" in text
