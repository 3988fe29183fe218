"""Configures how Git connects to a repository, and isolates it from the machine.

Git reads configuration, credentials and helpers from many places. Here it runs with a minimal
environment, an empty home directory and no system configuration, so that it behaves the same on
every machine. Secrets reach it only as paths of files, never as arguments or variables.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import re
import shlex
import subprocess
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from openfero_gitops.domain.errors import SourceError, UsageError
from openfero_gitops.sources.git.url import Protocol

if TYPE_CHECKING:
    from openfero_gitops.sources.git.url import Remote

# Git prompts `Username for 'https://host': `, then `Password for 'https://user@host': `. Nothing is
# said to another host, however Git came to it. A file without a colon contains a token, which hosts
# accept as a password with any user name.
_ASKPASS: Final = """#!/bin/sh
case $1 in
  "Username for '"{scheme}"://"{host}"': " | "Password for '"{scheme}"://"*"@"{host}"': ") ;;
  *) exit 1 ;;
esac
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
# ssh expands % and ${} in the names of these files, and splits them at spaces and quotes.
_UNSAFE_FOR_SSH: Final = re.compile(r"[\s\"'%$\\]")
_MAX_CREDENTIALS_BYTES: Final = 64 * 1024
_EXEC_PATH_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GitAccess:
    """The settings for the connection to a repository, and the limit of its size.

    Attributes:
        credentials_file: a line `user:password` or a token, for http and https.
        ssh_key_file: a private key without a passphrase.
        known_hosts_file: the only host keys that are trusted.
        ca_file: certificates in PEM format that replace the system's trusted certificates.
        proxy: `http://host:port`, for http and https; the environment's proxy is not used.
        no_proxy: hosts, separated by commas, that are reached without the proxy.
        pack_bytes: how much disk space the fetched history may take.
        memory_bytes: how much memory each process of Git may take.
    """

    credentials_file: Path | None = None
    ssh_key_file: Path | None = None
    known_hosts_file: Path | None = None
    ca_file: Path | None = None
    proxy: str = ""
    no_proxy: str = ""
    pack_bytes: int = 1024 * 1024 * 1024
    memory_bytes: int = 192 * 1024 * 1024

    def check(self, remote: Remote) -> None:
        """Validate the settings for a remote.

        Raises:
            UsageError: settings contradict each other, or one cannot be passed to Git safely.
        """
        http = remote.protocol in {Protocol.HTTP, Protocol.HTTPS}
        if not http and (self.credentials_file is not None or self.proxy or self.ca_file):
            raise UsageError(
                f"Git URL {remote.url!r}: --git-credentials-file, --git-ca-file and --git-proxy are"
                " only for https URLs"
            )
        if remote.protocol is Protocol.SSH:
            if self.ssh_key_file is None or self.known_hosts_file is None:
                raise UsageError(
                    f"Git URL {remote.url!r}: ssh requires --git-ssh-key-file and"
                    " --git-known-hosts-file"
                )
            for file in (self.ssh_key_file.absolute(), self.known_hosts_file.absolute()):
                if _UNSAFE_FOR_SSH.search(str(file)):
                    raise UsageError(
                        f"file {str(file)!r}: ssh does not support spaces, quotes, %, $ or \\ in"
                        " this path; rename the file"
                    )
        elif self.ssh_key_file is not None or self.known_hosts_file is not None:
            raise UsageError(
                f"Git URL {remote.url!r}: --git-ssh-key-file and --git-known-hosts-file are only"
                " for ssh URLs"
            )
        if self.proxy and not _PROXY.fullmatch(self.proxy):
            raise UsageError(
                "--git-proxy must be http://host:port, without a user name or password"
            )
        if not _NO_PROXY.fullmatch(self.no_proxy):
            raise UsageError(
                "--git-no-proxy must be a list of host names and addresses, separated by commas"
            )


class GitConnection:
    """Passes the settings of a connection to Git.

    Raises:
        UsageError: settings contradict each other, or one cannot be passed to Git safely.
    """

    def __init__(self, remote: Remote, settings: GitAccess) -> None:
        settings.check(remote)
        self._remote = remote
        self._credentials_file = settings.credentials_file and settings.credentials_file.absolute()
        self._ssh_key_file = settings.ssh_key_file and settings.ssh_key_file.absolute()
        self._known_hosts_file = settings.known_hosts_file and settings.known_hosts_file.absolute()
        self._ca_file = settings.ca_file and settings.ca_file.absolute()
        self._proxy = settings.proxy
        self._no_proxy = settings.no_proxy
        #: How much memory each process of Git may take.
        self.memory_bytes = settings.memory_bytes

    def options(self) -> list[str]:
        """Return the configuration of a network operation, to be placed before the command."""
        options = [
            "http.followRedirects=false",  # a redirect could send the credentials to another host
            "credential.helper=",
            "fetch.fsckObjects=true",
            # Harmless defects that old versions of Git have left in many histories.
            "fetch.fsck.zeroPaddedFilemode=ignore",
            "fetch.fsck.badTimezone=ignore",
            "fetch.fsck.missingSpaceBeforeDate=ignore",
            # Less memory: larger files are not held at once, and fewer threads have caches.
            "core.bigFileThreshold=4m",
            "core.deltaBaseCacheLimit=32m",
            "pack.threads=2",
            "fetch.unpackLimit=1",  # a pack appears at once, loose objects one by one
            "gc.auto=0",
            "maintenance.auto=false",
            "submodule.recurse=false",
        ]
        if self._ca_file is not None:
            options.append(f"http.sslCAInfo={self._ca_file}")
        if self._proxy:
            options.append(f"http.proxy={self._proxy}")
        return [word for option in options for word in ("-c", option)]

    def environment(self, private: Path) -> dict[str, str]:
        """Return the complete environment of Git.

        Args:
            private: a folder that only we use, for the home directory and the askpass program.

        Raises:
            OSError: the folder is not writable.
        """
        home = private / "home"
        home.mkdir(exist_ok=True, mode=0o700)
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(home),
            "LC_ALL": "C",
            "GIT_ALLOW_PROTOCOL": self._remote.protocol.value,
            "GIT_ASKPASS": "false",  # fails instead of prompting
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_DEFAULT_REF_FORMAT": "files",  # the format that GitPython reads
            "GIT_EXEC_PATH": str(_link_programs(private)),
            # Git would fetch each missing object separately, during any command, and without end
            # where the repository is damaged.
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_TERMINAL_PROMPT": "0",
        }
        if self._credentials_file is not None:
            askpass = _write_askpass(private, self._credentials_file, self._remote)
            environment["GIT_ASKPASS"] = str(askpass)
        if self._remote.protocol is Protocol.SSH:
            environment["GIT_SSH_COMMAND"] = shlex.join(self._ssh())
            environment["GIT_SSH_VARIANT"] = "ssh"
        if self._no_proxy:
            environment["no_proxy"] = self._no_proxy
        return environment

    def secrets(self) -> tuple[str, ...]:
        """Read the secrets, which must not appear in any output.

        Raises:
            SourceError: a file cannot be read, or contains no credentials.
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
                f"{self._credentials_file}: the first line contains no password; write"
                " user:password or a token"
            )
        # Also in encoded form: a server may repeat what was sent.
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


# The programs that Git may start besides itself. `http-fetch` is not one of them: it downloads from
# any URL that a server names as a packfile URI, even if Git did not ask for any.
_PROGRAMS: Final = ("git-remote-http", "git-remote-https", "git-upload-pack")


def _link_programs(private: Path) -> Path:
    """Make a folder with the only programs that Git finds; all else is built into `git`."""
    folder = private / "programs"
    folder.mkdir(exist_ok=True, mode=0o700)
    for name in _PROGRAMS:
        target = _exec_path() / name
        # A name of its own, then renamed: several processes may do this at once.
        if not (folder / name).is_symlink() or (folder / name).readlink() != target:
            fresh = folder / f".{name}-{os.getpid()}-{threading.get_ident()}"
            fresh.symlink_to(target)
            fresh.replace(folder / name)
    return folder


@functools.cache
def _exec_path() -> Path:
    """Return the folder of Git's own programs; an empty one where git is not installed."""
    try:
        printed = subprocess.run(
            ["git", "--exec-path"], stdout=subprocess.PIPE, timeout=_EXEC_PATH_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return Path(os.devnull)
    return Path(os.fsdecode(printed.stdout.strip()))


def _write_askpass(private: Path, credentials: Path, remote: Remote) -> Path:
    """Write the askpass program; its name depends on its content, so that writers agree."""
    address = urlsplit(remote.url)
    script = _ASKPASS.format(
        file=shlex.quote(str(credentials)),
        any_user=_ANY_USER,
        scheme=shlex.quote(address.scheme),
        host=shlex.quote(address.netloc),
    ).encode()
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
            content = stream.read(_MAX_CREDENTIALS_BYTES)
    except OSError as error:
        raise SourceError(f"{file}: {error.strerror}; mount it, or correct its path") from error
    return content.decode("utf-8", "replace")
