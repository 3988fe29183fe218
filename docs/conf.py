"""How Sphinx builds the documentation site. `make docs` runs it, and a warning is an error."""  # noqa: INP001 - Sphinx reads it as a file

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sphinx.util import logging

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS: Final = Path(__file__).resolve().parent
ROOT: Final = DOCS.parent
sys.path.insert(0, str(ROOT))

from openfero_gitops import __version__  # noqa: E402 - from this checkout

REPOSITORY: Final = "https://github.com/OpenFero/openfero-gitops"

project = "openfero-gitops"
author = "The openfero-gitops authors"
release = version = __version__
html_title = f"openfero-gitops {release}"
html_show_copyright = False
html_baseurl = "https://openfero.github.io/openfero-gitops/"

extensions = ["myst_parser", "sphinx_copybutton", "sphinx_design"]
exclude_patterns = ["_*", "bench"]
nitpicky = True
# The date of a build would make each build a different one.
html_last_updated_fmt = None

# Options keep their two dashes.
smartquotes = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

# Copies the commands of a block, without the prompt and without what they print.
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
copybutton_line_continuation_character = "\\"

html_theme = "furo"
html_favicon = "../openfero_gitops/web/static/icon.svg"  # that of the controller's pages
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {
    "source_repository": REPOSITORY,
    "source_branch": "main",
    "source_directory": "docs/",
}

LINK: Final = re.compile(r"(?P<before>\]\()(?P<path>\.\./[^)\s#]+)(?P<fragment>#[^)\s]*)?(?=\))")
NAMED_FENCE: Final = re.compile(
    r"^(?P<fence>`{3,})(?P<language>\w+) (?P<path>[^\s`]+)$", re.MULTILINE
)
log: Final = logging.getLogger(__name__)


def setup(app: Sphinx) -> None:
    """Connect what Markdown pages need to be readable on GitHub, too."""
    app.connect("source-read", _read)


def _read(_app: Sphinx, name: str, source: list[str]) -> None:
    page = DOCS / f"{name}.md"

    def link(match: re.Match[str]) -> str:
        file = Path(os.path.normpath(page.parent / match["path"]))
        if file.is_relative_to(DOCS):
            return match[0]
        if not file.exists():
            log.warning("no such file: %s", match["path"], location=name)
        kind = "tree" if file.is_dir() else "blob"
        path = file.relative_to(ROOT).as_posix()
        return f"{match['before']}{REPOSITORY}/{kind}/main/{path}{match['fragment'] or ''}"

    text = LINK.sub(link, source[0])
    # GitHub shows no name of a file in the fence; here it is the caption of the block.
    source[0] = NAMED_FENCE.sub(r"\g<fence>{code-block} \g<language>\n:caption: \g<path>\n", text)
