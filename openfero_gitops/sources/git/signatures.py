"""Whether somebody who is trusted signed a commit, or the tag that names it.

Git decides, by the exit code of `verify-commit` and `verify-tag` alone: it prints `Good signature`
for a key that nobody knows, too. What it prints only makes the words, and the signer's name once
the code is 0.

The files of keys are read anew for each question and handed on as copies in a folder of our own:
a file that is replaced meanwhile cannot be half of an answer, and gpg gets a home that holds
nothing but these keys, no agent, no network and no web of trust: a key in the file is trusted,
unless it says itself that it is expired or revoked.
"""

from __future__ import annotations

import base64
import binascii
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
from openfero_gitops.domain.signature import CLOCKS_APART, Verify
from openfero_gitops.sources.git.errors import last_line
from openfero_gitops.sources.git.process import TooMuchOutput
from openfero_gitops.sources.tree import shown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from datetime import datetime

    from openfero_gitops.sources.git.process import Git

_LONGEST_FILE: Final = 8 * 1024 * 1024  # bytes of a file of keys
_LONGEST_SIGNER: Final = 200  # characters
_LONGEST_OBJECT: Final = 4 * 1024 * 1024  # bytes of a commit or tag that are looked at
_REMEMBERED: Final = 4096  # verdicts
_LEFT_BEHIND: Final = 3600.0  # seconds after which a folder of keys can be nobody's any more
_PREFIX: Final = "trust-"
# No agent, no network, no trust database: the file of keys is all that counts.
_GPG_CONF: Final = """batch
no-autostart
no-auto-key-retrieve
disable-dirmngr
trust-model always
no-auto-check-trustdb
lock-never
"""
_ARMOR: Final = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----[^\n]*\n(?:[^\n]*:[^\n]*\n)*\s*\n"
    rb"(?P<body>[A-Za-z0-9+/=\s]*?)(?:\n=[A-Za-z0-9+/]{4}\s*)?\n-----END PGP PUBLIC KEY BLOCK-----"
)
_ARMORED: Final = b"-----BEGIN PGP"
_PRIVATE: Final = b"PRIVATE KEY"
_PACKET: Final = 0x80  # the first bit of every OpenPGP packet
_SSH_GOOD: Final = re.compile(
    r'^Good "git" signature for (?P<who>.+) with \S+ key (?P<key>SHA256:\S+)$', re.MULTILINE
)
_SSH_KEY: Final = re.compile(r"with (?P<kind>\S+) key (?P<key>SHA256:\S+)$", re.MULTILINE)
_GPG_GOOD: Final = re.compile(r"^\[GNUPG:\] GOODSIG \S+ (?P<who>.+)$", re.MULTILINE)
_GPG_VALID: Final = re.compile(
    r"^\[GNUPG:\] VALIDSIG (?:\S+ ){9}(?P<key>[0-9A-F]{40,64})", re.MULTILINE
)
_GPG_UNKNOWN: Final = re.compile(r"^\[GNUPG:\] NO_PUBKEY (?P<key>[0-9A-F]+)", re.MULTILINE)
_GPG_OVER: Final = re.compile(r"^\[GNUPG:\] (?P<what>REV|EXP)KEYSIG (?P<key>\S+)", re.MULTILINE)
_SSH_SIGNATURE: Final = b"-----BEGIN SSH SIGNATURE-----"
_PGP_SIGNATURE: Final = b"-----BEGIN PGP "
_X509_SIGNATURE: Final = b"-----BEGIN SIGNED MESSAGE-----"
_MACHINE: Final = re.compile(
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
        allowed_signers_file: ssh keys, as ssh-keygen(1) describes under ALLOWED SIGNERS.
        openpgp_keyring_file: OpenPGP public keys, as `gpg --export` writes them, armored or not.

    Raises:
        UsageError: the settings contradict each other.
    """

    verify: Verify = Verify.NONE
    allowed_signers_file: Path | None = None
    openpgp_keyring_file: Path | None = None

    def __post_init__(self) -> None:
        """Hold the settings against each other."""
        files = [self.allowed_signers_file, self.openpgp_keyring_file]
        if self.verify is Verify.NONE and any(files):
            # Nobody names signers to trust everybody.
            raise UsageError(
                "a file of signers is given and nothing is verified; say --verify commit or"
                " --verify tag"
            )
        if self.verify is not Verify.NONE and not any(files):
            raise UsageError(
                f"--verify {self.verify} needs --allowed-signers-file (ssh) or"
                " --openpgp-keyring-file"
            )

    def read(self) -> Keys:
        """Read who is trusted at this moment.

        Raises:
            SourceError: a file cannot be read, or holds no keys.
        """
        ssh = _read(self.allowed_signers_file)
        if self.allowed_signers_file is not None and not _has_signers(ssh):
            raise SourceError(
                f"{self.allowed_signers_file}: there is no signer in it; write lines such as"
                " `ada@example.com ssh-ed25519 AAAA…`"
            )
        openpgp = b""
        if self.openpgp_keyring_file is not None:
            openpgp = _binary_keys(_read(self.openpgp_keyring_file), self.openpgp_keyring_file)
        return Keys(ssh, openpgp)


@dataclass(frozen=True, slots=True)
class Keys:
    """Who is trusted, as the files said at one moment; both empty where nothing is verified."""

    allowed_signers: bytes = b""
    openpgp: bytes = b""

    @property
    def digest(self) -> str:
        """Equal for equal keys."""
        lengths = f"{len(self.allowed_signers)} {len(self.openpgp)} ".encode()
        return hashlib.sha256(lengths + self.allowed_signers + self.openpgp).hexdigest()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one commit or tag: its signer, or why it is not trusted.

    `passing` says that the reason may have been the machine's, so that it is worth asking again.
    """

    signer: str = ""
    refusal: str = ""
    passing: bool = False


class Verifier:
    """Judges the commits and tags of one repository, and remembers what it found."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._digest = ""
        self._known: dict[tuple[str, str], Verdict] = {}

    @property
    def verify(self) -> Verify:
        """What must be signed."""
        return self._trust.verify

    @contextlib.contextmanager
    def judging(self, git: Git, git_dir: Path, private: Path) -> Iterator[Judge]:
        """Read the keys and judge by them.

        Args:
            git: for one operation.
            git_dir: the bare repository.
            private: a folder of ours alone, where the keys lie meanwhile.

        Raises:
            SourceError: a file of keys cannot be used, or a program is not installed.
            OSError: the folder cannot be written.
        """
        if self.verify is Verify.NONE:
            yield Judge(git, git_dir, Keys(), None, {})
            return
        keys = self._trust.read()
        if keys.digest != self._digest or len(self._known) > _REMEMBERED:
            self._digest, self._known = keys.digest, {}
        _require_programs(git, keys)
        _sweep(private)
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=private) as folder:
            yield Judge(git, git_dir, keys, Path(folder), self._known)


class Judge:
    """One look at the keys, and the verdicts that follow from it."""

    def __init__(
        self,
        git: Git,
        git_dir: Path,
        keys: Keys,
        folder: Path | None,
        known: dict[tuple[str, str], Verdict],
    ) -> None:
        self._git = git
        self._git_dir = git_dir
        self._folder = folder
        self._known = known
        self.keys = keys
        if folder is not None:
            home = folder / "gnupg"
            home.mkdir(mode=0o700)
            (home / "gpg.conf").write_text(_GPG_CONF)
            (home / "pubring.gpg").write_bytes(keys.openpgp)
            (folder / "allowed_signers").write_bytes(keys.allowed_signers)

    def commit(self, sha: str) -> Verdict:
        """Judge a commit by its own signature.

        Raises:
            SourceError: git could not be asked.
        """
        return self._remembered("commit", sha)

    def tag(self, sha: str, name: str, committed: datetime | None) -> Verdict:
        """Judge an annotated tag by its own signature, and by the name and date that were signed.

        Who may move refs, and has no key, could otherwise let a new name stand for an old tag.
        And an ssh key is held against the tag's date: with one that is older than what it names,
        a key that ran out would sign for ever.

        Args:
            sha: of the tag; of a commit where the ref is no annotated tag.
            name: of the ref, without `refs/tags/`.
            committed: when the commit that it names was made, None where that is not known.

        Raises:
            SourceError: git could not be asked.
        """
        content = self._content("tag", sha)
        if content is None:
            return Verdict(
                refusal=f"the tag {shown(name)} has more than {_LONGEST_OBJECT} bytes: make it anew"
                " with a shorter message (git tag --sign --force)"
            )
        if not content:
            return Verdict(
                refusal=f"{shown(name)} is no annotated tag, and a signed one is demanded: make it"
                " anew with git tag --sign --force"
            )
        head = content.split(b"\n\n", 1)[0] + b"\n"
        found = _TAG_NAME.search(head)
        signed_name = found[1] if found else b""
        if signed_name != name.encode():
            return Verdict(
                refusal=f"the tag that {shown(name)} holds was signed under the name"
                f" {shown(signed_name)}: sign one of this name with git tag --sign --force"
            )
        tagged = _TAGGER.search(head)
        if tagged and committed and int(tagged[1]) < (committed - CLOCKS_APART).timestamp():
            return Verdict(
                refusal=f"the tag {shown(name)} is dated more than a day before its commit: sign it"
                " anew with git tag --sign --force"
            )
        return self._remembered("tag", sha)

    def newest_signed(
        self, held: Iterable[tuple[str, str]], wanted: Collection[str]
    ) -> tuple[list[tuple[str, str]], dict[str, str]]:
        """Choose for each blob the newest commit that holds it and is signed, if there is one.

        Args:
            held: commits, newest first, each with the blob that it holds.
            wanted: the blobs.

        Returns:
            (commit, blob) in the same order, and the signer of each commit chosen.

        Raises:
            SourceError: git could not be asked.
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

    def _remembered(self, kind: str, sha: str) -> Verdict:
        verdict = self._known.get((kind, sha))
        if verdict is None:
            verdict = self._ask(kind, sha)
            if not verdict.passing:
                self._known[kind, sha] = verdict
        return verdict

    def _ask(self, kind: str, sha: str) -> Verdict:
        if self._folder is None:
            raise ValueError("nothing is verified, so nothing can be asked")
        chosen = (
            "gpg.minTrustLevel=undefined",  # the file of keys is the trust
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
                "TMPDIR": str(self._folder),  # git hands the signature over in a file
            },
        )
        options = [word for option in chosen for word in ("-c", option)]
        asked = git.run(f"--git-dir={self._git_dir}", *options, f"verify-{kind}", "--raw", sha)
        if asked.code == 0:
            return Verdict(signer=_signer(asked.stderr))
        if asked.code != 1 or _MACHINE.search(asked.stderr):
            # A signature that does not fit is 1; anything else says nothing of the signature.
            raise SourceError(
                f"{git.where}: the signature of {kind} {sha[:12]} could not be judged"
                f" (git: {last_line(asked.stderr)})"
            )
        return _refusal(kind, sha, self._content(kind, sha) or b"", asked.stderr)

    def _content(self, kind: str, sha: str) -> bytes | None:
        """The object as it stands, empty where it is of another kind, None where it is too long."""
        try:
            read = self._git.run(
                f"--git-dir={self._git_dir}", "cat-file", kind, sha, most=_LONGEST_OBJECT
            )
        except TooMuchOutput:
            return None
        return read.stdout if read.code == 0 else b""


def _refusal(kind: str, sha: str, content: bytes, said: str) -> Verdict:
    """Word why a signature is not taken, and who must do what."""
    name = f"{kind} {sha[:12]}"
    anew = (
        "a signer whom you trust signs a commit on top of it (git commit --allow-empty --gpg-sign)"
        if kind == "commit"
        else "a signer whom you trust makes it anew (git tag --sign --force)"
    )
    if over := _GPG_OVER.search(said):
        word = "revoked" if over["what"] == "REV" else "expired"
        return Verdict(
            refusal=f"{name} is signed with the OpenPGP key {over['key']}, which is {word}: {anew}"
        )
    if unknown := _GPG_UNKNOWN.search(said):
        return Verdict(
            refusal=f"{name} is signed with the OpenPGP key {unknown['key']}, which is not in the"
            f" keyring file: whoever keeps that file adds it, or {anew}"
        )
    if "No principal matched" in said and (key := _SSH_KEY.search(said)):
        return Verdict(
            refusal=f"{name} is signed with the {key['kind']} key {key['key']}, which is not among"
            f" the allowed signers at that time: whoever keeps that file adds it, or {anew}"
        )
    head, _, text = content.partition(b"\n\n")
    signature = head.partition(b"\ngpgsig ")[2] if kind == "commit" else text
    if _X509_SIGNATURE in signature:
        return Verdict(
            refusal=f"{name} is signed with an X.509 certificate, which is not supported: {anew}"
        )
    if _SSH_SIGNATURE not in signature and _PGP_SIGNATURE not in signature:
        return Verdict(refusal=f"{name} is not signed: {anew}")
    said = last_line(said)
    return Verdict(
        refusal=f"the signature of {name} is not good (git: {said}): {anew}", passing=True
    )


def _signer(said: str) -> str:
    """Who signed, in the words of the file of keys, and with which key."""
    if good := _SSH_GOOD.search(said):
        who, key = good["who"], good["key"]
    else:
        named, valid = _GPG_GOOD.search(said), _GPG_VALID.search(said)
        who = named["who"] if named else "unnamed"
        key = valid["key"] if valid else ""
    return f"{shown(who)[:_LONGEST_SIGNER]} {key}".strip()


def _read(file: Path | None) -> bytes:
    if file is None:
        return b""
    try:
        with file.open("rb") as stream:
            content = stream.read(_LONGEST_FILE + 1)
    except OSError as error:
        raise SourceError(f"{file}: {error.strerror}; mount it, or correct its path") from error
    if len(content) > _LONGEST_FILE:
        raise SourceError(f"{file}: more than {_LONGEST_FILE} bytes are no file of keys")
    return content


def _has_signers(content: bytes) -> bool:
    lines = (line.strip() for line in content.splitlines())
    return any(line and not line.startswith(b"#") for line in lines)


def _binary_keys(content: bytes, file: Path) -> bytes:
    """Bring OpenPGP keys to the form that gpg keeps them in.

    Raises:
        SourceError: they are none, or not public ones.
    """
    if _PRIVATE in content:
        raise SourceError(f"{file}: this is a private key; give what gpg --export writes")
    try:
        if _ARMORED in content:
            lines = content.replace(b"\r\n", b"\n")
            content = b"".join(
                base64.b64decode(b"".join(block["body"].split()), validate=True)
                for block in _ARMOR.finditer(lines)
            )
    except binascii.Error as error:
        raise SourceError(
            f"{file}: an armored key in it is damaged; write it anew with gpg --export --armor"
        ) from error
    if not content or not content[0] & _PACKET:
        raise SourceError(f"{file}: there is no OpenPGP key in it; give what gpg --export writes")
    return content


def _require_programs(git: Git, keys: Keys) -> None:
    path = git.environment.get("PATH")
    for wanted, program, package in (
        (keys.allowed_signers, "ssh-keygen", "openssh-client"),
        (keys.openpgp, "gpg", "gnupg"),
    ):
        if wanted and shutil.which(program, path=path) is None:
            raise SourceError(
                f"{git.where}: there is no {program} command, which checks signatures; install"
                f" {package}"
            )


def _sweep(private: Path) -> None:
    """Remove what a killed process of ours left."""
    oldest = time.time() - _LEFT_BEHIND
    for folder in private.glob(_PREFIX + "*"):
        with contextlib.suppress(FileNotFoundError):
            if folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)
