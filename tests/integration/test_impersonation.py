"""A kubeconfig that lets a user act as somebody else, on a real API server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import yaml

from openfero_gitops.cli import main
from openfero_gitops.cluster.client import KubernetesApi

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster


@pytest.fixture
def acting(kubeconfig: Path, tmp_path: Path) -> Path:
    """Write the administrator's kubeconfig, with `as` for a user who may list Jobs."""
    content = yaml.safe_load(kubeconfig.read_text())
    content["users"][0]["user"] |= {"as": "ada@example.com", "as-groups": ["auditors"]}
    path = tmp_path / "acting"
    path.write_text(yaml.safe_dump(content))
    return path


async def name_of(kubeconfig: Path) -> str:
    """Return the user as the API server knows it."""
    api = await KubernetesApi.connect(kubeconfig)
    try:
        return await api.whoami()
    finally:
        await api.close()


def test_commands_act_as_the_user_of_the_kubeconfig(
    acting: Path, kubectl: Kubectl, shared_namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They have the name and the rights of that user and of the groups, not the administrator's."""
    assert asyncio.run(name_of(acting)) == "ada@example.com"
    command = ["audit", "--kubeconfig", str(acting), "--namespace", shared_namespace]
    assert main(command) == 2
    assert 'User "ada@example.com" cannot list resource "jobs"' in capsys.readouterr().err
    where = ("--namespace", shared_namespace)
    kubectl("create", "role", "auditor", "--verb=list", "--resource=jobs.batch", *where)
    kubectl("create", "rolebinding", "auditor", "--role=auditor", "--group=auditors", *where)
    assert main(command) == 0
