"""Sample states of a replica for tests of the page, with real decisions."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from openfero_gitops.admission.decide import Decision, decide
from openfero_gitops.admission.not_helping import NotHelping, list_not_helping
from openfero_gitops.catalog.revisions import RevisionHistory
from openfero_gitops.delivery.unanswered import EMPTY, UnansweredRecord, merge, record_of
from openfero_gitops.domain.alert import Alert, Status, incident_digest
from openfero_gitops.domain.answer import Item
from openfero_gitops.domain.catalog import Catalog, Envelope, Revision, SourceFile
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.health import About, Condition
from openfero_gitops.domain.lease import Leadership
from openfero_gitops.domain.matcher import Matcher, Operator
from openfero_gitops.domain.operario import Form, Operario, Options, Origin
from openfero_gitops.domain.pause import Pause, pause_in_git
from openfero_gitops.domain.problem import Ignored, Problem, Severity
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import FINAL, JobKey, Outcome, Phase, Remediation
from openfero_gitops.domain.sync import ReplicaLag, SyncStatus
from openfero_gitops.domain.text import canonical_json
from openfero_gitops.effects.assess import Assessment, assess
from openfero_gitops.effects.incident import Incident
from openfero_gitops.effects.unresolved import Unresolved, list_unresolved
from tests.support.copying import replace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openfero_gitops.domain.replica import ReplicaReport

COMMIT = "4f1c9a2e7b5d8036c1e4a9f2b7d05c8e3a6f1b94"
SIGNER = "ada@git.example SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"
OLDER = "0b7e2d9c4a1f8e5360d7b2c9e4a1f6835d0c7b2e"
REPOSITORY = "https://git.example.com/platform/operarios.git"
NAMESPACE = "openfero-jobs"
REPLICA = "openfero-gitops-7d9c5b-x2x4p"
#: The pages without a variable part in their address, relative to `/`.
ADDRESSES = ("", "alerts", "remediations", "operarios", "problems", "sync", "explain", "about")
#: Those with a Job or an operario in it.
VARIABLE_ADDRESSES = ("remediations/JOB", "operarios/OPERARIO")
_STARTED = frozenset({Phase.QUEUED, Phase.RUNNING, Phase.HELD, Phase.SUCCEEDED, Phase.FAILED})


@dataclass
class Showcase:
    """The state of a replica, set by a test; `moment` is the current time."""

    moment: datetime
    active: Catalog | None
    synced: SyncStatus
    jobs: list[Remediation] = field(default_factory=list)
    needs: list[Condition] = field(
        default_factory=lambda: [Condition("catalog", holds=True), Condition("jobs", holds=True)]
    )
    leader: Leadership = field(default_factory=lambda: Leadership(leader=True, holder=REPLICA))
    paused: Pause | None = None
    beside: ReplicaLag | None = None
    approvals_verified: bool = False
    reports: list[ReplicaReport] = field(default_factory=list)
    activations: RevisionHistory = field(default_factory=RevisionHistory)
    alerts: UnansweredRecord = EMPTY

    def about(self) -> About:
        """Return fixed values."""
        return About(
            version="1.2.3",
            identity=REPLICA,
            namespace="openfero",
            jobs_namespace=NAMESPACE,
            allowed_namespaces=(NAMESPACE, "shop"),
            cluster="production-west",
        )

    def catalog(self) -> Catalog | None:
        """Return the active catalog."""
        return self.active

    def sync(self) -> SyncStatus:
        """Return the status of the last sync."""
        return self.synced

    def lag(self) -> ReplicaLag | None:
        """Return how the replica compares with the leader."""
        return self.beside

    def unanswered(self) -> UnansweredRecord:
        """Return the alerts without a Job."""
        return self.alerts

    def revisions(self) -> RevisionHistory:
        """Return the record of active revisions."""
        return self.activations

    def replicas(self) -> list[ReplicaReport]:
        """Return the reports of the replicas."""
        return self.reports

    def next_sync(self) -> datetime | None:
        """Return when the next sync begins."""
        return self.moment + timedelta(seconds=40)

    def leadership(self) -> Leadership:
        """Return which replica leads."""
        return self.leader

    def remediations(self) -> list[Remediation]:
        """Return all remediations."""
        return self.jobs

    def remediation(self, key: JobKey) -> Remediation | None:
        """Return one remediation."""
        return next((job for job in self.jobs if job.key == key), None)

    def effect(self, remediation: Remediation) -> Assessment | None:
        """Assess a remediation as the leader does."""
        return assess(remediation, self._incident_of(remediation), self.moment)

    def unresolved(self) -> list[Unresolved]:
        """Return what failed or did not heal, as the leader does."""
        remember = (self.active.envelope if self.active else Envelope()).remember
        return list_unresolved(self.jobs, self._incident_of, remember, self.moment)

    def _incident_of(self, remediation: Remediation) -> Incident:
        return Incident(job for job in self.jobs if job.incident == remediation.incident)

    def is_approval_verified(self, _: Remediation) -> bool:
        """Whether the cluster verified the approver's name."""
        return self.approvals_verified

    def pause(self) -> Pause | None:
        """The pause of admission that is set, or one in Git."""
        return self.paused or pause_in_git(self.active, self.synced.refused)

    def decisions(self) -> Mapping[JobKey, Decision]:
        """Decide as the leader does."""
        envelope = self.active.envelope if self.active else None
        decided = decide(self.jobs, envelope, pause=self.pause(), now=self.moment)
        return {job.key: decision for job, decision in decided}

    def not_helping(self) -> Mapping[JobKey, NotHelping]:
        """Return what is held back, as the leader does."""
        return list_not_helping(self.jobs, self.active, self.moment)

    def conditions(self) -> Sequence[Condition]:
        """Return the conditions."""
        return self.needs


def operario(name: str, alertname: str, status: Status = Status.FIRING, **changes: Any) -> Operario:
    """Make an operario; `options`, `origin`, `form` and `namespace` may be given."""
    origin = Origin(
        path=f"{alertname.lower()}/{status.value}.yaml",
        blob="e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
        commit=COMMIT,
        commit_author="Platform Team <platform@example.com>",
        commit_time="2026-11-19T16:20:11+01:00",
        verified_signer=SIGNER,
    )
    default = Operario(
        name=name,
        alertname=alertname,
        status=status,
        form=Form.JOB,
        options=Options(),
        job={"spec": {"template": {"spec": {"containers": [{"name": "heal"}]}}}},
        namespace=None,
        origin=origin,
        spec_digest="",
    )
    return replace(default, **changes)


def remediation(alertname: str, phase: Phase, received: datetime, /, **changes: Any) -> Remediation:
    """Make a remediation in a phase, with the members that go with it; `changes` are the rest."""
    labels: Mapping[str, str] = changes.pop("labels", None) or {
        "alertname": alertname,
        "severity": "warning",
        "namespace": "shop",
        "pod": "cart-0",
    }
    status = changes.get("status", Status.FIRING)
    started = phase in _STARTED
    began = received + timedelta(seconds=2) if started else None
    finished = received + timedelta(seconds=44) if phase in FINAL and started else None
    number = changes.pop("number", received.strftime("%H%M%S"))
    name = f"{alertname.lower()[:30] or 'alert'}-{status.value}-{number}"
    target = {k: v for k, v in labels.items() if k not in ("alertname", "severity")}
    default = Remediation(
        key=JobKey(NAMESPACE, name),
        uid=name,
        resource_version="1",
        phase=phase,
        reason="",
        message="",
        operario=f"openfero-{alertname.lower()}-{status.value}",
        alertname=alertname,
        status=status,
        labels=labels,
        occurrence=name,
        incident=incident_digest(labels, status),
        attempt=1,
        fingerprint="8f3c1d2e4b5a6978",
        starts_at=received - timedelta(seconds=31),
        received_at=received,
        delivered_at=received,
        resolved_at=None,
        admitted_at=began,
        started_at=began,
        finished_at=finished,
        started=started,
        finished=finished is not None,
        has_message=False,
        deleting=False,
        suspended=phase not in (Phase.RUNNING, Phase.SUCCEEDED, Phase.FAILED),
        active=1 if phase is Phase.RUNNING else 0,
        term="12",
        decision=None,
        approved_by=None,
        queue=None,
        target=canonical_json(target or {"alertname": alertname}),
        options=Options(),
        ttl_seconds=86_400,
        repository=REPOSITORY,
        ref="main",
        commit=COMMIT,
        path=f"{alertname.lower()}/{status.value}.yaml",
        verified_signer=SIGNER,
    )
    return replace(default, **changes)


def catalog(*operarios: Operario, **changes: Any) -> Catalog:
    """Make a catalog at COMMIT."""
    revision = Revision(
        REPOSITORY,
        "main",
        COMMIT,
        "Platform Team <platform@example.com>",
        "2026-11-19T16:20:11+01:00",
        SIGNER,
    )
    default = Catalog(revision, Envelope(), operarios, has_envelope=True)
    return replace(default, **changes)


def synced(active: Catalog, moment: datetime) -> SyncStatus:
    """Make the status of a sync that succeeded 20 s ago."""
    return SyncStatus(
        revision=active.revision,
        origin="git",
        active_since=moment - timedelta(hours=9, minutes=12),
        last_attempt=moment - timedelta(seconds=20),
        last_success=moment - timedelta(seconds=20),
        seconds=0.412,
        operarios=len(active.operarios),
        problems=sum(problem.is_error for problem in active.problems),
    )


def quiet(moment: datetime) -> Showcase:
    """Make a replica with an active operario and no remediations."""
    active = catalog(operario("openfero-kubepodcrashlooping-firing", "KubePodCrashLooping"))
    return Showcase(moment, active, synced(active, moment))


def busy(moment: datetime) -> Showcase:
    """Make a replica with every phase, a stale operario, problems and a failing sync."""

    def ago(**span: float) -> datetime:
        return moment - timedelta(**span)

    active = catalog(
        operario(
            "openfero-kubepodcrashlooping-firing",
            "KubePodCrashLooping",
            options=Options(
                target=("namespace", "pod"), cooldown=timedelta(minutes=30), max_concurrent=3
            ),
        ),
        operario(
            "openfero-kubepersistentvolumefillingup-firing",
            "KubePersistentVolumeFillingUp",
            options=Options(approval=True, priority=10, max_wait=timedelta(hours=6)),
        ),
        operario("openfero-kubenodenotready-firing", "KubeNodeNotReady"),
        operario("openfero-kubenodenotready-resolved", "KubeNodeNotReady", Status.RESOLVED),
        operario("openfero-targetdown-firing", "TargetDown", form=Form.CONFIG_MAP),
        replace(
            operario("kubejobfailed-cleanup", "KubeJobFailed", form=Form.OPERARIUS),
            origin=Origin(
                path="jobs/kubejobfailed/firing.yaml",
                blob="",
                commit=OLDER,
                commit_author="Batch Team <batch@example.com>",
                commit_time="2026-10-02T09:14:00Z",
                stale=True,
            ),
        ),
        problems=(
            Problem(
                "jobs/kubejobfailed/firing.yaml",
                14,
                7,
                "/spec/template/spec/containers/0/resources/requests/cpu",
                "quantity",
                Severity.ERROR,
                "'12x' is not a quantity",
                "write 12 or 12m",
                COMMIT,
            ),
            Problem(
                "targetdown/firing.yaml",
                22,
                5,
                "/spec/template/labels",
                "unknown-field",
                Severity.WARNING,
                "field 'labels' does not exist here and is dropped",
                "move it to spec.template.metadata.labels",
                COMMIT,
            ),
        ),
        ignored=(
            Ignored("kubepodcrashlooping/rbac.yaml", "ServiceAccount"),
            Ignored("kubepodcrashlooping/rbac.yaml", "Role"),
            Ignored("kustomization.yaml", "Kustomization"),
        ),
    )
    node = {"alertname": "KubeNodeNotReady", "severity": "critical", "node": "worker-17"}
    volume = {
        "alertname": "KubePersistentVolumeFillingUp",
        "severity": "critical",
        "namespace": "orders",
        "persistentvolumeclaim": "data-postgres-2",
    }

    def pod(name: str) -> dict[str, str]:
        return {
            "alertname": "KubePodCrashLooping",
            "severity": "warning",
            "namespace": "shop",
            "pod": name,
            "container": "app",
            "job": "kube-state-metrics",
        }

    def down(name: str) -> dict[str, str]:
        return {"alertname": "TargetDown", "severity": "warning", "service": f"exporter-{name}"}

    def aimed(name: str) -> str:
        return canonical_json({"namespace": "shop", "pod": name})

    jobs = [
        remediation(
            "KubePodCrashLooping",
            Phase.RUNNING,
            ago(seconds=48),
            labels=pod("cart-0"),
            target=aimed("cart-0"),
        ),
        remediation(
            "KubePodCrashLooping",
            Phase.WAITING,
            ago(seconds=12),
            labels=pod("cart-0") | {"uid": "4"},
            target=aimed("cart-0"),
        ),
        remediation(
            "KubePodCrashLooping",
            Phase.WAITING,
            ago(minutes=2),
            labels=pod("checkout-5"),
            target=aimed("checkout-5"),
            options=Options(cooldown=timedelta(minutes=30)),
            attempt=2,
        ),
        remediation(
            "KubePersistentVolumeFillingUp",
            Phase.AWAITING_APPROVAL,
            ago(minutes=17),
            labels=volume,
            options=Options(approval=True, priority=10, max_wait=timedelta(hours=6)),
        ),
        remediation("TargetDown", Phase.QUEUED, ago(minutes=4), labels=down("a"), queue="heal"),
        remediation("TargetDown", Phase.HELD, ago(minutes=52), labels=down("b")),
        remediation(
            "KubePodCrashLooping",
            Phase.FAILED,
            ago(minutes=9),
            labels=pod("checkout-5"),
            target=aimed("checkout-5"),
            reason="BackoffLimitExceeded",
            message=(
                "BackoffLimitExceeded: Job has reached the specified backoff limit; container "
                "diagnose exited with code 1 (Error): Error from server (Forbidden): pods is "
                'forbidden: User "system:serviceaccount:openfero-jobs:operario-crash" cannot list '
                'resource "pods" in API group "" in the namespace "shop"'
            ),
            has_message=True,
        ),
        remediation("KubeNodeNotReady", Phase.SUCCEEDED, ago(hours=3), labels=node),
        remediation(
            "KubeNodeNotReady",
            Phase.SUCCEEDED,
            ago(hours=2, minutes=40),
            labels=node,
            status=Status.RESOLVED,
        ),
        remediation(
            "KubePodCrashLooping",
            Phase.REFUSED,
            ago(hours=1, minutes=4),
            labels=pod("search-1"),
            decision="refused",
            reason="same-incident",
            message="Job openfero-jobs/kubepodcrashlooping-x handles or handled this incident",
        ),
        remediation(
            "KubeJobFailed",
            Phase.CANCELLED,
            ago(hours=5),
            decision="cancelled",
            reason="cancelled-by-human",
            message="a person cancelled it",
            commit=OLDER,
        ),
    ]
    failing = replace(
        synced(active, moment),
        last_success=ago(minutes=22),
        error=f"git fetch {REPOSITORY}: could not resolve host git.example.com",
        failing_since=ago(minutes=21),
    )
    return Showcase(moment, active, failing, jobs, alerts=unanswered(moment))


def unanswered(moment: datetime) -> UnansweredRecord:
    """Make alerts without a Job: of each reason, one often, and one that is resolved."""
    record = EMPTY
    for hours, name, status, reason in (
        (9.0, "KubePodCrashLooping", Status.RESOLVED, Reason.NO_OPERARIO),
        (6.0, "HighLatency", Status.FIRING, Reason.NO_OPERARIO),
        (5.0, "CertificateExpiresSoon", Status.FIRING, Reason.MATCHERS),
        (0.5, "HighLatency", Status.FIRING, Reason.NO_OPERARIO),
        (0.2, "KubeJobFailed", Status.FIRING, Reason.OWN_JOB),
    ):
        alert = Alert(
            status,
            {"alertname": name, "namespace": "shop", "service": "checkout", "severity": "warning"},
            {"summary": "Answers of checkout take 2.4 s (limit 1 s)"},
            moment - timedelta(hours=9.5),
            None,
            "https://prometheus.example.com/graph",
            "",
        )
        item = Item(alert, Outcome.NO_MATCH, reason, reason.text)
        record = merge(record, record_of([item], moment - timedelta(hours=hours), frozenset()))
    return record


#: The file of the operario that has a history, with an option that has no effect.
FILE = """\
# Restarts a Pod that crashes again and again.
apiVersion: batch/v1
kind: Job
metadata:
  name: openfero-kubepodcrashlooping-firing
  annotations:
    openfero.io/matchers: 'severity="critical", namespace!~"kube-.*"'
    openfero.io/max-concurrent: "3"
spec:
  template:
    labels: {team: shop}
    spec:
      serviceAccountName: restarter
      restartPolicy: Never
      containers:
        - name: heal
          image: registry.example/kubectl:1.36
          command: [kubectl, delete, pod, "$(OPENFERO_POD)"]
          envFrom:
            - secretRef: {name: credentials}
"""


def with_history(moment: datetime) -> Showcase:
    """Make a replica whose operario ran often, under two commits of which the newer is worse."""
    name, path = "openfero-kubepodcrashlooping-firing", "kubepodcrashlooping/firing.yaml"
    container = {"name": "heal", "envFrom": [{"secretRef": {"name": "credentials"}}]}
    pod_spec = {"serviceAccountName": "restarter", "containers": [container]}
    tested = operario(
        name,
        "KubePodCrashLooping",
        options=Options(
            matchers=(
                Matcher("severity", Operator.EQUAL, "critical"),
                Matcher("namespace", Operator.NOT_MATCHES, "kube-.*"),
            ),
            max_concurrent=3,
            priority=5,
        ),
        job={"spec": {"template": {"spec": pod_spec}}},
        spec_digest="new",
    )
    problem = Problem(
        path,
        11,
        5,
        "/spec/template/labels",
        "unknown-field",
        Severity.WARNING,
        "field 'labels' does not exist here and is dropped",
        "move it to spec.template.metadata.labels",
        COMMIT,
    )
    active = catalog(
        tested,
        operario("restart-slowly", "KubePodCrashLooping"),
        problems=(problem,),
        files=(SourceFile(path, tested.origin.blob, FILE.encode()),),
    )
    jobs = []
    for number in range(60):
        newer = number < 20
        healed = number % 4 == 0 if newer else number % 8 != 0
        began = moment - timedelta(minutes=12 + 95 * number)
        pod = "cart-0" if number < 4 else f"web-{number % 7}"
        labels = {"alertname": "KubePodCrashLooping", "namespace": "shop", "pod": pod}
        ended = began + timedelta(seconds=20 + (number * 37) % 100 * (4 if newer else 1))
        jobs.append(
            remediation(
                "KubePodCrashLooping",
                Phase.SUCCEEDED if healed or number % 3 else Phase.FAILED,
                began,
                number=f"{number:03}",
                labels=labels | {"number": str(number)},
                target=canonical_json({"namespace": "shop", "pod": pod}),
                commit=COMMIT if newer else OLDER,
                spec_digest="new" if newer else "old",
                finished_at=ended,
                resolved_at=ended + timedelta(minutes=2) if healed else None,
                effect=Effect.HEALED if healed and number != 4 else Effect.NOT_HEALED,
                effect_at=ended + timedelta(minutes=15),
                effect_message="still firing 15m after the Job ended",
            )
        )
    jobs[0] = replace(jobs[0], effect=Effect.NOT_HEALED)
    pod = {"alertname": "KubePodCrashLooping", "namespace": "shop", "pod": "cart-9"}
    jobs.append(
        remediation(
            "KubePodCrashLooping",
            Phase.RUNNING,
            moment - timedelta(seconds=40),
            labels=pod,
            spec_digest="new",
        )
    )
    jobs.append(
        remediation(
            "KubePodCrashLooping",
            Phase.WAITING,
            moment - timedelta(seconds=20),
            labels=pod | {"container": "app"},
            target=jobs[-1].target,
            spec_digest="new",
        )
    )
    gone = remediation(
        "KubeJobFailed", Phase.SUCCEEDED, moment - timedelta(hours=3), operario="removed-operario"
    )
    return Showcase(moment, active, synced(active, moment), [*jobs, gone])


def broken(moment: datetime) -> Showcase:
    """Make a replica that cannot work: no catalog, no leader, no API server."""
    error = f"git fetch {REPOSITORY}: authentication failed"
    status = SyncStatus(
        last_attempt=moment - timedelta(seconds=5),
        error=error,
        failing_since=moment - timedelta(minutes=3),
    )
    return Showcase(
        moment,
        None,
        status,
        [remediation("TargetDown", Phase.WAITING, moment - timedelta(minutes=1))],
        needs=[
            Condition("catalog", holds=False, message=error),
            Condition("jobs", holds=False, message="openfero-jobs: connection refused"),
        ],
        leader=Leadership(),
    )


#: Hostile texts from labels of alerts or from files.
SCRIPT = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
ATTRIBUTE = '" onmouseover="document.title=\'taken\'" style="position:fixed;inset:0'
OVERRIDE = "abc\u202egpj.exe\u2066"
ARABIC = "خادم الويب"
EMOJI = "🔥👩🏽‍💻 disk"
LONG = "x" * 10_000 + "the end"
#: The name of an operario of which all but the name is hostile.
HOSTILE = "openfero-hostile-firing"


def hostile(moment: datetime) -> Showcase:
    """Make a replica in which all text from outside is hostile."""
    labels = {
        "alertname": SCRIPT,
        "attribute": ATTRIBUTE,
        "override": OVERRIDE,
        "arabic": ARABIC,
        "emoji": EMOJI,
        "long": LONG,
        SCRIPT: ATTRIBUTE,
    }
    path = "a b;$(reboot)\u202e.yaml"
    active = catalog(
        operario(SCRIPT, ATTRIBUTE, namespace=ATTRIBUTE, options=Options(target=(SCRIPT, LONG))),
        # (One with a name that an address can have; the rest of it is as hostile.)
        operario(
            HOSTILE,
            SCRIPT,
            namespace=ATTRIBUTE,
            options=Options(
                matchers=(Matcher(SCRIPT, Operator.MATCHES, ATTRIBUTE + LONG),),
                target=(SCRIPT, LONG),
            ),
            origin=Origin(path, "", COMMIT, f"{SCRIPT} <a@example.com>", ATTRIBUTE, SCRIPT),
            job={"spec": {"template": {"spec": {"containers": [], "serviceAccountName": SCRIPT}}}},
            spec_digest=SCRIPT,
        ),
        problems=(
            Problem(
                ATTRIBUTE + ".yaml",
                1,
                1,
                f"/{SCRIPT}",
                "rule",
                Severity.ERROR,
                SCRIPT,
                LONG,
                SCRIPT,
            ),
            Problem(path, 2, 1, f"/{SCRIPT}", SCRIPT, Severity.WARNING, SCRIPT, LONG, SCRIPT),
        ),
        files=(SourceFile(path, "", f"{SCRIPT}\n{ATTRIBUTE}\n{OVERRIDE}\n{LONG}".encode()),),
        ignored=(Ignored(SCRIPT, ATTRIBUTE),),
        revision=Revision(
            SCRIPT, ATTRIBUTE, COMMIT, f"{SCRIPT} <a@example.com>", ATTRIBUTE, SCRIPT
        ),
    )
    status = replace(synced(active, moment), error=SCRIPT + LONG, failing_since=moment)
    failed = remediation(
        SCRIPT,
        Phase.FAILED,
        moment - timedelta(minutes=1),
        number="1",
        key=JobKey(NAMESPACE, "alert-firing-1"),
        labels=labels,
        target=canonical_json(labels),
        reason=SCRIPT,
        message=ATTRIBUTE + LONG,
        operario=SCRIPT,
        fingerprint=ATTRIBUTE,
        repository=SCRIPT,
        ref=ATTRIBUTE,
        commit="--output=/etc/passwd",
        path=path,
        approved_by=SCRIPT,
        verified_signer=SCRIPT,
    )
    waiting = replace(
        failed,
        key=JobKey(NAMESPACE, "alert-firing-2"),
        uid="2",
        operario=HOSTILE,
        phase=Phase.HELD,
        spec_digest=ATTRIBUTE,
    )
    return Showcase(
        moment,
        active,
        status,
        [failed, waiting],
        needs=[Condition(SCRIPT, holds=False, message=ATTRIBUTE)],
        alerts=record_of([_hostile_item(labels)], moment - timedelta(hours=1), frozenset()),
    )


def _hostile_item(labels: Mapping[str, str]) -> Item:
    """Make an alert without a Job, which has the name of the one with a Job, and a hostile text."""
    alert = Alert(Status.FIRING, labels, dict(labels), None, None, f"javascript:{SCRIPT}", "")
    return Item(alert, Outcome.ERROR, None, SCRIPT + ATTRIBUTE)
