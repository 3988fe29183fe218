"""How this process takes memory from the machine, and gives it back.

What a replica holds is the same for months, and what the machine counts for it should be, too.
Two things stand in the way, and neither is a leak.

glibc gives a block above 128 KiB back as soon as it is freed, but only until the first such one
was freed: from then on blocks of that size come from where small ones lie, and there one small
neighbour keeps the whole. Besides, each thread has such a place of its own. So every worker thread
comes to hold the hole of the largest thing that it ever read.

Python's search for cycles looks at every object there is while all threads stand still: 400,000
of them at ten thousand operarios, a fifth of a second. A catalog has no cycles, it goes with its
last reference.
"""

from __future__ import annotations

import ctypes
import gc
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: By glibc's malloc.h and, for whoever starts the process, mallopt(3): the parameter, the value.
_SETTINGS: Final = {
    "MALLOC_MMAP_THRESHOLD_": (-3, 128 * 1024),  # its first value; once set, it stays
    "MALLOC_ARENA_MAX": (-8, 2),  # Python's own lock lets one thread at a time ask for memory
}


def give_back_what_is_freed(environment: Mapping[str, str] = os.environ) -> bool:
    """Set glibc's allocator so; False on a C library without these settings, which has no need.

    To be called before there are threads. What the environment sets stays as it is set.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    tuned = "glibc.malloc" in environment.get("GLIBC_TUNABLES", "")
    for name, (parameter, value) in _SETTINGS.items():
        if name not in environment and not tuned:
            mallopt(parameter, value)
    return True


def search_no_more(freeze: Callable[[], None] = gc.freeze) -> Callable[[], None]:
    """What at its first call takes all that there is out of the search for cycles, for good.

    Once alone: what belongs to a cycle at that moment and is then let go is never freed.
    """
    done = False

    def once() -> None:
        nonlocal done
        if not done:
            done = True
            freeze()

    return once
