"""What the kubelet makes of a container's variables, command and arguments.

`expand` follows the grammar of Kubernetes' `third_party/forked/golang/expansion`; the original is
`go_expansion`, and a test holds the two against each other.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster.controlplane import HERE
from tests.support.optional import missing, require

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_MAIN = """package main

import (
\t"encoding/json"
\t"os"

\t"oracle/expansion"
)

func main() {
\tvar cases []struct {
\t\tText      string
\t\tVariables map[string]string
\t}
\tif err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
\t\tpanic(err)
\t}
\tanswers := []string{}
\tfor _, testCase := range cases {
\t\tmapping := expansion.MappingFuncFor(testCase.Variables)
\t\tanswers = append(answers, expansion.Expand(testCase.Text, mapping))
\t}
\tif err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
\t\tpanic(err)
\t}
}
"""


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by the value of NAME, once; unknown names stay, and `$$` becomes `$`."""

    def value(reference: re.Match[str]) -> str:
        name = reference["name"]
        return "$" if name is None else variables.get(name, reference[0])

    return re.sub(r"\$(?:\$|\((?P<name>[^)]*)\))", value, text)


def environment(
    container: Mapping[str, Any], given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The variables that a container's process finds.

    `given` are those of `envFrom`; a variable with `valueFrom` has the value `from elsewhere`.
    """
    variables = dict(given or {})
    for variable in container.get("env") or ():
        value = variable.get("value") or ""
        variables[variable["name"]] = (
            "from elsewhere" if "valueFrom" in variable else expand(value, variables)
        )
    return variables


def command_line(container: Mapping[str, Any], given: Mapping[str, str] | None = None) -> list[str]:
    """The command and arguments that a container's process is started with."""
    variables = environment(container, given)
    words = [*(container.get("command") or ()), *(container.get("args") or ())]
    return [expand(word, variables) for word in words]


def go_expansion(folder: Path) -> Callable[[Sequence[tuple[str, Mapping[str, str]]]], list[str]]:
    """Build Kubernetes' own expansion in `folder`, from the module that the test cluster uses.

    The function returned expands several texts, each with its variables. Without Go see `missing`.
    """
    go = require("Go", "install Go 1.26 or later (https://go.dev/dl)", "go")
    module = subprocess.run(
        [go, "mod", "download", "-json", "k8s.io/kubernetes"],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if module.returncode:
        missing("the module k8s.io/kubernetes", "let Go download it, or run make cluster once")
    source = Path(json.loads(module.stdout)["Dir"], "third_party/forked/golang/expansion/expand.go")
    (folder / "expansion").mkdir()
    (folder / "expansion" / "expand.go").write_text(source.read_text())
    (folder / "main.go").write_text(_MAIN)
    (folder / "go.mod").write_text("module oracle\n\ngo 1.21\n")
    subprocess.run([go, "build", "-o", "oracle", "."], cwd=folder, timeout=300, check=True)

    def expand_all(cases: Sequence[tuple[str, Mapping[str, str]]]) -> list[str]:
        inputs = [{"Text": text, "Variables": dict(variables)} for text, variables in cases]
        done = subprocess.run(
            [folder / "oracle"],
            input=json.dumps(inputs),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        answers: list[str] = json.loads(done.stdout)
        return answers

    return expand_all
