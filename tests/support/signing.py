"""People who sign commits and tags: an ssh key or an OpenPGP key each, made for one test."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.support.git_servers import make_key
from tests.support.optional import missing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
        ["ssh-keygen", "-l", "-f", str(file)], capture_output=True, timeout=120, check=True
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

    def signer(
        self,
        name: str,
        *,
        made: str = "",
        expires: str = "0",
        algorithm: str = "ed25519",
        options: Sequence[str] = (),
        key_options: Sequence[str] = (),
    ) -> Signer:
        """Make a key without a passphrase; `key` is its fingerprint.

        Args:
            name: as `Ada <ada@git.example>`.
            made: the day on which gpg is to believe to be (20200102T000000), when it makes the
                key and whenever it signs with it.
            expires: how long the key is valid, as gpg takes it; 0 for no expiry.
            algorithm: of the key; only RSA keys sign digests as short as those of MD5.
            options: of gpg whenever it signs with the key.
            key_options: of gpg when it makes the key.
        """
        faked = (f"--faked-system-time={made}",) if made else ()
        making = (*faked, *key_options, "--passphrase", "", "--quick-gen-key")
        self.gpg(*making, name, algorithm, "sign", expires)
        listed = self.gpg(*faked, "--with-colons", "--list-keys", f"={name}").decode().splitlines()
        key = next(line.split(":")[9] for line in listed if line.startswith("fpr:"))
        program = self._home / f"gpg-{key}"
        words = shlex.join(
            ["gpg", f"--homedir={self._home}", "--batch", "--quiet", *faked, *options]
        )
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
            timeout=120,
            check=False,
        )
        shutil.rmtree(home, ignore_errors=True)


#: Signs as `ssh-keygen -Y sign` does, but with an algorithm that it no longer offers. The format is
#: PROTOCOL.sshsig of OpenSSH.
_WEAK_PROGRAM: Final = """
import base64, hashlib, pathlib, struct, subprocess, sys

key, file = sys.argv[sys.argv.index("-f") + 1], pathlib.Path(sys.argv[-1])
algorithm, hashed, digest = {algorithm!r}, {hashed!r}, {digest!r}

def string(content):
    return struct.pack(">I", len(content)) + content

fields = string(b"git") + string(b"") + string(hashed.encode())
message = hashlib.new(hashed, file.read_bytes()).digest()
signed = subprocess.run(
    ["openssl", "dgst", "-" + digest, "-sign", key],
    input=b"SSHSIG" + fields + string(message), capture_output=True, check=True,
).stdout
public = base64.b64decode(pathlib.Path(key + ".pub").read_text().split()[1])
blob = b"SSHSIG" + struct.pack(">I", 1) + string(public) + fields
blob += string(string(algorithm.encode()) + string(signed))
text = base64.encodebytes(blob).decode()
frame = "-----{{}} SSH SIGNATURE-----"
pathlib.Path(str(file) + ".sig").write_text(
    frame.format("BEGIN") + "\\n" + text + frame.format("END") + "\\n"
)
"""


def weak_ssh_signer(
    folder: Path, name: str, *, algorithm: str = "ssh-rsa", hashed: str = "sha512"
) -> Signer:
    """Make an RSA key, and a program that signs with SHA-1.

    Args:
        folder: where they are written.
        name: of the signer.
        algorithm: of the signature: `ssh-rsa` is SHA-1, `rsa-sha2-256` is not.
        hashed: how the message is hashed before.
    """
    for program in ("ssh-keygen", "openssl"):
        if shutil.which(program) is None:
            missing(program, "apt-get install openssh-client openssl")
    path = folder / name.partition("@")[0]
    options = ("-q", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "", "-f", str(path))
    subprocess.run(["ssh-keygen", *options], timeout=60, check=True)
    digest = {"ssh-rsa": "sha1", "rsa-sha2-256": "sha256"}[algorithm]
    code = _WEAK_PROGRAM.format(algorithm=algorithm, hashed=hashed, digest=digest)
    script = folder / f"{path.name}-sign"
    script.write_text(f"#!{sys.executable}\n{code}")
    script.chmod(0o700)
    public = " ".join(path.with_suffix(".pub").read_text().split()[:2])
    config = {
        "gpg.format": "ssh",
        "user.signingKey": str(path),
        "gpg.ssh.program": str(script),
    }
    return Signer(name, public, config)
