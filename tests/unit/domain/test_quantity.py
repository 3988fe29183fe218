from __future__ import annotations

import pytest

from openfero_gitops.domain.quantity import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1Gi", 2**30),
        ("1.5Mi", 1_572_864),
        ("500M", 500_000_000),
        ("2e6", 2_000_000),
        ("1Pi", 2**50),
    ],
)
def test_a_size_is_read_and_written_as_the_same(text: str, size: int) -> None:
    """A size is parsed into bytes, and formatted so that it parses to the same."""
    assert parse_size(text) == size
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("size", "text"), [(2**30, "1Gi"), (3 * 2**20, "3Mi"), (2**20 + 1024, "1025Ki"), (7, "7")]
)
def test_a_size_is_written_short(size: int, text: str) -> None:
    """The largest unit is used in which the size is a whole number."""
    assert format_size(size) == text


@pytest.mark.parametrize("text", ["", "1GB", "Gi", "1 Gi", "0", "1Ki", "-1Gi", "1Ei", "1e999"])
def test_invalid_sizes_are_rejected(text: str) -> None:
    """Invalid quantities and sizes outside 1Mi to 1Pi are rejected."""
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)
