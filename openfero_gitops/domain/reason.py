"""Why: the one enumeration that the webhook, the Jobs, the pages and the logs share."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Reason(StrEnum):
    """A decision's reason, in kebab case; `docs/reasons.md` is made from these texts."""

    text: str

    def __new__(cls, value: str, text: str) -> Self:
        """Keep the sentence beside the word."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.text = text
        return member

    # No Job.
    NO_OPERARIO = "no-operario", "no operario in force is written for this alert in this state"
    MATCHERS = "matchers", "operarios exist for this alert, but their matchers fit other labels"
    DISABLED = "disabled", "the operario for this alert is switched off (enabled: false)"
    OWN_JOB = "own-job", "the alert is about a Job of this controller: healing it would loop"

    # Refused for good.
    UNSAFE_VALUE = "unsafe-value", "a value of the alert is not safe in the command that uses it"
    MISSING_VALUE = "missing-value", "the operario uses a value that the alert does not have"
    TOO_LARGE = "too-large", "the alert does not fit into a Job"
    SAME_INCIDENT = "same-incident", "another Job heals, or healed, this incident"
    SAME_OCCURRENCE = "same-occurrence", "another namespace holds a Job of this very occurrence"
    MAX_WAIT = "max-wait", "it waited longer than max-wait: too late to be run unseen"
    RESOLVED = "resolved", "the alert was resolved before the Job started"
    FIRING_AGAIN = "firing-again", "the alert fires again: there is nothing to undo yet"
    NOTHING_TO_UNDO = "nothing-to-undo", "no firing Job started since the last undoing"
    DRY_RUN = "dry-run", "mode is dry-run: the API server accepted the Job, nothing ran"
    REFUSED_BY_HUMAN = "refused-by-human", "a person refused it"
    CANCELLED_BY_HUMAN = "cancelled-by-human", "a person cancelled it"

    # Waiting, for now.
    PAUSED = "paused", "admission is paused"
    NO_CATALOG = "no-catalog", "there is no catalog in force, so nobody knows the limits"
    APPROVAL = "approval", "a person must approve it"
    TARGET_BUSY = "target-busy", "another Job works on the same target"
    COOLDOWN = "cooldown", "the last Job of this operario on this target ended too recently"
    MAX_CONCURRENT = "max-concurrent", "as many Jobs of this operario run as may"
    MAX_PER_HOUR = "max-per-hour", "as many Jobs of this operario started this hour as may"
    LIMIT_CONCURRENT = "limit-concurrent", "as many remediations run as openfero.yaml allows"
    LIMIT_PER_MINUTE = "limit-per-minute", "as many remediations started this minute as may"
    RESOLVE_DELAY = "resolve-delay", "a resolved alert waits, in case it fires again"
    FIRING_RUNS = "firing-runs", "the firing Job of this alert has not ended"

    # Admitted.
    ADMITTED = "admitted", "nothing stands against it"

    # A delivery that must be repeated.
    BUSY = "busy", "too many deliveries are under way; deliver again"
    CLOCK_WRONG = "clock-wrong", "this replica's clock is not the API server's; deliver again"
    API_UNAVAILABLE = "api-unavailable", "the API server did not take the Job; deliver again"
    API_FORBIDDEN = "api-forbidden", "the API server forbids the Job: RBAC, quota or namespace"
    API_CONFLICT = "api-conflict", "the API server reported a conflict; deliver again"
    NAME_TAKEN = "name-taken", "a Job of that name is being deleted or is somebody else's"
    API_REFUSED = "api-refused", "the API server says the Job itself is wrong"
