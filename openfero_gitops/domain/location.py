"""Which repository, ref and folder operarios come from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from openfero_gitops.domain.text import printable

_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z]+)://(?:(?P<user>[^/]*)@)?(?P<host>[^/@]*)(?P<path>/.*)?", re.DOTALL
)
#: `user@host:path`, as ssh has it: the last @ ends the user.
_SCP: Final = re.compile(
    r"(?:(?P<user>[^/:]+)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^/:@]+):(?P<path>[^:].*)"
)
_PORT: Final = re.compile(r":([0-9]+)$")
_DEFAULT_PORTS: Final = {"http": "80", "https": "443", "ssh": "22"}
_USER_INFO: Final = re.compile(r"(://)[^/@\s]*:[^/@\s]*@")
_BRANCH_PREFIX: Final = "refs/heads/"
_WEB: Final = frozenset({"http", "https"})
#: The user of forges, whose paths are the same over ssh and https.
_FORGE_USER: Final = "git"


@dataclass(frozen=True, slots=True)
class Location:
    """A repository, a ref of it, and a folder (empty: the whole repository)."""

    repository: str
    ref: str
    root: str

    def __str__(self) -> str:
        """Name all three on one line, without credentials."""
        where = f", path {self.root}" if self.root else ""
        repository = _USER_INFO.sub(r"\1", self.repository)
        return printable(f"{repository} (ref {self.ref}{where})")

    def is_same(self, other: Location) -> bool:
        """Whether both are the same, although their addresses may be spelled differently."""
        return (
            same_repository(self.repository, other.repository)
            and _branch(self.ref) == _branch(other.ref)
            and self.root == other.root
        )


@dataclass(frozen=True, slots=True)
class _Parts:
    """An address; `scheme`, `user`, `host` and `port` are empty for a folder of this machine.

    `port` is also empty if it is the default of the scheme. `in_home` is whether ssh begins the
    path in the home directory of the user.
    """

    path: str
    scheme: str = ""
    user: str = ""
    host: str = ""
    port: str = ""
    in_home: bool = False

    @property
    def is_of_user(self) -> bool:
        """Whether another user of the server has another repository at the same path."""
        return self.in_home and self.user != _FORGE_USER


def same_repository(address: str, other: str) -> bool:
    """Whether two addresses are of the same repository.

    `.git` in a URL, slashes at the end and the protocol do not matter: many servers offer a
    repository over https and ssh. Ports are not compared between ssh and the others; http and https
    are only the same at their default ports. Users only matter to ssh where the path begins in
    their home directory, and is not of the user `git`, as forges have it. The server may treat
    other addresses as equal, too.
    """
    if address == other:
        return True
    first, second = _parts(address), _parts(other)
    if (first.host, first.path) != (second.host, second.path):
        return False
    if (first.is_of_user or second.is_of_user) and first.user != second.user:
        return False
    return _same_port(first, second)


def _same_port(first: _Parts, second: _Parts) -> bool:
    if first.scheme == second.scheme:
        return first.port == second.port
    if {first.scheme, second.scheme} <= _WEB:
        return first.port == second.port == ""
    return "ssh" in {first.scheme, second.scheme}


def _parts(address: str) -> _Parts:
    """Split an address."""
    if match := _URL.fullmatch(address):
        scheme, host, path = match["scheme"].lower(), match["host"].lower(), match["path"] or ""
        if scheme == "file":
            return _Parts(_folder(path))
        port = ""
        if found := _PORT.search(host):
            host, port = host[: found.start()], str(int(found[1]))
        port = "" if port == _DEFAULT_PORTS.get(scheme) else port
        in_home = scheme == "ssh" and path.startswith("/~/")
        user = unquote(match["user"] or "")
        return _Parts(
            _path(path.removeprefix("/~") if in_home else path), scheme, user, host, port, in_home
        )
    if not address.startswith("/") and (match := _SCP.fullmatch(address)):
        path, user = match["path"], match["user"] or ""
        in_home = not path.startswith("/")
        return _Parts(
            _path(path.removeprefix("~/")), "ssh", user, match["host"].lower(), in_home=in_home
        )
    return _Parts(_folder(address))


def _path(path: str) -> str:
    """Return the path of a URL in one spelling; Git finds it with and without `.git`."""
    return _folder(path).strip("/").removesuffix(".git").rstrip("/")


def _folder(path: str) -> str:
    """Return a folder of this machine in one spelling; `.git` makes another folder."""
    return re.sub(r"/{2,}", "/", path).rstrip("/")


def _branch(ref: str) -> str:
    return ref.removeprefix(_BRANCH_PREFIX)
