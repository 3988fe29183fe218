from __future__ import annotations

import time

import pytest
import yaml

from openfero_gitops.catalog.forms import read_document
from openfero_gitops.catalog.validation.schema import schemas_of
from openfero_gitops.catalog.yaml.document import load_text

SCHEMAS = schemas_of("1.36")
HEAD = """\
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
          resources: {limits: {memory: 64Mi}}
"""


def findings(text: str) -> list[tuple[str, str]]:
    """Return the rule and message of each finding in a Job with these lines of a container."""
    indented = "".join(f"          {line}\n" for line in text.splitlines())
    (document,) = load_text(HEAD + indented)
    reading = read_document(document, SCHEMAS)
    assert reading.draft is not None  # these are warnings
    return [(finding.rule.id, finding.message) for finding in reading.findings]


def script(text: str) -> list[tuple[str, str]]:
    """Return the rule and message of each finding about a script."""
    return findings(yaml.safe_dump({"command": ["sh", "-c", text]}, width=10_000))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "- >-\n  kubectl delete pod \\\n  --namespace=web \\\n  --selector=app=x\n",
            "a backslash before a space does not continue a line",
        ),
        (
            "- >\n  curl -s x \\\n  | jq .\n",
            "a backslash before a space does not continue a line",
        ),
        (
            "- >\n  for p in a b\n  do\n  echo $p\n  done\n",
            "do does not begin a command, as if lines of the script were joined",
        ),
        (
            "- >\n  if test -f x; then\n  rm x\n  fi\n",
            "fi does not begin a command",
        ),
        (
            "- >-\n  while ! ping -c1 x; do\n  sleep 1\n  done\n",
            "done does not begin a command",
        ),
        (
            "- >-\n  kubectl apply -f - <<EOF\n  kind: Pod\n  EOF\n",
            "the here-document EOF has no end",
        ),
        (
            "- >\n  # clean up\n  rm -r /tmp/x\n",
            "the whole script is a comment",
        ),
        (
            "- |\n  if true; then\n    cat <<EOF\n    x\n    EOF\n  fi\n",
            "the here-document EOF has no end: no later line is exactly EOF",
        ),
    ],
)
def test_lines_that_yaml_joins_cause_a_warning(text: str, words: str) -> None:
    """The container would fail, or do nothing, when the alert fires."""
    ((rule, message),) = findings(f"command: [/bin/bash, -ec]\nargs:\n{text}")
    assert rule == "script-lines"
    assert words in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "kubectl get pods \\ \n  -n web",
            "white space follows the backslash at the end of a line",
        ),
        (
            "kubectl get pods \\\t\n  -n web",
            "white space follows the backslash at the end of a line",
        ),
        ("set -eu\r\nkubectl get pods\r\n", "the script contains a carriage return"),
        ("cat <<'END' > x\na\nEND \necho b", "the here-document END has no end"),
    ],
)
def test_other_broken_lines_cause_a_warning(text: str, words: str) -> None:
    """Each was left behind by an editor."""
    rules = script(text)
    assert [rule for rule, _ in rules] == ["script-lines"]
    assert words in rules[0][1]


@pytest.mark.parametrize(
    "text",
    [
        "kubectl delete pod \\\n  --namespace=web \\\n  --selector=app=x\n",
        "cat /My\\ File; echo a\\ b",
        "sed 's/a\\ b/c/'; printf ' \\ '",
        "# \\ comment\necho a",
        "for p in a b; do echo do done; done",
        "for p in a b\ndo\n  echo $p\ndone\n",
        "if a; then echo fi; fi",
        "case $x in\n  a) b;;\nesac\n",
        "while read -r l; do echo $l; done < f | sort",
        "cat <<EOF\nfor a in b do \\ done “x”\nEOF\necho x",
        "cat <<-EOF\n\ta\n\tEOF\n",
        "cat <<A <<B\nx\nA\ny\nB\n",
        "x=$(cat <<EOF\na\nEOF\n)\n",
        "grep x <<< 'y'",
        "# a comment\necho a",
        "echo done",
        "( until a; do b; done ) && { c; }",
        "if ! a; then b; elif c; then d; else e; fi",
        "f() { for x; do y; done; }",
        'python3 -c "if x: done fi"',
        "echo $((1 << 2)) $((x<<y))",
    ],
)
def test_sound_scripts_get_no_warning(text: str) -> None:
    """Everything that a shell accepts is accepted."""
    assert script(text) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("echo \u201chealed\u201d", "U+201C (left double quotation mark)"),
        ("echo \u2018healed\u2019", "U+2018 (left single quotation mark)"),
        ("echo \u201ehealed\u201c", "U+201E (double low-9 quotation mark)"),
        ("kubectl delete pod \u2013namespace=web", "U+2013 (en dash)"),
        ("kubectl delete pod \u2014namespace=web", "U+2014 (em dash)"),
        ("kubectl\u00a0delete pod x", "U+00A0 (no-break space)"),
        ("kubectl delete\u200b pod x", "U+200B (zero width space)"),
        ('kubectl get pod "x" \u2013n web', "U+2013 (en dash)"),
    ],
)
def test_typographic_characters_in_a_script_cause_a_warning(text: str, name: str) -> None:
    """The message names the character and shows where it is."""
    ((rule, message),) = script(text)
    assert rule == "typographic-character"
    assert message.startswith(f"{name} in the script, near ")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["kubectl", "delete", "\u2013\u2013namespace=web"], "U+2013 (en dash)"),
        (["kubectl", "\u2014all"], "U+2014 (em dash)"),
        (["echo", "\u201cx\u201d"], "U+201C (left double quotation mark)"),
        (["\u201csh\u201d", "-c"], "U+201C (left double quotation mark)"),
    ],
)
def test_typographic_characters_in_an_argument_cause_a_warning(
    arguments: list[str], name: str
) -> None:
    """A program gets them as they are."""
    ((rule, message),) = findings(yaml.safe_dump({"command": arguments}, width=10_000))
    assert rule == "typographic-character"
    assert message.startswith(f"{name} in ")


@pytest.mark.parametrize(
    "text",
    [
        'echo "It\u2019s \u201chealed\u201d \u2013 ok\u00a0!"',
        "echo 'Gr\u00f6\u00dfe \u2013 \u201cx\u201d'",
        "# \u201ccomment\u201d \u2013 x\necho a",
        "echo It\u2019s",
        "cat <<EOF\n\u201cx\u201d \u2013 y\nEOF",
    ],
)
def test_typographic_text_is_text(text: str) -> None:
    """In quoted text, comments and here-documents they are meant."""
    assert script(text) == []
    assert findings(yaml.safe_dump({"args": ["--message=\u201cx\u201d \u2013 y!"]})) == []


@pytest.mark.parametrize(
    "part",
    [
        "<<A ",
        "<<A\n",
        "\\ ",
        "x \\ \n",
        "a fi ",
        "if do ",
        "\u201c",
        "\u2013 ",
        "'",
        '"',
        "# ",
        " \\",
    ],
)
def test_a_long_script_is_searched_in_linear_time(part: str) -> None:
    """A script of the maximum size takes bounded time, whatever it repeats."""
    job = yaml.safe_load(HEAD)
    container = job["spec"]["template"]["spec"]["containers"][0]
    container["command"] = ["sh", "-c", "x" + part * (200_000 // len(part.encode()))]
    began = time.process_time()
    read_document(job, SCHEMAS)
    assert time.process_time() - began < 10
