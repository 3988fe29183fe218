"""Limits how often one client address may try wrong credentials.

A source is an IPv4 address or an IPv6 /64 network. Many people can share one: behind NAT, behind a
proxy, or on one node. So a source that is blocked is not shut out: credentials that it has used
before still work, and only others have to wait. The memory is bounded, and nothing sleeps.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

#: Wrong credentials that a source may try before it is blocked.
FREE_ATTEMPTS: Final = 10
#: A source without a new wrong attempt for this time starts again.
WINDOW_SECONDS: Final = 15 * 60.0
#: The longest block. From then on, a source can try one credential in this time.
MAX_BLOCK_SECONDS: Final = 60.0
_MAX_SOURCES: Final = 10_000
_MAX_FAMILIAR: Final = 10_000
#: A script or a browser with an old password repeats it. That is not another guess.
_REMEMBERED_GUESSES: Final = 8


@dataclass(frozen=True, slots=True)
class Failures:
    """The wrong attempts of one source.

    Attributes:
        count: of different wrong credentials.
        last_at: when the last one was tried.
        blocked_until: until then, no unfamiliar credential is checked.
        guesses: digests of the last wrong credentials.
    """

    count: int = 0
    last_at: float = 0.0
    blocked_until: float = 0.0
    guesses: tuple[bytes, ...] = ()


def add_failure(failures: Failures | None, guess: bytes, now: float) -> Failures:
    """Return the failures of a source with one more wrong credential, whose digest is `guess`."""
    if failures is None or now - failures.last_at >= WINDOW_SECONDS:
        failures = Failures()
    if guess in failures.guesses:
        return failures
    count = failures.count + 1
    block = 0.0
    if count >= FREE_ATTEMPTS:
        doublings = min(count - FREE_ATTEMPTS, 16)
        block = min(2.0**doublings, MAX_BLOCK_SECONDS)
    return Failures(count, now, now + block, (*failures.guesses, guess)[-_REMEMBERED_GUESSES:])


class Attempts:
    """The wrong attempts of all sources at one door, and which credentials they used before."""

    def __init__(self) -> None:
        """Start without any."""
        #: By source, the latest failure last.
        self._failures: OrderedDict[str, Failures] = OrderedDict()
        #: Source and digest of credentials that were accepted, the latest use last.
        self._familiar: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    def wait_seconds(self, source: str, now: float) -> float:
        """Return for how long a source is blocked; 0 if it is not."""
        failures = self._failures.get(source)
        return max(failures.blocked_until - now, 0.0) if failures is not None else 0.0

    def is_familiar(self, source: str, digest: bytes) -> bool:
        """Whether a source has used a credential before."""
        return (source, digest) in self._familiar

    def accepted(self, source: str, digest: bytes) -> None:
        """Remember that a source used a credential."""
        self._familiar[source, digest] = None
        self._familiar.move_to_end((source, digest))
        if len(self._familiar) > _MAX_FAMILIAR:
            self._familiar.popitem(last=False)

    def failed(self, source: str, guess: bytes, now: float) -> bool:
        """Count a wrong credential; return whether it is the first that blocks the source."""
        failures = add_failure(self._failures.get(source), guess, now)
        first = failures.count == FREE_ATTEMPTS and failures is not self._failures.get(source)
        self._failures[source] = failures
        self._failures.move_to_end(source)
        if len(self._failures) > _MAX_SOURCES:
            self._failures.popitem(last=False)
        return first
