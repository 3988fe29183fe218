#!/usr/bin/env python3
"""Write the pages of `docs/` that are made from the code.

`python scripts/make_docs.py` writes them; with `--check` it writes nothing and exits with 1 where
one is not current.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from openfero_gitops.settings import CONFIG_VARIABLE, describe  # noqa: E402 - of this checkout
from scripts.rules_page import rules_page  # noqa: E402 - the same

if TYPE_CHECKING:
    from collections.abc import Callable

    from openfero_gitops.settings import Described


SETTINGS: Final = f"""\
# Settings of `openfero-gitops serve`

<!-- Made by scripts/make_docs.py: change openfero_gitops/settings.py instead. -->

A flag wins over its environment variable, and that over the same key of the YAML file that
`{CONFIG_VARIABLE}` names (`jobs-namespace: heal`). What is empty counts as not given.
Durations are Prometheus' (`1h30m`, `15s`); a bare number is an error. Addresses are `HOST:PORT`,
`:PORT` (every interface) or `[IPv6]:PORT`.

Secrets are given by the path of a file. Credentials of callers, certificates and their keys are
read again when their file changes, so that a mounted Secret rotates without a restart. If the
file cannot be used then, the log says so, and what was read last goes on to hold.

| flag | environment variable | default | meaning |
|---|---|---|---|
"""


def settings_page() -> str:
    """Make the table of every setting of `serve`."""
    return SETTINGS + "".join(
        f"| `{one.flag}` | `{one.variable}` | {_default(one)} | {_cell(one.meaning)} |\n"
        for one in describe()
    )


def _default(one: Described) -> str:
    return f"`{one.default}`" if one.default else _cell(one.otherwise)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


#: Path from the root of the checkout to what makes the page.
PAGES: Final[dict[str, Callable[[], str]]] = {
    "docs/rules.md": rules_page,
    "docs/settings.md": settings_page,
}


def main(argv: list[str]) -> int:
    """Write or check every page.

    Returns:
        0 every page is current; 1 with `--check`: one is not; 2 wrong usage.
    """
    if argv not in ([], ["--check"]):
        sys.stderr.write(f"{__doc__}")
        return 2
    stale = []
    for name, make in PAGES.items():
        page, text = ROOT / name, make()
        if page.is_file() and page.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not argv:
            page.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{name} written\n")
    if stale and argv:
        sys.stderr.write(f"not current: {', '.join(stale)}: run python scripts/make_docs.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
