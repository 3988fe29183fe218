"""What YAML and word processors do to the commands of a container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openfero_gitops.catalog.validation.checks.alertdata import scripts
from openfero_gitops.catalog.validation.rules import Breach, check
from openfero_gitops.catalog.validation.shell import split_words
from openfero_gitops.catalog.validation.slips import (
    broken_lines,
    typographic,
    typographic_argument,
)
from openfero_gitops.domain.rule import warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openfero_gitops.catalog.validation.body import Body

_CHARACTERS_PER_STEP: Final = 20  # for finding the tokens of a script


@check(
    warning(
        "typographic-character",
        "A command should not contain typographic quotation marks, dashes or spaces.",
        "A word processor or a web page makes them of `\"`, `'`, `-` and spaces. To a shell and to "
        "other programs they are ordinary characters: text is not quoted, and an option is a name.",
    )
)
def _typographic_character(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        in_scripts = set()
        for pointer, script in scripts(container):
            in_scripts.add(pointer)
            if script.isascii():
                continue
            body.spend(len(script) // _CHARACTERS_PER_STEP)
            if slip := typographic(script):
                yield pointer, slip.message, slip.suggestion
        for field in ("command", "args"):
            for index, word in enumerate(container.fields.get(field, ())):
                pointer = (*container.pointer, field, index)
                if word.isascii() or pointer in in_scripts:
                    continue
                if slip := typographic_argument(word):
                    yield pointer, slip.message, slip.suggestion


@check(
    warning(
        "script-lines",
        "A shell script should have the lines that its author wrote.",
        "A folded scalar (`>`) joins lines. Then a backslash at the end of a line no longer "
        "continues it, a keyword is an argument, a here-document has no end, and a comment hides "
        "what follows.",
    )
)
def _script_lines(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        for pointer, script in scripts(container):
            body.spend(len(script) // _CHARACTERS_PER_STEP)
            # Kubernetes turns $$ into $ before the shell sees it.
            for slip in broken_lines(script.replace("$$", "$"), split_words):
                yield pointer, slip.message, slip.suggestion
