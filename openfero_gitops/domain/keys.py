"""The labels and annotations of a remediation's Job and of the Lease: a public contract.

Auditors select by them and Jobs outlive releases, so a key never changes its meaning. Where
OpenFero has a label for something, its key is used.
"""

from __future__ import annotations

from typing import Final

PREFIX: Final = "openfero.io/"
KUEUE_PREFIX: Final = "kueue.x-k8s.io/"
KUEUE_QUEUE: Final = "kueue.x-k8s.io/queue-name"
#: The label of a priority, which Kueue also takes from the Pod template.
KUEUE_PRIORITY: Final = "kueue.x-k8s.io/priority-class"
#: OpenFero's label on a definition that it ignores.
JOB_DISABLED: Final = "openfero/job-disabled"
#: The label of a Kueue Workload that has the uid of its Job.
KUEUE_JOB_UID: Final = "kueue.x-k8s.io/job-uid"
#: The value of `spec.managedBy` by which Kueue runs a Job on another cluster.
KUEUE_MULTIKUEUE: Final = "kueue.x-k8s.io/multikueue"
MANAGER: Final = "openfero-gitops"

# Labels.
OPERARIUS: Final = PREFIX + "operarius"
ALERT: Final = PREFIX + "alert"
STATUS: Final = PREFIX + "status"
GROUP_KEY: Final = PREFIX + "group-key"
MANAGED_BY: Final = PREFIX + "managed-by"
OCCURRENCE: Final = PREFIX + "occurrence"
INCIDENT: Final = PREFIX + "incident"
MIRROR: Final = PREFIX + "mirror"
ALERTS: Final = PREFIX + "alerts"

# Annotations: the origin of the Job. OPERARIUS, ALERT and STATUS are annotations, too: the full
# name of the operario, the full alert as JSON, and in a definition file the status of the alert.
ALERTNAME: Final = PREFIX + "alertname"
REPOSITORY: Final = PREFIX + "repository"
REF: Final = PREFIX + "ref"
COMMIT: Final = PREFIX + "commit"
PATH: Final = PREFIX + "path"
BLOB: Final = PREFIX + "blob"
COMMIT_AUTHOR: Final = PREFIX + "commit-author"
COMMIT_TIME: Final = PREFIX + "commit-time"
VERIFIED_SIGNER: Final = PREFIX + "verified-signer"
SPEC_DIGEST: Final = PREFIX + "spec-digest"
# The catalog's commit, which has the openfero.yaml. COMMIT is that of the operario's file, which is
# older if the newest version of the file has errors.
REVISION: Final = PREFIX + "revision"
RENDERER: Final = PREFIX + "renderer"

# Annotations: what was delivered.
FINGERPRINT: Final = PREFIX + "fingerprint"
STARTS_AT: Final = PREFIX + "starts-at"
# The replica labels that the alert has, as a JSON list: they do not belong to the identity of the
# alert. Absent if it has none.
REPLICA_LABELS: Final = PREFIX + "replica-labels"
DELIVERY: Final = PREFIX + "delivery"
#: The span in which the Job was created, as W3C Trace Context writes it; absent if not traced.
TRACEPARENT: Final = PREFIX + "traceparent"
ATTEMPT: Final = PREFIX + "attempt"
RECEIVED_AT: Final = PREFIX + "received-at"
RECEIVED_BY: Final = PREFIX + "received-by"
LAST_DELIVERED_AT: Final = PREFIX + "last-delivered-at"
RESOLVED_AT: Final = PREFIX + "resolved-at"
#: When the alert was first delivered as firing after the time in which it should have healed.
STILL_FIRING_AT: Final = PREFIX + "still-firing-at"

# Annotations: whether it helped, settled by the leader.
EFFECT: Final = PREFIX + "effect"
EFFECT_AT: Final = PREFIX + "effect-at"
EFFECT_MESSAGE: Final = PREFIX + "effect-message"

# Annotations: what was decided.
TERM: Final = PREFIX + "term"
ADMITTED_AT: Final = PREFIX + "admitted-at"
ADMITTED_BY: Final = PREFIX + "admitted-by"
#: Of a dry run alone: the chart's admission policy refuses it, by which it is recognized.
POLICY_PROBE: Final = PREFIX + "policy-probe"
#: The value of ADMITTED_BY on a Job that no leader has admitted.
SOMEBODY_ELSE: Final = "somebody else"
DECISION: Final = PREFIX + "decision"
REASON: Final = PREFIX + "reason"
MESSAGE: Final = PREFIX + "message"
#: Why the Pod of a running Job waits: a reason of Kubernetes, and a message.
POD_WAITING: Final = PREFIX + "pod-waiting"
APPROVED_BY: Final = PREFIX + "approved-by"
#: Why the approver approved the Job, in their words; absent if they gave no reason.
APPROVAL_REASON: Final = PREFIX + "approval-reason"
QUEUE: Final = PREFIX + "queue-name"

# Annotations: how often a Job was started, and when last. Kueue, or a person, may stop a Job and
# start it again, and Kubernetes keeps no record of the earlier start.
START_COUNT: Final = PREFIX + "start-count"
STARTED_AT: Final = PREFIX + "started-at"

# Annotation of the Lease: its last holder finished all admissions.
SETTLED: Final = PREFIX + "settled"

# Annotations: what admission needs, as of when the Job was rendered (both JSON).
TARGET: Final = PREFIX + "target"
OPTIONS: Final = PREFIX + "options"


def pointer(key: str) -> str:
    """Escape a key for use in a JSON Pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")
