"""People who sign commits and tags: an ssh key or an OpenPGP key each, made for one test."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.git_servers import make_key
from tests.support.optional import missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.repository import Repository


@dataclass(frozen=True)
class Signer:
    """A person with a key; `config` has the git settings for signing with it."""

    name: str
    key: str
    config: dict[str, str] = field(default_factory=dict)

    def sign_in(self, repository: Repository) -> None:
        """Sign every commit and annotated tag that is made in a repository from now on."""
        for name, value in self.config.items():
            repository.git("config", name, value)
        for name in ("commit.gpgSign", "tag.gpgSign"):
            repository.git("config", name, "true")


def stop_signing(repository: Repository) -> None:
    """Stop signing commits and tags."""
    for name in ("commit.gpgSign", "tag.gpgSign"):
        repository.git("config", name, "false")


def ssh_signer(folder: Path, name: str) -> Signer:
    """Make an ssh key; `key` is its public half, as a line of known keys has it."""
    if shutil.which("ssh-keygen") is None:
        missing("ssh-keygen", "apt-get install openssh-client")
    path = folder / name.partition("@")[0]
    make_key(path)
    public = " ".join(path.with_suffix(".pub").read_text().split()[:2])
    return Signer(name, public, {"gpg.format": "ssh", "user.signingKey": str(path)})


def fingerprint(signer: Signer, folder: Path) -> str:
    """Return the fingerprint of an ssh key."""
    file = folder / "fingerprint.pub"
    file.write_text(signer.key + "\n")
    listing = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(file)], capture_output=True, timeout=30, check=True
    )
    return listing.stdout.decode().split()[1]


def allow(file: Path, *signers: Signer, options: str = "") -> Path:
    """Write the file of allowed signers."""
    words = f" {options}" if options else ""
    file.write_text("".join(f"{signer.name}{words} {signer.key}\n" for signer in signers))
    return file


class KeyRing:
    """A GnuPG home with secret keys, and an agent that ends with it."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def signer(self, name: str, *, made: str = "", expires: str = "0") -> Signer:
        """Make a key without a passphrase; `key` is its fingerprint.

        Args:
            name: as `Ada <ada@git.example>`.
            made: the day on which gpg is to believe to be (20200102T000000), when it makes the
                key and whenever it signs with it.
            expires: how long the key is valid, as gpg takes it; 0 for no expiry.
        """
        faked = (f"--faked-system-time={made}",) if made else ()
        self.gpg(*faked, "--passphrase", "", "--quick-gen-key", name, "ed25519", "sign", expires)
        listed = self.gpg(*faked, "--with-colons", "--list-keys", f"={name}").decode().splitlines()
        key = next(line.split(":")[9] for line in listed if line.startswith("fpr:"))
        program = self._home / f"gpg-{key}"
        words = shlex.join(["gpg", f"--homedir={self._home}", "--batch", "--quiet", *faked])
        program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        program.chmod(0o700)
        config = {
            "gpg.format": "openpgp",
            "user.signingKey": key,
            "gpg.openpgp.program": str(program),
        }
        return Signer(name, key, config)

    def export(self, *signers: Signer, armor: bool = True) -> bytes:
        """Return public keys."""
        options = ("--armor",) if armor else ()
        return self.gpg(*options, "--export", *(signer.key for signer in signers))

    def export_secret(self, signer: Signer) -> bytes:
        """Return a private key, armored."""
        return self.gpg("--armor", "--export-secret-keys", signer.key)

    def revoke(self, signer: Signer) -> None:
        """Revoke a key with the certificate that was made with it."""
        written = (self._home / "openpgp-revocs.d" / f"{signer.key}.rev").read_text()
        self.gpg("--import", stdin=written.replace(":-----BEGIN", "-----BEGIN").encode())

    def gpg(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Run gpg in this home, and return what it writes to stdout."""
        argv = ["gpg", f"--homedir={self._home}", "--batch", "--quiet", *arguments]
        ran = subprocess.run(argv, input=stdin, capture_output=True, timeout=60, check=False)
        if ran.returncode != 0:
            raise RuntimeError(f"gpg {' '.join(arguments)}: {ran.stderr.decode()}")
        return ran.stdout


@contextmanager
def key_ring() -> Iterator[KeyRing]:
    """Give a home for keys, with a path that is short enough for an agent's sockets."""
    if shutil.which("gpg") is None or shutil.which("gpg-agent") is None:
        missing("gpg", "apt-get install gnupg")
    home = Path(tempfile.mkdtemp(prefix="gpg-"))
    try:
        yield KeyRing(home)
    finally:
        subprocess.run(
            ["gpgconf", f"--homedir={home}", "--kill", "all"],
            env={"PATH": os.environ["PATH"]},
            timeout=30,
            check=False,
        )
        shutil.rmtree(home, ignore_errors=True)
