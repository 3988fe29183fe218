"""Which double braces in a Job are placeholders for alert data, and where they are allowed.

`kubectl -o go-template`, `docker --format`, Ansible and many other programs have templates of
their own. Braces that are no placeholder are therefore text, unless they look like a mistyped one:
that would run without the alert's data.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from openfero_gitops.catalog.validation.body import POD
from openfero_gitops.catalog.validation.rules import Breach, check
from openfero_gitops.domain.operario import Form
from openfero_gitops.domain.rule import error, warning
from openfero_gitops.domain.text import nearest, shown
from openfero_gitops.jobs import template
from openfero_gitops.jobs.environment import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openfero_gitops.catalog.validation.body import Body
    from openfero_gitops.domain.rule import Pointer

_KINDS: Final = ("Labels", "Annotations")
#: The fields of OpenFero's templates besides those of the alert.
_NAMED: Final = ("HookMessage.Status", "HookMessage.GroupKey", "GroupKey", "Status")
_MAX_INSIDE_CHARACTERS: Final = 200
# `.Alert.Labels`, also inside a pipeline or a block. A `$alert` is a variable of another template.
_ABOUT_ALERT: Final = re.compile(
    r"(?<![$\w.])\.?alerts?\.(?:labels?|annotations?)(?!\w)", re.IGNORECASE
)
# The same without `.Alert`, which only an Operarius has.
_ABOUT_VALUES: Final = re.compile(r"(?:^|[\s(|$])\.(?:Labels|Annotations)\.\w")
_PATH: Final = re.compile(r"(?:\$\.|\.)?\s*(\w+)(?:\s*\.\s*(\w+))?(?:\s*\.\s*(.+))?", re.DOTALL)
_KEY: Final = re.compile(
    r"(?:labels?|annotations?)(?:\s*\.\s*|\s+[\"'`]|\[[\"'])([A-Za-z_][\w./-]*)", re.IGNORECASE
)
#: What else an alert has in OpenFero's templates or in Alertmanager's payload.
_MEMBERS: Final = {
    "status": "read the variable OPENFERO_STATUS",
    "startsat": "read the variable OPENFERO_STARTS_AT",
    "fingerprint": "read the variable OPENFERO_FINGERPRINT",
    "name": "write {{ .Alert.Labels.alertname }}",
}
_SIMPLE: Final = re.compile(r"[\w.]+")
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@check(
    error(
        "template-place",
        "A `{{ … }}` placeholder is allowed only in `command`, `args` and the values of `env`.",
        "An alert must not choose what runs. In an image, a mount or a name, a placeholder would "
        "let anyone who can send an alert do that, so it is an error there. The braces of another "
        "program are also allowed in annotations and in the commands of probes and hooks.",
        "read the variable OPENFERO_… in the container instead",
    )
)
def _template_place(body: Body) -> Iterator[Breach]:
    grammar = template.grammar_of(body.form)
    for pointer, text in body.braced:
        if _allows_placeholders(pointer):
            continue
        if not _is_for_other_programs(pointer):
            message = "{{ … }} is allowed only in command, args and the values of env"
            yield pointer, message, ""
        elif template.fields(text, grammar) or any(
            _mistyped(braces, body.form) for braces in template.other_braces(text, grammar)
        ):
            message = "alert data is allowed only in command, args and the values of env"
            yield pointer, message, ""


@check(
    error(
        "template-syntax",
        "A `{{ … }}` placeholder must name one field of the alert, and nothing else.",
        "OpenFero evaluates Go templates; here a placeholder only inserts a field. Rendering is "
        "therefore the same on every replica, and alert data is never executed as a template. "
        "Double braces that do not look like a placeholder are left as they are.",
        "write {{ .Alert.Labels.pod }} or {{ .Alert.Annotations.summary }}",
    )
)
def _template_syntax(body: Body) -> Iterator[Breach]:
    for pointer, text in body.braced:
        if not _allows_placeholders(pointer):
            continue
        for braces in template.other_braces(text, template.grammar_of(body.form)):
            if suggestion := _mistyped(braces, body.form):
                message = f"{shown(braces)} does not name a field of the alert"
                yield pointer, message, suggestion


@check(
    warning(
        "not-a-placeholder",
        "`{{ … }}` should be a placeholder that this form of operario has.",
        "Other double braces are passed to the container as they are, because they may belong to "
        "another program. OpenFero itself evaluates everything in double braces in an Operarius as "
        "a Go template. In a Job and a ConfigMap, the only placeholders are "
        "`{{ .Alert.Labels.NAME }}` and `{{ .Alert.Annotations.NAME }}`.",
    )
)
def _not_a_placeholder(body: Body) -> Iterator[Breach]:
    for pointer, text in body.braced:
        if not _allows_placeholders(pointer):
            continue
        if body.form is Form.OPERARIUS:
            others = template.other_braces(text)
            unknown = [braces for braces in others if not _mistyped(braces, body.form)]
            if unknown:
                message = f"{shown(unknown[0])} is not a placeholder: it is passed on unchanged"
                suggestion = (
                    "write {{ .Alert.Labels.pod }} for a field of the alert; for the template of"
                    " another program, use a Job or a ConfigMap instead of an Operarius"
                )
                yield pointer, message, suggestion
            continue
        for braces in template.other_braces(text, template.ALERT_FIELDS):
            suggestion = _of_an_operarius(braces)
            if suggestion and not _mistyped(braces, body.form):
                message = f"{shown(braces)} is not a placeholder in a {body.form}: it is passed on"
                yield pointer, f"{message} unchanged", suggestion
                break


def _of_an_operarius(braces: str) -> str:
    """What to write instead of a field that only an Operarius has; empty if it is no such field.

    `{{ .Status }}` is not reported: `docker ps` has it, too.
    """
    inside = _inside(braces)
    found = template.fields(f"{{{{ {inside} }}}}")
    if not found or inside == ".Status":
        return ""
    if found[0].key:
        return f"write {{{{ .Alert{found[0]} }}}}"
    variable = "GROUP_KEY" if found[0].kind == "GroupKey" else "STATUS"
    return f"read the variable {PREFIX}{variable}"


def _mistyped(braces: str, form: Form) -> str:
    """What to write instead of braces that look like a mistyped placeholder; otherwise empty."""
    inside = _inside(braces)
    is_operarius = form is Form.OPERARIUS
    path = _PATH.match(inside)
    first, second, rest = path.groups() if path else (None, None, None)
    first, second = first or "", second or ""
    kind = nearest(second, _KINDS) if second else ""
    # Others have fields such as `.alert`, too: an alerting rule does.
    begins_as_alert = (first == "Alert" and not inside.startswith("Alert")) or (
        kind and nearest(first, ("Alert",))
    )
    if not begins_as_alert and not _ABOUT_ALERT.search(inside):
        if not is_operarius:
            return ""
        return _mistyped_value(inside, first, second)
    if not braces.endswith("}}"):
        return "close the placeholder: {{ .Alert.Labels.pod }}"
    if second.lower() in _MEMBERS:
        return _MEMBERS[second.lower()]
    key = _KEY.search(inside)
    name = key[1] if key else (rest or "") if kind else ""
    return _placeholder(kind or _kind_in(inside), name.strip(), inside)


def _mistyped_value(inside: str, first: str, second: str) -> str:
    """The same for what only an Operarius has: `.Labels.pod`, `.HookMessage.Status`."""
    if _ABOUT_VALUES.search(inside) and not template.fields(f"{{{{ {inside} }}}}"):
        key = _KEY.search(inside)
        return _placeholder(_kind_in(inside), key[1] if key else "", inside)
    kind = nearest(first, _KINDS) if second and inside.startswith(".") else ""
    if kind and len(first) <= len(kind):  # not `.CommonLabels`, which Alertmanager's templates have
        return _placeholder(kind, second, inside)
    if nearest(first, ("HookMessage", "GroupKey")) and inside.startswith("."):
        wanted = inside.lstrip(".").strip()
        return f"did you mean {{{{ .{nearest(wanted, _NAMED) or _NAMED[0]} }}}}?"
    return ""


def _inside(braces: str) -> str:
    """The text between braces, without the marks that trim white space in Go templates."""
    inside = braces.removeprefix("{{").removesuffix("}}")[:_MAX_INSIDE_CHARACTERS].strip()
    return inside.removeprefix("-").removesuffix("-").strip()


def _kind_in(inside: str) -> str:
    return "Annotations" if "annotation" in inside.lower() else "Labels"


def _placeholder(kind: str, name: str, inside: str) -> str:
    """Suggest how to write a field of the alert.

    Args:
        kind: Labels or Annotations.
        name: what the author wrote as its name, which a placeholder may not be able to have.
        inside: all that the author wrote between the braces.
    """
    if not name:
        example = "pod" if kind == "Labels" else "summary"
        return f"for example {{{{ .Alert.{kind}.{example} }}}}"
    if re.search(r"[./-]", name) and not re.search(r"[^\w./-]", name):
        variable = re.sub(r"\W", "_", name).upper()
        prefix = PREFIX if kind == "Labels" else f"{PREFIX}ANNOTATION_"
        return f'a placeholder cannot have this name: read the variable "${prefix}{variable}"'
    match = _IDENTIFIER.match(name)
    wanted = f"{{{{ .Alert.{kind}.{match[0] if match else 'pod'} }}}}"
    if _SIMPLE.fullmatch(inside):
        return f"did you mean {wanted}?"
    return f"write {wanted}, with nothing else between the braces"


def _allows_placeholders(pointer: Pointer) -> bool:
    """Whether it is an item of command or args, or the value of a variable."""
    match _in_container(pointer):
        case ("command" | "args", int()) | ("env", int(), "value"):
            return True
        case _:
            return False


def _is_for_other_programs(pointer: Pointer) -> bool:
    """Whether another program than Kubernetes reads the text: an annotation, or another command."""
    if pointer[-2:-1] == ("annotations",):
        return pointer[:-1] in (
            ("metadata", "annotations"),
            ("spec", "template", "metadata", "annotations"),
        )
    return pointer[-3:-1] == ("exec", "command") and bool(_in_container(pointer))


def _in_container(pointer: Pointer) -> Pointer:
    """The rest of a pointer that leads into a container; empty if it does not."""
    depth = len(POD)
    if pointer[:depth] != POD or pointer[depth] not in ("containers", "initContainers"):
        return ()
    return pointer[depth + 2 :]
