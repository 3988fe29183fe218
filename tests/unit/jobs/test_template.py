from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from openfero_gitops.domain.operario import Form
from openfero_gitops.jobs.template import (
    Field,
    escape,
    fields,
    grammar_of,
    is_safe_argument,
    other_braces,
    references,
    substitute,
)
from tests.support.kubelet import expand, go_expansion

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: Texts that are rich in what the expansion reads.
EXPANDABLE = st.text(st.sampled_from("$()AB{x ")) | st.lists(
    st.sampled_from(["$", "$$", "$(", ")", "$(A)", "$(B)", "$(A", "A", "(A)", "\n", "☃"])
).map("".join)
VALUES = EXPANDABLE | st.sampled_from(["A", "(A)", ")", "$", "$(A)", "$$(A)", "{{ .Status }}"])
VARIABLES = {"A": "secret", "B": "$(A)", "": "empty", "A$(A": "odd"}


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("{{ .Alert.Labels.pod }}", Field("Labels", "pod")),
        ("{{.Labels.pod}}", Field("Labels", "pod")),
        ("{{ .Alert.Annotations.summary }}", Field("Annotations", "summary")),
        ("{{\n.Annotations._x1\t}}", Field("Annotations", "_x1")),
        ("{{ .HookMessage.Status }}", Field("GroupStatus")),
        ("{{ .HookMessage.GroupKey }}", Field("GroupKey")),
        ("{{ .GroupKey }}", Field("GroupKey")),
        ("{{ .Status }}", Field("Status")),
    ],
)
def test_openferos_fields_are_parsed(text: str, field: Field) -> None:
    """White space around a field is ignored."""
    assert fields(text) == [field]
    assert substitute(text, str) == str(field)


@pytest.mark.parametrize(
    "inside",
    [
        "",
        " ",
        ".",
        "Labels.pod",
        ".Labels",
        ".Labels.",
        ".Labels.1x",
        ".Labels.a-b",
        ".Labels.a.b",
        ".Alert.Status",
        ".HookMessage",
        ".Labels.pod | upper",
        "- .Labels.pod -",
        'index .Labels "pod"',
        "if .Labels.pod",
        ".labels.pod",
        ". Labels.pod",
    ],
)
def test_other_template_syntax_is_text(inside: str) -> None:
    """Functions, pipelines, blocks and unknown fields are reported."""
    text = f"a {{{{{inside}}}}} b"

    assert fields(text) == []
    assert other_braces(text) == [f"{{{{{inside}}}}}"]
    assert substitute(text, lambda _: pytest.fail("nothing is to be filled in")) == text


def test_unclosed_braces_are_text() -> None:
    """References before them are found."""
    assert fields("{{ .Status }} {{ .Status }") == [Field("Status")]
    assert fields("{ { .Status } }") == []


def test_every_reference_of_a_text_is_found() -> None:
    """References are returned in order, and so are other braces."""
    text = "{{ .Labels.a }}-{{ oops }}-{{ .Annotations.b }}"

    assert fields(text) == [Field("Labels", "a"), Field("Annotations", "b")]
    assert [field.written for field in fields(text)] == ["{{ .Labels.a }}", "{{ .Annotations.b }}"]
    assert other_braces(text) == ["{{ oops }}"]
    assert substitute(text, lambda field: field.key) == "a-{{ oops }}-b"


@pytest.mark.parametrize("form", [Form.JOB, Form.CONFIG_MAP])
def test_a_job_has_two_field_references(form: Form) -> None:
    """The other fields of OpenFero's templates are text in a Job and a ConfigMap."""
    grammar = grammar_of(form)
    text = (
        "{{.Alert.Labels.a}} {{ .Alert.Annotations.b }} {{ .Labels.c }} {{.Status}} {{ .GroupKey }}"
    )

    assert fields(text, grammar) == [Field("Labels", "a"), Field("Annotations", "b")]
    assert substitute(text, lambda field: field.key, grammar) == (
        "a b {{ .Labels.c }} {{.Status}} {{ .GroupKey }}"
    )
    assert len(fields(text, grammar_of(Form.OPERARIUS))) == 5


@pytest.mark.parametrize(
    ("text", "others"),
    [
        (
            "{{range .items}}{{.metadata.name}} {{end}}",
            ["{{range .items}}", "{{.metadata.name}}", "{{end}}"],
        ),
        ("{{ a\nx {{.Labels.b}} c }}", ["{{ a"]),
        ("{{ open\nx", ["{{ open"]),
        ("{{{ x }}}", ["{{{ x }}"]),
        ("awk '{{ print $1 }}'", ["{{ print $1 }}"]),
        ('{{ if eq "{{ .Labels.a }}" "b" }}', ['{{ if eq "']),
        ("a }} b", []),
    ],
)
def test_braces_of_other_programs_are_listed(text: str, others: list[str]) -> None:
    """Each is listed as it is written; one that is not closed ends with its line."""
    assert other_braces(text) == others


def test_a_value_is_never_a_template() -> None:
    """A value that looks like a reference is inserted unchanged."""
    values = {"a": "{{ .Labels.b }}", "b": "{{", "c": " .Labels.a }}"}

    assert substitute("{{ .Labels.a }}", lambda field: values[field.key]) == "{{ .Labels.b }}"
    made = substitute("{{ .Labels.b }}{{ .Labels.c }}", lambda field: values[field.key])
    assert made == "{{ .Labels.a }}"


def test_text_without_references_is_unchanged() -> None:
    """It stays the same byte for byte."""
    for text in ("", "$", "$(A", "echo $$ $(A) $x {{ now }}", "{{", "}}"):
        assert substitute(text, str) == text


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("$(A)", ["A"]),
        ("-$(A)-$(B)-", ["A", "B"]),
        ("$$(A)", []),
        ("$$$(A)", ["A"]),
        ("$(A", []),
        ("$ (A)", []),
        ("$()", [""]),
        ("$(A$(B))", ["A$(B"]),
        ("$($$(A))", ["$$(A"]),
        ("$(A\nB)", ["A\nB"]),
        ("$x$(A)$", ["A"]),
        ("$({{ .Labels.x }})", []),
        ("$(A{{ .Labels.x }}$(B)", ["B"]),
        ("${{ .Labels.x }}$(B)", ["B"]),
        ("$({{ oops }})", ["{{ oops }}"]),
    ],
)
def test_references_to_variables_are_found(text: str, names: list[str]) -> None:
    """References that only a value would complete are not found."""
    assert references(text) == names


@given(EXPANDABLE)
def test_the_references_found_are_those_that_the_kubelet_expands(text: str) -> None:
    """The kubelet expands exactly these variables, in this order."""
    expanded: list[str] = []

    class Spy(dict[str, str]):
        def get(self, key: str, default: str | None = None) -> str:  # type: ignore[override]
            expanded.append(key)
            return default or ""

    expand(text, Spy())

    assert references(text) == expanded


@given(VALUES)
def test_an_escaped_value_comes_back_unchanged(value: str) -> None:
    """The process sees the original value, whatever other variables there are."""
    assert expand(escape(value), VARIABLES) == value


def test_nul_is_removed() -> None:
    """A container with NUL in a variable does not start."""
    assert escape("a\0b\0") == "ab"


@given(
    st.lists(st.tuples(EXPANDABLE, VALUES), min_size=1),
    EXPANDABLE,
)
def test_a_value_cannot_leave_its_place(pieces: list[tuple[str, str]], end: str) -> None:
    """The kubelet inserts the value and expands nothing in it.

    The author's own text expands as it would without the value.
    """
    values = iter([value for _, value in pieces])
    text = "".join(f"{literal}{{{{ .Status }}}}" for literal, _ in pieces) + end
    literals = "".join(literal for literal, _ in pieces) + end
    assume("{{" not in literals and not any(literal.endswith("{") for literal, _ in pieces))

    made = substitute(text, lambda _: escape(next(values)))

    wanted = [expand(literal, VARIABLES) + value for literal, value in pieces]
    assert expand(made, VARIABLES) == "".join(wanted) + expand(end, VARIABLES)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${{ .Status }}", "(A)"),
        ("$({{ .Status }})", "A"),
        ("$(A{{ .Status }}", ")"),
        ("{{ .Status }}A)", "$("),
        ("$${{ .Status }}", "$(A)"),
        ("$$${{ .Status }}", "(A)"),
    ],
)
def test_an_authors_dollar_and_a_value_form_no_reference(text: str, value: str) -> None:
    """An alert cannot choose a variable by completing a reference of the author."""
    made = substitute(text, lambda _: escape(value))

    assert "secret" not in expand(made, VARIABLES)


@pytest.mark.parametrize(
    "value",
    ["a", "0", "web-1", "Web_1.x:8080/tcp", "10.0.0.1", "a" * 10_000, "a/b", "a--all"],
)
def test_plain_values_are_safe_arguments(value: str) -> None:
    """Names, addresses and relative paths are allowed in a command."""
    assert is_safe_argument(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "--all",
        "-",
        "..",
        "a..b",
        "../etc",
        "a/../b",
        "/etc",
        ".hidden",
        "_x",
        "a b",
        "a\n",
        "a\0",
        "a;b",
        "a'b",
        'a"b',
        "a$b",
        "$(A)",
        "a`b`",
        "a&b",
        "a|b",
        "a*",
        "a=b",
        "a,b",
        "a@b",
        "{{x}}",
        "é",
        "٣",
        "a☃",
    ],
)
def test_any_other_value_is_no_safe_argument(value: str) -> None:
    """Options, `..`, spaces, quotes, shell syntax and other characters are refused."""
    assert not is_safe_argument(value)


@pytest.mark.parametrize("text", ["{{" * 250_000, "$(" * 250_000, "$" * 500_000, "{{x" * 170_000])
def test_no_text_takes_long(text: str) -> None:
    """Half a MiB of unclosed references is processed quickly."""
    begin = time.monotonic()
    fields(text)
    references(text)
    substitute(text + "{{ .Status }}", lambda _: "")

    assert time.monotonic() - begin < 60


def test_the_oracle_is_kubernetes_own(tmp_path: Path) -> None:
    """The expansion in these tests gives the results of Kubernetes' own function."""
    expand_all = go_expansion(tmp_path)
    draw = random.Random(7)  # noqa: S311 (the same cases in every run)
    pieces = ["$", "$$", "$(", ")", "$(A)", "$(B)", "$(A", "(", "A", " ", "\n", "☃", "\0", "🙈", ""]
    cases: list[tuple[str, Mapping[str, str]]] = [
        ("".join(draw.choices(pieces, k=draw.randrange(12))), VARIABLES) for _ in range(5_000)
    ]

    assert [expand(text, known) for text, known in cases] == expand_all(cases)
