"""Whether a replica can do its job, and if not, what it lacks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that a replica needs; `message` says what is amiss.

    Without what is not `vital` it still does the rest of its job.
    """

    name: str
    holds: bool
    message: str = ""
    vital: bool = True


@dataclass(frozen=True, slots=True)
class About:
    """What this replica is."""

    version: str
    identity: str
    namespace: str
    jobs_namespace: str
    allowed_namespaces: tuple[str, ...]
    cluster: str
