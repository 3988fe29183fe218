"""What git is told about the way to a repository, and what it is kept from finding by itself.

Git reads configuration, credentials and helpers from many places. Here it gets an environment
made from nothing, an empty home and no system configuration, so that it does the same on every
machine; and secrets reach it by the paths of files alone, never by argv or a variable.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shlex
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from openfero_gitops.domain.errors import SourceError, UsageError
from openfero_gitops.sources.git.url import Protocol

if TYPE_CHECKING:
    from openfero_gitops.sources.git.url import Remote

# Git asks `Username for 'https://host': `, then `Password for 'https://user@host': `. A file of
# one word is a token, which hosts take as a password under any user name.
_ASKPASS: Final = """#!/bin/sh
IFS= read -r line < {file} || [ -n "$line" ] || exit 1
line=${{line%"$(printf '\\r')"}}
case $line in
  *:*) user=${{line%%:*}} password=${{line#*:}} ;;
  *) user={any_user} password=$line ;;
esac
case $1 in
  Username*) printf '%s\\n' "$user" ;;
  *) printf '%s\\n' "$password" ;;
esac
"""
_ANY_USER: Final = "x-access-token"
_PROXY: Final = re.compile(r"https?://[A-Za-z0-9.\[\]:_-]+/?")
_NO_PROXY: Final = re.compile(r"[A-Za-z0-9.,:/*_\[\] -]*")
# ssh expands % and ${} in the names of these files, and cuts them at blanks and quotes.
_UNSAFE_FOR_SSH: Final = re.compile(r"[\s\"'%$\\]")
_LONGEST_CREDENTIALS: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class GitAccess:
    """The way to a repository, as a person names it, and how much may come along it.

    Attributes:
        credentials_file: one line, `user:password` or a token, for http and https.
        ssh_key_file: a private key without a passphrase.
        known_hosts_file: the only host keys that are trusted.
        ca_file: certificates in PEM that are trusted instead of the system's.
        proxy: `http://host:port`, for http and https; none of the environment's is used.
        no_proxy: hosts, with commas, that are reached without it.
        pack_bytes: the most that its history may take on the disk, whatever was fetched of it.
    """

    credentials_file: Path | None = None
    ssh_key_file: Path | None = None
    known_hosts_file: Path | None = None
    ca_file: Path | None = None
    proxy: str = ""
    no_proxy: str = ""
    pack_bytes: int = 1024 * 1024 * 1024

    def check(self, remote: Remote) -> None:
        """Hold it against the address that it is for.

        Raises:
            UsageError: two settings contradict each other, or one could not be handed on safely.
        """
        http = remote.protocol in {Protocol.HTTP, Protocol.HTTPS}
        if not http and (self.credentials_file is not None or self.proxy or self.ca_file):
            raise UsageError(
                f"Git URL {remote.url!r}: --git-credentials-file, --git-ca-file and --git-proxy are"
                " for https URLs"
            )
        if remote.protocol is Protocol.SSH:
            if self.ssh_key_file is None or self.known_hosts_file is None:
                raise UsageError(
                    f"Git URL {remote.url!r}: ssh needs --git-ssh-key-file and"
                    " --git-known-hosts-file"
                )
            for file in (self.ssh_key_file.absolute(), self.known_hosts_file.absolute()):
                if _UNSAFE_FOR_SSH.search(str(file)):
                    raise UsageError(
                        f"file {str(file)!r}: ssh cannot be given blanks, quotes, %, $ or \\ in a"
                        " path; rename it"
                    )
        elif self.ssh_key_file is not None or self.known_hosts_file is not None:
            raise UsageError(
                f"Git URL {remote.url!r}: --git-ssh-key-file and --git-known-hosts-file are for ssh"
                " URLs"
            )
        if self.proxy and not _PROXY.fullmatch(self.proxy):
            raise UsageError("--git-proxy: write http://host:port, without a user name or password")
        if not _NO_PROXY.fullmatch(self.no_proxy):
            raise UsageError(
                "--git-no-proxy: write host names and addresses with commas between them"
            )


class Access:
    """The way to one repository: which files hold the secrets, and what git is told of them.

    Raises:
        UsageError: two settings contradict each other, or one could not be handed on safely.
    """

    def __init__(self, remote: Remote, given: GitAccess) -> None:
        given.check(remote)
        self._remote = remote
        self._credentials_file = given.credentials_file and given.credentials_file.absolute()
        self._ssh_key_file = given.ssh_key_file and given.ssh_key_file.absolute()
        self._known_hosts_file = given.known_hosts_file and given.known_hosts_file.absolute()
        self._ca_file = given.ca_file and given.ca_file.absolute()
        self._proxy = given.proxy
        self._no_proxy = given.no_proxy

    def options(self) -> list[str]:
        """Configuration for the network operation, ahead of git's command."""
        chosen = [
            "http.followRedirects=false",  # a redirect would carry the credentials elsewhere
            "credential.helper=",
            "fetch.fsckObjects=true",
            # Harmless defects of the past, found in many an old history.
            "fetch.fsck.zeroPaddedFilemode=ignore",
            "fetch.fsck.badTimezone=ignore",
            "fetch.fsck.missingSpaceBeforeDate=ignore",
            "fetch.unpackLimit=1",  # a pack appears whole, loose objects one by one
            "gc.auto=0",
            "maintenance.auto=false",
            "submodule.recurse=false",
        ]
        if self._ca_file is not None:
            chosen.append(f"http.sslCAInfo={self._ca_file}")
        if self._proxy:
            chosen.append(f"http.proxy={self._proxy}")
        return [word for option in chosen for word in ("-c", option)]

    def environment(self, private: Path) -> dict[str, str]:
        """Everything that git and its children find in their environment.

        Args:
            private: a folder of ours alone; the askpass program is put there.

        Raises:
            OSError: the folder cannot be written.
        """
        home = private / "home"
        home.mkdir(exist_ok=True, mode=0o700)
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(home),
            "LC_ALL": "C",
            "GIT_ALLOW_PROTOCOL": self._remote.protocol.value,
            "GIT_ASKPASS": "false",  # refuses, where there is nothing to answer
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_DEFAULT_REF_FORMAT": "files",  # GitPython reads them
            # What is missing is fetched by us, or never: git itself would do it one by one, in
            # the middle of anything, and without end where it is damaged.
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_TERMINAL_PROMPT": "0",
        }
        if self._credentials_file is not None:
            environment["GIT_ASKPASS"] = str(_write_askpass(private, self._credentials_file))
        if self._remote.protocol is Protocol.SSH:
            environment["GIT_SSH_COMMAND"] = shlex.join(self._ssh())
            environment["GIT_SSH_VARIANT"] = "ssh"
        if self._no_proxy:
            environment["no_proxy"] = self._no_proxy
        return environment

    def secrets(self) -> tuple[str, ...]:
        """Read what must never be shown, as it stands at this moment.

        Raises:
            SourceError: a file that was named cannot be read, or holds nothing.
        """
        for file in (self._ssh_key_file, self._known_hosts_file, self._ca_file):
            if file is not None:
                _read(file)
        if self._credentials_file is None:
            return ()
        line = _read(self._credentials_file).split("\n", maxsplit=1)[0].removesuffix("\r")
        user, separator, password = line.partition(":")
        secret = password if separator else user
        if not secret:
            raise SourceError(
                f"{self._credentials_file}: its first line holds no password; write"
                " user:password or a token"
            )
        # As it is sent, too: a server may answer with what it was told.
        pair = f"{user}:{secret}" if separator else f"{_ANY_USER}:{secret}"
        sent = base64.b64encode(pair.encode()).decode()
        return tuple(dict.fromkeys((secret, quote(secret, safe=""), quote(secret), sent)))

    def _ssh(self) -> list[str]:
        return [
            "ssh",
            *("-F", "/dev/null"),
            *("-i", str(self._ssh_key_file)),
            *("-o", f"UserKnownHostsFile={self._known_hosts_file}"),
            *("-o", "GlobalKnownHostsFile=/dev/null"),
            *("-o", "StrictHostKeyChecking=yes"),
            *("-o", "UpdateHostKeys=no"),
            *("-o", "IdentitiesOnly=yes"),
            *("-o", "IdentityAgent=none"),
            *("-o", "PreferredAuthentications=publickey"),
            *("-o", "BatchMode=yes"),
            *("-o", "ClearAllForwardings=yes"),
            *("-o", "ServerAliveInterval=15"),
            *("-o", "LogLevel=ERROR"),
        ]


def _write_askpass(private: Path, credentials: Path) -> Path:
    """Put the askpass program in place; one name for one content, so that writers agree."""
    script = _ASKPASS.format(file=shlex.quote(str(credentials)), any_user=_ANY_USER).encode()
    path = private / f"askpass-{hashlib.sha256(script).hexdigest()[:16]}"
    with suppress(FileNotFoundError):
        if path.read_bytes() == script:
            return path
    descriptor, name = tempfile.mkstemp(prefix=".askpass-", dir=private)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(script)
    Path(name).chmod(0o700)
    Path(name).replace(path)
    return path


def _read(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(_LONGEST_CREDENTIALS)
    except OSError as error:
        raise SourceError(f"{file}: {error.strerror}; mount it, or correct its path") from error
    return content.decode("utf-8", "replace")
