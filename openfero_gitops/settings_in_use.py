"""Lists the settings of a replica, with the origin of each value, for people who look at it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from openfero_gitops.domain.setting import SettingInUse, SettingOrigin
from openfero_gitops.settings import describe, read_settings_file, written
from openfero_gitops.sources.git.url import redact

if TYPE_CHECKING:
    from collections.abc import Collection

    from openfero_gitops.settings import SettingDoc, Settings


def list_settings(settings: Settings, flags: Collection[str]) -> tuple[SettingInUse, ...]:
    """List the value of each setting and its origin; `flags` are the names of the given flags.

    No value is a secret: those are in files, and the addresses lose their user names.

    Raises:
        UsageError: the settings file can no longer be read.
    """
    in_file = read_settings_file().keys()
    return tuple(
        SettingInUse(
            flag=doc.flag,
            variable=doc.variable,
            value=redact(written(getattr(settings, doc.name))),
            origin=_origin(doc, flags, in_file),
            description=doc.description,
        )
        for doc in describe()
    )


def _origin(doc: SettingDoc, flags: Collection[str], in_file: Collection[str]) -> SettingOrigin:
    if doc.name in flags:
        return SettingOrigin.FLAG
    if os.environ.get(doc.variable):
        return SettingOrigin.ENVIRONMENT
    return SettingOrigin.FILE if doc.name in in_file else SettingOrigin.DEFAULT
