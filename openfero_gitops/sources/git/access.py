"""Configures how Git connects to a repository, and isolates it from the machine.

Git reads configuration, credentials and helpers from many places. Here it runs with a minimal
environment, an empty home directory and no system configuration, so that it behaves the same on
every machine. Secrets reach it only as paths of files, never as arguments or variables. No program
is written to disk, so every folder may be mounted noexec.
"""

from __future__ import annotations

import base64
import functools
import os
import re
import shlex
import subprocess
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote, urlsplit

from openfero_gitops.domain.errors import SourceError, SourceUnavailable, UsageError
from openfero_gitops.domain.text import printable
from openfero_gitops.keyfiles import certificates, credentials, ssh
from openfero_gitops.keyfiles.content import UnusableFile
from openfero_gitops.keyfiles.file import CheckedFile, naming, require_private
from openfero_gitops.sources.git.transport import logged_ssh
from openfero_gitops.sources.git.url import Protocol
from openfero_gitops.sources.git.user_name import user_name_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from urllib.parse import SplitResult

    from openfero_gitops.keyfiles.credentials import UserPassword
    from openfero_gitops.sources.git.url import Remote

T = TypeVar("T")

# A credential helper (gitcredentials(7)): Git runs it in a shell with the word `get`, describes the
# server in lines, and reads the answer. Nothing is said about another server, however Git came to
# it. The file is read as `keyfiles.credentials` reads it.
_HELPER: Final = """!f() {{
  [ "$1" = get ] || exit 0
  protocol= host=
  while IFS= read -r line && [ -n "$line" ]; do
    case $line in
      protocol=*) protocol=${{line#*=}} ;;
      host=*) host=${{line#*=}} ;;
    esac
  done
  [ "$protocol" = {protocol} ] && [ "$host" = {host} ] || exit 0
  mark=$(printf '\\357\\273\\277') tab=$(printf '\\t') return=$(printf '\\r')
  while IFS= read -r line || [ -n "$line" ]; do
    line=${{line#"$mark"}}
    while :; do
      case $line in
        " "* | "$tab"*) line=${{line#?}} ;;
        *" " | *"$tab" | *"$return") line=${{line%?}} ;;
        *) break ;;
      esac
    done
    [ -z "$line" ] || break
  done < {file}
  case $line in
    :*) user={any_user} password=${{line#:}} ;;
    *:*) user=${{line%%:*}} password=${{line#*:}} ;;
    *) user={any_user} password=$line ;;
  esac
  [ -n "$password" ] && printf 'username=%s\\npassword=%s\\n' "$user" "$password"
}}; f"""
#: In the URL of the proxy: Git only asks for credentials if it contains a user name, and the
#: helper's answer replaces it.
_PLACEHOLDER: Final = "user"
_PROXY: Final = re.compile(
    r"(?P<scheme>https?|socks5h?)://(?P<host>[A-Za-z0-9.\[\]:_-]+)/?", re.IGNORECASE
)
_NO_PROXY: Final = re.compile(r"[A-Za-z0-9.,:/*_\[\] -]*")
# ssh expands % and ${} in the names of these files, and splits them at spaces and quotes.
_UNSAFE_FOR_SSH: Final = re.compile(r"[\s\"'%$\\]")
_EXEC_PATH_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GitAccess:
    """The settings for the connection to a repository, and its limits.

    Attributes:
        credentials_file: a line `user:password` or a token, for http and https.
        ssh_key_file: a private key without a passphrase.
        known_hosts_file: the only host keys that are trusted.
        ca_file: certificates in PEM format that replace the system's trusted certificates.
        client_cert_file: the certificate in PEM format that is shown to an https server.
        client_key_file: its private key in PEM format, without a passphrase.
        proxy: `http://host:port` or `socks5h://host:port`, for http and https; the environment's
            proxy is not used.
        proxy_credentials_file: a line `user:password` for the proxy.
        no_proxy: hosts, separated by commas, that are reached without the proxy.
        timeout: seconds after which a command of Git is stopped.
        pack_bytes: how much disk space the fetched history may take.
        memory_bytes: how much memory each process of Git may take.
        safe_directories: local repositories that are read regardless of their owner.
    """

    credentials_file: Path | None = None
    ssh_key_file: Path | None = None
    known_hosts_file: Path | None = None
    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None
    proxy: str = ""
    proxy_credentials_file: Path | None = None
    no_proxy: str = ""
    timeout: float = 60.0
    pack_bytes: int = 1024 * 1024 * 1024
    memory_bytes: int = 192 * 1024 * 1024
    safe_directories: tuple[Path, ...] = ()

    def check(self, remote: Remote) -> None:
        """Validate the settings for a remote.

        Raises:
            UsageError: settings contradict each other, or one cannot be passed to Git safely.
        """
        where = f"Git URL {remote.url!r}"
        for flags, protocols, names in (
            (self._http_flags(), {Protocol.HTTP, Protocol.HTTPS}, "https"),
            (self._tls_flags(), {Protocol.HTTPS}, "https"),
            (self._ssh_flags(), {Protocol.SSH}, "ssh"),
        ):
            given = [flag for flag, value in flags.items() if value]
            if given and remote.protocol not in protocols:
                are = "is" if len(given) == 1 else "are"
                hint = (
                    "; ssh connects directly, so use the repository's https URL"
                    if remote.protocol is Protocol.SSH and "--git-proxy" in given
                    else ""
                )
                raise UsageError(f"{where}: {_listed(given)} {are} only for {names} URLs{hint}")
        if remote.protocol is Protocol.SSH:
            self._check_ssh(where)
        if bool(self.client_cert_file) != bool(self.client_key_file):
            raise UsageError("--git-client-cert-file and --git-client-key-file require each other")
        self._check_proxy()
        if self.timeout <= 0:
            raise UsageError(f"--git-timeout {self.timeout:g}: must be more than 0 seconds")

    def _http_flags(self) -> dict[str, object]:
        return {
            "--git-credentials-file": self.credentials_file,
            "--git-proxy": self.proxy,
            "--git-proxy-credentials-file": self.proxy_credentials_file,
        }

    def _tls_flags(self) -> dict[str, object]:
        return {
            "--git-ca-file": self.ca_file,
            "--git-client-cert-file": self.client_cert_file,
            "--git-client-key-file": self.client_key_file,
        }

    def _ssh_flags(self) -> dict[str, object]:
        return {
            "--git-ssh-key-file": self.ssh_key_file,
            "--git-known-hosts-file": self.known_hosts_file,
        }

    def _check_ssh(self, where: str) -> None:
        if missing := [flag for flag, value in self._ssh_flags().items() if not value]:
            raise UsageError(f"{where}: ssh requires {_listed(missing)}")
        for file in (self.ssh_key_file, self.known_hosts_file):
            if file is not None and _UNSAFE_FOR_SSH.search(str(file.absolute())):
                raise UsageError(
                    f"file {str(file)!r}: ssh does not support spaces, quotes, %, $ or \\ in"
                    " this path; rename the file"
                )

    def _check_proxy(self) -> None:
        if "@" in self.proxy:
            raise UsageError(
                "--git-proxy must be http://host:port or socks5h://host:port; put the user name and"
                " password into the file of --git-proxy-credentials-file"
            )
        if self.proxy and not _PROXY.fullmatch(self.proxy):
            raise UsageError(
                f"--git-proxy {self.proxy!r}: must be http://host:port, https://host:port or"
                " socks5h://host:port"
            )
        if self.proxy_credentials_file is not None and not self.proxy:
            raise UsageError("--git-proxy-credentials-file requires --git-proxy")
        if not _NO_PROXY.fullmatch(self.no_proxy):
            raise UsageError(
                "--git-no-proxy must be a list of host names and addresses, separated by commas"
            )


def _listed(flags: list[str]) -> str:
    """Join flags as in a sentence."""
    return " and ".join(filter(None, (", ".join(flags[:-1]), flags[-1])))


class GitConnection:
    """Passes the settings of a connection to Git.

    Raises:
        UsageError: settings contradict each other, or one cannot be passed to Git safely.
    """

    def __init__(self, remote: Remote, settings: GitAccess) -> None:
        settings.check(remote)
        self._remote = remote
        #: The settings, as they were given: an error does not advise what was done.
        self.settings = settings
        self._credentials = _checked(settings.credentials_file, credentials.credentials)
        self._proxy_credentials = _checked(
            settings.proxy_credentials_file, credentials.user_and_password
        )
        self._ssh_key = _checked(settings.ssh_key_file, ssh.private_key)
        self._known_hosts = _checked(settings.known_hosts_file, ssh.known_hosts)
        self._ca = _checked(settings.ca_file, certificates.certificates)
        self._client_cert = _checked(settings.client_cert_file, certificates.certificates)
        self._client_key = _checked(settings.client_key_file, certificates.private_key)
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
        if self._credentials is not None:
            helper = _helper(self._credentials.path, urlsplit(self._remote.url))
            options.append(f"credential.helper={helper}")
        if self.settings.proxy:
            proxy = urlsplit(self.settings.proxy)
            user = ""
            if self._proxy_credentials is not None:
                user = f"{_PLACEHOLDER}@"
                options.append(f"credential.helper={_helper(self._proxy_credentials.path, proxy)}")
            options.append(f"http.proxy={proxy.scheme}://{user}{proxy.netloc}")
        return [word for option in options for word in ("-c", option)]

    def environment(self, private: Path) -> dict[str, str]:
        """Return the complete environment of Git.

        Args:
            private: a folder that only we use, for the home directory and repaired copies of files.

        Raises:
            OSError: the folder is not writable.
            SourceUnavailable: git could not be run.
        """
        home = private / "home"
        home.mkdir(exist_ok=True, mode=0o700)
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(home),
            "LC_ALL": "C",
            "GIT_ALLOW_PROTOCOL": self._remote.protocol.value,
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
            "GIT_TERMINAL_PROMPT": "0",  # there is no askpass program either
        }
        for variable, file in (
            ("GIT_SSL_CAINFO", self._ca),
            ("GIT_SSL_CERT", self._client_cert),
        ):
            if file is not None:
                environment[variable] = str(file.usable(private, lambda pem: pem.text))
        if self._client_key is not None:
            environment["GIT_SSL_KEY"] = str(self._client_key.usable(private, str))
        if self._ssh_key is not None and self._known_hosts is not None:
            key, hosts = (file.usable(private, str) for file in (self._ssh_key, self._known_hosts))
            environment["GIT_SSH_COMMAND"] = logged_ssh(_ssh(key, hosts))
            environment["GIT_SSH_VARIANT"] = "ssh"
            environment |= user_name_environment(private)
        if self.settings.safe_directories:
            configuration = _write_configuration(private, self.settings.safe_directories)
            environment["GIT_CONFIG_GLOBAL"] = str(configuration)
        if self.settings.no_proxy:
            environment["no_proxy"] = self.settings.no_proxy
        return environment

    def with_names(self, text: str) -> str:
        """Name in ssh's messages the files of the settings, instead of their repaired copies."""
        for file in (self._ssh_key, self._known_hosts):
            if file is not None:
                text = file.with_name(text)
        return text

    def secrets(self) -> tuple[str, ...]:
        """Check all files, and return the secrets, which must not appear in any output.

        Raises:
            SourceError: a file cannot be read, or not be used; the text names it and the cause.
        """
        try:
            return tuple(dict.fromkeys(self._read()))
        except UnusableFile as error:
            raise SourceError(str(error)) from error

    def _read(self) -> Iterator[str]:
        if self._ssh_key is not None:
            self._ssh_key.read()
            require_private(self._ssh_key.path)
        if self._known_hosts is not None:
            self._known_hosts.read()
        now = datetime.now(UTC)
        if self._ca is not None:
            authorities = self._ca.read()
            with naming(self._ca.path):
                authorities.check(now)
        if self._client_cert is not None and self._client_key is not None:
            certificate = self._client_cert.read()
            with naming(self._client_cert.path):
                certificate.check_first(now)
            key = self._client_key.read()
            with naming(self._client_key.path):
                certificates.check_pair(certificate, key)
        if self._credentials is not None:
            yield from _forms(self._credentials.read())
        if self._proxy_credentials is not None:
            yield from _forms(self._proxy_credentials.read())


def _checked(file: Path | None, parse: Callable[[bytes], T]) -> CheckedFile[T] | None:
    return CheckedFile(file.absolute(), parse) if file is not None else None


def _helper(file: Path, server: SplitResult) -> str:
    """Return a credential helper that passes the content of a file to one server only."""
    return _HELPER.format(
        protocol=shlex.quote(server.scheme),
        host=shlex.quote(server.netloc),
        file=shlex.quote(str(file)),
        any_user=credentials.ANY_USER,
    )


def _forms(pair: UserPassword) -> tuple[str, ...]:
    """Return a password as it is, and in the encodings in which a server may repeat it."""
    sent = base64.b64encode(f"{pair.user}:{pair.password}".encode()).decode()
    return (pair.password, quote(pair.password, safe=""), quote(pair.password), sent)


def _ssh(key: Path, known_hosts: Path) -> list[str]:
    """Return ssh's command line: nothing but these files decides, and nobody is asked."""
    return [
        "ssh",
        *("-F", "/dev/null"),
        *("-i", str(key)),
        *("-o", f"UserKnownHostsFile={known_hosts}"),
        *("-o", "GlobalKnownHostsFile=/dev/null"),
        *("-o", "StrictHostKeyChecking=yes"),
        *("-o", "UpdateHostKeys=no"),
        *("-o", "IdentitiesOnly=yes"),
        *("-o", "IdentityAgent=none"),
        *("-o", "PreferredAuthentications=publickey"),
        *("-o", "BatchMode=yes"),
        *("-o", "ClearAllForwardings=yes"),
        *("-o", "ServerAliveInterval=15"),
        *("-o", "LogLevel=VERBOSE"),
    ]


# The programs that Git may start besides itself. `http-fetch` is not one of them: it downloads from
# any URL that a server names as a packfile URI, even if Git did not ask for any.
_PROGRAMS: Final = ("git-remote-http", "git-remote-https", "git-upload-pack")


def _link_programs(private: Path) -> Path:
    """Make a folder with the only programs that Git finds; all else is built into `git`.

    Where git is not installed, the folder stays as it is.

    Raises:
        OSError: the folder is not writable.
        SourceUnavailable: git could not be run.
    """
    folder = private / "programs"
    folder.mkdir(exist_ok=True, mode=0o700)
    try:
        exec_path = _exec_path()
    except FileNotFoundError:
        return folder
    except (OSError, subprocess.SubprocessError) as error:
        reason = printable(str(error))
        raise SourceUnavailable(
            f"`git --exec-path` failed ({reason}); this is retried: check that the machine is not"
            " overloaded"
        ) from error
    for name in _PROGRAMS:
        target = exec_path / name
        # A name of its own, then renamed: several processes may do this at once.
        if not (folder / name).is_symlink() or (folder / name).readlink() != target:
            fresh = folder / f".{name}-{os.getpid()}-{threading.get_ident()}"
            fresh.symlink_to(target)
            fresh.replace(folder / name)
    return folder


@functools.cache
def _exec_path() -> Path:
    """Return the folder of Git's own programs; a failure is not cached.

    Raises:
        OSError: git could not be started; `FileNotFoundError` if it is not installed.
        SubprocessError: git did not end in time, or failed.
    """
    printed = subprocess.run(
        ["git", "--exec-path"], stdout=subprocess.PIPE, timeout=_EXEC_PATH_SECONDS, check=True
    )
    return Path(os.fsdecode(printed.stdout.strip()))


def _write_configuration(private: Path, safe_directories: Iterable[Path]) -> Path:
    """Write a configuration file for Git.

    An option on the command line does not reach the process that reads the other repository.
    """
    quoted = (re.sub(r'(["\\])', r"\\\1", str(folder)) for folder in safe_directories)
    path = private / "gitconfig"
    text = "[safe]\n" + "".join(f'\tdirectory = "{folder}"\n' for folder in quoted)
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return path
