"""The settings that a replica uses, as people see them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class SettingOrigin(StrEnum):
    """Where the value of a setting comes from."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class SettingInUse:
    """A setting and its value, which holds no secret: those are in files, given by their path.

    `value` is empty if the setting has none.
    """

    flag: str
    variable: str
    value: str
    origin: SettingOrigin
    description: str
