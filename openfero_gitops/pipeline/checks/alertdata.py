"""Where alert data may stand in a Job, and how it is asked for."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from openfero_gitops.pipeline import template
from openfero_gitops.pipeline.body import POD
from openfero_gitops.pipeline.environment import PREFIX
from openfero_gitops.pipeline.rules import Breach, Pointer, check, error, shown, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openfero_gitops.pipeline.body import Body, Container

_SHELLS: Final = frozenset({"sh", "ash", "bash", "dash", "ksh", "zsh"})
_FIELDS: Final = (
    "write {{ .Alert.Labels.pod }}, {{ .Alert.Annotations.summary }}, {{ .Status }} or"
    " {{ .GroupKey }}; braces of another program belong into a mounted file"
)


@check(error("template-place", "{{ … }} stands in command, args and values of env, nowhere else."))
def _template_place(body: Body) -> Iterator[Breach]:
    for pointer, _ in body.braced:
        if not _takes_fields(pointer):
            yield (
                pointer,
                "{{ … }} is read in command, args and the values of env, and not here",
                "read the variable OPENFERO_… in the container instead",
            )


@check(error("template-syntax", "{{ … }} names one field of the alert, and does nothing else."))
def _template_syntax(body: Body) -> Iterator[Breach]:
    for pointer, text in body.braced:
        if not _takes_fields(pointer):
            continue
        rest = template.substitute(text, lambda _: "")
        wrong = [found for found in template.fields(rest) if isinstance(found, str)]
        for found in wrong or (["{{"] if "{{" in rest else []):
            yield pointer, f"{shown(found)} names no field of the alert", _FIELDS


def _takes_fields(pointer: Pointer) -> bool:
    """Whether fields are honoured there: a word of command or args, the value of a variable."""
    depth = len(POD)
    if pointer[:depth] != POD or pointer[depth] not in ("containers", "initContainers"):
        return False
    match pointer[depth + 2 :]:
        case ("command" | "args", int()) | ("env", int(), "value"):
            return True
        case _:
            return False


@check(warning("label-in-shell", "Alert data does not stand in the text of a shell script."))
def _label_in_shell(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        for pointer, script in _scripts(container):
            names = [f for f in template.fields(script) if isinstance(f, template.Field)]
            pasted = [f"{{{{ {name} }}}}" for name in names] + [
                f"$({name})" for name in template.references(script) if name.startswith(PREFIX)
            ]
            if pasted:
                message = (
                    f"{pasted[0]} is pasted into a shell script: its value becomes part of the"
                    " program"
                )
                yield pointer, message, 'read it as a variable, in quotes: "$OPENFERO_POD"'


def _scripts(container: Container) -> Iterator[tuple[Pointer, str]]:
    """The words of command and args that a shell gets as its program: `sh -ec SCRIPT`."""
    words: list[tuple[Pointer, str]] = [
        ((*container.pointer, part, index), word)
        for part in ("command", "args")
        for index, word in enumerate(container.fields.get(part, ()))
    ]
    shell = False
    for (_, word), following in itertools.pairwise(words):
        if word.rpartition("/")[2] in _SHELLS:
            shell = True
        elif shell and word.startswith("-") and not word.startswith("--") and "c" in word:
            yield following
            shell = False
