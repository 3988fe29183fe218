from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.author.explain import Explanation, as_json, as_text, explain
from openfero_gitops.delivery.match import Candidate, CandidateResult, consider
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.catalog import Envelope, Limits
from openfero_gitops.domain.matcher import Matcher, Operator
from openfero_gitops.domain.operario import Mode, OnResolve, Options
from openfero_gitops.domain.problem import Problem, Severity
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import JobKey, Outcome
from tests.support.build import alert, catalog, delivery, job_spec, operario

if TYPE_CHECKING:
    from openfero_gitops.domain.alert import Alert
    from openfero_gitops.domain.operario import Operario

SHOP = Matcher("namespace", Operator.EQUAL, "shop")
WEB = Matcher("pod", Operator.MATCHES, "web-.*")
ERROR = Problem("bad.yaml", 3, 1, "", "syntax", Severity.ERROR, "no YAML")


def explained(
    *operarios: Operario, envelope: Envelope | None = None, received: Alert | None = None
) -> Explanation:
    """Explain `alert()`, or another alert."""
    active = catalog(*operarios, envelope=envelope)
    return explain(received or alert(), active, delivery(), jobs_namespace="jobs")


def test_every_candidate_is_judged() -> None:
    """All operarios for the alert's name are considered in order of precedence."""
    chosen = operario("b", options=Options(priority=5))
    resolved = operario("a", status=Status.RESOLVED, options=Options(priority=9))
    off = operario("c", options=Options(enabled=False, priority=8))
    picky = operario("d", options=Options(matchers=(SHOP, WEB), priority=7))
    late = operario("e")

    considered = consider(alert(), catalog(late, picky, off, resolved, chosen), ())

    assert list(considered) == [
        Candidate(resolved, CandidateResult.OTHER_STATUS),
        Candidate(off, CandidateResult.DISABLED),
        Candidate(picky, CandidateResult.MATCHERS, (SHOP,)),
        Candidate(chosen, CandidateResult.CHOSEN),
        Candidate(late, CandidateResult.OUTRANKED),
    ]


def test_own_jobs_leave_the_choice_to_who_asks_for_them() -> None:
    """An alert about a Job of our own skips the operarios without own-jobs."""
    about = alert(labels=dict(alert().labels, namespace="jobs", job_name="x"))
    plain, asking = operario("a"), operario("b", options=Options(own_jobs=True))

    considered = consider(about, catalog(plain, asking), {JobKey("jobs", "x")})

    assert [candidate.result for candidate in considered] == [
        CandidateResult.OWN_JOB,
        CandidateResult.CHOSEN,
    ]


def test_the_operario_that_answers_is_named_with_its_file_and_job() -> None:
    """The message names the operario, its file and the Job."""
    explanation = explained(operario())

    assert (explanation.outcome, explanation.operario, explanation.reason) == (
        Outcome.CREATED,
        "restart-pod",
        None,
    )
    assert explanation.message.startswith(
        "restart-pod (operarios/restart-pod.yaml) matches and creates Job jobs/podcrashlooping-"
    )


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"enabled": False}, "it is disabled"),
        ({"matchers": (SHOP,)}, "does not match: the alert has no label namespace"),
        (
            {"matchers": (Matcher("pod", Operator.EQUAL, "db-1"),)},
            'matcher pod="db-1" does not match: the alert has pod="web-1"',
        ),
        ({"priority": -1}, "restart-pod has a higher priority (0 instead of -1)"),
    ],
)  # fmt: skip
def test_who_lost_and_why(options: dict[str, object], why: str) -> None:
    """Each other operario is listed with the reason why it was not chosen."""
    loser = operario("other", options=Options(**options))
    [line] = [
        detail
        for detail in explained(operario(), loser).details
        if detail.startswith("passed over")
    ]

    assert line.startswith("passed over: other (operarios/other.yaml): ")
    assert why in line


def test_a_tie_is_decided_by_the_name() -> None:
    """With equal priorities, the first by name wins, and the message names this reason."""
    for name, winner, loser in (("a", "a", "restart-pod"), ("z", "restart-pod", "z")):
        explanation = explained(operario(), operario(name))
        [line] = [detail for detail in explanation.details if detail.startswith("passed over")]

        assert explanation.operario == winner
        assert line.startswith(f"passed over: {loser} ")
        assert line.endswith(f"but {winner} comes first (same priority, ordered by name)")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"enabled": False}, Reason.DISABLED),
        ({"matchers": (SHOP,)}, Reason.MATCHERS),
    ],
)
def test_nobody_answers_although_somebody_could(options: dict[str, object], reason: Reason) -> None:
    """The outcome has the webhook's reason, and the operario that nearly matched is listed."""
    explanation = explained(operario(options=Options(**options)))

    assert (explanation.outcome, explanation.reason, explanation.operario) == (
        Outcome.NO_MATCH,
        reason,
        "",
    )
    assert len(explanation.details) == 1


def test_an_operario_for_the_other_state_does_not_answer() -> None:
    """An operario for the resolved alert is mentioned."""
    explanation = explained(operario(status=Status.RESOLVED))

    assert explanation.reason is Reason.NO_OPERARIO
    assert "it is for resolved alerts, this alert is firing" in explanation.details[0]


def test_a_name_that_was_mistyped_is_suggested() -> None:
    """The nearest alert name with an operario is suggested, but not a distant one."""
    near = alert(labels={"alertname": "PodCrashLoping"})
    far = alert(labels={"alertname": "HostDown"})

    assert "did you mean PodCrashLooping?" in explained(operario(), received=near).details[0]
    assert explained(operario(), received=far).details == ()
    assert "no label alertname" in explained(operario(), received=alert(labels={})).details[0]


def test_files_with_errors_are_named() -> None:
    """A file with errors is named if no operario matches."""
    broken = replace(catalog(), problems=(ERROR,))
    [hint] = explain(alert(), broken, delivery(), jobs_namespace="jobs").details

    assert "bad.yaml has errors and was skipped" in hint
    assert hint.startswith("bad.yaml has errors")


def test_a_stale_version_is_told_as_such() -> None:
    """If an older version of a file is active, its commit is named."""
    current = operario()
    stale = replace(current, origin=replace(current.origin, stale=True))

    assert "operarios/restart-pod.yaml, as of commit 111111111111" in explained(stale).message


def test_a_refused_job_is_told_with_its_reason() -> None:
    """A value that is not allowed in a command is named, with the reason on the Job."""
    explanation = explained(
        operario(spec=job_spec(command=["heal", "{{ .Labels.pod }}"])),
        received=alert(labels={"alertname": "PodCrashLooping", "pod": "--all"}),
    )

    assert (explanation.outcome, explanation.reason) == (Outcome.REFUSED, Reason.UNSAFE_VALUE)
    assert "'--all', which is not allowed in a command" in explanation.message


@pytest.mark.parametrize(
    ("options", "envelope", "reason"),
    [
        (Options(approval=True), Envelope(), Reason.APPROVAL),
        (Options(max_concurrent=0), Envelope(), Reason.MAX_CONCURRENT),
        (Options(max_per_hour=0), Envelope(), Reason.MAX_PER_HOUR),
        (Options(mode=Mode.DRY_RUN), Envelope(), Reason.DRY_RUN),
        (Options(), Envelope(mode=Mode.DRY_RUN), Reason.DRY_RUN),
        (Options(), Envelope(paused=True), Reason.PAUSED),
        (Options(), Envelope(limits=Limits(concurrent=0)), Reason.LIMIT_CONCURRENT),
    ],
)
def test_what_holds_a_job_up_in_any_cluster(
    options: Options, envelope: Envelope, reason: Reason
) -> None:
    """The reason is what the Job waits for in an empty cluster."""
    explanation = explained(operario(options=options), envelope=envelope)

    assert (explanation.outcome, explanation.reason) == (Outcome.CREATED, reason)


def test_conditions_are_listed() -> None:
    """What depends on the cluster is listed as conditions, with the limits."""
    options = Options(
        approval=True, cooldown=timedelta(minutes=7), max_concurrent=3, max_wait=timedelta(hours=2)
    )
    text = "\n".join(explained(operario(options=options)).details)

    assert "somebody has approved the Job" in text
    assert "the alert is still firing" in text
    assert 'target pod="web-1"' in text
    assert "ended at least 7m ago" in text
    assert "limits: at most 3 running" in text
    assert "limits of all operarios together: at most 20 running" in text
    assert "waited for 2h is refused" in text
    assert "after 3 Jobs in a row for this target that did not heal the alert, the next" in text
    assert "within 15m after the Job ended, and does not fire again for 15m (heals-within)" in text
    kept = Options(
        on_resolve=OnResolve.KEEP,
        cooldown=timedelta(0),
        max_wait=timedelta(0),
        stop_after_not_healed=None,
    )
    text = "\n".join(explained(operario(options=kept)).details)
    assert "in a row" not in text
    assert not {"still firing", "at least", "waited"} & {
        word for word in ("still firing", "at least", "waited") if word in text
    }


def test_a_resolved_alert_waits_for_what_it_undoes() -> None:
    """A resolved alert's Job depends on a firing one, and waits in case the alert fires again."""
    explanation = explained(
        operario(status=Status.RESOLVED), received=alert(status=Status.RESOLVED)
    )
    text = "\n".join(explanation.details)

    assert explanation.outcome is Outcome.CREATED
    assert "stays resolved for 1m" in text
    assert "a Job for the same labels, firing, was started" in text
    assert "heals-within" not in text


def test_an_alert_without_a_start_is_a_job_at_each_delivery() -> None:
    """An alert without startsAt creates a Job per delivery, and the output warns of it."""
    assert "no startsAt" in explained(operario(), received=alert(starts_at=None)).details[-1]


def test_hostile_labels_cannot_write_on_the_terminal() -> None:
    """Control characters and bidirectional overrides are escaped, on one line."""
    hostile = "a\x1b[2J\n\u202eb"
    text = as_text(
        [
            explained(
                received=alert(labels={"alertname": hostile, "pod": hostile, f"x{hostile}": "y"})
            )
        ]
    )

    assert not set("\x1b\u202e") & set(text)
    assert text.splitlines()[0].startswith("a\\x1b[2J\\n\\u202eb (firing) pod=")


def test_programs_get_the_members_of_the_webhooks_answer() -> None:
    """The JSON has the seven members; empty ones are null."""
    answered, unanswered = explained(operario()), explained()

    first, second = as_json([answered, unanswered])["alerts"]

    assert list(first) == [
        "alertname", "status", "fingerprint", "outcome", "operario", "reason", "message",
    ]  # fmt: skip
    chosen = [
        (member["outcome"], member["operario"], member["reason"]) for member in (first, second)
    ]
    assert chosen == [("created", "restart-pod", None), ("no-match", None, "no-operario")]
    assert "condition: " in first["message"]
