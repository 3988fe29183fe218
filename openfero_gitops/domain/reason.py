"""Reasons of decisions, shared by the webhook, the Jobs, the pages, the logs and the metrics."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Self


class Reason(StrEnum):
    """A decision's reason in kebab case, with a text; `docs/reference/reasons.md` lists them."""

    text: str

    def __new__(cls, value: str, text: str) -> Self:
        """Attach the text to the value."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.text = text
        return member

    # No Job is created.
    NO_OPERARIO = (
        "no-operario",
        "no operario in the active catalog matches this alert and its status",
    )
    MATCHERS = "matchers", "operarios exist for this alert, but no matchers match its labels"
    DISABLED = "disabled", "the operario for this alert is disabled"
    OWN_JOB = "own-job", "the alert is about a Job of this controller: a Job for it could loop"
    OWN_ALERT = (
        "own-alert",
        "this controller sent the alert to Alertmanager itself: a Job for it could loop",
    )
    STILL_FIRING = (
        "still-firing",
        "the same alert still fires from another replica (replica labels), so it is not resolved",
    )

    # Refused, final.
    UNSAFE_VALUE = "unsafe-value", "an alert value is not safe in the command that uses it"
    MISSING_VALUE = "missing-value", "the operario uses a value that the alert does not have"
    TOO_LARGE = "too-large", "the alert is too large for a Job"
    SAME_INCIDENT = "same-incident", "another Job handles or handled this incident"
    SAME_OCCURRENCE = "same-occurrence", "another Job exists for the same alert occurrence"
    MAX_WAIT = "max-wait", "the Job waited longer than max-wait"
    RESOLVED = "resolved", "the alert was resolved before the Job started"
    FIRING_AGAIN = "firing-again", "the alert is firing again: there is nothing to undo yet"
    NOTHING_TO_UNDO = "nothing-to-undo", "no firing Job has started since the last successful undo"
    DRY_RUN = "dry-run", "mode is dry-run: the Job was created, but never runs"
    REFUSED_BY_HUMAN = "refused-by-human", "refused with openfero-gitops refuse"
    CANCELLED_BY_HUMAN = "cancelled-by-human", "cancelled with openfero-gitops cancel"

    # Waiting.
    PAUSED = "paused", "admission is paused"
    NO_CATALOG = "no-catalog", "there is no active catalog, so the limits are unknown"
    APPROVAL = "approval", "the Job must be approved before it starts"
    NOT_HELPING = (
        "not-helping",
        (
            "the last Jobs of this operario for this target did not heal the alert; approve the "
            "Job, or change the operario"
        ),
    )
    TARGET_BUSY = "target-busy", "another Job is running on the same target"
    COOLDOWN = (
        "cooldown",
        "the cooldown after the last Job of the operario for this target has not passed",
    )
    MAX_CONCURRENT = "max-concurrent", "the operario's max-concurrent limit is reached"
    MAX_PER_HOUR = "max-per-hour", "the operario's max-per-hour limit is reached"
    LIMIT_CONCURRENT = "limit-concurrent", "limits.concurrent in openfero.yaml is reached"
    LIMIT_PER_MINUTE = "limit-per-minute", "limits.perMinute in openfero.yaml is reached"
    RESOLVE_DELAY = "resolve-delay", "waiting for resolve-delay: the alert may fire again"
    FIRING_RUNS = "firing-runs", "the Job of the firing alert has not finished"

    # Admitted.
    ADMITTED = "admitted", "all checks passed"

    # The alert must be corrected.
    INVALID_ALERT = "invalid-alert", "a member of the alert is invalid, so it has no Job"

    # The delivery must be repeated.
    BUSY = "busy", "too many deliveries are being processed; retry later"
    TOO_MANY_WAITING = "too-many-waiting", "too many Jobs are waiting (--max-waiting); retry later"
    CLOCK_WRONG = "clock-wrong", "this replica's clock differs from the API server's; retry later"
    API_UNAVAILABLE = "api-unavailable", "the API server did not create the Job; retry later"
    API_FORBIDDEN = "api-forbidden", "the API server forbids the Job (RBAC, quota or namespace)"
    API_CONFLICT = "api-conflict", "the API server reported a conflict; retry later"
    NAME_TAKEN = "name-taken", "a Job with this name exists: it is being deleted, or not ours"
    API_REFUSED = "api-refused", "the API server rejects the Job as invalid"


#: Refusals that are not final: the next firing delivery of the alert makes another attempt.
REPEATABLE: Final = frozenset({Reason.MAX_WAIT, Reason.NOT_HELPING})
