"""A whole catalog tried once, in a cluster that throttles, fails or lacks permissions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.catalog.build import build_catalog
from openfero_gitops.domain import keys
from openfero_gitops.domain.catalog import Snapshot, SourceFile
from openfero_gitops.domain.errors import (
    ApiError,
    Forbidden,
    NotFound,
    Throttled,
    Unauthorized,
    Unavailable,
)
from openfero_gitops.dryrun.once import try_catalog
from openfero_gitops.dryrun.trial import DryRuns, trials
from tests.support.rules import REVISION, SCOPE
from tests.support.workers import in_virtual_time, operario_file

if TYPE_CHECKING:
    from collections.abc import Sequence

NO_RIGHT = 'jobs.batch is forbidden: User "u" cannot create resource "jobs" in API group "batch"'
NO_ACCOUNTS = 'serviceaccounts "a" is forbidden: User "u" cannot get resource "serviceaccounts"'


class Cluster:
    """Answers in turn with what is given, then accepts everything."""

    def __init__(self, *answers: ApiError | None, accounts: ApiError | None = None) -> None:
        self.answers = list(answers)
        self.accounts = accounts
        self.requests = 0
        self.at_a_time = self.most_at_a_time = 0
        self.account_requests = 0
        self.labelled = 0

    async def version(self) -> str:
        """Return a version."""
        return "v1.36.3"

    async def dry_run(self, manifest: dict[str, Any]) -> Sequence[str]:
        """Answer after a tenth of a second."""
        self.requests += 1
        self.labelled += keys.MANAGED_BY in manifest["metadata"]["labels"]
        assert manifest["spec"]["suspend"] is True
        self.at_a_time += 1
        self.most_at_a_time = max(self.most_at_a_time, self.at_a_time)
        await asyncio.sleep(0.1)
        self.at_a_time -= 1
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        return ()

    async def has_account(self, namespace: str, name: str) -> bool:
        """Whether the account has a name that exists."""
        self.account_requests += 1
        if self.accounts is not None:
            raise self.accounts
        return bool(namespace) and name == "exists"


async def tried(cluster: Cluster, operarios: int = 1, account: str = "") -> DryRuns:
    """Try some operarios, and check that progress counts all of them."""
    files = {f"op{n}": operario_file(f"op{n}") for n in range(operarios)}
    if account:
        old = "restartPolicy: Never"
        new = f"{old}\n      serviceAccountName: {account}"
        files = {name: text.replace(old, new) for name, text in files.items()}
    snapshot = Snapshot(
        REVISION,
        "",
        tuple(
            SourceFile(f"{name}.yaml", "", text.encode(), "commit") for name, text in files.items()
        ),
    )
    catalog = build_catalog(snapshot, SCOPE)
    finished: list[int] = []
    to_try = trials(catalog, "jobs")
    assert len(to_try) == operarios
    results = await try_catalog(cluster, catalog, to_try, "jobs", finished.append)
    assert finished[-1] == operarios
    return results


def remarks(results: DryRuns) -> list[tuple[str, str]]:
    """Return the rule and message of everything that was said."""
    return [
        (remark.rule, remark.message)
        for result in (*results.operarios.values(), *results.namespaces.values())
        for remark in result.remarks
    ]


@in_virtual_time
async def test_several_requests_run_at_a_time() -> None:
    """The first one finds out whether the namespace can be used; then eight run at a time."""
    cluster = Cluster()
    assert remarks(await tried(cluster, 50)) == []
    assert (cluster.requests, cluster.most_at_a_time) == (50, 8)


@in_virtual_time
async def test_a_throttled_request_is_repeated() -> None:
    """It waits as long as the API server asks for."""
    cluster = Cluster(Throttled("slow down", 7.0))
    began = asyncio.get_running_loop().time()
    assert remarks(await tried(cluster)) == []
    assert 7 <= asyncio.get_running_loop().time() - began < 9


@in_virtual_time
async def test_one_request_without_an_answer_is_a_warning() -> None:
    """The other operarios are tried."""
    slow = [Unavailable("no response within 10 s")] * 3
    cluster = Cluster(None, *slow)
    results = await tried(cluster, 2)
    assert remarks(results) == [("dry-run-undecided", "no response within 10 s")]


@pytest.mark.parametrize("error", [Unavailable("refused"), Unauthorized("who")])
@in_virtual_time
async def test_an_api_server_that_never_answers_is_an_error(error: ApiError) -> None:
    """Nothing can be said about any operario."""
    with pytest.raises(type(error), match=str(error)):
        await tried(Cluster(*[error] * 100), 20)


@in_virtual_time
async def test_an_api_server_that_goes_away_is_an_error() -> None:
    """After some operarios without an answer the others are not waited for."""
    cluster = Cluster(None, *[Unavailable("gone")] * 1000)
    began = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable, match="gone"):
        await tried(cluster, 100)
    assert asyncio.get_running_loop().time() - began < 30


@pytest.mark.parametrize(
    ("error", "rule"),
    [
        (Forbidden(NO_RIGHT), "dry-run-not-allowed"),
        (NotFound('namespaces "jobs" not found'), "dry-run-forbidden"),
        (
            Forbidden("unable to create new content in namespace a because it is being terminated"),
            "dry-run-forbidden",
        ),
    ],
)
@in_virtual_time
async def test_what_concerns_a_namespace_is_said_once(error: ApiError, rule: str) -> None:
    """Only the first operario is tried; the message has the number of all."""
    cluster = Cluster(error)
    results = await tried(cluster, 30)
    ((said, message),) = remarks(results)
    assert said == rule
    assert message.startswith(f"{error}; 30 operarios could not be tried")
    assert cluster.requests == 1


@in_virtual_time
async def test_a_full_quota_is_said_once() -> None:
    """The others are tried: a policy may deny them, and is asked before the quota."""
    full = [Forbidden(f'jobs.batch "op{n}" is forbidden: exceeded quota: q') for n in range(9)]
    denied = Forbidden('admission webhook "w" denied the request: no')
    cluster = Cluster(*full, denied)
    results = remarks(await tried(cluster, 10))
    assert sorted(rule for rule, _ in results) == ["dry-run-forbidden", "dry-run-refused"]
    assert cluster.requests == 10


@in_virtual_time
async def test_service_accounts_are_looked_up() -> None:
    """A missing one is a warning."""
    ((rule, message),) = remarks(await tried(Cluster(), account="mender"))
    assert rule == "service-account-missing"
    assert "'mender'" in message
    assert remarks(await tried(Cluster(), account="exists")) == []


@in_virtual_time
async def test_without_permission_to_read_accounts_there_is_one_warning() -> None:
    """The Jobs are tried nevertheless."""
    cluster = Cluster(accounts=Forbidden(NO_ACCOUNTS))
    results = await tried(cluster, 20, account="mender")
    assert remarks(results) == [("dry-run-not-allowed", NO_ACCOUNTS)]
    assert cluster.requests == 20
    assert cluster.account_requests == 1


@in_virtual_time
async def test_jobs_are_tried_without_the_label_of_the_controller() -> None:
    """Where only the controller may create Jobs with its label, only the first one is repeated."""
    denied = Forbidden(
        "ValidatingAdmissionPolicy 'p' denied request: only the controller "
        "(system:serviceaccount:a:b) creates Jobs with the label openfero.io/managed-by=x"
    )
    cluster = Cluster(denied)
    assert remarks(await tried(cluster, 20)) == []
    assert cluster.requests == 21
    assert cluster.labelled == 1
