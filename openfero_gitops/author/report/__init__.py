"""What a check found, as text for each kind of reader: a person, a program, a CI system.

Each format is one pure function of `Findings` in a module of its own, and tells everything at
once. What none of them decides is whether the check failed: `Findings` says that, so that an exit
code, a failed test case and a red annotation never disagree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openfero_gitops.author.report.github import github
from openfero_gitops.author.report.junit import junit
from openfero_gitops.author.report.plain import plain
from openfero_gitops.author.report.sarif import sarif
from openfero_gitops.author.report.text import text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from openfero_gitops.author.report.findings import Findings

#: What `--format` takes.
FORMATS: Final[Mapping[str, Callable[[Findings], str]]] = {
    "text": text,
    "json": plain,
    "junit": junit,
    "sarif": sarif,
    "github": github,
}
