from __future__ import annotations

import json

import pytest

from openfero_gitops.catalog.files import FileMemo, FileReading
from openfero_gitops.domain.catalog import SourceFile

ENCRYPTED = "ENC[AES256_GCM,data:Zm9v,iv:YmFy,tag:YmF6,type:str]"
SOPS = 'sops: {age: [], lastmodified: "2026-01-01T00:00:00Z", version: 3.9.0}\n'
JOB = """\
apiVersion: batch/v1
kind: Job
metadata:
  name: openfero-disk-firing
spec:
  template:
    spec:
      restartPolicy: Never
      automountServiceAccountToken: false
      containers:
        - name: fix
          image: registry.example/fix:1
          command: [fix]
          resources: {limits: {memory: 64Mi}}
"""
LINES = JOB.splitlines()


def read(content: str | bytes, path: str = "a.yaml") -> FileReading:
    """Read a file."""
    data = content.encode() if isinstance(content, str) else content
    return FileMemo("1.36").read(SourceFile(path, "", data))


def config_map(text: str) -> str:
    """Return a ConfigMap that wraps a text."""
    return (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: openfero-disk-firing}\n"
        f"data:\n  Disk: |\n    {text.replace(chr(10), chr(10) + '    ')}\n"
    )


@pytest.mark.parametrize(
    ("content", "place", "by"),
    [
        (JOB.replace("[fix]", f'["{ENCRYPTED}"]') + SOPS, (15, 1), "SOPS"),
        # The block was deleted, as an unknown field; the values are still encrypted.
        (JOB.replace("[fix]", f'["{ENCRYPTED}"]'), (13, 21), "SOPS"),
        (JOB.replace("kind: Job", f"kind: {ENCRYPTED}"), (2, 1), "SOPS"),
        (config_map(JOB) + SOPS, (21, 1), "SOPS"),
        (config_map(JOB.replace("[fix]", f'["{ENCRYPTED}"]')), (18, 25), "SOPS"),
        (config_map(ENCRYPTED), (5, 3), "SOPS"),
        (JOB.replace("kind: Job", "kind: Job\nsops: {mac: x}"), (3, 1), "SOPS"),
        ("$ANSIBLE_VAULT;1.1;AES256\n6135\n", (1, 1), "ansible-vault"),
        (b"\0GITCRYPT\0\x80\x81", (1, 1), "git-crypt"),
        ("age-encryption.org/v1\n-> X25519 x\n", (1, 1), "age"),
        ("-----BEGIN PGP MESSAGE-----\n\nx\n", (1, 1), "OpenPGP"),
    ],
)
def test_what_is_encrypted_is_an_error(
    content: str | bytes, place: tuple[int, int], by: str
) -> None:
    """A Job would otherwise run with the encrypted text; the message names the program."""
    reading = read(content)
    problems = [problem for problem in reading.problems if problem.rule == "encrypted"]
    (problem,) = problems
    assert problem.is_error
    assert (problem.line, problem.column) == place
    assert f"encrypted by {by}, and is not decrypted here" in problem.message
    assert "sops" not in problem.suggestion
    assert all(draft.draft is None for _, draft in reading.documents)


def test_encrypted_json_is_an_error_too() -> None:
    """SOPS also encrypts JSON."""
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "openfero-disk-firing"},
        "spec": {"template": {"spec": {"restartPolicy": ENCRYPTED}}},
        "sops": {"mac": ENCRYPTED},
    }
    (problem,) = read(json.dumps(job), "a.json").problems
    assert problem.rule == "encrypted"


@pytest.mark.parametrize(
    "content",
    [
        f"apiVersion: v1\nkind: Secret\nstringData: {{a: '{ENCRYPTED}'}}\n{SOPS}",
        "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: x}\n",
        f"password: '{ENCRYPTED}'\n{SOPS}",
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\n"
            f"data: {{a: '{ENCRYPTED}'}}\n{SOPS}"
        ),
        "creation_rules: []\n",
    ],
)
def test_encrypted_files_of_other_kinds_are_ignored(content: str) -> None:
    """Only operarios must not be encrypted."""
    reading = read(content)
    assert reading.problems == ()
    assert len(reading.ignored) == 1


#: Characters that look like a space or like nothing, with a part of their names.
ODD = [
    ("\u00a0", "U+00A0 (no-break space)"),
    ("\u200b", "U+200B (zero width space)"),
    ("\ufeff", "U+FEFF (zero width no-break space)"),
    ("\u2009", "U+2009 (thin space)"),
    ("\u202f", "U+202F (narrow no-break space)"),
    ("\u3000", "U+3000 (ideographic space)"),
    ("\u2028", "U+2028 (line separator)"),
    ("\x85", "U+0085 (next line)"),
]


def changed(number: int, before: str, after: str) -> str:
    """Return the Job with a change of one line."""
    lines = [*LINES]
    assert before in lines[number - 1]
    lines[number - 1] = lines[number - 1].replace(before, after, 1)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(("character", "name"), ODD)
def test_an_odd_blank_is_named_where_it_is(character: str, name: str) -> None:
    """The parser fails on a later line; the message is about the cause."""
    for number, before, after, column, words in (
        (8, " " * 6, character * 6, 1, "indents the line: use spaces"),
        (8, " " * 6, " " * 5 + character, 6, "indents the line: use spaces"),
        (8, ": ", f":{character}", 21, "follows a colon: use a space"),
        (11, "- ", f"-{character}", 10, "follows -: use a space"),
    ):
        (problem,) = read(changed(number, before, after)).problems
        assert (problem.line, problem.column) == (number, column)
        assert (problem.rule, problem.message) == ("syntax", f"{name} {words}")


@pytest.mark.parametrize(
    ("number", "before", "after", "place", "message"),
    [
        (8, ": ", "\uff1a", (8, 20), "U+FF1A (fullwidth colon) is no colon: write `: `"),
        (7, ":", "\uff1a", (7, 9), "U+FF1A (fullwidth colon) is no colon: write `: `"),
        (11, "- ", "\u2013 ", (11, 9), "U+2013 (en dash) is no dash: write -"),
        (11, "- ", "\uff0d ", (11, 9), "U+FF0D (fullwidth hyphen-minus) is no dash: write -"),
        (8, " " * 6, "\t", (8, 1), "a tab indents the line: use spaces"),
    ],
)
def test_other_characters_in_place_of_yamls_are_named(
    number: int, before: str, after: str, place: tuple[int, int], message: str
) -> None:
    """They come from input methods and word processors."""
    (problem,) = read(changed(number, before, after)).problems
    assert (problem.line, problem.column) == place
    assert problem.message == message


def test_an_odd_blank_in_a_text_is_not_blamed() -> None:
    """An error far below a text with such characters is reported where it is."""
    text = "\u00a0a: b\n    " * 3
    broken = changed(13, "[fix]", "[fix, a: b: c]").replace(
        "metadata:\n", f"metadata:\n  annotations:\n    x: |\n    {text}\n"
    )
    (problem,) = read(broken).problems
    assert "U+00A0" not in problem.message
    assert problem.line > 15


@pytest.mark.parametrize(("character", "name"), ODD[:6])
def test_an_invisible_character_in_a_key_or_at_the_end_of_a_value_is_named(
    character: str, name: str
) -> None:
    """Another finding may be about the key or value that it seems to be."""
    for number, before, after, place in (
        (8, ": ", f"{character}: ", (8, 7)),
        (8, "Never", f"Never{character}", (8, 7)),
        (4, "firing", f"firing{character}", (4, 3)),
    ):
        problems = read(changed(number, before, after)).problems
        (problem,) = [p for p in problems if p.rule == "invisible-character"]
        assert (problem.line, problem.column) == place
        assert name in problem.message


def test_visible_text_of_other_scripts_is_no_problem() -> None:
    """Only characters that cannot be seen are reported, and only at the ends of values."""
    notes = (
        "metadata:\n  annotations: {note: 'Gr\u00f6\u00dfe\u00a0voll \u2013 \u201csofort\u201d'}\n"
    )
    assert read(JOB.replace("metadata:\n", notes)).problems == ()
