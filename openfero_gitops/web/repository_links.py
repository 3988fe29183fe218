"""Derives links to commits and files on the forge of a repository, from the repository's URL.

The URL is the one with which the repository is fetched: `https://`, `ssh://` or `git@HOST:PATH`. A
forge is recognized by its host name, such as `github.com` or `gitlab.example.com`. For all other
hosts there are templates. A link is only made where the address of the forge's pages is certain:
no link is better than one to somewhere else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, urlsplit

from openfero_gitops.domain.catalog import is_commit
from openfero_gitops.domain.url_template import fill

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: `git@HOST:PATH`, as SSH writes it; a drive letter or a path is none.
_SCP: Final = re.compile(r"(?:[^@/:\s]+@)?([^@/:\s]{2,}):(?!/)(\S+)")
_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")
#: Hosts of public forges whose names do not contain the name of their software.
_KNOWN_HOSTS: Final[Mapping[str, str]] = {
    "codeberg.org": "forgejo",
    "dev.azure.com": "azure",
    "ssh.dev.azure.com": "azure",
}
_AZURE_OLD: Final = ".visualstudio.com"
_AZURE_PATH_PARTS: Final = 3  # organization, project, repository


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a repository is on a forge: the address of the forge, and the parts of its path."""

    origin: str
    host: str
    parts: tuple[str, ...]

    @property
    def page(self) -> str:
        """The address of the repository's own page."""
        return f"{self.origin}/{_quoted(self.parts)}"


@dataclass(frozen=True, slots=True)
class _Forge:
    """How a forge addresses a commit, and a file at a commit (with a quoted path)."""

    commit: Callable[[_Place, str], str]
    file: Callable[[_Place, str, str], str]


def _bitbucket_commit(place: _Place, commit: str) -> str:
    if place.host == "bitbucket.org":
        return f"{place.page}/commits/{commit}"
    return f"{_data_center(place)}/commits/{commit}"


def _bitbucket_file(place: _Place, commit: str, path: str) -> str:
    if place.host == "bitbucket.org":
        return f"{place.page}/src/{commit}/{path}"
    return f"{_data_center(place)}/browse/{path}?at={commit}"


def _data_center(place: _Place) -> str:
    """The page of a repository in Bitbucket Data Center, which is fetched as `/scm/KEY/NAME`."""
    *_, project, name = place.parts
    kind, project = ("users", project[1:]) if project.startswith("~") else ("projects", project)
    return f"{place.origin}/{kind}/{_quoted((project,))}/repos/{_quoted((name,))}"


_FORGES: Final[Mapping[str, _Forge]] = {
    "github": _Forge(
        lambda place, commit: f"{place.page}/commit/{commit}",
        lambda place, commit, path: f"{place.page}/blob/{commit}/{path}",
    ),
    "gitlab": _Forge(
        lambda place, commit: f"{place.page}/-/commit/{commit}",
        lambda place, commit, path: f"{place.page}/-/blob/{commit}/{path}",
    ),
    "gitea": _Forge(
        lambda place, commit: f"{place.page}/commit/{commit}",
        lambda place, commit, path: f"{place.page}/src/commit/{commit}/{path}",
    ),
    "gogs": _Forge(
        lambda place, commit: f"{place.page}/commit/{commit}",
        lambda place, commit, path: f"{place.page}/src/{commit}/{path}",
    ),
    "bitbucket": _Forge(_bitbucket_commit, _bitbucket_file),
    "azure": _Forge(
        lambda place, commit: f"{place.page}/commit/{commit}",
        lambda place, commit, path: f"{place.page}?path=/{path}&version=GC{commit}",
    ),
}
_SOFTWARE: Final[Mapping[str, str]] = {**{name: name for name in _FORGES}, "forgejo": "gitea"}


@dataclass(frozen=True, slots=True)
class RepositoryLinks:
    """Makes links to commits and files.

    `commit_url` and `file_url` are templates for the repository that the controller follows, with
    `{commit}` and `{path}`; other repositories, which older Jobs may name, do not use them.
    """

    repository: str = ""
    commit_url: str = ""
    file_url: str = ""

    def commit(self, repository: str, commit: str) -> str:
        """The address of a commit on its forge; empty if that is not known."""
        if not is_commit(commit):
            return ""
        if self.commit_url and repository == self.repository:
            return fill(self.commit_url, commit, "")
        found = _find(repository)
        return found[0].commit(found[1], commit) if found else ""

    def file(self, repository: str, commit: str, path: str) -> str:
        """The address of a file at a commit on its forge; empty if that is not known."""
        if not is_commit(commit) or not path or not _is_plain(path):
            return ""
        if self.file_url and repository == self.repository:
            return fill(self.file_url, commit, path)
        found = _find(repository)
        return found[0].file(found[1], commit, quote(path)) if found else ""


def _find(repository: str) -> tuple[_Forge, _Place] | None:
    """Find the forge of a repository, and where it has its pages."""
    place = _place(repository)
    if place is None:
        return None
    if place.host.endswith(_AZURE_OLD) or _KNOWN_HOSTS.get(place.host) == "azure":
        azure = _azure(place)
        return (_FORGES["azure"], azure) if azure else None
    software = _KNOWN_HOSTS.get(place.host) or next(
        (name for name in _SOFTWARE if name in place.host.split(".")[:-1]), ""
    )
    if not software or len(place.parts) < len(("owner", "name")):
        return None
    return _FORGES[_SOFTWARE[software]], place


def _azure(place: _Place) -> _Place | None:
    """Where Azure DevOps has the pages of a repository; it is fetched from other addresses."""
    parts = [part for part in place.parts if part not in ("_git", "v3", "DefaultCollection")]
    if place.host.endswith(_AZURE_OLD):
        parts.insert(0, place.host.removesuffix(_AZURE_OLD))
    if len(parts) == _AZURE_PATH_PARTS - 1:
        parts.append(parts[-1])  # the repository has the name of its project
    if len(parts) != _AZURE_PATH_PARTS:
        return None
    organization, project, name = parts
    return _Place("https://dev.azure.com", "dev.azure.com", (organization, project, "_git", name))


def _place(repository: str) -> _Place | None:
    """Read the URL of a repository; None if it does not name a host."""
    if not _is_plain(repository):
        return None
    try:
        parts = urlsplit(repository)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        return None
    scheme, path = parts.scheme, parts.path
    if not scheme or "//" not in repository:
        match = _SCP.fullmatch(repository)
        if match is None:
            return None
        scheme, host, path, port = "ssh", match[1].lower(), match[2], None
    if scheme not in ("http", "https", "ssh", "git") or not _HOST.fullmatch(host):
        return None
    # The port of SSH or of Git's own protocol says nothing about that of the pages.
    origin = f"https://{host}"
    if scheme in ("http", "https"):
        origin = f"{scheme}://{host}" + (f":{port}" if port else "")
    segments = tuple(unquote(part) for part in path.removesuffix(".git").split("/") if part)
    if any(part in (".", "..") or "/" in part for part in segments):
        return None
    return _Place(origin, host, segments)


def _quoted(parts: tuple[str, ...]) -> str:
    return "/".join(quote(part, safe="~") for part in parts)


def _is_plain(text: str) -> bool:
    """Whether a text has no characters that a browser would drop or read as something else."""
    return text.isprintable() and "\\" not in text
