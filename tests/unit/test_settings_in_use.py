from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from openfero_gitops.domain.setting import SettingInUse, SettingOrigin
from openfero_gitops.settings import Settings, flag_of, load_settings
from openfero_gitops.settings_in_use import list_settings

if TYPE_CHECKING:
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


def test_each_setting_can_be_listed(tmp_path: Path) -> None:
    """A value is listed as it was given, whatever its type is.

    (One excludes another: a proxy that authenticates users needs no credentials.)
    """
    given = GIVEN | {
        name: str(tmp_path / name)
        for name, field in Settings.model_fields.items()
        if field.annotation in (Path, Path | None) and name != "web_credentials_file"
    }
    assert given.keys() | {"web_credentials_file"} == Settings.model_fields.keys()

    settings = listed(**given)

    assert {flag: setting.value for flag, setting in settings.items() if setting.value} == {
        flag_of(name): value.replace(",", ", ") for name, value in given.items()
    }


#: A value for each setting that is not a path.
GIVEN: dict[str, str] = {
    "repo": "https://git.example/ops",
    "ref": "main",
    "path": "shop",
    "follow_rewrites": "true",
    "verify": "commit",
    "interval": "2m",
    "git_timeout": "30s",
    "git_proxy": "http://proxy.example:3128",
    "git_no_proxy": "git.example",
    "git_max_size": "2Gi",
    "git_max_memory": "128Mi",
    "namespace": "openfero",
    "jobs_namespace": "openfero-jobs",
    "allowed_namespace": "shop,crm",
    "kubernetes_version": "1.35",
    "listen": ":8081",
    "web_listen": ":8082",
    "max_delivery_size": "16Mi",
    "max_alerts": "5000",
    "max_waiting": "6000",
    "replica_label": "replica,zone",
    "webhook_auth": "bearer",
    "web_auth": "proxy",
    "web_trusted_proxy": "10.244.0.0/16,fd00::/64",
    "web_user_header": "X-Remote-User",
    "alertmanager_url": "http://am-0.example:9093,http://am-1.example:9093",
    "alertmanager_auth": "basic",
    "external_url": "https://openfero.example",
    "commit_url": "https://forge.example/{commit}",
    "file_url": "https://forge.example/{commit}/{path}",
    "allowed_host": "openfero.example,alt.example",
    "max_connections": "300",
    "max_connections_per_source": "70",
    "identity": "replica-1",
    "lease_duration": "25s",
    "renew_deadline": "20s",
    "retry_period": "5s",
    "shutdown_delay": "3s",
    "log_format": "json",
}
