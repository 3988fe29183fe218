"""`python -m tests.support.tools` builds what the tests run, so that no test has to."""

from __future__ import annotations

from tests.cluster.controlplane import binaries
from tests.support.actionlint import ACTIONLINT
from tests.support.amtool import AMTOOL
from tests.support.custom_resources import custom_resource_files
from tests.support.image import can_be_built, require_image
from tests.support.kueue import KUEUE

if __name__ == "__main__":
    print(binaries())
    print(ACTIONLINT.build())
    print(AMTOOL.build())
    print(KUEUE.build())
    if can_be_built():
        print(require_image())
    print(*custom_resource_files(), sep="\n")
