"""What is reported as a Kubernetes Event."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ObjectReference:
    """The object that an event is about; `kubectl describe` needs the uid to find the event."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """An event: `reason` is one word to filter by, `note` a sentence.

    A `transient` one is not worth sending any more if another about the same object follows. A
    warning has a link to a `topic` of `help`, by default that of its reason.
    """

    about: ObjectReference
    reason: str
    action: str
    note: str
    warning: bool = False
    transient: bool = False
    topic: str = ""
