"""Verifies that a trusted key signed a commit, or the tag that names it.

Only the exit code of `git verify-commit` and `git verify-tag` decides: Git prints `Good signature`
for unknown keys, too. Once it is 0, their output provides the name of the signer and the digest,
which must not be a weak one; otherwise it provides the text of errors (see `verdict`).

Key files are read again for each verification and passed on as copies in a private folder, so
that a file replaced meanwhile cannot affect half of a verification. gpg gets a home directory with
nothing but these keys, no agent, no network and no web of trust: a key in the file is trusted
unless it is expired or revoked.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.errors import SourceError, UsageError
from openfero_gitops.domain.signature import MAX_CLOCK_DIFFERENCE, Verify
from openfero_gitops.domain.text import printable
from openfero_gitops.keyfiles.content import UnusableFile
from openfero_gitops.keyfiles.file import CheckedFile
from openfero_gitops.keyfiles.openpgp import public_keys
from openfero_gitops.keyfiles.ssh import allowed_signers
from openfero_gitops.sources.git.errors import reason_of
from openfero_gitops.sources.git.process import TooMuchOutput
from openfero_gitops.sources.git.verdict import SignatureVerdict, accepted, refused
from openfero_gitops.sources.tree import printable_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from datetime import datetime

    from openfero_gitops.sources.git.process import Git

_MAX_OBJECT_BYTES: Final = 4 * 1024 * 1024  # of a commit or tag
_MAX_REMEMBERED: Final = 4096  # verdicts
_ABANDONED_SECONDS: Final = 3600.0  # after which no running process can use a folder of keys
_PREFIX: Final = "trust-"
# No agent, no network, no trust database: only the key file counts.
_GPG_CONF: Final = """batch
no-autostart
no-auto-key-retrieve
disable-dirmngr
trust-model always
no-auto-check-trustdb
lock-never
"""
_LOCAL_FAILURE: Final = re.compile(
    r"^(?:No user exists for uid|error: cannot run |error: could not create temporary"
    r"|.*(?:No space left on device|Read-only file system))",
    re.MULTILINE,
)
_TAGGER: Final = re.compile(rb"\ntagger [^\n]* (\d{1,15}) [+-]\d{4}\n")
_TAG_NAME: Final = re.compile(rb"(?:^|\n)tag ([^\n]*)\n")


@dataclass(frozen=True, slots=True)
class Trust:
    """What must be signed, and by whom.

    Attributes:
        verify: what must be signed.
        allowed_signers_file: SSH keys, in the format ALLOWED SIGNERS of ssh-keygen(1).
        openpgp_keyring_file: OpenPGP public keys in the format of `gpg --export`, armored or not.

    Raises:
        UsageError: the settings contradict each other.
    """

    verify: Verify = Verify.NONE
    allowed_signers_file: Path | None = None
    openpgp_keyring_file: Path | None = None

    def __post_init__(self) -> None:
        """Validate the settings."""
        files = [self.allowed_signers_file, self.openpgp_keyring_file]
        if self.verify is Verify.NONE and any(files):
            raise UsageError(
                "a file of trusted keys is set, but --verify is none; set --verify commit or"
                " --verify tag"
            )
        if self.verify is not Verify.NONE and not any(files):
            raise UsageError(
                f"--verify {self.verify} requires --allowed-signers-file (SSH) or"
                " --openpgp-keyring-file"
            )

    def read(self) -> Keys:
        """Read the trusted keys.

        Raises:
            SourceError: a file cannot be read, or contains no keys.
        """
        signers, openpgp = b"", b""
        try:
            if self.allowed_signers_file is not None:
                signers = CheckedFile(self.allowed_signers_file, allowed_signers).read().encode()
            if self.openpgp_keyring_file is not None:
                openpgp = CheckedFile(self.openpgp_keyring_file, public_keys).read()
        except UnusableFile as error:
            raise SourceError(str(error)) from error
        return Keys(signers, openpgp)


@dataclass(frozen=True, slots=True)
class Keys:
    """The contents of the key files at one moment; both are empty where nothing is verified."""

    allowed_signers: bytes = b""
    openpgp: bytes = b""

    @property
    def digest(self) -> str:
        """A digest of the keys."""
        lengths = f"{len(self.allowed_signers)} {len(self.openpgp)} ".encode()
        return hashlib.sha256(lengths + self.allowed_signers + self.openpgp).hexdigest()


class Verifier:
    """Verifies the commits and tags of one repository, and remembers the results."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._digest = ""
        self._verdicts: dict[tuple[str, str], SignatureVerdict] = {}

    @property
    def verify(self) -> Verify:
        """What must be signed."""
        return self._trust.verify

    @contextlib.contextmanager
    def judging(self, git: Git, git_dir: Path, private: Path) -> Iterator[Judge]:
        """Read the keys and provide a judge that uses them.

        Args:
            git: for one operation.
            git_dir: the bare repository.
            private: a folder that only we use, for copies of the keys.

        Raises:
            SourceError: a key file cannot be used, or a program is not installed.
            OSError: the folder is not writable.
        """
        if self.verify is Verify.NONE:
            yield Judge(git, git_dir, Keys(), None, {})
            return
        keys = self._trust.read()
        if keys.digest != self._digest or len(self._verdicts) > _MAX_REMEMBERED:
            self._digest, self._verdicts = keys.digest, {}
        _require_programs(git, keys)
        _sweep(private)
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=private) as folder:
            yield Judge(git, git_dir, keys, Path(folder), self._verdicts)


class Judge:
    """Verifies signatures with the keys that were read at one moment."""

    def __init__(
        self,
        git: Git,
        git_dir: Path,
        keys: Keys,
        folder: Path | None,
        verdicts: dict[tuple[str, str], SignatureVerdict],
    ) -> None:
        self._git = git
        self._git_dir = git_dir
        self._folder = folder
        self._verdicts = verdicts
        self.keys = keys
        if folder is not None:
            home = folder / "gnupg"
            home.mkdir(mode=0o700)
            (home / "gpg.conf").write_text(_GPG_CONF)
            (home / "pubring.gpg").write_bytes(keys.openpgp)
            (folder / "allowed_signers").write_bytes(keys.allowed_signers)

    def commit(self, sha: str) -> SignatureVerdict:
        """Verify the signature of a commit.

        Raises:
            SourceError: git could not verify it.
        """
        return self._remembered("commit", sha)

    def tag(self, sha: str, name: str, committed: datetime | None) -> SignatureVerdict:
        """Verify the signature of an annotated tag, and the name and date that were signed.

        Without the name, an account that may push refs could publish an old signed tag under a
        new name. Without the date, an expired SSH key could still sign: the key is checked at the
        date of the tag, which the signer chooses.

        Args:
            sha: of the tag; of a commit where the ref is not an annotated tag.
            name: of the ref, without `refs/tags/`.
            committed: when the tagged commit was made; None if unknown.

        Raises:
            SourceError: git could not verify it.
        """
        content = self._content("tag", sha)
        if content is None:
            return SignatureVerdict(
                refusal=f"tag {printable(name)} has more than {_MAX_OBJECT_BYTES} bytes; replace it"
                " by one with a shorter message (git tag --sign --force)"
            )
        if not content:
            return SignatureVerdict(
                refusal=f"tag {printable(name)} is not an annotated tag, but --verify tag requires"
                " a signed one; replace it with git tag --sign --force"
            )
        head = content.split(b"\n\n", 1)[0] + b"\n"
        name_line = _TAG_NAME.search(head)
        signed_name = name_line[1] if name_line else b""
        if signed_name != name.encode():
            return SignatureVerdict(
                refusal=f"ref {printable(name)} holds a tag that was signed under the name"
                f" {printable_name(signed_name)}; replace it with git tag --sign --force"
            )
        tagged = _TAGGER.search(head)
        if tagged and committed and int(tagged[1]) < (committed - MAX_CLOCK_DIFFERENCE).timestamp():
            return SignatureVerdict(
                refusal=f"tag {printable(name)} is dated more than a day before its commit; replace"
                " it with git tag --sign --force"
            )
        return self._remembered("tag", sha)

    def newest_signed(
        self, held: Iterable[tuple[str, str]], wanted: Collection[str]
    ) -> tuple[list[tuple[str, str]], dict[str, str]]:
        """Choose for each blob the newest signed commit that has it.

        Args:
            held: commits, newest first, each with the blob that it has.
            wanted: the blobs.

        Returns:
            (commit, blob) in the same order, and the signer of each chosen commit.

        Raises:
            SourceError: git could not verify it.
        """
        missing = set(wanted)
        chosen: list[tuple[str, str]] = []
        signers: dict[str, str] = {}
        for sha, blob in held:
            if blob in missing and (signer := self.commit(sha).signer):
                missing.discard(blob)
                chosen.append((sha, blob))
                signers[sha] = signer
        return chosen, signers

    def _remembered(self, kind: str, sha: str) -> SignatureVerdict:
        verdict = self._verdicts.get((kind, sha))
        if verdict is None:
            verdict = self._verify(kind, sha)
            if not verdict.transient:
                self._verdicts[kind, sha] = verdict
        return verdict

    def _verify(self, kind: str, sha: str) -> SignatureVerdict:
        if self._folder is None:
            raise ValueError("no keys were read, since nothing is verified")
        configuration = (
            "gpg.minTrustLevel=undefined",  # only the key file counts
            "gpg.program=gpg",
            "gpg.openpgp.program=gpg",
            "gpg.ssh.program=ssh-keygen",
            "gpg.x509.program=false",
            f"gpg.ssh.allowedSignersFile={self._folder / 'allowed_signers'}",
            "gpg.ssh.revocationFile=",
        )
        git = replace(
            self._git,
            environment={
                **self._git.environment,
                "GNUPGHOME": str(self._folder / "gnupg"),
                "TMPDIR": str(self._folder),  # git passes the signature in a file
            },
        )
        options = [word for option in configuration for word in ("-c", option)]
        command = (f"--git-dir={self._git_dir}", *options, f"verify-{kind}")
        verified = git.run(*command, "--raw", sha)
        if verified.code == 0:
            return accepted(kind, sha, verified.stderr)
        if verified.code != 1 or _LOCAL_FAILURE.search(verified.stderr):
            # Exit code 1 means a bad signature; any other says nothing about the signature.
            raise SourceError(
                f"{git.where}: cannot verify the signature of {kind} {sha[:12]}"
                f" (git: {reason_of(verified)})"
            )
        explained = git.run(*command, sha)
        content = self._content(kind, sha) or b""
        return refused(kind, sha, content, verified.stderr, explained.stderr)

    def _content(self, kind: str, sha: str) -> bytes | None:
        """Return the raw object: empty if it is of another kind, None if it is too long."""
        try:
            read = self._git.run(
                f"--git-dir={self._git_dir}", "cat-file", kind, sha, max_bytes=_MAX_OBJECT_BYTES
            )
        except TooMuchOutput:
            return None
        return read.stdout if read.code == 0 else b""


def _require_programs(git: Git, keys: Keys) -> None:
    path = git.environment.get("PATH")
    for needed, program, package in (
        (keys.allowed_signers, "ssh-keygen", "openssh-client"),
        (keys.openpgp, "gpg", "gnupg"),
    ):
        if needed and shutil.which(program, path=path) is None:
            raise SourceError(
                f"{git.where}: the {program} command, which verifies signatures, is not installed;"
                f" install {package}"
            )


def _sweep(private: Path) -> None:
    """Remove the folders of killed processes."""
    oldest = time.time() - _ABANDONED_SECONDS
    for folder in private.glob(_PREFIX + "*"):
        with contextlib.suppress(FileNotFoundError):
            if folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)
