"""Operarios tried in a cluster that refuses, warns, throttles, or does not answer."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.catalog.build import Scope
from openfero_gitops.catalog.syncer import Syncer
from openfero_gitops.cluster.api import CONFIG_MAPS, JOBS, SERVICE_ACCOUNTS, Created
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.cluster.jobs import JobStore
from openfero_gitops.domain import keys
from openfero_gitops.domain.cluster_rule import CLUSTER_RULES
from openfero_gitops.domain.errors import (
    ApiError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Throttled,
    Unauthorized,
    Unavailable,
)
from openfero_gitops.domain.matcher_parser import parse_matchers
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.problem import Severity
from openfero_gitops.dryrun import trial as dryrun
from openfero_gitops.dryrun.policy import Policy
from openfero_gitops.dryrun.runner import DryRunner
from openfero_gitops.dryrun.trial import DryRun, DryRuns, Remark
from openfero_gitops.jobs.observe import observe
from openfero_gitops.leadership.term import TermEnded
from tests.support import build
from tests.support.copying import replace
from tests.support.paths import ROOT
from tests.support.workers import (
    NAMESPACE,
    Commits,
    Wire,
    World,
    in_background,
    in_virtual_time,
    new_term,
    operario_file,
    seconds_so_far,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.problem import Problem
    from openfero_gitops.domain.sync import SyncStatus
    from openfero_gitops.leadership.term import LeaseTerm
    from tests.support.relay import Act, Request

ACTIVE = (
    "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: openfero.io/policy-probe is "
    "reserved; policy version 1 is active"
)
DENIED = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no such image"
NO_RIGHT = (
    'jobs.batch is forbidden: User "system:serviceaccount:a:b" cannot create resource "jobs" in '
    'API group "batch" in the namespace "jobs"'
)


class Desk:
    """A replica that tries operarios, and the results that it counts."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self.wire = Wire(self.world.cluster)
        self.source = Commits()
        self.results: list[str] = []
        self.policies: dict[str, int] = {}
        self.syncer = Syncer(
            source=self.source,
            scope=Scope(),
            counts=self,
            now=self.world.now,
            clock=seconds_so_far,
        )
        self.runner = DryRunner(
            cluster=JobStore(self.wire, [build.JOBS_NAMESPACE], observe),
            store=ConfigMapStore(self.wire, NAMESPACE),
            syncer=self.syncer,
            counts=self,
            now=self.world.now,
            jobs_namespace=build.JOBS_NAMESPACE,
            namespaces=[build.JOBS_NAMESPACE],
        )

    def synced(self, status: SyncStatus) -> None:
        """Ignore a sync."""

    def dry_run(self, result: str) -> None:
        """Count a result."""
        self.results.append(result)

    def policy(self, namespace: str, version: int) -> None:
        """Set the version of a policy."""
        self.policies[namespace] = version

    async def sync(self, **files: str | None) -> Catalog:
        """Commit files, sync, and return the active catalog."""
        self.source.commit({f"{name}.yaml": text for name, text in files.items()})
        await self.syncer.sync()
        assert self.syncer.catalog is not None
        return self.syncer.catalog

    @property
    def problems(self) -> list[Problem]:
        """The problems that are shown for the active catalog."""
        assert self.syncer.catalog is not None
        return list(self.runner.problems(self.syncer.catalog))

    def shown(self) -> list[tuple[str, str]]:
        """Return the rule and message of each problem."""
        return [(problem.rule, problem.message) for problem in self.problems]

    def trials(self) -> list[Request]:
        """Return the dry run requests of operarios."""
        return [
            request
            for request in self.wire.requests
            if request.verb == "create" and request.resource == JOBS and "probe" not in request.name
        ]

    @asynccontextmanager
    async def leading(self, term: LeaseTerm | None = None) -> AsyncIterator[None]:
        """Try operarios while the block runs."""
        async with in_background(self.runner.run(term or new_term("a"))):
            yield

    def answers(self, answer: ApiError | tuple[str, ...], *, about: str = "") -> None:
        """Make dry runs of Jobs that contain a text fail, or succeed with warnings."""

        async def trouble(request: Request, act: Act) -> Any:
            if request.verb == "create" and request.resource == JOBS and about in str(request.body):
                if isinstance(answer, ApiError):
                    raise answer
                return Created((await act()).object, answer)
            return await act()

        self.wire.trouble = trouble

    def accepts_probes(self) -> None:
        """Answer as a cluster without the chart's policy."""

        async def trouble(request: Request, act: Act) -> Any:
            if request.verb == "create" and keys.POLICY_PROBE in str(request.body):
                return Created(request.body, ())
            return await act()

        self.wire.trouble = trouble


def with_account(name: str) -> str:
    """Return an operario that uses a ServiceAccount."""
    return operario_file("disk", more=f"      serviceAccountName: {name}\n")


class TestTrial:
    """The Job that is tried."""

    def trial(self, **given: Any) -> dryrun.Trial:
        """Return the trial of a catalog with one operario."""
        (trial,) = dryrun.trials(build.catalog(build.operario(**given)), build.JOBS_NAMESPACE)
        return trial

    def test_it_has_an_example_for_every_value_that_the_operario_uses(self) -> None:
        """References of any kind and values of matchers are rendered."""
        spec = build.job_spec(
            command=["heal", "{{ .Alert.Labels.pod }}", "$(OPENFERO_ZONE)"],
            env=[{"name": "WHY", "value": "{{ .Annotations.summary }}"}],
        )
        options = Options(matchers=tuple(parse_matchers('team="payments"')))
        operario = build.operario(spec=spec, options=options)
        job = dryrun.manifest(operario, build.catalog(operario), build.JOBS_NAMESPACE)
        assert keys.DECISION not in job["metadata"]["annotations"]
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert container["command"][1] == "example"
        values = {variable["name"]: variable["value"] for variable in container["env"]}
        assert values["OPENFERO_TEAM"] == "payments"
        assert (values["WHY"], values["OPENFERO_ZONE"]) == ("example", "example")
        assert job["spec"]["suspend"] is True

    def test_another_commit_of_the_same_file_is_the_same_job(self) -> None:
        """So is a change of an option, because the API server sees neither."""
        origin = build.operario().origin
        trial = self.trial()
        assert self.trial(origin=replace(origin, commit="3" * 40)).digest == trial.digest
        assert self.trial(options=Options(priority=7)).digest == trial.digest
        assert self.trial(spec=build.job_spec(command=["a"])).digest != trial.digest
        assert self.trial(namespace="elsewhere").digest != trial.digest
        assert self.trial(labels={"team": "a"}).digest != trial.digest

    def test_only_changed_operarios_are_rendered(self) -> None:
        """An unchanged operario is not rendered again, and has its new commit."""
        origin = build.operario().origin
        ops = [build.operario(f"op{n}", spec_digest=f"d{n}") for n in range(3)]
        old = build.catalog(*ops)
        before = dryrun.trials(old, build.JOBS_NAMESPACE)
        marked = tuple(replace(trial, digest=f"known-{n}") for n, trial in enumerate(before))
        moved = [replace(operario, origin=replace(origin, commit="3" * 40)) for operario in ops]
        moved[1] = replace(moved[1], spec_digest="other")
        new = build.catalog(*moved)
        after = dryrun.trials(new, build.JOBS_NAMESPACE, (old, marked))
        assert [trial.digest for trial in after] == ["known-0", before[1].digest, "known-2"]
        assert {trial.operario.origin.commit for trial in after} == {"3" * 40}
        longer = replace(new, envelope=replace(new.envelope, remember=timedelta(days=9)))
        again = dryrun.trials(longer, build.JOBS_NAMESPACE, (old, marked))
        assert not [trial for trial in again if trial.digest.startswith("known")]

    def test_a_disabled_operario_is_not_tried(self) -> None:
        """It never runs."""
        off = build.catalog(build.operario(options=Options(enabled=False)))
        assert dryrun.trials(off, build.JOBS_NAMESPACE) == ()


class TestPage:
    """The documentation of the rules."""

    def test_every_rule_is_documented(self) -> None:
        """docs/reference/dry-run.md has each of the rules, with its severity."""
        page = (ROOT / "docs/reference/dry-run.md").read_text()
        for rule in CLUSTER_RULES.values():
            assert f"| `{rule.id}` | {rule.severity} |" in page


class TestMeaning:
    """What an answer says about an operario."""

    @pytest.mark.parametrize(
        ("error", "rule"),
        [
            (Invalid('Job.batch "x" is invalid: spec.backoffLimit: Invalid'), "dry-run-refused"),
            (Forbidden(f"jobs.batch is forbidden: {DENIED}"), "dry-run-refused"),
            (Forbidden('admission webhook "w" denied the request: no'), "dry-run-refused"),
            (Forbidden(NO_RIGHT), "dry-run-not-allowed"),
            (Forbidden('jobs.batch "x" is forbidden: exceeded quota: q'), "dry-run-forbidden"),
            (NotFound('namespaces "jobs" not found'), "dry-run-forbidden"),
            (Invalid('admission webhook "w" does not support dry run'), "dry-run-undecided"),
            (
                Unavailable('Internal error occurred: failed calling webhook "w": EOF'),
                "dry-run-undecided",
            ),
            (Unavailable('admission webhook "w" denied the request: no'), "dry-run-refused"),
            (Throttled("slow down"), None),
            (Conflict("quota"), None),
            (Unauthorized("who"), None),
            (Unavailable("gone"), None),
        ],
    )
    def test_only_the_job_itself_and_a_denial_are_errors(
        self, error: ApiError, rule: str | None
    ) -> None:
        """The author cannot correct a full quota, a missing permission or a failed request."""
        remark = dryrun.remark_of(error)
        assert (remark.rule if remark else None) == rule
        if remark is not None:
            assert remark.message == str(error)
            severe = CLUSTER_RULES[remark.rule].severity is Severity.ERROR
            assert severe == (rule == "dry-run-refused")

    def test_saved_results_are_loaded_unchanged(self) -> None:
        """A ConfigMap of another format, or a damaged one, has no results."""
        results = DryRuns(
            "v1.36.3",
            {
                "a" * 32: DryRun(
                    build.NOW, (Remark("dry-run-warning", "über\nall", "spec.suspend"),)
                )
            },
            {"jobs": DryRun(build.NOW)},
            {
                "jobs": Policy(build.NOW, 1, build.NOW),
                "other": Policy(build.NOW, None, None, "denied request: no"),
            },
        )
        written = dryrun.to_config_map(results, NAMESPACE)
        assert dryrun.from_config_map(written) == results
        for change in ({"format": "2"}, {"operarios.json": "[1]"}, {"policies.json": "{"}):
            damaged = {**written, "data": {**written["data"], **change}}
            assert dryrun.from_config_map(damaged) is None
        assert dryrun.from_config_map({**written, "metadata": {"name": dryrun.CONFIG_MAP}}) is None

    def test_results_that_do_not_fit_are_left_out(self) -> None:
        """Results with remarks are kept in preference to others."""
        remarks = (Remark("dry-run-warning", "w" * 1000),)
        many = {f"{n:032}": DryRun(build.NOW, remarks if n % 2 else ()) for n in range(2000)}
        written = dryrun.to_config_map(DryRuns("v1.36.3", many), NAMESPACE)
        results = dryrun.from_config_map(written)
        assert results is not None
        assert 400 < len(results.operarios) < 1000
        assert all(tried.remarks for tried in results.operarios.values())
        assert sum(map(len, written["data"].values())) < 600_000


OPERARIUS = """apiVersion: openfero.io/v1alpha1
kind: Operarius
metadata:
  name: op
spec:
  alertSelector: {alertname: Op, status: firing}
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers:
            - name: heal
              image: registry.example/heal:1
              env: [{name: A, value: b}]
"""
CONFIG_MAP = """apiVersion: v1
kind: ConfigMap
metadata:
  name: openfero-op-firing
  labels: {app: openfero}
data:
  Op: |
""" + "".join(f"    {line}\n" for line in operario_file("op").splitlines())


CONTAINERS = "/spec/jobTemplate/spec/template/spec/containers"


@pytest.mark.parametrize(
    ("text", "field", "pointer", "line"),
    [
        (OPERARIUS, "image", "/spec/jobTemplate/spec/template/spec/containers/0/image", 14),
        (OPERARIUS, "env[7].value", f"{CONTAINERS}/0/env/0/value", 15),
        (OPERARIUS, "env[6].value", f"{CONTAINERS}/0/env", 15),
        (CONFIG_MAP, "image", "/data/Op/spec/template/spec/containers/0/image", 19),
    ],
    ids=["operarius", "authors-variable", "injected", "config-map"],
)
@in_virtual_time
async def test_a_field_is_found_in_every_form(
    text: str, field: str, pointer: str, line: int
) -> None:
    """It is below the template of an Operarius, and inside the text of a ConfigMap.

    The API server's index of a variable counts the injected ones.
    """
    desk = Desk()
    message = f'Job.batch "x" is invalid: spec.template.spec.containers[0].{field}: Invalid value'
    desk.answers(Invalid(message))
    await desk.sync(op=text)
    async with desk.leading():
        await asyncio.sleep(10)
    (problem,) = desk.problems
    assert (problem.pointer, problem.line) == (pointer, line)


class TestLeader:
    """What the leader sends, and shows."""

    @in_virtual_time
    async def test_an_error_becomes_a_problem_at_its_field(self) -> None:
        """It has path, line and commit of the field; the catalog does not change."""
        desk = Desk()
        message = 'Job.batch "x" is invalid: spec.template.spec.containers[0].image: Invalid value'
        desk.answers(Invalid(message), about="evil")
        catalog = await desk.sync(
            disk=operario_file("disk"), node="# A comment.\n" + operario_file("node", "evil")
        )
        async with desk.leading():
            await asyncio.sleep(10)
        (problem,) = desk.problems
        text = desk.source.history[-1][1]["node.yaml"].splitlines()
        assert problem.path == "node.yaml"
        assert "image:" in text[problem.line - 1]
        assert problem.pointer == "/spec/template/spec/containers/0/image"
        assert (problem.rule, problem.message) == ("dry-run-refused", message)
        assert problem.commit == catalog.revision.commit
        assert desk.syncer.catalog is catalog
        assert len(catalog.operarios) == 2
        assert catalog.problems == desk.syncer.catalog.problems
        assert sorted(desk.results) == ["accepted", "refused"]

    @in_virtual_time
    async def test_each_cause_is_a_problem_at_its_field(self) -> None:
        """The API server's index of a variable is translated to the author's."""
        desk = Desk()
        error = Invalid('Job.batch "x" is invalid: [one, two]')
        container = "spec.template.spec.containers[0]"
        error.causes = (
            (f"{container}.image", "Required value"),
            (f"{container}.resources.limits[memory]", "Invalid value"),
            ("spec.backoffLimit", "Invalid value"),
            ("spec.backoffLimit", "Invalid value"),
        )
        desk.answers(error)
        await desk.sync(disk=operario_file("disk"))
        async with desk.leading():
            await asyncio.sleep(10)
        assert [(problem.pointer, problem.message) for problem in desk.problems] == [
            ("/spec/template/spec/containers/0/image", f"{container}.image: Required value"),
            (
                "/spec/template/spec/containers/0/resources/limits/memory",
                f"{container}.resources.limits[memory]: Invalid value",
            ),
            ("/spec/backoffLimit", "spec.backoffLimit: Invalid value"),
        ]

    @in_virtual_time
    async def test_a_webhook_without_dry_runs_is_a_warning(self) -> None:
        """Nobody knows whether the webhook would deny the Job, so it is not an error."""
        desk = Desk()
        desk.answers(Invalid('admission webhook "w.example" does not support dry run'))
        await desk.sync(disk=operario_file("disk"))
        async with desk.leading():
            await asyncio.sleep(10)
        (problem,) = desk.problems
        assert (problem.rule, problem.severity) == ("dry-run-undecided", "warning")
        assert "sideEffects: None" in problem.suggestion

    @in_virtual_time
    async def test_each_warning_is_a_problem(self) -> None:
        """A repeated warning is one problem."""
        desk = Desk()
        desk.answers(("would violate PodSecurity", "deprecated", "deprecated"))
        await desk.sync(disk=operario_file("disk"))
        async with desk.leading():
            await asyncio.sleep(10)
        assert [message for _, message in desk.shown()] == [
            "would violate PodSecurity",
            "deprecated",
        ]
        assert {problem.severity for problem in desk.problems} == {Severity.WARNING}

    @in_virtual_time
    async def test_a_commit_tries_only_what_it_changed(self) -> None:
        """Results last for hours; another Kubernetes version starts again."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"), node=operario_file("node"))
        async with desk.leading():
            await asyncio.sleep(600)
            assert len(desk.trials()) == 2
            await desk.sync(node=operario_file("node", "changed"))
            await asyncio.sleep(600)
            assert len(desk.trials()) == 3

            async def newer(request: Request, act: Act) -> Any:
                return "v1.37.0" if request.verb == "version" else await act()

            desk.wire.trouble = newer
            await asyncio.sleep(600)
            assert len(desk.trials()) == 5

    @in_virtual_time
    async def test_hundreds_of_operarios_are_no_burst(self) -> None:
        """At most five requests are sent in any second, one at a time."""
        desk = Desk()
        files = {f"op{number}": operario_file(f"op{number}") for number in range(200)}
        await desk.sync(**files)
        async with desk.leading():
            await asyncio.sleep(60)
        assert len({request.name for request in desk.trials()}) == 200
        moments = [request.at for request in desk.wire.requests if request.verb == "create"]
        busiest = max(sum(at <= moment < at + 0.99 for moment in moments) for at in moments[::20])
        assert busiest <= 5
        others = len(desk.wire.requests) - len(moments)
        assert others <= 100, "what was found is written down now and then"

    @in_virtual_time
    async def test_retry_after_of_a_throttling_server_is_respected(self) -> None:
        """It backs off up to a minute, loses nothing, and continues later."""
        desk = Desk()
        desk.answers(Throttled("too many requests", 17.0))
        await desk.sync(disk=operario_file("disk"))
        async with desk.leading():
            await asyncio.sleep(600)
            moments = [
                request.at
                for request in desk.wire.requests
                if request.verb == "create" and request.resource == JOBS
            ]
            gaps = [b - a for a, b in itertools.pairwise(moments)]
            assert min(gaps) >= 17.0
            assert max(gaps) >= 60.0
            assert desk.problems == []
            desk.answers(Invalid("no"))
            await asyncio.sleep(130)
            assert desk.shown() == [("dry-run-refused", "no")]

    @pytest.mark.parametrize("error", [Unavailable("gone"), Conflict("quota"), Unauthorized("who")])
    @in_virtual_time
    async def test_a_failed_request_is_not_a_problem(self, error: ApiError) -> None:
        """It is repeated with back-off, and does not delay a new catalog."""
        desk = Desk()
        desk.answers(error, about="slow")
        await desk.sync(slow=operario_file("slow"))
        async with desk.leading():
            await asyncio.sleep(600)
            assert desk.problems == []
            assert len(desk.trials()) <= 20
            await desk.sync(slow=None, disk=operario_file("disk"))
            await asyncio.sleep(130)
        assert desk.results[-1] == "accepted"

    @in_virtual_time
    async def test_a_failing_operario_does_not_block_others(self) -> None:
        """It is tried again later, for example if there is no answer about one image."""
        desk = Desk()
        desk.answers(Unavailable("no response within 10 s"), about="slow")
        await desk.sync(**{name: operario_file(name, name) for name in ("a", "slow", "z")})
        async with desk.leading():
            await asyncio.sleep(60)
            assert desk.results.count("accepted") == 2
            desk.answers(())
            await asyncio.sleep(130)
            assert desk.results.count("accepted") == 3

    @in_virtual_time
    async def test_a_missing_permission_is_one_warning(self) -> None:
        """There is one per namespace; operarios are tried when it is granted."""
        desk = Desk()
        desk.answers(Forbidden(NO_RIGHT))
        await desk.sync(**{f"op{n}": operario_file(f"op{n}") for n in range(20)})
        async with desk.leading():
            await asyncio.sleep(120)
            assert desk.shown() == [("dry-run-not-allowed", NO_RIGHT)]
            assert [problem.path for problem in desk.problems] == ["."]
            assert desk.trials() == [], "the probe has told already"
            desk.answers(())
            await asyncio.sleep(700)
            assert desk.problems == []
            assert len(desk.trials()) == 20

    @in_virtual_time
    async def test_a_missing_service_account_is_a_problem(self) -> None:
        """The problem disappears when it exists."""
        desk = Desk()
        await desk.sync(disk=with_account("mender"), node=operario_file("node"))
        async with desk.leading():
            await asyncio.sleep(60)
            ((rule, message),) = desk.shown()
            assert rule == "service-account-missing"
            assert "'mender' in namespace 'jobs'" in message
            body = {"metadata": {"name": "mender"}}
            await desk.world.cluster.create(SERVICE_ACCOUNTS, build.JOBS_NAMESPACE, body)
            await asyncio.sleep(700)
            assert desk.problems == []

    @in_virtual_time
    async def test_a_missing_permission_for_accounts_hides_no_other_problem(self) -> None:
        """It is one warning beside what the API server says about the Job."""
        desk = Desk()

        async def trouble(request: Request, act: Act) -> Any:
            if request.resource == SERVICE_ACCOUNTS:
                raise Forbidden(NO_RIGHT.replace("create", "get"))
            if request.verb == "create" and "mender" in str(request.body):
                raise Invalid("no")
            return await act()

        desk.wire.trouble = trouble
        await desk.sync(disk=with_account("mender"))
        async with desk.leading():
            await asyncio.sleep(60)
        assert [rule for rule, _ in desk.shown()] == ["dry-run-not-allowed", "dry-run-refused"]

    @in_virtual_time
    async def test_it_stops_with_its_term(self) -> None:
        """A leader whose term has ended sends no more requests and saves nothing."""
        desk = Desk()
        await desk.sync(**{f"op{n}": operario_file(f"op{n}") for n in range(20)})
        with pytest.raises(TermEnded):
            async with asyncio.timeout(60):
                await desk.runner.run(new_term("a", lasts=2.0))
        sent = len(desk.wire.requests)
        assert 3 < len(desk.trials()) < 12
        await asyncio.sleep(600)
        assert len(desk.wire.requests) == sent
        assert not (await desk.world.cluster.list(CONFIG_MAPS, NAMESPACE)).items


class TestSharing:
    """What other replicas, and the next leader, know."""

    @in_virtual_time
    async def test_a_follower_shows_the_same_within_a_minute(self) -> None:
        """The next leader tries nothing again."""
        world = World()
        leader, follower = Desk(world), Desk(world)
        for desk in (leader, follower):
            await desk.sync(disk=operario_file("disk"), node=operario_file("node", "evil"))
        leader.answers(Invalid("no"), about="evil")
        async with in_background(follower.runner.follow()):
            async with leader.leading():
                await asyncio.sleep(60)
            assert follower.problems == leader.problems
            assert follower.shown() == [("dry-run-refused", "no")]
            async with follower.leading():
                await asyncio.sleep(300)
        assert follower.trials() == []

    @in_virtual_time
    async def test_a_config_map_of_somebody_else_is_not_changed(self) -> None:
        """Only the leader has the results then."""
        desk = Desk()
        body = {"metadata": {"name": dryrun.CONFIG_MAP}, "data": {"precious": "yes"}}
        await desk.world.cluster.create(CONFIG_MAPS, NAMESPACE, body)
        desk.answers(Invalid("no"))
        await desk.sync(disk=operario_file("disk"))
        async with desk.leading():
            await asyncio.sleep(300)
            config_map = await desk.world.cluster.get(CONFIG_MAPS, NAMESPACE, dryrun.CONFIG_MAP)
        assert config_map["data"] == {"precious": "yes"}
        assert desk.shown() == [("dry-run-refused", "no")]

    @in_virtual_time
    async def test_results_of_removed_operarios_are_removed(self) -> None:
        """The ConfigMap has the active operarios only, and does not grow."""
        desk = Desk()
        async with desk.leading():
            for number in range(5):
                await desk.sync(disk=operario_file("disk", f"true-{number}"))
                await asyncio.sleep(120)
        config_map = await desk.world.cluster.get(CONFIG_MAPS, NAMESPACE, dryrun.CONFIG_MAP)
        results = dryrun.from_config_map(config_map)
        assert results is not None
        assert len(results.operarios) == 1


class TestPolicy:
    """Whether the chart's admission policy protects the Jobs, and the names of approvers."""

    @in_virtual_time
    async def test_a_missing_policy_is_reported_until_it_is_there(self) -> None:
        """Operarios are tried all the same, and it is not a problem of the repository."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"))
        assert desk.runner.policy_advice == "", "nothing is known yet"
        desk.accepts_probes()
        async with desk.leading():
            await asyncio.sleep(60)
            assert "install it with jobPolicy.create=true" in desk.runner.policy_advice
            assert "namespace jobs" in desk.runner.policy_advice
            assert desk.policies == {"jobs": 0}
            assert desk.problems == []
            assert len(desk.trials()) == 1
            desk.answers(Forbidden(ACTIVE), about=keys.POLICY_PROBE)
            await asyncio.sleep(700)
            assert desk.runner.policy_advice == ""
            assert desk.policies == {"jobs": 1}

    @in_virtual_time
    async def test_it_is_known_without_a_catalog(self) -> None:
        """Whether Jobs are protected does not depend on Git."""
        desk = Desk()
        async with desk.leading():
            await asyncio.sleep(60)
        assert desk.policies == {"jobs": 1}

    @in_virtual_time
    async def test_other_replicas_report_the_same(self) -> None:
        """They load what the leader found, but only for their own namespaces."""
        world = World()
        leader, follower = Desk(world), Desk(world)
        leader.accepts_probes()
        async with leader.leading():
            await asyncio.sleep(10)
        async with in_background(follower.runner.follow()):
            await asyncio.sleep(60)
        assert follower.runner.policy_advice == leader.runner.policy_advice != ""
        assert follower.policies == {"jobs": 0}

    @in_virtual_time
    async def test_each_leader_probes_for_itself(self) -> None:
        """Who can write ConfigMaps cannot pretend that the policy is active."""
        desk = Desk()
        forged = DryRuns(policies={"jobs": Policy(desk.world.now(), 1, build.NOW)})
        config_map = dryrun.to_config_map(forged, NAMESPACE)
        await desk.world.cluster.create(CONFIG_MAPS, NAMESPACE, config_map)
        desk.accepts_probes()
        async with desk.leading():
            await asyncio.sleep(10)
        assert desk.policies == {"jobs": 0}
        assert "jobPolicy.create=true" in desk.runner.policy_advice
        assert not desk.runner.is_approval_verified(build.remediation())

    @in_virtual_time
    async def test_an_approver_is_verified_while_nobody_can_approve_in_another_name(self) -> None:
        """It is trusted from the time at which the cluster refuses a forged approval."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"))
        early = build.remediation()
        desk.answers(Forbidden(DENIED), about=keys.POLICY_PROBE)
        async with desk.leading():
            await asyncio.sleep(60)
            assert not desk.runner.is_approval_verified(early)
            assert "something else refuses the Job" in desk.runner.policy_advice
            desk.answers(Forbidden(ACTIVE), about=keys.POLICY_PROBE)
            await asyncio.sleep(700)
            late = replace(early, received_at=desk.world.now())
            assert desk.runner.is_approval_verified(late)
            assert not desk.runner.is_approval_verified(early), "it came before"
            elsewhere = replace(late, key=replace(late.key, namespace="elsewhere"))
            assert not desk.runner.is_approval_verified(elsewhere)
            desk.accepts_probes()
            await asyncio.sleep(700)
            later = replace(early, received_at=desk.world.now() + timedelta(hours=1))
            assert not desk.runner.is_approval_verified(later)
        assert desk.problems == []
