from __future__ import annotations

import json
import resource
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.catalog.yaml.compose import Unreadable
from openfero_gitops.catalog.yaml.document import load
from openfero_gitops.catalog.yaml.locate import Locator

MAX_BYTES = 512 * 1024


def parse(text: str) -> Any:
    """Parse a text of one document."""
    (value,) = load(text.encode())
    return value


def error_of(content: bytes | str, *, is_json: bool = False) -> Unreadable:
    """Parse an invalid file and return the error."""
    with pytest.raises(Unreadable) as caught:
        load(content.encode() if isinstance(content, str) else content, is_json=is_json)
    return caught.value


# The values that sigs.k8s.io/yaml 1.6 reads.
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("y", True),
        ("On", True),
        ("no", False),
        ("N", False),
        ("OFF", False),
        ("tRue", "tRue"),
        ("Norway", "Norway"),
        ("NO ", False),
        ("~", None),
        ("", None),
        ("Null", None),
        ("nil", "nil"),
        ("0", 0),
        ("-0", 0),
        ("017", 15),
        ("0o17", 15),
        ("08", 8),
        ("0x1F", 31),
        ("-0b101", -5),
        ("0b2", "0b2"),
        ("1_000", 1000),
        ("_1", "_1"),
        ("+1", 1),
        ("--0", "--0"),
        ("1.0", 1),
        ("1.5", 1.5),
        ("5.", 5),
        (".5", 0.5),
        ("._5", "._5"),
        (".5_0", 0.5),
        ("1e3", 1000),
        ("1e400", "1e400"),
        ("1e21", 1e21),
        ("18446744073709551615", 18446744073709551615),
        ("18446744073709551616", 18446744073709552000),
        ("1:30", "1:30"),
        ("12:30:45", "12:30:45"),
        ("2001-01-01", "2001-01-01"),
        ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"),
        ('"yes"', "yes"),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("!!int 3", 3),
        ("!!float 3", 3),
        ("|\n  yes\n", "yes\n"),
        ("0x", "0x"),
        ("1e", "1e"),
        (".", "."),
        ("-", [None]),
    ],
)
def test_reads_scalars_as_kubernetes_does(text: str, value: object) -> None:
    """An unquoted word has its value in go-yaml: YAML 1.1 without dates and base 60."""
    parsed = parse(f"value: {text}\n" if text != "-" else "value:\n-\n")["value"]
    assert parsed == value
    assert isinstance(parsed, bool) is isinstance(value, bool)


def test_turns_keys_into_text() -> None:
    """Keys of other types become strings, as in Kubernetes' JSON."""
    text = "on: a\n1: b\n0x10: c\n1.5: d\nfalse: e\nx: f\n"
    assert parse(text) == {"true": "a", "1": "b", "16": "c", "1.5": "d", "false": "e", "x": "f"}


def test_merges_mappings() -> None:
    """A merge key adds missing members; of several mappings the first has priority."""
    text = (
        "a: &a {p: 1, q: 2}\nb: &b {p: 3, r: 4}\n"
        "one:\n  <<: *a\n  q: 5\nboth:\n  <<: [*b, *a]\nquoted: {'<<': 1}\n"
    )
    values = parse(text)
    assert values["one"] == {"p": 1, "q": 5}
    assert values["both"] == {"p": 3, "q": 2, "r": 4}
    assert values["quoted"] == {"<<": 1}


def test_copies_the_value_of_an_alias() -> None:
    """Each alias has its own value, so changing one does not change another."""
    values = parse("a: &a [1]\nb: *a\n")
    values["b"].append(2)
    assert values["a"] == [1]


@pytest.mark.parametrize(
    ("content", "documents"),
    [
        (b"", []),
        (b"# a comment\n", []),
        (b"---\n", [None]),
        (b"a: 1\n---\n---\nb: 2\n", [{"a": 1}, None, {"b": 2}]),
        (b"\xef\xbb\xbfa: 1\n", [{"a": 1}]),
        (b"a: 1\r\nb: |\r\n  x\r\n  y\r\n", [{"a": 1, "b": "x\ny\n"}]),
        (b"a: 1\rb: 2\r", [{"a": 1, "b": 2}]),
        (b'{"a": [1, true, null]}', [{"a": [1, True, None]}]),
        (b'{\n\t"a":\t1\n}', [{"a": 1}]),
        ("a: h\u00f6he \U0001f389\n".encode(), [{"a": "h\u00f6he \U0001f389"}]),
        (b"- a\n- b\n", [["a", "b"]]),
        (b"plain", ["plain"]),
    ],
)
def test_reads_files_as_they_are_in_the_wild(content: bytes, documents: list[object]) -> None:
    """Empty documents, comments, a byte order mark, CRLF and JSON are supported."""
    assert load(content) == documents


def test_reads_json_by_its_own_grammar() -> None:
    """A .json file is parsed as JSON: tabs, surrogate pairs, 1.0."""
    content = b'{\n\t"a": "\\ud83c\\udf89",\n\t"b": 1.0, "c": 1e2, "yes": "no"\n}'
    assert load(content, is_json=True) == [{"a": "\U0001f389", "b": 1, "c": 100, "yes": "no"}]
    assert load(b"  \n", is_json=True) == []


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a:\n\tb: 1\n", 2, 1, "a tab indents the line"),
        ("a:\n  b: 1\n\tc: 2\n", 3, 1, "a tab indents the line"),
        ("a: 1\nb: @x\n", 2, 4, "begins with @ must be quoted"),
        ("a: b: c\n", 1, 5, "unexpected `: `"),
        ("a:\n   b: 1\n  c: 2\n", 3, 3, "does not belong to any open mapping"),
        ("- a\nb: 1\n", 2, 1, "does not belong to any open list"),
        ("a: - b\n", 1, 4, "a list begins on the line of its key"),
        ("a: 1\nb\nc: 2\n", 2, 1, "`:` is missing after a key"),
        ('a: 1\nb: "x\nc: 2\n', 2, 4, "a quotation mark is not closed"),
        ("a: [1, 2\nb: 3\n", 1, 4, "[ is not closed"),
        ("a: {x: 1\nb: 2\n", 1, 4, "{ is not closed"),
        ("{{- if x }}\n", 1, 3, "a value is missing"),
        ("a: *x\n", 1, 4, "without an anchor"),
        ("a: &x 1\nb: &x 2\n", 2, 4, "already defined on line 1"),
        ('a: "\\q"\n', 1, 5, "invalid escape sequence"),
        ("a: 1\nb: \x07\n", 2, 4, "U+0007 is not allowed in YAML"),
        ("a: 1\n<<<<<<< HEAD\nb: 2\n=======\n", 2, 1, "unresolved merge conflict"),
        ("<<: 1\n", 1, 5, "<< must be followed by a mapping"),
        ("%YAML 2.0\n---\n", 1, 1, "only %YAML 1.1"),
        ("a: &\n", 1, 5, "must be quoted"),
        ("%FOO\n" * 102, 1, 1, "directives"),
    ],
)
def test_reports_invalid_yaml_plainly(text: str, line: int, column: int, words: str) -> None:
    """The error for invalid YAML has a line, a column and a readable message."""
    error = error_of(text)
    assert (error.rule.id, error.line, error.column) == ("syntax", line, column)
    assert words in error.message


@pytest.mark.parametrize(
    ("text", "rule", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "duplicate-key", 3, "on line 1 and on line 3"),
        (
            '{"a": 1, "b": 2, "a": 3}',
            "duplicate-key",
            1,
            "twice: on line 1, column 2, and on line 1, column 18",
        ),
        (
            "{<<: &a {x: 1}, b: 2, <<: {x: 2}}",
            "duplicate-key",
            1,
            "on line 1, column 2, and on line 1, column 23",
        ),
        ("a:\n  on: 1\n  yes: 2\n", "duplicate-key", 3, '"true" occurs twice: on line 2'),
        ("d: &d {x: 1}\na:\n  x: 2\n  <<: *d\n", "duplicate-key", 4, "merged again"),
        ("a: &a {x: 1}\nb:\n  <<: *a\n  <<: *a\n", "duplicate-key", 4, '"<<" occurs twice'),
        ("a: 1\n? [x]\n: 2\n", "key-not-text", 2, "a key must be a string"),
        ("a:\n  ~: 1\n", "key-not-text", 2, "a key must be a string"),
        ("a: {{ .Labels.x }}\n", "key-not-text", 1, "a key must be a string"),
        ("a: .nan\n", "not-a-number", 1, ".nan cannot be represented"),
        ("a: -.inf\n", "not-a-number", 1, "-.inf cannot be represented"),
        ("a: 1\nb: !Ref x\n", "custom-tag", 2, '"!Ref"'),
        ("a: !!binary aGk=\n", "custom-tag", 1, '"!!binary"'),
        ("a: !!int yes\n", "custom-tag", 1, '"!!int"'),
        ("a: !!map [1]\n", "custom-tag", 1, '"!!map"'),
        ("a: &a [*a]\n", "nesting", 1, "more than 64 levels deep"),
    ],
)
def test_rejects_what_parsers_disagree_on(text: str, rule: str, line: int, words: str) -> None:
    """Duplicate keys and unsupported keys, numbers and tags are reported at their line."""
    error = error_of(text)
    assert (error.rule.id, error.line) == (rule, line)
    assert words in error.message


@pytest.mark.parametrize(
    ("content", "rule", "line"),
    [
        (b'{"a": 1,}', "syntax", 1),
        (b'{"a": 1} {"b": 2}', "syntax", 1),
        (b'{\n"a": 1,\n"a": 2}', "duplicate-key", 3),
        (b'{"\\ud83c\\udf89": 1, "b": {"c": 1, "c": 2}}', "duplicate-key", 0),
        (b'{\n"a": "\\ud83d"}', "syntax", 2),
        (b"[NaN]", "not-a-number", 0),
        (b"[1e999]", "not-a-number", 0),
        (b"[" + b"1" * 5000 + b"]", "not-a-number", 0),
        (b"[" * 65 + b"]" * 65, "nesting", 0),
        (b"[" * 200_000 + b"]" * 200_000, "nesting", 0),
    ],
)
def test_rejects_invalid_json(content: bytes, rule: str, line: int) -> None:
    """The same rules apply to a .json file; the error has a line if it is known."""
    error = error_of(content, is_json=True)
    assert (error.rule.id, error.line) == (rule, line)


def test_half_a_character_in_json_is_pointed_at() -> None:
    """A lone surrogate is reported at its escape sequence."""
    error = error_of(b'{\n"a": "x\\ud83d"}', is_json=True)
    assert (error.line, error.column) == (2, 8)


@pytest.mark.parametrize(
    ("content", "line", "column", "words"),
    [
        (b"a: 1\nb: h\xf6he\n", 2, 5, "0xf6"),
        (b"\xff\xfea\x00", 1, 1, "UTF-16"),
        (bytes(range(256)), 3, 115, "0x80"),
    ],
)
def test_rejects_other_encodings(content: bytes, line: int, column: int, words: str) -> None:
    """The first byte that is not UTF-8 is reported."""
    error = error_of(content)
    assert (error.rule.id, error.line, error.column) == ("not-utf-8", line, column)
    assert words in error.message


def _filled(unit: str) -> str:
    return unit * (MAX_BYTES // len(unit))


def _bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [" + ", ".join([f"*a{i - 1}"] * 10) + "]" for i in range(1, 12)]
    return "\n".join(lines)


def _merges() -> str:
    first = "a0: &a0 {" + ", ".join(f"k{i}: 1" for i in range(3000)) + "}\n"
    return first + "".join(f"a{i}: &a{i} {{<<: *a{i - 1}, z{i}: 1}}\n" for i in range(1, 500))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (_filled("["), "nesting"),
        (_filled("{a: "), "nesting"),
        (_filled("- "), "nesting"),
        (_filled("? "), "nesting"),
        ("".join(" " * depth + "a:\n" for depth in range(1000)), "nesting"),
        ("[" + "a," * (MAX_BYTES // 2 - 1) + "]", "file-too-large"),
        ("a: &a 1\nb: [" + "*a," * 170_000 + "]", "file-too-large"),
        ("---\n" * 130_000, "file-too-large"),
        ("---\na: 1\n" * 1001, "too-many-documents"),
        ("x" * (MAX_BYTES + 1), "file-too-large"),
        (_bomb(), "alias-bomb"),
        ('a: &a "' + "x" * 300_000 + '"\nb: [' + "*a," * 40_000 + "]", "alias-bomb"),
        ("a: &a {x: 1}\nb: {<<: [" + "*a," * 60_000 + "]}", "alias-bomb"),
        (_merges(), "alias-bomb"),
        ("".join(f"%TAG !t{i}! tag:x{i},2000:\n" for i in range(15_000)) + "--- 1\n", "syntax"),
        (_filled("\0"), "syntax"),
        (_filled("\t"), "syntax"),
        (_filled("'\""), "syntax"),
        (_filled("#\n"), None),
        ("a: |\n" + "  x\n" * 120_000, None),
        ("a: " + "1" * 500_000, None),
        ("".join(f"a{i}: &x{i} 1\n" for i in range(25_000)), None),
    ],
)
def test_answers_in_bounded_time_and_memory(text: str, rule: str | None) -> None:
    """Parsing a malicious file takes seconds and a few hundred megabytes at most."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    _, reason = attempt(text.encode())
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert (reason.rule.id if reason else None) == rule
    assert after.ru_utime - before.ru_utime < 15
    assert after.ru_maxrss - before.ru_maxrss < 300 * 1024  # KiB


def test_accepts_files_at_the_limits() -> None:
    """64 levels, 1,000 documents and 512 KiB are valid."""
    assert parse("a: " + "[" * 63 + "]" * 63)
    assert len(load(b"---\na: 1\n" * 1000)) == 1000
    assert parse("a: " + "x" * (MAX_BYTES - 3))


JOB = b"""\
# a comment
kind: Job
metadata:
  annotations: {openfero.io/cooldown: 1h}
spec:
  containers:
    - name: a
      args: [x, "y"]
    - name: b
---
base: &base
  shared: 1
top:
  <<: *base
  own: 2
"""


@pytest.mark.parametrize(
    ("document", "pointer", "place"),
    [
        (0, (), (2, 1)),
        (0, ("kind",), (2, 1)),
        (0, ("metadata", "annotations", "openfero.io/cooldown"), (4, 17)),
        (0, ("spec", "containers", 1), (9, 7)),
        (0, ("spec", "containers", 0, "args", 1), (8, 17)),
        (0, ("spec", "containers", 1, "image"), (9, 7)),
        (0, ("spec", "containers", 7), (6, 3)),
        (0, ("nothing", "at", "all"), (2, 1)),
        (1, ("top", "own"), (15, 3)),
        (1, ("top", "shared"), (12, 3)),
        (7, ("kind",), (1, 1)),
    ],
)
def test_locates_a_pointer(
    document: int, pointer: tuple[str | int, ...], place: tuple[int, int]
) -> None:
    """The place of a pointer is its key or item, or the nearest existing parent."""
    assert Locator(JOB).place(document, pointer) == place


WRAPPED = """\
kind: ConfigMap
data:
  Alert: |
    kind: Job

    spec:
      backoffLimit: x
  Folded: >
    kind: Job
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_locates_a_pointer_into_a_wrapped_text(newline: str) -> None:
    """A pointer into a block of text has a line and column in the file around it."""
    locator = Locator(WRAPPED.replace("\n", newline).encode())
    assert locator.place(0, ("data", "Alert", "kind")) == (4, 5)
    assert locator.place(0, ("data", "Alert", "spec", "backoffLimit")) == (7, 7)
    assert locator.place(0, ("data", "Folded", "kind")) == (8, 3)
    assert locator.within(0, ("data", "Alert"), 4, 3) == (7, 7)
    assert locator.within(0, ("data", "Alert"), 0, 0) == (3, 3)
    assert locator.within(0, ("data", "Alert"), 99, 1) == (3, 10)
    assert locator.within(0, ("data", "Folded"), 1, 1) == (8, 3)


def test_locates_nothing_in_json_that_is_not_yaml() -> None:
    """In JSON that is not YAML every place is the beginning of the file."""
    content = b'{"a": "\\ud83c\\udf89"}'
    assert load(content, is_json=True)
    assert Locator(content).place(0, ("a",)) == (1, 1)


TEXT = st.text(
    st.characters(
        exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="\ufeff\ufffe\uffff"
    )
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def attempt(content: bytes, *, is_json: bool = False) -> tuple[list[Any], Unreadable | None]:
    """Parse a file, or return the error."""
    try:
        return load(content, is_json=is_json), None
    except Unreadable as reason:
        return [], reason


@given(VALUES)
def test_json_reads_alike_as_json_and_as_yaml(value: object) -> None:
    """A value serialized as JSON is parsed to the same value as JSON and as YAML."""
    content = json.dumps(value, ensure_ascii=False).encode()
    assert load(content, is_json=True) == [value]
    assert load(content) == [value]


@given(st.text(alphabet="ab:-[]{}&*!|>'\"%#@`,?~<1. \n\t", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Any text is parsed, or rejected at one of its lines, and its values have places."""
    content = text.encode()
    lines = text.count("\n") + 2
    documents, reason = attempt(content)
    assert reason is None or 0 <= reason.line <= lines
    for index in range(len(documents)):
        line, column = Locator(content).place(index, ("a", 0))
        assert 1 <= line <= lines
        assert column >= 1


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    """No content raises another exception than Unreadable."""
    for is_json in (False, True):
        _, reason = attempt(content, is_json=is_json)
        assert reason is None or reason.message
