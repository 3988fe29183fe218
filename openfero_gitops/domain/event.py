"""What happened, in the shape in which Kubernetes tells people of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Subject:
    """The object that an event is about; without its uid `kubectl describe` does not find it."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """One line for people: `reason` is a word to filter by, `note` the sentence.

    `passing` says that a later event about the same subject makes this one not worth telling.
    """

    about: Subject
    reason: str
    action: str
    note: str
    warning: bool = False
    passing: bool = False
