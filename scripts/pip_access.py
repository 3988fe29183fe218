"""How pip reaches an index from within the build of an image: as it does on this machine."""  # noqa: INP001 - imported by a script

from __future__ import annotations

import ast
import configparser
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Where Debian keeps certificate authorities, and where the build sees them.
AUTHORITIES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
#: Of pip's options, those about the network. Others name files that the build does not see.
_OPTIONS: Final = (
    "index-url",
    "extra-index-url",
    "trusted-host",
    "proxy",
    "timeout",
    "default-timeout",
    "retries",
)
#: In pip's order: a later one wins.
_SECTIONS: Final = ("global", "install", ":env:")


@contextmanager
def pip_secrets() -> Iterator[Mapping[str, Path]]:
    """Return, for the block, pip's configuration and the certificate authorities, by secret ID.

    The configuration is what pip makes of its files and of the environment on this machine.
    """
    options = _configured()
    named = options.get("cert") or os.environ.get("SSL_CERT_FILE") or AUTHORITIES
    authorities = Path(named).expanduser()
    written = configparser.RawConfigParser()
    written["global"] = {name: options[name] for name in _OPTIONS if name in options}
    secrets = {}
    if authorities.is_file():
        written["global"]["cert"] = str(AUTHORITIES)
        secrets["ca-certificates"] = authorities
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        written.write(file)
        file.flush()
        yield {"pip-conf": Path(file.name), **secrets}


def _configured() -> dict[str, str]:
    """Return the options of pip, from all of its files and the environment."""
    listing = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(listing, capture_output=True, text=True, check=False)
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    options = {}
    for section in _SECTIONS:
        prefix = f"{section}."
        for key, value in found.items():
            if key.startswith(prefix):
                options[key.removeprefix(prefix)] = str(ast.literal_eval(value))
    return options
