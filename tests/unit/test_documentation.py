"""The documentation: every command that a page shows is run by a test, or says why not."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.support.paths import ROOT
from tests.support.walk import blocks

#: Languages of blocks that are no commands; `text` is for what a program prints.
SHOWN = {"diff", "http", "ini", "json", "promql", "python", "text", "toml", "yaml"}
FOLDERS = ("*.md", "docs/**/*.md", "charts/*/README.md", "operarios-example/**/*.md")
PAGES = sorted(str(file.relative_to(ROOT)) for folder in FOLDERS for file in ROOT.glob(folder))


@pytest.mark.parametrize("name", PAGES)
def test_a_command_of_a_page_is_run(name: str) -> None:
    """Each block of commands names the test that runs its page, or the reason why none does.

    Blocks of commands are `console`, with `$ ` before each command, so that they can be copied.
    """
    wrong = []
    for block in blocks((ROOT / name).read_text()):
        where = f"{name}:{block.line}"
        if block.language == "console":
            if not any(line.startswith("$ ") for line in block.body):
                wrong.append(f"{where}: begin each command with '$ '")
            if block.run_by:
                test = ROOT / block.run_by
                if not test.is_file():
                    wrong.append(f"{where}: no such test: {block.run_by}")
            elif not block.not_run:
                wrong.append(f"{where}: no test runs it, and no comment says why")
        elif block.language not in SHOWN and not block.path:
            wrong.append(f"{where}: language {block.language!r} is none of {sorted(SHOWN)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith("docs/")])
def test_a_page_says_who_it_is_for(name: str) -> None:
    """The first paragraph says who reads the page; many people read no more."""
    text = re.sub(r"<!--.*?-->\n*", "", (ROOT / name).read_text(), flags=re.DOTALL)
    assert text.startswith("# ")
    first = text.split("\n\n")[1]
    assert first.startswith("For ") or name == "docs/index.md", first


@pytest.mark.parametrize("name", PAGES)
def test_yaml_and_json_of_a_page_can_be_read(name: str) -> None:
    """An example that is copied has no slip of its own."""
    for block in blocks((ROOT / name).read_text()):
        text = "\n".join(block.body)
        if block.language in ("yaml", "json") and not re.search(r"…|![A-Z]\w+ |\t|→", text):
            list(yaml.compose_all(text))
