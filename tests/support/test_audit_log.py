from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.audit_log import check_rights, requests_in
from tests.support.chart import NAME

if TYPE_CHECKING:
    from pathlib import Path

HOME, JOBS = "home", "home-jobs"
CONFIG_MAPS = {"resource": "configmaps"}
ALL_JOBS = {"apiGroup": "batch", "resource": "jobs"}


def event(
    verb: str, reference: dict[str, Any], namespace: str, decision: str, account: str = NAME
) -> str:
    """Return a line of an audit log."""
    line = {
        "verb": verb,
        "user": {"username": f"system:serviceaccount:{HOME}:{account}"},
        "objectRef": {**reference, "namespace": namespace},
        "annotations": {"authorization.k8s.io/decision": decision},
    }
    return json.dumps(line, separators=(",", ":")) + "\n"


def log_of(folder: Path, *lines: str) -> Path:
    """Write an audit log in which the controller may list ConfigMaps, and then Jobs."""
    path = folder / "audit.jsonl"
    allowed = event("list", CONFIG_MAPS, HOME, "allow") + event("list", ALL_JOBS, JOBS, "allow")
    path.write_text(allowed + "".join(lines))
    return path


@pytest.mark.parametrize(
    ("verb", "reference", "namespace"),
    [
        ("get", {"resource": "secrets", "name": "a"}, HOME),
        ("list", CONFIG_MAPS, JOBS),
        ("list", ALL_JOBS, "kube-system"),
        ("update", {**CONFIG_MAPS, "name": "kube-root-ca.crt"}, HOME),
        ("patch", {**ALL_JOBS, "name": "a", "subresource": "status"}, JOBS),
    ],
    ids=["resource", "role", "namespace", "name", "subresource"],
)
def test_a_request_that_the_chart_does_not_grant_is_an_error(
    verb: str, reference: dict[str, Any], namespace: str, tmp_path: Path
) -> None:
    """It is named, with the namespace."""
    line = event(verb, reference, namespace, "forbid")
    with pytest.raises(AssertionError, match=f"may not {verb} .*in namespace {namespace}$"):
        check_rights(log_of(tmp_path, line))


@pytest.mark.parametrize(
    "line",
    [
        event("create", {**ALL_JOBS, "name": "a"}, JOBS, "forbid"),
        event("update", {**CONFIG_MAPS, "name": "openfero-catalog"}, HOME, "forbid"),
        event("get", {"resource": "secrets"}, HOME, "forbid", account="default"),
        event("get", {"resource": "secrets"}, HOME, "forbid")[:-2],
    ],
    ids=["granted", "granted-name", "another-account", "incomplete"],
)
def test_other_requests_may_be_forbidden(line: str, tmp_path: Path) -> None:
    """An API server that has just started forbids what the Roles grant."""
    check_rights(log_of(tmp_path, line))


def test_requests_are_read_as_rbac_sees_them(tmp_path: Path) -> None:
    """A collection has no name, a subresource belongs to the resource; a throttled one is none."""
    throttled = json.dumps({"verb": "get", "user": {"username": NAME}, "objectRef": ALL_JOBS})
    log = log_of(
        tmp_path,
        event("create", {**ALL_JOBS, "name": "a"}, JOBS, "allow"),
        event("get", {"resource": "pods", "name": "b", "subresource": "log"}, JOBS, "forbid"),
        throttled + "\n",
    )
    requests = list(requests_in(log, containing="verb"))
    assert [(each.verb, each.resource, each.name, each.allowed) for each in requests] == [
        ("list", "configmaps", "", True),
        ("list", "jobs", "", True),
        ("create", "jobs", "", True),
        ("get", "pods/log", "b", False),
    ]
    start = log.read_text().index("\n") - 3
    assert list(requests_in(log, containing="verb", start=start)) == requests[1:]
