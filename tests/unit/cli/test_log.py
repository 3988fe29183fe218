"""What commands log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog

from openfero_gitops.cli import log

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    """Restore the configuration that the other tests have."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.mark.parametrize("form", ["console", "json"])
def test_text_from_outside_cannot_control_the_terminal(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Escape sequences, C1 controls, new lines and marks of text direction are escaped."""
    log.to_stderr(form)
    structlog.get_logger().warning("refused", alert="a\x1b[2J\x9b1m\nb\u202e\x00", other="é")
    [line] = capsys.readouterr().err.splitlines()
    assert not {"\x1b", "\x9b", "\u202e", "\x00"} & set(line)
    assert "[2J" in line
    assert "é" in line
