"""Where alert data may stand in a Job, and how it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openfero_gitops.catalog.validation import shell
from openfero_gitops.catalog.validation.body import POD
from openfero_gitops.catalog.validation.rules import Breach, check
from openfero_gitops.domain.memo import remembered
from openfero_gitops.domain.rule import Pointer, error, warning
from openfero_gitops.domain.text import shown
from openfero_gitops.jobs import template
from openfero_gitops.jobs.environment import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from openfero_gitops.catalog.validation.body import Body, Container

_FIELDS: Final = (
    "write {{ .Alert.Labels.pod }}, {{ .Alert.Annotations.summary }}, {{ .Status }} or"
    " {{ .GroupKey }}; braces of another program belong into a mounted file"
)


@check(
    error(
        "template-place",
        "A `{{ … }}` placeholder is allowed only in `command`, `args` and the values of `env`.",
        "An alert must not choose what runs. In an image, a mount or a name, a "
        "placeholder would let anyone who can send an alert do that, so it is an error "
        "there.",
    )
)
def _template_place(body: Body) -> Iterator[Breach]:
    for pointer, _ in body.braced:
        if not _takes_fields(pointer):
            yield (
                pointer,
                "{{ … }} is read in command, args and the values of env, and not here",
                "read the variable OPENFERO_… in the container instead",
            )


@check(
    error(
        "template-syntax",
        "A `{{ … }}` placeholder must name one field of the alert, and nothing else.",
        "OpenFero evaluates Go templates; here a placeholder only inserts a field. "
        "Rendering is therefore the same on every replica, and alert data is never "
        "executed as a template.",
    )
)
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


@check(
    warning(
        "label-in-shell",
        "A shell should read alert data only from quoted variables, never as part of its script.",
        "An alert can name a Pod `x; rm -rf /`, and the shell would run it. The "
        "controller refuses such values in scripts, so the remediation may be refused "
        "just when it is needed. It cannot check unquoted variables and `eval`: an alert "
        "may also name a Pod `--all`.",
    )
)
def _label_in_shell(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        named = _named_after_alert_data(container)
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
                suggestion = 'read it as a variable, in quotes and after --: -- "$OPENFERO_POD"'
                yield pointer, message, suggestion
            if any(name in script for name in named):
                for message, suggestion in _misread(script, named):
                    yield pointer, message, suggestion


def _named_after_alert_data(container: Container) -> tuple[str, ...]:
    """The beginnings and names of variables that hold alert data: ours, and an author's own."""
    own = (
        variable.get("name", "")
        for variable in container.fields.get("env", ())
        if "{{" in variable.get("value", "") or f"$({PREFIX}" in variable.get("value", "")
    )
    return (PREFIX, *filter(None, own))


# (One script serves many operarios, and a hundred older versions of one.)
@remembered(most=512, longest=8192)
def _misread(script: str, named: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Where a script lets a shell read more into alert data than one word."""
    return tuple(_found(script, named))


def _found(script: str, named: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    # (What Kubernetes makes of it: a doubled dollar sign is one.)
    words = shell.words(script.replace("$$", "$"))

    def alert_data(names: Iterable[str]) -> str:
        return next((name for name in names if name.startswith(PREFIX) or name in named), "")

    if name := alert_data(name for word in words for name in word.bare):
        message = f"${name} stands without quotes: its value may become many words, and flags"
        yield message, f'write it in quotes, and after --: -- "${name}"'
    programs = [words[index] for index in _programs((word.text, word.leads) for word in words)]
    if name := alert_data(name for word in programs for name in word.bare + word.quoted):
        message = f"${name} is pasted into a script of its own: its value becomes part of it"
        yield message, f"""hand it over: sh -c '… -- "$1"' sh "${name}\""""
    evals = any(word.leads and word.text == "eval" for word in words)
    if evals and (name := alert_data(name for word in words for name in word.bare + word.quoted)):
        message = f"eval reads its words as a program, and ${name} may come to be among them"
        yield message, f'run the command itself, with -- "${name}"'


def _scripts(container: Container) -> Iterator[tuple[Pointer, str]]:
    """The words of command and args that a shell gets as its program: `sh -ec SCRIPT`."""
    words: list[tuple[Pointer, str]] = [
        ((*container.pointer, part, index), word)
        for part in ("command", "args")
        for index, word in enumerate(container.fields.get(part, ()))
    ]
    for index in _programs((word, False) for _, word in words):
        yield words[index]


def _programs(words: Iterable[tuple[str, bool]]) -> Iterator[int]:
    """Which of some words, each of which may begin a command, a shell gets as its program."""
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
