"""The register of rules: what may be found in a repository, how grave it is, and why.

A rule is declared where it is applied, by `error(...)` or `warning(...)`, and stands in `RULES`
from then on; importing `catalog.build` declares all of them. Declared here are those about a
file before anything of it is parsed, since whoever lists a repository must know them, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from openfero_gitops.domain.problem import Severity

#: Where in a document something stands: keys and indexes from its root.
Pointer = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that may be wrong; `id` is part of the public contract, `text` is one sentence."""

    id: str
    severity: Severity
    text: str

    def at(self, pointer: Pointer, message: str, suggestion: str = "") -> Finding:
        """A breach of this rule."""
        return Finding(self, pointer, message, suggestion)


@dataclass(frozen=True, slots=True)
class Finding:
    """A breach of a rule at a place in a document; it becomes a Problem once it is located.

    `inside` is a line and column, from 1, in the text at the pointer, where the pointer alone
    does not say enough.
    """

    rule: Rule
    pointer: Pointer
    message: str
    suggestion: str = ""
    inside: tuple[int, int] = (0, 0)

    @property
    def is_error(self) -> bool:
        """Whether it keeps its operario out of the catalog."""
        return self.rule.severity is Severity.ERROR

    def below(self, pointer: Pointer) -> Finding:
        """The same, seen from the root of the document that the pointer counts from."""
        return replace(self, pointer=pointer + self.pointer)


RULES: Final[dict[str, Rule]] = {}


def error(name: str, text: str) -> Rule:
    """Declare a rule whose breach keeps an operario out of the catalog."""
    return _declare(Rule(name, Severity.ERROR, text))


def warning(name: str, text: str) -> Rule:
    """Declare a rule whose breach is only said."""
    return _declare(Rule(name, Severity.WARNING, text))


def _declare(rule: Rule) -> Rule:
    if rule.id in RULES:
        raise ValueError(f"two rules are named {rule.id}")
    RULES[rule.id] = rule
    return rule


FILE_TOO_LARGE: Final = error("file-too-large", "A file has at most 512 KiB and 100,000 values.")
PATH_TOO_LONG: Final = error("path-too-long", "A path has at most 4,096 bytes.")
PATH_TOO_DEEP: Final = error("path-too-deep", "A file lies at most 32 folders deep.")
PATH_NOT_UTF_8: Final = error("path-not-utf-8", "A file's name is UTF-8.")
PATH_NOT_PRINTABLE: Final = error("path-not-printable", "A file's name can be printed.")
NOT_A_FILE: Final = error("not-a-file", "What is named like an operario is a file.")
SYMLINK: Final = error("symlink", "What is named like an operario is no symlink.")
LFS_POINTER: Final = error("lfs-pointer", "A file's content lies in Git itself, not in Git LFS.")
LINKED_FOLDER: Final = warning("linked-folder", "A folder is no symlink to one.")
SUBMODULE: Final = warning("submodule", "A folder is no submodule.")
CASE_TWINS: Final = warning("case-twins", "Paths differ in more than upper and lower case.")
