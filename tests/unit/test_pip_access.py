from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from scripts import pip_access
from scripts.pip_access import pip_secrets

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment configure nothing."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setattr(pip_access, "AUTHORITIES", tmp_path / "system.crt")
    (tmp_path / "system.crt").write_text("system")


def written(path: Path) -> list[str]:
    """Return the lines of a configuration."""
    return [line for line in path.read_text().splitlines() if line]


def test_the_authorities_of_the_machine_are_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a configuration, pip trusts whom the machine trusts, and asks pypi.org."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pip_secrets() as secrets:
        assert secrets["ca-certificates"].read_text() == "system"
        assert written(secrets["pip-conf"]) == ["[global]", f"cert = {tmp_path / 'system.crt'}"]


def test_files_and_environment_configure_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Authorities of another file are where the build sees them; local folders are left out."""
    (tmp_path / "own.crt").write_text("own")
    (tmp_path / "pip.conf").write_text(
        f"[global]\ncert = {tmp_path}/own.crt\nfind-links = /opt\nindex-url = https://a.example/\n"
        "[install]\nextra-index-url =\n  https://b.example/%20\n  https://c.example/\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    with pip_secrets() as secrets:
        assert secrets["ca-certificates"].read_text() == "own"
        lines = written(secrets["pip-conf"])
        assert not any("/opt" in line for line in lines)
        assert {
            "[global]",
            "index-url = https://mirror.example/simple",
            "extra-index-url = ",
            "\thttps://b.example/%20",
            "\thttps://c.example/",
            f"cert = {tmp_path / 'system.crt'}",
        } <= {*lines}
    assert not secrets["pip-conf"].exists()
