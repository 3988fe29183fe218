"""Which process of pytest-xdist runs which tests."""

from __future__ import annotations

from xdist.scheduler import LoadGroupScheduling


class FileScheduling(LoadGroupScheduling):
    """Give each process the tests of a file, or of an `xdist_group`, at once.

    A file's fixtures are then made once. Handing out single tests, as `--dist loadgroup` does
    with tests outside of groups, takes time that grows with the square of their number.
    """

    def _split_scope(self, nodeid: str) -> str:
        return super()._split_scope(nodeid).partition("::")[0]
