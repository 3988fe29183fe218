"""Definitions of OpenFero become a repository that means the same, apart from what is listed."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
import yaml

from openfero_gitops.cli import main
from openfero_gitops.commands.author import CatalogSource, run_cases
from openfero_gitops.importing.manifests import read_manifests
from openfero_gitops.importing.openfero import convert
from tests.support.openfero_model import NoJob, compare, evaluate
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from openfero_gitops.importing.openfero import Import, ImportedDefinition

INSTALLATION = ROOT / "tests/fixtures/openfero"


def converted(*texts: str) -> Import:
    """Convert files."""
    return convert(
        manifest
        for number, text in enumerate(texts)
        for manifest in read_manifests(f"{number}.yaml", text.encode())
    )


@pytest.fixture(scope="module")
def imported() -> Import:
    """Convert the installation."""
    return converted(*(file.read_text() for file in sorted(INSTALLATION.iterdir())))


def definition(imported: Import, name: str) -> ImportedDefinition:
    """Return a definition by its name."""
    return next(definition for definition in imported.definitions if definition.name == name)


def ids(imported: Import, name: str) -> set[str]:
    """Return the ids of what changed in meaning for a definition."""
    return {difference.id for difference in definition(imported, name).differences}


def test_each_definition_has_a_file_under_the_name_of_its_alert(imported: Import) -> None:
    """Server-set fields and the status are gone; Secrets and unrelated objects are not copied."""
    assert sorted(imported.files) == [
        "diskfull/openfero-diskfull-firing.yaml",
        "kustomization.yaml",
        "openfero.yaml",
        "podstuck/restart-pod.yaml",
        "podstuck/undo.yaml",
        "queuestuck/openfero-queuestuck-firing.yaml",
        "rbac/restarter.yaml",
    ]
    body = yaml.safe_load(imported.files["podstuck/restart-pod.yaml"])
    assert body["metadata"] == {"name": "restart-pod", "namespace": "openfero"}
    assert "status" not in body
    assert "not-for-git" not in "".join(imported.files.values())
    assert any("chat-token" in note for note in imported.notes)


def test_the_text_of_a_file_is_kept(imported: Import) -> None:
    """Comments and quotes stay as the author wrote them."""
    text = imported.files["diskfull/openfero-diskfull-firing.yaml"]
    assert text in (INSTALLATION / "earlier.yaml").read_text()
    assert "This comment is kept." in text


def test_the_permissions_of_the_jobs_are_copied(imported: Import) -> None:
    """An account comes with its bindings and their roles, but without built-in ClusterRoles."""
    objects = [
        (body["kind"], body["metadata"]["name"])
        for body in yaml.safe_load_all(imported.files["rbac/restarter.yaml"])
    ]
    assert sorted(objects) == [
        ("ClusterRoleBinding", "see-everything"),
        ("Role", "restart-pods"),
        ("RoleBinding", "restart-pods"),
        ("ServiceAccount", "restarter"),
    ]
    listed = yaml.safe_load(imported.files["kustomization.yaml"])["resources"]
    assert listed == ["rbac/restarter.yaml"]


def test_what_means_something_else_is_listed(imported: Import) -> None:
    """Each operario has the differences of its own fields, and no others."""
    assert ids(imported, "restart-pod") == {
        "deduplication",
        "matchers",
        "template-in-command",
        "ttl",
        "variable-kept",
    }
    assert ids(imported, "undo") == {
        "deadline",
        "deduplication",
        "disabled",
        "retries",
        "ttl",
    }
    assert ids(imported, "openfero-queuestuck-firing") == {"cooldown", "deadline", "retries", "ttl"}
    assert "pod={{ .Alert.Labels.pod }}" not in str(definition(imported, "restart-pod").errors)


def test_each_job_is_openferos(tmp_path: Path) -> None:
    """A model of OpenFero creates the same Job, apart from the listed differences."""
    assert compare([str(INSTALLATION)], tmp_path / "out") == {"restart-pod": []}


def test_the_model_fails_where_openfero_does() -> None:
    """A missing label, and an action that is no field, are errors of OpenFero's templates."""
    data = {"Labels": {"pod": "a"}}
    assert evaluate("x{{ .Labels.pod }}{{.Labels.pod}}", data) == "xaa"
    for text in ("{{ .Labels.node }}", "{{ .Labels.pod | quote }}"):
        with pytest.raises(NoJob):
            evaluate(text, data)


def test_the_repository_validates_and_its_cases_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command writes it, and says what to review; nothing runs yet."""
    folder = str(tmp_path / "out")
    assert main(["import", "openfero", str(INSTALLATION), "--to", folder]) == 0
    output = capsys.readouterr().out
    assert "! template-in-command: container tell: args contains {{ .Alert.Labels.pod }}" in output
    assert "4 operarios imported" in output
    report = (tmp_path / "out/IMPORT.md").read_text()
    assert "**Review:** container restart sets OPENFERO_SEVERITY itself." in report
    cases = asyncio.run(run_cases(CatalogSource(folder)))
    assert cases.passed
    assert len(cases.results) == 4
    assert yaml.safe_load((tmp_path / "out/openfero.yaml").read_text())["mode"] == "dry-run"


def test_a_folder_with_files_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only --force writes to it; a `.git` folder does not count."""
    (tmp_path / ".git").mkdir()
    command = ["import", "openfero", str(INSTALLATION), "--to", str(tmp_path)]
    (tmp_path / "mine").write_text("")
    assert main(command) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    assert (tmp_path / "mine").exists()


def test_a_template_that_is_no_field() -> None:
    """A definition whose template has a function is kept aside, with the reason."""
    text = (INSTALLATION / "operariuses.yaml").read_text()
    imported = converted(text.replace("{{ .Labels.namespace }}", "{{ .Labels.namespace | quote }}"))
    [invalid] = [definition for definition in imported.definitions if definition.errors]
    assert invalid.path == "_invalid/restart-pod.yaml"
    assert "quote" in invalid.errors[0]
    assert not imported.is_complete


def test_the_result_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A definition that cannot be an operario is kept aside, and fails the command."""
    file = tmp_path / "a.yaml"
    file.write_text("kind: Operarius\napiVersion: openfero.io/v1alpha1\nmetadata: {name: empty}\n")
    (tmp_path / "b.yaml").write_text("a: [\n")
    command = ["import", "openfero", str(tmp_path), "--to", str(tmp_path / "out"), "-o", "json"]
    assert main(command) == 1
    result = json.loads(capsys.readouterr().out)
    [empty] = result["definitions"]
    assert empty["path"] == "_invalid/empty.yaml"
    assert empty["errors"]
    assert any("b.yaml is not imported" in note for note in result["notes"])


def test_nothing_to_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a definition no folder is written."""
    (tmp_path / "a.yaml").write_text("kind: Secret\napiVersion: v1\nmetadata: {name: s}\n")
    folder = tmp_path / "out"
    assert main(["import", "openfero", str(tmp_path / "a.yaml"), "--to", str(folder)]) == 2
    assert "no definition of OpenFero found" in capsys.readouterr().err
    assert not folder.exists()
    assert main(["import", "openfero", "a", "--to", "b", "--namespace", "c"]) == 2


def test_one_name_in_two_namespaces() -> None:
    """The second operario is named after its namespace, too; an exact copy is left out."""
    text = (INSTALLATION / "operariuses.yaml").read_text()
    imported = converted(text, text, text.replace("namespace: openfero", "namespace: shop"))
    assert sorted(definition.name for definition in imported.definitions) == [
        "restart-pod",
        "restart-pod-shop",
        "undo",
        "undo-shop",
    ]
    assert "renamed" in ids(imported, "undo-shop")
    body = yaml.safe_load(imported.files["podstuck/undo-shop.yaml"])
    assert body["metadata"] == {"name": "undo-shop", "namespace": "shop"}
    assert any("2 operarios for PodStuck (firing)" in note for note in imported.notes)


def test_two_definitions_of_one_object() -> None:
    """The first one is used, and a note names both."""
    text = (INSTALLATION / "operariuses.yaml").read_text()
    imported = converted(text, text.replace("ttl: 300", "ttl: 600"))
    assert len(imported.definitions) == 2
    assert "ttl: 300" in imported.files["podstuck/restart-pod.yaml"]
    assert any("defined differently in 0.yaml and in 1.yaml" in note for note in imported.notes)


def test_a_stream_is_split_with_its_comments() -> None:
    """A document keeps the comments before it, and a List's objects are written anew."""
    stream = "# one\na: 1\n---\n# two\nb: {}\n...\n---\nkind: List\nitems: [{kind: A}]\n"
    texts = [manifest.text for manifest in read_manifests("a.yaml", stream.encode())]
    assert texts == ["# one\na: 1\n", "# two\nb: {}\n", "kind: A\n"]
    [manifest] = read_manifests("a.json", b'{"kind": "A"}')
    assert manifest.text == "kind: A\n"
