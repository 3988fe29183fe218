"""Links from messages to the page that says what to do about them.

A topic is the fragment of a section of `docs/troubleshooting/index.md`. Messages keep their links
when pages are rewritten, since Jobs and logs outlive releases: a topic is never renamed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

PAGE: Final = "https://openfero.github.io/openfero-gitops/troubleshooting/"

#: The topics of log lines, by their `event`.
LOG_TOPICS: Final[Mapping[str, str]] = {
    "API server rejects changes to a Job": "write-lost",
    "ConfigMap exists and belongs to somebody else": "mirror",
    "Git cache is damaged; making a new one": "git-cache",
    "Git cache could not be repacked": "git-cache",
    "Job started again": "started-again",
    "Job started outside of the controller": "started-by-other",
    "a ConfigMap with alerts cannot be read, and is ignored": "alerts-not-recorded",
    "a Job with the label of this controller was not created by it, and is ignored": "foreign-jobs",
    "a Pod waits": "pod-waiting",
    "a delivery exceeded its deadline": "delivery-failed",
    "a member of the delivery is treated as absent": "invalid-alert",
    "a resolved alert could not be recorded": "delivery-failed",
    "an alert cannot be read, and has no Job": "invalid-alert",
    "background work failed; restarting it": "internal-error",
    "cannot check for a pause": "internal-error",
    "cannot describe what the catalog changes": "internal-error",
    "cannot list Jobs": "api-server",
    "cannot open a connection": "open-files",
    "cannot reach the API server yet; retrying": "api-server",
    "cannot read the active revision from the mirror": "mirror",
    "cannot read the history": "sync",
    "cannot read the mirror yet; retrying": "api-server",
    "cannot use the TLS files; the previous ones stay in use": "tls-files",
    "cannot write a decision, or its answer was lost": "write-lost",
    "clock is wrong": "clock",
    "connections dropped": "connections-dropped",
    "delivery": "delivery-failed",
    "delivery refused": "delivery-refused",
    "delivery timed out": "delivery-failed",
    "dry runs are not allowed": "dry-run",
    "exception ignored": "internal-error",
    "fatal error; exiting": "cannot-start",
    "internal error": "internal-error",
    "internal error in a thread": "internal-error",
    "internal error; exiting": "internal-error",
    "invalid header ignored; write NAME=VALUE": "traces",
    "many wrong credentials from one address; it has to wait between attempts": "wrong-credentials",
    "mirror not usable": "mirror",
    "more alerts without a Job came than can be recorded": "alerts-not-recorded",
    "older versions of broken files exceed the budget": "quarantined",
    "push hook refused": "push-hook",
    "sync failed and will be retried; no catalog is active yet": "sync",
    "sync failed and will be retried; the active catalog is kept": "sync",
    "sync failed; no catalog is active": "sync",
    (
        "the API server's state is older than before, as after a restore of etcd from a backup; "
        "the Jobs are accepted as they are now"
    ): "restored",
    "the Jobs of a delivery cannot be listed": "api-server",
    "the clock is wrong; giving up leadership": "clock",
    "the cluster objects to an operario": "dry-run",
    "the leader's work failed": "leader",
    "the limit of open files is too low; accepting fewer connections": "open-files",
    "the pages can be used without authentication": "no-authentication",
    "the record of active revisions begins anew": "mirror",
    "the webhook can be used without authentication": "no-authentication",
    "traces are not exported": "traces",
    "work of an ended term did not stop; exiting": "internal-error",
}
#: Log lines that need no action: the controller has done what is to be done.
NO_ACTION: Final = frozenset(
    {
        "Git repository has changed its object format; fetching everything again",
        "a listener to leadership changes failed",
        "cannot release the Lease, it will expire",
        "clock is right again",
    }
)
#: The topics of Kubernetes Events of type Warning, by their reason.
EVENT_TOPICS: Final[Mapping[str, str]] = {
    "DeliveryRefused": "delivery-refused",
    "Evicted": "started-again",
    "Failed": "failed",
    "Foreign": "foreign-jobs",
    "Forgotten": "forgotten",
    "Held": "held",
    "NotHealed": "not-healed",
    "PodWaiting": "pod-waiting",
    "Quarantined": "quarantined",
    "Refused": "refused",
    "RevisionRefused": "revision-refused",
    "StartedAgain": "started-again",
    "StartedByOther": "started-by-other",
    "SyncFailed": "sync",
    "Waiting": "not-helping",
}
#: The topics of conditions of a replica, by their name.
CONDITION_TOPICS: Final[Mapping[str, str]] = {
    "alertmanager": "alertmanager",
    "catalog": "catalog",
    "clock": "clock",
    "control": "control",
    "deliveries": "delivery-failed",
    "foreign jobs": "foreign-jobs",
    "in step": "sync",
    "job policy": "job-policy",
    "jobs": "api-server",
    "leader": "leader",
    "serving": "stopping",
    "waiting jobs": "too-many-waiting",
    "watchdog": "watchdog",
}
#: The topics of reasons of a Job or an alert that ask for something, by their value.
REASON_TOPICS: Final[Mapping[str, str]] = {
    "api-conflict": "delivery-failed",
    "api-forbidden": "permissions",
    "api-refused": "api-refused",
    "api-unavailable": "api-server",
    "approval": "approval",
    "busy": "delivery-failed",
    "clock-wrong": "clock",
    "invalid-alert": "invalid-alert",
    "matchers": "no-job",
    "max-wait": "max-wait",
    "missing-value": "refused",
    "name-taken": "foreign-jobs",
    "no-catalog": "catalog",
    "no-operario": "no-job",
    "not-helping": "not-helping",
    "paused": "paused",
    "too-large": "refused",
    "too-many-waiting": "too-many-waiting",
    "unsafe-value": "refused",
}
#: The topics of answers of the webhook, by their status.
HTTP_TOPICS: Final[Mapping[int, str]] = {
    400: "delivery-refused",
    401: "wrong-credentials",
    403: "delivery-refused",
    413: "delivery-refused",
    415: "delivery-refused",
    422: "invalid-alert",
    500: "internal-error",
    503: "delivery-failed",
}
#: The topics of errors that end a command, by the name of their class.
ERROR_TOPICS: Final[Mapping[str, str]] = {
    "Forbidden": "permissions",
    "Unauthorized": "permissions",
    "Unavailable": "api-server",
}


def link(topic: str) -> str:
    """Return the address of a topic; empty if there is none."""
    return f"{PAGE}#{topic}" if topic else ""


def with_link(text: str, topic: str, max_bytes: int) -> str:
    """Append the address of a topic to a text, which is cut to leave room for it."""
    if not topic:
        return text
    suffix = f" See {link(topic)}"
    raw, room = text.encode(), max_bytes - len(suffix)
    if len(raw) > room:
        text = raw[: room - len("…".encode())].decode(errors="ignore") + "…"
    elif text and text[-1] not in ".!?…":
        suffix = f".{suffix}" if len(raw) < room else suffix
    return text + suffix
