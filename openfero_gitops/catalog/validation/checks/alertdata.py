"""Where alert data is allowed in a Job, and in which form."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from openfero_gitops.catalog.validation import shell
from openfero_gitops.catalog.validation.body import POD
from openfero_gitops.catalog.validation.rules import Breach, check
from openfero_gitops.domain.memo import cache_short_texts
from openfero_gitops.domain.rule import Pointer, error, warning
from openfero_gitops.domain.text import shown
from openfero_gitops.jobs import template
from openfero_gitops.jobs.environment import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from openfero_gitops.catalog.validation.body import Body, Container

# A variable that a shell expands; `$$` is the shell's own, after Kubernetes made one `$` of it.
_NAME: Final = re.compile(r"\$(?:\{!?)?([A-Za-z_]\w*)")
_CHARACTERS_PER_STEP: Final = 5  # for splitting a script into words


@check(
    error(
        "template-place",
        "A `{{ … }}` placeholder is allowed only in `command`, `args` and the values of `env`.",
        "An alert must not choose what runs. In an image, a mount or a name, a placeholder would "
        "let anyone who can send an alert do that, so it is an error there.",
        "read the variable OPENFERO_… in the container instead",
    )
)
def _template_place(body: Body) -> Iterator[Breach]:
    for pointer, _ in body.braced:
        if not _allows_placeholders(pointer):
            message = "{{ … }} is allowed only in command, args and the values of env"
            yield pointer, message, ""


@check(
    error(
        "template-syntax",
        "A `{{ … }}` placeholder must name one field of the alert, and nothing else.",
        "OpenFero evaluates Go templates; here a placeholder only inserts a field. Rendering is "
        "therefore the same on every replica, and alert data is never executed as a template.",
        "write {{ .Alert.Labels.pod }}, {{ .Alert.Annotations.summary }}, {{ .Status }} or"
        " {{ .GroupKey }}; mount a file for the braces of another program",
    )
)
def _template_syntax(body: Body) -> Iterator[Breach]:
    for pointer, text in body.braced:
        if not _allows_placeholders(pointer):
            continue
        rest = template.substitute(text, lambda _: "")
        invalid = [field for field in template.fields(rest) if isinstance(field, str)]
        for field in invalid or (["{{"] if "{{" in rest else []):
            yield pointer, f"{shown(field)} does not name a field of the alert", ""


def _allows_placeholders(pointer: Pointer) -> bool:
    """Whether it is an item of command or args, or the value of a variable."""
    depth = len(POD)
    if pointer[:depth] != POD or pointer[depth] not in ("containers", "initContainers"):
        return False
    match pointer[depth + 2 :]:
        case ("command" | "args", int()) | ("env", int(), "value"):
            return True
        case _:
            return False


@check(
    warning(
        "label-in-shell",
        "A shell should read alert data only from quoted variables, never as part of its script.",
        "An alert can name a Pod `x; rm -rf /`, and the shell would run it. The controller refuses "
        "such values in scripts, so the remediation may be refused just when it is needed. It "
        "cannot check unquoted variables and `eval`: an alert may also name a Pod `--all`.",
    )
)
def _label_in_shell(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        variables = _alert_variables(container)
        for pointer, script in _scripts(container):
            fields = [f for f in template.fields(script) if isinstance(f, template.Field)]
            inserted = [f"{{{{ {field} }}}}" for field in fields] + [
                f"$({name})" for name in template.references(script) if name.startswith(PREFIX)
            ]
            if inserted:
                message = f"{inserted[0]} inserts alert data into a shell script"
                suggestion = 'use a quoted variable after --: -- "$OPENFERO_POD"'
                yield pointer, message, suggestion
            body.spend(len(script) // _CHARACTERS_PER_STEP)
            if any(_is_alert_data(name, variables) for name in _NAME.findall(script)):
                for message, suggestion in _unsafe_uses(script, variables):
                    yield pointer, message, suggestion


def _alert_variables(container: Container) -> frozenset[str]:
    """The author's own variables that hold alert data."""
    return frozenset(
        variable.get("name", "")
        for variable in container.fields.get("env", ())
        if "{{" in variable.get("value", "") or f"$({PREFIX}" in variable.get("value", "")
    )


def _is_alert_data(name: str, variables: frozenset[str]) -> bool:
    """Whether a variable holds alert data: one of ours, or of the author's own."""
    return name.startswith(PREFIX) or name in variables


# Many operarios and all their older versions often share a script.
@cache_short_texts(max_entries=512, max_characters=8192)
def _unsafe_uses(script: str, variables: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """Where a shell could read alert data as more than one word: messages and suggestions."""
    return tuple(_find_unsafe_uses(script, variables))


def _find_unsafe_uses(script: str, variables: frozenset[str]) -> Iterator[tuple[str, str]]:
    # Kubernetes turns $$ into $ before the shell sees it.
    words = shell.split_words(script.replace("$$", "$"))

    def alert_variable(names: Iterable[str]) -> str:
        return next((name for name in names if _is_alert_data(name, variables)), "")

    if name := alert_variable(name for word in words for name in word.bare):
        message = f"${name} is not quoted: the shell splits its value into words and options"
        yield message, f'quote it, after --: -- "${name}"'
    programs = [words[index] for index in _programs((word.text, word.leads) for word in words)]
    if name := alert_variable(name for word in programs for name in word.bare + word.quoted):
        message = f"${name} is inserted into the script of another shell"
        yield message, f"""pass it as an argument: sh -c '… -- "$1"' sh "${name}\""""
    evals = any(word.leads and word.text == "eval" for word in words)
    if evals and (
        name := alert_variable(name for word in words for name in word.bare + word.quoted)
    ):
        message = f"eval runs its arguments as a script, which may contain ${name}"
        yield message, f'run the command without eval, with -- "${name}"'


def _scripts(container: Container) -> Iterator[tuple[Pointer, str]]:
    """The items of command and args that a shell runs as a script: `sh -ec SCRIPT`."""
    words: list[tuple[Pointer, str]] = [
        ((*container.pointer, field, index), word)
        for field in ("command", "args")
        for index, word in enumerate(container.fields.get(field, ()))
    ]
    for index in _programs((word, False) for _, word in words):
        yield words[index]


def _programs(words: Iterable[tuple[str, bool]]) -> Iterator[int]:
    """The indexes of the words that a shell runs as a script.

    Each word comes with whether it is the beginning of a command.
    """
    is_shell = is_next = False
    for index, (word, leads) in enumerate(words):
        if leads:
            is_shell = is_next = False
        if is_next:
            yield index
            is_shell = is_next = False
        elif word.rpartition("/")[2] in shell.SHELLS:
            is_shell = True
        elif is_shell and word.startswith("-") and not word.startswith("--"):
            is_next = "c" in word
