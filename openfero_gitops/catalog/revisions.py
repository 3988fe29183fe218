"""When which revision was active: a record for auditors, which the leader keeps with the mirror.

Every replica syncs on its own, so that it may use a revision a little earlier or later than the
leader. `tolerance` says how much.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.text import printable
from openfero_gitops.domain.timestamp import format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Enough for a day of commits, in 100 KB.
_MAX_ACTIVATIONS: Final = 500
_MAX_NAME_CHARACTERS: Final = 120
_MAX_TOLERANCE_SECONDS: Final = 366 * 86_400


@dataclass(frozen=True, slots=True)
class Activation:
    """A commit, and since when it was active on the leader.

    `author` and `signer` are empty if they are not recorded.
    """

    commit: str
    since: datetime
    author: str = ""
    signer: str = ""


@dataclass(frozen=True, slots=True)
class RevisionHistory:
    """The newest activations, oldest first; each lasts until the next."""

    activations: tuple[Activation, ...] = ()
    tolerance: timedelta = timedelta(0)

    def activate(
        self,
        commit: str,
        since: datetime,
        tolerance: timedelta,
        author: str = "",
        signer: str = "",
    ) -> RevisionHistory:
        """Add the active commit, unless it is the newest one already."""
        tolerance = timedelta(seconds=tolerance // timedelta(seconds=1))
        newest = self.activations[-1:]
        if newest and newest[0].commit == commit and tolerance == self.tolerance:
            return self
        activations = self.activations
        if not newest or newest[0].commit != commit:
            # An earlier leader may have activated another commit after this replica did.
            since = max(since, newest[0].since) if newest else since
            names = (printable(name, _MAX_NAME_CHARACTERS) for name in (author, signer))
            activations = (*activations, Activation(commit, since, *names))[-_MAX_ACTIVATIONS:]
        return RevisionHistory(activations, tolerance)

    def was_active(self, commit: str, at: datetime, now: datetime) -> bool | None:
        """Whether a commit was active on any replica at a time; None if that is not recorded.

        That is so before the record begins, and until the leader had the time to record what
        another replica uses already.
        """
        if not self.activations:
            return None
        ends = [*(activation.since for activation in self.activations[1:]), None]
        for activation, end in zip(self.activations, ends, strict=True):
            if (
                activation.commit == commit
                and activation.since - self.tolerance <= at
                and (end is None or at <= end + self.tolerance)
            ):
                return True
        begins = self.activations[0].since + self.tolerance
        return False if begins < at < now - self.tolerance else None

    def at(self, moment: datetime) -> str:
        """Return the commit that was active on the leader; empty if that is not recorded."""
        before = [entry.commit for entry in self.activations if entry.since <= moment]
        return before[-1] if before else ""

    def to_json(self) -> dict[str, Any]:
        """Write it as JSON."""
        return {
            "toleranceSeconds": self.tolerance // timedelta(seconds=1),
            "activations": [[entry.commit, format_time(entry.since)] for entry in self.activations],
            # (Apart, so that earlier versions can read the rest.)
            "people": {
                entry.commit: [entry.author, entry.signer]
                for entry in self.activations
                if entry.author or entry.signer
            },
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RevisionHistory:
        """Read `to_json`'s value; raises LookupError, TypeError or ValueError if it is none."""
        activations = []
        people = value.get("people")
        people = people if isinstance(people, dict) else {}  # of an earlier version
        for commit, text in value["activations"]:
            since = parse_time(text)
            if not isinstance(commit, str) or since is None:
                raise ValueError("an activation without commit or time")
            author, signer = people.get(commit, ("", ""))
            if not isinstance(author, str) or not isinstance(signer, str):
                raise TypeError("an author or a signer is no text")
            activations.append(Activation(commit, since, author, signer))
        seconds = value["toleranceSeconds"]
        if not isinstance(seconds, int) or not 0 <= seconds <= _MAX_TOLERANCE_SECONDS:
            raise ValueError("no tolerance")
        return cls(tuple(activations[-_MAX_ACTIVATIONS:]), timedelta(seconds=seconds))
