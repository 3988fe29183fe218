from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.domain.setting import SettingInUse, SettingOrigin
from openfero_gitops.settings import load_settings
from openfero_gitops.settings_in_use import list_settings

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def listed(**flags: object) -> dict[str, SettingInUse]:
    """The settings of these flags, by flag."""
    given = {"repo": "/r"} | flags
    return {setting.flag: setting for setting in list_settings(load_settings(given), given)}


def test_each_value_has_its_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag precedes the environment, that the file, and that the default."""
    file = tmp_path / "settings.yaml"
    file.write_text("interval: 2m\nref: main\npath: shop\n")
    monkeypatch.setenv("OPENFERO_GITOPS_CONFIG", str(file))
    monkeypatch.setenv("OPENFERO_GITOPS_REF", "stable")
    monkeypatch.setenv("OPENFERO_GITOPS_PATH", "crm")

    settings = listed(path="erp")

    assert {flag: (settings[flag].value, settings[flag].origin) for flag in FLAGS} == {
        "--path": ("erp", SettingOrigin.FLAG),
        "--ref": ("stable", SettingOrigin.ENVIRONMENT),
        "--interval": ("2m", SettingOrigin.FILE),
        "--git-max-size": ("1Gi", SettingOrigin.DEFAULT),
        "--web-listen": ("", SettingOrigin.DEFAULT),
        "--follow-rewrites": ("false", SettingOrigin.DEFAULT),
    }


FLAGS = ("--path", "--ref", "--interval", "--git-max-size", "--web-listen", "--follow-rewrites")


def test_no_value_is_a_secret(tmp_path: Path) -> None:
    """Files are named but not read, and an address has no user name."""
    secret = tmp_path / "credentials"
    secret.write_text("ada:hunter2")

    settings = listed(
        repo="https://ada:hunter2@git.example/ops",
        web_auth="basic",
        web_credentials_file=str(secret),
    )

    assert settings["--web-credentials-file"].value == str(secret)
    assert settings["--repo"].value == "https://git.example/ops"
    assert "hunter2" not in repr(settings)


def test_lists_and_addresses_are_written_as_in_flags() -> None:
    """Several values are separated by commas."""
    settings = listed(allowed_namespace="shop,crm")

    assert settings["--allowed-namespace"].value == "shop, crm"
