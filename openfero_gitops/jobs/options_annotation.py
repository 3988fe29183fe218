"""Record the options of an operario in an annotation of its Job, and read them back.

A decision about a Job must not depend on which commit a replica has reached, so the Job carries
the options with which it was rendered.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Final

from openfero_gitops.domain.memo import cache_short_texts
from openfero_gitops.domain.operario import OPTIONS, Options
from openfero_gitops.domain.text import canonical_json

#: The Jobs of one operario share their options, so that few operarios serve many Jobs.
_CACHE_ENTRIES: Final = 4096
#: Longer texts are read, but not kept: anybody may write 256 KiB into an annotation.
_MAX_CHARACTERS: Final = 2048


@lru_cache(maxsize=_CACHE_ENTRIES)
def write_options(options: Options, renderer: int) -> str:
    """Write the options as canonical JSON, by the names that authors use.

    Options that are no longer needed once the Job exists, such as the matchers, are left out, and
    those that came after this version of the renderer.
    """
    return canonical_json(
        {
            option.name: option.type.to_json(option.of(options))
            for option in OPTIONS
            if option.recorded and option.first_renderer <= renderer
        }
    )


@cache_short_texts(max_entries=_CACHE_ENTRIES, max_characters=_MAX_CHARACTERS)
def read_options(text: str) -> Options:
    """Read `write_options`' text; an option that is missing or damaged gets a safe value."""
    try:
        members = json.loads(text)
    except (ValueError, RecursionError):
        members = {}
    if not isinstance(members, dict):
        members = {}
    return Options(
        **{
            option.field: option.from_json(members.get(option.name))
            for option in OPTIONS
            if option.recorded
        }
    )
