"""The Git repository of the demo."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from openfero_gitops.catalog.build import Scope
from openfero_gitops.catalog.files import FileMemo
from openfero_gitops.catalog.load import load_catalog
from openfero_gitops.demo.repository import DemoRepository
from openfero_gitops.sources.folder import FolderSource
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path


async def test_operarios_of_the_story_have_short_times(tmp_path: Path) -> None:
    """The times of two operarios are changed or added, so that effects are known in seconds."""
    repository = DemoRepository(tmp_path / "operarios", ROOT / "operarios-example")
    source = FolderSource(repository.folder)
    scope = Scope("openfero-demo")
    snapshot = await source.fetch()
    catalog = await load_catalog(snapshot, scope, FileMemo(scope.kubernetes_version))
    options = {operario.name: operario.options for operario in catalog.operarios}
    healing = options["openfero-kubepodcrashlooping-monitoring"]
    assert healing.heals_within == timedelta(seconds=8)
    stopped = options["openfero-kubedeploymentreplicasmismatch-firing"]
    assert stopped.heals_within < stopped.rerun_after
    assert stopped.cooldown == timedelta(0)
    assert stopped.stop_after_not_healed == 2
    assert not [problem for problem in catalog.problems if problem.is_error]
