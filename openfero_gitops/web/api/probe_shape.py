"""The models of the answers to probes."""

from __future__ import annotations

from typing import Literal

from openfero_gitops.web.api.shape import Shape, Text


class AliveShape(Shape):
    """The process answers."""

    status: Literal["ok"]


class ConditionShape(Shape):
    """One thing that a replica needs."""

    name: Text
    holds: bool
    message: Text | None
    """Why it does not hold."""
    help: Text | None
    """Where to read what to do."""


class ReadyShape(Shape):
    """Whether a replica works."""

    status: Literal["ok", "degraded", "not ready"]
    conditions: list[ConditionShape]
