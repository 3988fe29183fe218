"""What is freed is given back to the machine; measured in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.heap import give_back_what_is_freed, search_no_more

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Reads large things in eight threads, keeps a little of each, and prints what that took, in MiB.
READING = """\
import sys
import threading
from openfero_gitops.heap import give_back_what_is_freed

def resident():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

def read():
    bytearray(30 << 20)  # the first large one is given back in any case, and is the last
    large = []
    for _ in range(10):
        large.append(bytearray(b"x") * (1 << 20))
        kept.append(bytearray(b"x") * 600)

kept = []
if sys.argv[1] == "set":
    give_back_what_is_freed()
before = resident()
for _ in range(8):
    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
print(resident() - before)
"""


def left(how: str, environment: Mapping[str, str]) -> float:
    """How many MiB such a process takes for the little that it keeps."""
    clean = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    argv = [sys.executable, "-c", READING, how]
    said = subprocess.run(argv, env={**clean, **environment}, stdout=subprocess.PIPE, check=True)
    return float(said.stdout)


@pytest.mark.skipif(not give_back_what_is_freed({"GLIBC_TUNABLES": "glibc.malloc"}), reason="musl")
def test_a_little_that_is_kept_keeps_nothing_large() -> None:
    """Without the settings it does, so that they are there for a reason."""
    assert left("set", {}) < 5
    assert left("not set", {}) > 8


@pytest.mark.skipif(not give_back_what_is_freed({"GLIBC_TUNABLES": "glibc.malloc"}), reason="musl")
@pytest.mark.parametrize(
    "environment",
    [
        {"MALLOC_MMAP_THRESHOLD_": str(64 << 20)},
        {"GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={64 << 20}"},
    ],
)
def test_what_the_environment_sets_stays(environment: Mapping[str, str]) -> None:
    """Whoever starts the process knows its machine better."""
    assert left("set", environment) > 8


def test_the_search_for_cycles_is_freed_of_what_is_there_once() -> None:
    """A second time would keep what was let go between the two."""
    frozen: list[int] = []
    freeze = search_no_more(lambda: frozen.append(1))
    freeze()
    freeze()
    assert frozen == [1]
