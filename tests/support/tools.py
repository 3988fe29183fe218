"""`python -m tests.support.tools` builds the test cluster and amtool, so that no test has to."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.controlplane import binaries
from tests.support.amtool import require_amtool

if __name__ == "__main__":
    print(binaries())
    print(require_amtool(Path()).executable)
