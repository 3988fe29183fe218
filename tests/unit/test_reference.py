"""The reference has everything that has a name, and nothing that is gone.

Settings, options, reasons, rules, metrics, Events, the API and chart values have tests beside those
of their code.
"""

from __future__ import annotations

import re

import click

from openfero_gitops.catalog import envelope
from openfero_gitops.cli import cli
from openfero_gitops.domain import keys
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.help import CONDITION_TOPICS
from tests.support.paths import ROOT

REFERENCE = ROOT / "docs/reference"


def test_every_label_and_annotation_is_listed() -> None:
    """The page has the keys of the code; options have a page of their own."""
    written = {
        value
        for value in vars(keys).values()
        if isinstance(value, str) and value.startswith(keys.PREFIX) and value != keys.PREFIX
    }
    page = (REFERENCE / "annotations.md").read_text()
    listed = {*re.findall(r"`(openfero\.io/[a-z-]+)`", page)}
    assert listed == written


def test_every_command_and_option_is_listed() -> None:
    """Each command has a section with each of its options; those for Git have one of their own."""
    page = (REFERENCE / "commands.md").read_text()
    sections = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n)*)", page, re.MULTILINE))
    shared = {*re.findall(r"`(--git-[a-z-]+)`", sections["Options for a Git URL"])}
    commands = dict(leaves(cli, ""))
    assert {*sections} - {"Options for a Git URL", "Shell completion"} == {*commands}
    for name, command in commands.items():
        if name == "serve":
            continue
        options = {
            option
            for parameter in command.params
            if isinstance(parameter, click.Option)
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        listed = {*re.findall(r"`(-{1,2}[a-z][a-z-]*)`", table(sections[name]))}
        assert listed == {option for option in options if not option.startswith("--git-")}, name
        assert {option for option in options if option.startswith("--git-")} <= shared


def test_every_key_of_the_envelope_is_listed() -> None:
    """The page about files has each key of `openfero.yaml`."""
    groups = {
        f"{name}.{key}" for name, (_, _, parsers) in envelope.GROUPS.items() for key in parsers
    }
    page = (REFERENCE / "files.md").read_text()
    section = page.partition("## openfero.yaml")[2].partition("\n## ")[0]
    assert {*re.findall(r"^\| `([\w.]+)` \|", section, re.MULTILINE)} == groups | {*envelope.TOP}


def test_every_condition_is_listed_under_what_it_affects() -> None:
    """The page has three tables: conditions that make a replica unready, degrade it, or neither."""
    page = (REFERENCE / "conditions.md").read_text()
    listed = {
        heading: {*re.findall(r"^\| `([a-z ]+)` \|", section, re.MULTILINE)}
        for heading, section in re.findall(r"^## (.+)\n((?:(?!^## ).*\n)*)", page, re.MULTILINE)
    }
    assert {name for names in listed.values() for name in names} == {*CONDITION_TOPICS}
    assert sum(map(len, listed.values())) == len(CONDITION_TOPICS)


def test_every_effect_is_listed() -> None:
    """In the order of the code."""
    page = (REFERENCE / "effects.md").read_text()
    assert re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE) == [*Effect]


def leaves(group: click.Group, prefix: str) -> list[tuple[str, click.Command]]:
    """Return every command that is no group, with its whole name."""
    found: list[tuple[str, click.Command]] = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += leaves(command, f"{prefix}{name} ")
        else:
            found.append((prefix + name, command))
    return found


def table(section: str) -> str:
    """Return the first column of a section's table of options."""
    rows = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    return "\n".join(rows)
