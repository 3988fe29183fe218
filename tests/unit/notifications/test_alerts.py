"""Which alerts must exist in Alertmanager."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.notification import NotificationKind, is_own_alert
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.effects.assess import index_incidents
from openfero_gitops.notifications.alerts import (
    MAX_BYTES,
    MAX_NOTIFICATIONS,
    Notifications,
    list_notifications,
)
from tests.support.build import (
    COMMIT,
    NOW,
    catalog,
    finished,
    minutes,
    operario,
    remediation,
    running,
)

if TYPE_CHECKING:
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.notification import Notification
    from openfero_gitops.domain.remediation import Remediation

REMEMBER = timedelta(hours=24)
END = NOW + minutes(2)
TARGET = {"pod": "web-1", "severity": "page"}


def notify(
    *jobs: Remediation, at: datetime = NOW, url: str = "", active: Catalog | None = None
) -> Notifications:
    """List the alerts for some Jobs, which are all that exist."""
    incidents = index_incidents(jobs)
    return list_notifications(
        jobs,
        lambda job: incidents[job.incident],
        catalog=active,
        external_url=url,
        now=at,
    )


def kinds(*jobs: Remediation, at: datetime = NOW, **given: Any) -> list[str]:
    """Return the names of the alerts for some Jobs."""
    return [alert.kind.value for alert in notify(*jobs, at=at, **given).alerts.values()]


def only(*jobs: Remediation, at: datetime = NOW, **given: Any) -> Notification:
    """Return the only alert for some Jobs."""
    [alert] = notify(*jobs, at=at, **given).alerts.values()
    return alert


def failed(name: str = "job-1", **given: Any) -> Remediation:
    """Return a failed remediation."""
    values = {"phase": Phase.FAILED, "message": "BackoffLimitExceeded; exit code 3"}
    return finished(name, began=NOW, ended=END, **values | given)


def unhealed(name: str = "job-1", **given: Any) -> Remediation:
    """Return a remediation that succeeded and did not help."""
    values = {
        "effect": Effect.NOT_HEALED,
        "effect_at": END + minutes(16),
        "effect_message": "still firing 16m after the Job ended",
    }
    return finished(name, began=NOW, ended=END, **values | given)


def test_a_remediation_that_waits_for_approval_is_reported() -> None:
    """The alert has the labels of the remediated one, and says what to do and until when."""
    job = remediation("heal-1", phase=Phase.AWAITING_APPROVAL, operario="restart", commit=COMMIT)
    alert = only(job, url="https://openfero.example")

    assert alert.labels == {
        "alertname": "OpenFeroApprovalNeeded",
        "openfero": "true",
        "operario": "restart",
        "remediated_alertname": "PodCrashLooping",
        **TARGET,
    }
    assert alert.annotations == {
        "summary": "PodCrashLooping: the remediation waits for approval",
        "description": "Job jobs/heal-1 of operario restart at commit 111111111111 starts only if "
        "a person approves it; it is refused at 2026-11-21T04:04:05Z (max-wait)",
        "command": "openfero-gitops approve jobs/heal-1",
        "remediation_url": "https://openfero.example/remediations/jobs/heal-1",
    }
    assert alert.starts_at == NOW
    assert alert.url == "https://openfero.example/remediations/jobs/heal-1"
    assert is_own_alert(alert.labels)


def test_without_an_external_url_there_is_no_link() -> None:
    """The command to act does not need it."""
    alert = only(remediation(phase=Phase.AWAITING_APPROVAL))

    assert set(alert.annotations) == {"summary", "description", "command"}
    assert alert.url == ""


def test_a_failed_remediation_is_reported_until_its_alert_is_resolved() -> None:
    """It is reported for `remember` at most."""
    alert = only(failed(), at=END)

    assert alert.labels["alertname"] == "OpenFeroRemediationFailed"
    assert alert.annotations["description"].endswith("failed: BackoffLimitExceeded; exit code 3")
    assert alert.annotations["command"] == "openfero-gitops trace jobs/job-1"
    assert alert.starts_at == END
    assert kinds(failed(resolved_at=END + minutes(1)), at=END + minutes(1)) == []
    assert kinds(failed(), at=END + REMEMBER - minutes(1)) == ["OpenFeroRemediationFailed"]
    assert kinds(failed(), at=END + REMEMBER) == []
    assert notify(failed(), at=END).next_change == END + REMEMBER


def test_an_old_failure_stays_over_when_the_alert_fires_again() -> None:
    """The new Job is reported, if it fails."""
    refire = running("job-2", received_at=END + minutes(9), starts_at=END + minutes(9))

    assert kinds(failed(resolved_at=END + minutes(1)), refire) == ["OpenFeroRemediating"]


def test_a_failed_undo_is_reported_until_a_later_one_succeeds() -> None:
    """The alert of an operario for resolved alerts is resolved already."""
    undo = failed(status=Status.RESOLVED)
    later = finished("job-2", status=Status.RESOLVED, received_at=NOW + minutes(1))

    assert kinds(undo, at=END) == ["OpenFeroRemediationFailed"]
    assert kinds(undo, later, at=END) == []


def test_a_remediation_that_did_not_help_is_reported() -> None:
    """The message says which fact decided it, and the alert began then."""
    alert = only(unhealed(), at=END + minutes(20))

    assert alert.labels["alertname"] == "OpenFeroNotHealed"
    assert alert.annotations["description"] == (
        "Job jobs/job-1 of operario restart-pod at commit 111111111111 succeeded, but the alert "
        "was not healed: still firing 16m after the Job ended"
    )
    assert alert.annotations["command"] == "openfero-gitops trace jobs/job-1"
    assert alert.starts_at == END + minutes(16)
    assert kinds(unhealed(resolved_at=END + minutes(40)), at=END + minutes(41)) == []
    # The Job that showed it may have been deleted since.
    assert kinds(unhealed(), at=END + minutes(1)) == ["OpenFeroNotHealed"]
    assert kinds(unhealed(), at=END + REMEMBER) == []


def test_an_alert_that_fired_again_is_reported_until_it_is_resolved_again() -> None:
    """One that fires again much later is another incident."""
    first = unhealed(resolved_at=END + minutes(1))
    again = END + minutes(5)
    refire = remediation("job-2", starts_at=again, received_at=again)
    calm = remediation("job-2", starts_at=again, received_at=again, resolved_at=again + minutes(1))
    late = again + minutes(60)
    much_later = remediation("job-2", starts_at=late, received_at=late)

    assert kinds(first, refire, at=again) == ["OpenFeroNotHealed"]
    assert kinds(first, calm, at=again + minutes(2)) == []
    assert kinds(first, much_later, at=late) == []


def in_vain(**given: Any) -> list[Remediation]:
    """Return three remediations in a row that did not help, and the one after them."""
    jobs = [
        unhealed(
            f"job-{attempt}", attempt=attempt, target="t", received_at=NOW - minutes(9 - attempt)
        )
        for attempt in (1, 2, 3)
    ]
    return [*jobs, remediation("next", **{"attempt": 4, "target": "t"} | given)]


def reported(
    *jobs: Remediation, at: datetime = NOW, active: Catalog | None = None
) -> list[Notification]:
    """Return the alerts because nothing helps."""
    alerts = notify(*jobs, at=at, active=active).alerts.values()
    return [alert for alert in alerts if alert.kind is NotificationKind.NOT_HELPING]


def test_what_waits_because_nothing_helps_is_reported() -> None:
    """There is one alert, not two; whether admission is paused does not count."""
    jobs = in_vain(phase=Phase.AWAITING_APPROVAL)
    [alert] = reported(*jobs)

    assert alert.labels["alertname"] == "OpenFeroNotHelping"
    description = alert.annotations["description"]
    assert description.startswith(
        "Job jobs/next of operario restart-pod at commit 111111111111 waits: the last 3 Jobs of "
    )
    assert alert.annotations["command"] == "openfero-gitops approve jobs/next"
    assert kinds(remediation(phase=Phase.AWAITING_APPROVAL)) == ["OpenFeroApprovalNeeded"]
    assert "OpenFeroApprovalNeeded" not in kinds(*jobs)
    assert not reported(*in_vain(approved_by="ada"))


def test_it_goes_on_after_the_job_was_refused_because_it_waited_too_long() -> None:
    """The alert has the same start through all attempts, and ends with the alert or `remember`."""
    refused = {"phase": Phase.REFUSED, "reason": "max-wait", "message": "it waited too long"}
    hour = NOW + minutes(60)
    again = remediation("again", attempt=5, target="t", received_at=hour)
    [first] = reported(*in_vain())
    [meanwhile] = reported(*in_vain(**refused), at=hour - minutes(1))
    [second] = reported(*in_vain(**refused), again, at=hour)

    assert first.labels == meanwhile.labels == second.labels
    assert first.starts_at == meanwhile.starts_at == second.starts_at == NOW
    assert meanwhile.annotations["command"] == "openfero-gitops trace jobs/next"
    description = meanwhile.annotations["description"]
    assert " refused: it waited too long; the last 3 Jobs of this operario" in description
    assert description.endswith(
        "the next firing delivery of the alert creates a Job that can be approved"
    )
    assert second.annotations["command"] == "openfero-gitops approve jobs/again"
    assert not reported(*in_vain(**refused, resolved_at=NOW + minutes(1)), at=hour)
    assert not reported(*in_vain(**refused), at=NOW + REMEMBER)
    # A new occurrence, after the alert was resolved, has a start of its own.
    resolved = in_vain(**refused, resolved_at=NOW + minutes(1))
    [later] = reported(*resolved, again, at=hour)
    assert later.starts_at == hour


@pytest.mark.parametrize(
    ("active", "is_reported"),
    [
        (catalog(operario()), True),
        (catalog(), False),
        (catalog(operario(spec_digest="new")), False),
        (catalog(operario(options=Options(stop_after_not_healed=None))), False),
        (catalog(operario(options=Options(stop_after_not_healed=4))), False),
    ],
    ids=["the same", "removed", "another version", "off", "a higher limit"],
)
def test_a_refused_job_is_reported_while_the_next_one_would_wait_too(
    active: Catalog,
    is_reported: bool,  # noqa: FBT001
) -> None:
    """It would have the version and the options of the operario in the active catalog."""
    jobs = in_vain(phase=Phase.REFUSED, reason="max-wait")
    assert bool(reported(*jobs, active=active)) is is_reported


def test_a_job_that_makes_room_for_a_new_version_is_not_reported() -> None:
    """The next delivery of the alert creates a Job that starts."""
    assert not reported(*in_vain(phase=Phase.REFUSED, reason="not-helping"))


def test_duplicates_do_not_end_it() -> None:
    """A replica may create a second Job for the same alert, which is refused."""
    double = remediation("z", attempt=4, target="t", phase=Phase.REFUSED, reason="same-occurrence")

    assert len(reported(*in_vain(), double)) == 1


def test_a_running_remediation_holds_back_the_page() -> None:
    """After success it does so until the alert is resolved, for heals-within at most."""
    options = Options(heals_within=minutes(5))
    done = finished(began=NOW, ended=END, options=options)
    going = only(running(options=options))
    after = only(done, at=END + minutes(1))

    assert going.labels == after.labels
    assert going.labels["alertname"] == "OpenFeroRemediating"
    assert going.starts_at == after.starts_at == NOW
    assert going.annotations["description"].endswith("is running")
    assert after.annotations["description"].endswith(
        "succeeded; the alert should be resolved by 2026-11-21T03:11:05Z (heals-within)"
    )
    assert notify(done, at=END).next_change == END + minutes(5)
    assert kinds(done, at=END + minutes(5)) == []
    assert kinds(finished(ended=END, resolved_at=END), at=END) == []


def test_the_page_is_not_held_back_until_a_resolution_can_be_heard_no_more() -> None:
    """The inhibition mutes it for the controller too; Prometheus repeats it for 15 minutes."""
    done = finished(began=NOW, ended=END, options=Options(heals_within=minutes(15)))
    until = END + minutes(5)

    assert kinds(done, at=until - minutes(0.1)) == ["OpenFeroRemediating"]
    assert notify(done, at=END).next_change == until
    assert kinds(done, at=until) == []
    assert "by 2026-11-21T03:21:05Z" in only(done, at=END).annotations["description"]


@pytest.mark.parametrize(
    "job",
    [
        remediation(),
        remediation(phase=Phase.QUEUED, admitted_at=NOW),
        remediation(phase=Phase.HELD, admitted_at=NOW),
        remediation(phase=Phase.CANCELLED),
        remediation(phase=Phase.REFUSED),
        running(status=Status.RESOLVED),
        running(pod_waiting="ImagePullBackOff: no such image"),
        running(deleting=True),
    ],
    ids=["waiting", "queued", "held", "cancelled", "refused", "undo", "stuck", "deleting"],
)
def test_nothing_holds_back_the_page_while_nothing_remediates(job: Remediation) -> None:
    """A Job that waits, is stuck or was stopped does not help anybody."""
    assert kinds(job) == []


def test_labels_are_those_that_alertmanager_accepts() -> None:
    """Others are left out, and so are replica labels; names of our own win."""
    labels = {
        "alertname": "PodCrashLooping",
        "pod": "web-1",
        "prometheus_replica": "prometheus-0",
        "service.name": "web",
        "9lives": "cat",
        "empty": "",
        "operario": "theirs",
        "openfero": "false",
    }
    job = running(labels=labels, replica_labels=("prometheus_replica",), operario="ours")

    assert only(job).labels == {
        "alertname": "OpenFeroRemediating",
        "openfero": "true",
        "operario": "ours",
        "pod": "web-1",
        "remediated_alertname": "PodCrashLooping",
    }


def test_remediations_of_one_alert_are_one_notification() -> None:
    """The newer one describes it."""
    second = failed("job-2", attempt=2, received_at=NOW + minutes(1))

    assert only(failed(), second, at=END).annotations["command"].endswith("job-2")
    assert only(second, failed(), at=END).annotations["command"].endswith("job-2")


def test_the_most_urgent_alerts_are_kept_within_the_limits() -> None:
    """Running remediations are left out first: the page is sent then."""
    jobs = [
        *(running(f"r{n}", labels={"alertname": "R", "n": str(n)}) for n in range(10)),
        *(
            remediation(
                f"w{n}", labels={"alertname": "W", "n": str(n)}, phase=Phase.AWAITING_APPROVAL
            )
            for n in range(MAX_NOTIFICATIONS - 5)
        ),
    ]
    result = notify(*jobs)

    assert len(result.alerts) == MAX_NOTIFICATIONS
    assert result.left_out == 5
    names = [alert.kind for alert in result.alerts.values()]
    assert names.count(NotificationKind.APPROVAL_NEEDED) == MAX_NOTIFICATIONS - 5
    large = {"alertname": "W", "text": "x" * (MAX_BYTES // 3)}
    big = [running(f"b{n}", labels=large | {"n": str(n)}) for n in range(4)]
    assert (len(notify(*big).alerts), notify(*big).left_out) == (2, 2)


def test_untrusted_text_stays_on_one_line() -> None:
    """A container's last words are cut, and control characters are escaped."""
    text = only(failed(message="line\n" * 1000), at=END).annotations["description"]

    assert "\n" not in text
    assert len(text) < 2000


@st.composite
def several_jobs(draw: st.DrawFn) -> list[Remediation]:
    """Jobs of a few alerts in all phases, with and without resolutions."""
    jobs = []
    for number in range(draw(st.integers(0, 8))):
        when = NOW + minutes(draw(st.integers(0, 40)))
        given: dict[str, Any] = {
            "labels": {"alertname": "A", "pod": draw(st.sampled_from(["x", "y"]))},
            "status": draw(st.sampled_from(Status)),
            "received_at": when,
            "starts_at": when,
            "resolved_at": draw(st.sampled_from([None, when + minutes(3)])),
            "effect": draw(st.sampled_from([None, Effect.HEALED, Effect.NOT_HEALED])),
        }
        make = draw(st.sampled_from([remediation, running, finished]))
        if make is finished:
            given["phase"] = draw(st.sampled_from([Phase.SUCCEEDED, Phase.FAILED]))
            given |= {"began": when, "ended": when + minutes(1)}
        elif make is remediation:
            given["phase"] = draw(st.sampled_from([Phase.WAITING, Phase.AWAITING_APPROVAL]))
        jobs.append(make(f"j{number}", **given))
    return jobs


@given(jobs=several_jobs(), earlier=st.integers(0, 60), later=st.integers(0, 60), data=st.data())
def test_the_alerts_depend_on_the_jobs_and_the_time_alone(
    jobs: list[Remediation], earlier: int, later: int, data: st.DataObject
) -> None:
    """Every leader lists the same ones, whatever the order of the Jobs and what it knew before."""
    incidents = index_incidents(jobs)

    def listed(order: list[Remediation], at: int, before: Notifications | None) -> Notifications:
        return list_notifications(
            order,
            lambda job: incidents[job.incident],
            catalog=None,
            external_url="",
            now=NOW + minutes(at),
            before=before,
        )

    others = data.draw(st.permutations(jobs))
    before = listed(others[: len(others) // 2], earlier, None)
    first, second = listed(jobs, later, None), listed(others, later, before)

    assert first.alerts == second.alerts
    assert first.next_change == second.next_change
