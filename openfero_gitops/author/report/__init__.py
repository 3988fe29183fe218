"""Formats for the findings of `validate`: for terminals, programs and CI systems.

Each format is a pure function of `Findings`, in a module of its own. Whether the check failed is
decided by `Findings` alone, so that exit codes, test results and annotations agree.
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

#: The values of `--format`.
FORMATS: Final[Mapping[str, Callable[[Findings], str]]] = {
    "text": text,
    "json": plain,
    "junit": junit,
    "sarif": sarif,
    "github": github,
}
