"""The keys that authenticate the mirror."""

from __future__ import annotations

import pytest

from openfero_gitops.keyfiles.content import UnusableFile
from openfero_gitops.keyfiles.mirror import check_mirror_keys


def test_a_short_key_is_refused() -> None:
    """Each key must be long enough, wherever it stands."""
    check_mirror_keys(["k" * 16, "k" * 40])
    for keys in (["k" * 15], ["k" * 40, "short"]):
        with pytest.raises(UnusableFile, match="at least 16 characters; make one with openssl"):
            check_mirror_keys(keys)
