"""How shells read alert data."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from openfero_gitops.catalog.validation import shell
from openfero_gitops.catalog.validation.quoting import is_plainly_quoted
from openfero_gitops.catalog.validation.rules import Breach, check
from openfero_gitops.domain.memo import cache_short_texts
from openfero_gitops.domain.rule import Pointer, warning
from openfero_gitops.jobs import template
from openfero_gitops.jobs.environment import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from openfero_gitops.catalog.validation.body import Body, Container

# A variable that a shell expands; `$$` is the shell's own, after Kubernetes made one `$` of it.
_NAME: Final = re.compile(r"\$(?:\{!?)?([A-Za-z_]\w*)")
#: The rest of the name of the variable for each kind of field.
_VARIABLES: Final = {
    "Labels": "",
    "Annotations": "ANNOTATION_",
    "Status": "STATUS",
    "GroupStatus": "STATUS",
    "GroupKey": "GROUP_KEY",
}
_CHARACTERS_PER_STEP: Final = 5  # for splitting a script into words


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
    grammar = template.grammar_of(body.form)
    for container in body.containers:
        variables = _alert_variables(container, grammar)
        for pointer, script in scripts(container):
            inserted = [
                (field.written, f"{PREFIX}{_VARIABLES[field.kind]}{field.key.upper()}")
                for field in template.fields(script, grammar)
            ] + [
                (f"$({name})", name)
                for name in template.references(script, grammar)
                if name.startswith(PREFIX)
            ]
            if inserted:
                written, variable = inserted[0]
                message = f"{written} inserts alert data into a shell script"
                yield pointer, message, f'use a quoted variable after --: -- "${variable}"'
            body.spend(len(script) // _CHARACTERS_PER_STEP)
            if any(_is_alert_data(name, variables) for name in _NAME.findall(script)):
                for message, suggestion in _unsafe_uses(script, variables):
                    yield pointer, message, suggestion


def _alert_variables(container: Container, grammar: template.Grammar) -> frozenset[str]:
    """The author's own variables that hold alert data."""
    return frozenset(
        variable.get("name", "")
        for variable in container.fields.get("env", ())
        if template.fields(variable.get("value", ""), grammar)
        or f"$({PREFIX}" in variable.get("value", "")
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
    script = script.replace("$$", "$")
    if is_plainly_quoted(script, lambda name: _is_alert_data(name, variables)):
        return
    words = shell.split_words(script)

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


def scripts(container: Container) -> Iterator[tuple[Pointer, str]]:
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
