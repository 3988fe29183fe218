"""Which repository, ref and folder operarios come from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from openfero_gitops.domain.text import printable

_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z]+)://(?:[^/@]*@)?(?P<host>[^/]*)(?P<path>/.*)?", re.DOTALL
)
#: `user@host:path`, as ssh has it.
_SCP: Final = re.compile(r"(?:[^/@:]+@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^/:@]+):(?P<path>[^:].*)")
_PORT: Final = re.compile(r":([0-9]+)$")
_DEFAULT_PORTS: Final = {"http": "80", "https": "443", "ssh": "22"}
_USER_INFO: Final = re.compile(r"(://)[^/@\s]*:[^/@\s]*@")
_BRANCHES: Final = ("refs/heads/", "heads/")


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


def same_repository(one: str, other: str) -> bool:
    """Whether two addresses are of the same repository.

    Users, `.git`, slashes at the end and the protocol do not matter: many servers offer a
    repository over https and ssh. Ports are only compared within one protocol. The server may treat
    other addresses as equal, too.
    """
    if one == other:
        return True
    (scheme, host, port, path), (other_scheme, other_host, other_port, other_path) = (
        _parts(one),
        _parts(other),
    )
    return (host, path) == (other_host, other_path) and (
        scheme != other_scheme or port == other_port
    )


def _parts(address: str) -> tuple[str, str, str, str]:
    """Split an address into scheme, host, port and path; the first three are empty for a folder."""
    if match := _URL.fullmatch(address):
        scheme, host, path = match["scheme"].lower(), match["host"].lower(), match["path"] or ""
        if scheme == "file":
            return "", "", "", _path(path)
        port = _PORT.search(host)
        if port:
            host = host[: port.start()]
        return scheme, host, port[1] if port else _DEFAULT_PORTS.get(scheme, ""), _path(path)
    if not address.startswith("/") and (match := _SCP.fullmatch(address)):
        return "ssh", match["host"].lower(), "22", _path(match["path"])
    return "", "", "", _path(address)


def _path(path: str) -> str:
    return re.sub(r"/{2,}", "/", path).strip("/").removesuffix(".git").rstrip("/")


def _branch(ref: str) -> str:
    for prefix in _BRANCHES:
        if ref.startswith(prefix):
            return ref.removeprefix(prefix)
    return ref
