"""The register of rules: each with its id, severity, requirement, reason and advice.

A rule is declared where it is applied, by `error(...)` or `warning(...)`, which adds it to `RULES`;
importing `catalog.build` declares all of them. Its examples are the fixtures `bad/ID.yaml` and
`good/ID.yaml` in `tests/fixtures/rules`. The rules declared here concern a file before it is
parsed, because sources apply them, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from openfero_gitops.domain.problem import Severity

#: A place in a document: keys and indexes from its root.
Pointer = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """A requirement; `id` is part of the public contract.

    `text` is the requirement in one sentence, `why` its reason. `advice` is the suggestion of a
    finding that has none of its own.
    """

    id: str
    severity: Severity
    text: str
    why: str = ""
    advice: str = ""

    def at(self, pointer: Pointer, message: str, suggestion: str = "") -> Finding:
        """Make a finding of this rule."""
        return Finding(self, pointer, message, suggestion or self.advice)


@dataclass(frozen=True, slots=True)
class Finding:
    """A violation of a rule at a place in a document; once it is located it becomes a Problem.

    `inside` is a line and column, from 1, in the text at the pointer: a place that a pointer
    cannot express.
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
        """The same finding in a document that has the present one at `pointer`."""
        return replace(self, pointer=pointer + self.pointer)


def format_pointer(pointer: Pointer) -> str:
    """Write a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in pointer)


def related(left: Pointer, right: Pointer) -> bool:
    """Whether one pointer is a prefix of the other."""
    length = min(len(left), len(right))
    return left[:length] == right[:length]


RULES: Final[dict[str, Rule]] = {}


def error(name: str, text: str, why: str, advice: str = "") -> Rule:
    """Declare a rule whose violation keeps an operario out of the catalog."""
    return _declare(Rule(name, Severity.ERROR, text, why, advice))


def warning(name: str, text: str, why: str, advice: str = "") -> Rule:
    """Declare a rule whose violation is only reported."""
    return _declare(Rule(name, Severity.WARNING, text, why, advice))


def _declare(rule: Rule) -> Rule:
    if rule.id in RULES:
        raise ValueError(f"rule {rule.id} is declared twice")
    RULES[rule.id] = rule
    return rule


FILE_TOO_LARGE: Final = error(
    "file-too-large",
    "A file must not exceed 512 KiB or 100,000 values.",
    "Every replica parses every file of every new commit. A file this large is "
    "generated or is not an operario, so it is skipped before it costs memory or CPU. A file of up "
    "to 16 MiB without `openfero-` and `openfero.io/` is ignored instead.",
    "split it; if it holds no operario, list it under ignore in openfero.yaml",
)
PATH_TOO_LONG: Final = error(
    "path-too-long",
    "A path must not exceed 4,096 bytes.",
    "File systems cannot store a longer path, so nobody could check out the "
    "repository and review the file.",
)
PATH_TOO_DEEP: Final = error(
    "path-too-deep",
    "A file must not be nested more than 32 folders deep.",
    "A tree this deep only serves to exhaust the tools that walk it.",
)
PATH_NOT_UTF_8: Final = error(
    "path-not-utf-8",
    "A file name must be valid UTF-8.",
    "Other names cannot be written to a Job or to JSON, so a Job could not be traced "
    "back to its file.",
)
PATH_NOT_PRINTABLE: Final = error(
    "path-not-printable",
    "A file name must consist of printable characters.",
    "Control characters and characters that change the text direction make a name "
    "look different from what it is, which misleads reviewers.",
)
NOT_A_FILE: Final = error(
    "not-a-file",
    "An operario must be a regular file.",
    "Devices, sockets and pipes have no fixed content, and reading one may never "
    "end. They occur only in folders, never in a Git commit.",
)
SYMLINK: Final = error(
    "symlink",
    "An operario must not be a symbolic link.",
    "A link can point outside the repository, for example to the controller's own "
    "files. Links are not followed, so the operario is not read.",
)
LFS_POINTER: Final = error(
    "lfs-pointer",
    "A file must be stored in Git itself, not in Git LFS.",
    "Git then holds only a pointer to the content. The controller does not download "
    "content from an LFS server.",
)
LINKED_FOLDER: Final = warning(
    "linked-folder",
    "A folder should not be a symbolic link.",
    "Links are not followed, so operarios in the linked folder are not read.",
)
SUBMODULE: Final = warning(
    "submodule",
    "A folder should not be a Git submodule.",
    "Submodules are not fetched, so operarios in them are not read. Their commits "
    "were not reviewed in this repository either.",
)
CASE_TWINS: Final = warning(
    "case-twins",
    "Two paths should not differ only in upper and lower case.",
    "On a case-insensitive file system, the default on macOS and Windows, only one "
    "of the two files is checked out.",
)
