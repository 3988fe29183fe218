"""Signatures of commits and tags, with real keys and the real git."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.domain.errors import SourceError, Unverified, UsageError
from openfero_gitops.domain.signature import Verify
from openfero_gitops.sources.git.signatures import Trust
from openfero_gitops.sources.git.source import GitSettings, GitSource
from tests.support.descendants import descendants, open_files
from tests.support.repository import Repository
from tests.support.signing import (
    allow,
    fingerprint,
    key_ring,
    ssh_signer,
    stop_signing,
    weak_ssh_signer,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openfero_gitops.domain.catalog import Snapshot
    from tests.support.signing import KeyRing, Signer


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Create a repository with one unsigned operario at its root."""
    repository = Repository(tmp_path / "origin")
    repository.write("a.yaml", "a: 1\n")
    repository.commit("First")
    return repository


@pytest.fixture
def ada(tmp_path: Path) -> Signer:
    """Create a trusted signer."""
    return ssh_signer(tmp_path, "ada@git.example")


@pytest.fixture
def eve(tmp_path: Path) -> Signer:
    """Create a signer with an unknown key."""
    return ssh_signer(tmp_path, "eve@git.example")


@pytest.fixture
def allowed(ada: Signer, tmp_path: Path) -> Path:
    """Write the file of allowed signers, with Ada in it."""
    return allow(tmp_path / "allowed_signers", ada)


@pytest.fixture(scope="module")
def ring() -> Iterator[KeyRing]:
    """Create a home directory for OpenPGP keys."""
    with key_ring() as made:
        yield made


@pytest.fixture(scope="module")
def bob(ring: KeyRing) -> Signer:
    """Create a signer with an OpenPGP key."""
    return ring.signer("Bob <bob@git.example>")


def opened(repository: Repository, tmp_path: Path, trust: Trust, **settings: Any) -> GitSource:
    """Open a new source, with a cache beside the repository."""
    return GitSource(
        GitSettings(repository.url, tmp_path / "cache", trust=trust, **settings),
    )


async def fetch(repository: Repository, tmp_path: Path, trust: Trust, **settings: Any) -> Snapshot:
    """Fetch once."""
    source = opened(repository, tmp_path, trust, **settings)
    try:
        return await source.fetch()
    finally:
        await source.aclose()


def by_ssh(allowed: Path) -> Trust:
    """Require signed commits."""
    return Trust(Verify.COMMIT, allowed_signers_file=allowed)


def by_openpgp(tmp_path: Path, keys: bytes) -> Trust:
    """Require commits signed with OpenPGP keys."""
    file = tmp_path / "keyring"
    file.write_bytes(keys)
    return Trust(Verify.COMMIT, openpgp_keyring_file=file)


def git_verification(repository: Repository, commit: str, allowed: Path) -> str:
    """Verify a commit with git, and return its message."""
    argv = ["git", "-c", f"gpg.ssh.allowedSignersFile={allowed}", "verify-commit", commit]
    verified = subprocess.run(
        argv, cwd=repository.folder, capture_output=True, timeout=120, check=False
    )
    return verified.stderr.decode()


def signed_as_a_file(content: str, signer: Signer) -> str:
    """Return the signature of a text that is not a commit."""
    argv = ["ssh-keygen", "-Y", "sign", "-n", "file", "-f", signer.config["user.signingKey"]]
    made = subprocess.run(
        argv, input=content.encode(), capture_output=True, timeout=120, check=True
    )
    return made.stdout.decode().strip()


def put(file: Path, content: str | None) -> None:
    """Write a file, or remove it if there is no content."""
    if content is None:
        file.unlink()
    else:
        file.write_text(content)


class TestSsh:
    """Test commits signed with ssh keys."""

    async def test_a_trusted_signers_commit_is_read_and_carries_the_signer(
        self, repository: Repository, tmp_path: Path, ada: Signer, allowed: Path
    ) -> None:
        """The revision has the signer and the key."""
        ada.sign_in(repository)
        commit = repository.commit("Signed")

        snapshot = await fetch(repository, tmp_path, by_ssh(allowed))

        signer = f"ada@git.example {fingerprint(ada, tmp_path)}"
        assert snapshot.revision.commit == commit
        assert snapshot.revision.verified_signer == signer
        assert [file.verified_signer for file in snapshot.files] == [""]  # that of the revision

    async def test_a_commit_without_a_signature_is_rejected(
        self, repository: Repository, tmp_path: Path, ada: Signer, allowed: Path
    ) -> None:
        """The error says who must do what; the status has the rejected commit and its files."""
        ada.sign_in(repository)
        repository.commit("Signed")
        stop_signing(repository)
        repository.write("a.yaml", "evil")
        commit = repository.commit("Unsigned")

        with pytest.raises(Unverified) as refused:
            await fetch(repository, tmp_path, by_ssh(allowed))

        assert str(refused.value) == (
            f"Git repository {repository.url}: commit {commit[:12]} is not signed; have a trusted"
            " signer sign a commit on top of it (git commit --allow-empty --gpg-sign)"
        )
        assert refused.value.snapshot.revision.commit == commit
        assert refused.value.snapshot.revision.verified_signer == ""
        assert [file.content for file in refused.value.snapshot.files] == [b"evil"]

    async def test_a_key_that_nobody_knows_is_refused_though_git_calls_it_good(
        self, repository: Repository, tmp_path: Path, eve: Signer, allowed: Path
    ) -> None:
        """Git's message is `Good "git" signature` here too, so its exit code decides."""
        eve.sign_in(repository)
        commit = repository.commit("Signed by somebody")
        assert 'Good "git" signature' in git_verification(repository, commit, allowed)

        with pytest.raises(Unverified) as refused:
            await fetch(repository, tmp_path, by_ssh(allowed))

        assert fingerprint(eve, tmp_path) in str(refused.value)
        assert "add the key, or have a trusted signer" in str(refused.value)

    async def test_a_signature_is_invalid_for_another_commit(
        self, repository: Repository, tmp_path: Path, ada: Signer, allowed: Path
    ) -> None:
        """A signature that was copied from another commit is not valid."""
        ada.sign_in(repository)
        signed = repository.commit("Signed")
        raw = repository.git("cat-file", "commit", signed) + "\n"
        forged = repository.git(
            *("hash-object", "-w", "-t", "commit", "--stdin"),
            stdin=raw.replace("Signed", "Forged").encode(),
        )
        repository.git("update-ref", "refs/heads/main", forged)

        with pytest.raises(Unverified, match=r"signature of commit .* is not valid"):
            await fetch(repository, tmp_path, by_ssh(allowed))

    async def test_a_signature_for_another_purpose_is_none(
        self, repository: Repository, tmp_path: Path, ada: Signer, allowed: Path
    ) -> None:
        """A signature that Ada made for a file or a mail is not valid for a commit."""
        tree = repository.git("rev-parse", "HEAD^{tree}")
        identity = "Ada <ada@git.example> 1790000600 +0000"
        head = f"tree {tree}\nparent {repository.head}\nauthor {identity}\ncommitter {identity}\n"
        content = head + "\nPasted\n"
        lines = "\n ".join(signed_as_a_file(content, ada).splitlines())
        commit = repository.git(
            *("hash-object", "-w", "-t", "commit", "--stdin"),
            stdin=f"{head}gpgsig {lines}\n\nPasted\n".encode(),
        )
        repository.git("update-ref", "refs/heads/main", commit)

        with pytest.raises(Unverified, match=r"not valid|not an allowed"):
            await fetch(repository, tmp_path, by_ssh(allowed))

    async def test_the_signed_tip_covers_its_ancestors(
        self, repository: Repository, tmp_path: Path, ada: Signer, allowed: Path
    ) -> None:
        """An unsigned commit is accepted as the ancestor of a signed one."""
        repository.write("a.yaml", "a: 2\n")
        repository.commit("Unsigned")
        ada.sign_in(repository)
        repository.commit("I have looked at it")

        snapshot = await fetch(repository, tmp_path, by_ssh(allowed))

        assert [file.content for file in snapshot.files] == [b"a: 2\n"]

    async def test_a_merge_made_by_the_forge_is_signed_by_the_forge(
        self, repository: Repository, tmp_path: Path, ada: Signer, allowed: Path
    ) -> None:
        """The merge's own signature counts, not those of the merged commits."""
        forge = ssh_signer(tmp_path, "noreply@forge.example")
        repository.branch("side")
        ada.sign_in(repository)
        repository.write("a.yaml", "a: 2\n")
        repository.commit("Signed by Ada")
        repository.switch("main")
        forge.sign_in(repository)
        merged = repository.merge("side", "Merge")

        with pytest.raises(Unverified, match="not an allowed signer"):
            await fetch(repository, tmp_path, by_ssh(allowed))

        allow(allowed, ada, forge)
        revision = (await fetch(repository, tmp_path, by_ssh(allowed))).revision
        assert revision.commit == merged
        assert revision.verified_signer.startswith("noreply@forge.example ")

    async def test_the_file_of_signers_is_read_again_when_it_changed(
        self, repository: Repository, tmp_path: Path, ada: Signer, eve: Signer, allowed: Path
    ) -> None:
        """The same commit is accepted after its signer is added, and rejected after removal."""
        ada.sign_in(repository)
        commit = repository.commit("Signed")
        allow(allowed, eve)
        source = opened(repository, tmp_path, by_ssh(allowed))

        for _ in range(2):
            with pytest.raises(Unverified, match="not an allowed signer"):
                await source.fetch()
        allow(allowed, eve, ada)
        first = await source.fetch()
        assert first.revision.commit == commit
        assert await source.fetch() is first
        allow(allowed, eve)
        with pytest.raises(Unverified, match="not an allowed signer"):
            await source.fetch()
        await source.aclose()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "No such file or directory; mount it"),
            ("# nobody\n\n", "the file contains no signer"),
        ],
    )
    async def test_an_unusable_file_of_signers_is_reported(
        self,
        repository: Repository,
        tmp_path: Path,
        ada: Signer,
        allowed: Path,
        content: str | None,
        message: str,
    ) -> None:
        """Without signers nothing is accepted, but the revision is not rejected permanently."""
        ada.sign_in(repository)
        commit = repository.commit("Signed")
        put(allowed, content)
        source = opened(repository, tmp_path, by_ssh(allowed))

        with pytest.raises(SourceError, match=f"{allowed}: {message}") as failed:
            await source.fetch()
        assert not isinstance(failed.value, Unverified)

        allow(allowed, ada)
        assert (await source.fetch()).revision.commit == commit
        await source.aclose()

    async def test_an_expired_key_verifies_commits_dated_earlier(
        self, repository: Repository, tmp_path: Path, ada: Signer, allowed: Path
    ) -> None:
        """`valid-before` is compared with the signer's date; only removing a key revokes it."""
        allow(allowed, ada, options='valid-before="20200101"')
        ada.sign_in(repository)
        repository.commit("Of today")
        with pytest.raises(Unverified, match="at the time"):
            await fetch(repository, tmp_path, by_ssh(allowed))
        repository._clock = 1_500_000_000  # an author can choose any date
        commit = repository.commit("Said to be of 2017")
        assert (await fetch(repository, tmp_path, by_ssh(allowed))).revision.commit == commit

        allow(allowed, ssh_signer(tmp_path, "carol@git.example"))

        with pytest.raises(Unverified, match="not an allowed signer"):
            await fetch(repository, tmp_path, by_ssh(allowed))

    async def test_a_rejected_commit_does_not_recreate_the_cache(
        self, repository: Repository, tmp_path: Path, allowed: Path
    ) -> None:
        """The commit is fetched once, and verifying it leaves no files."""
        source = opened(repository, tmp_path, by_ssh(allowed))
        with pytest.raises(Unverified):
            await source.fetch()
        [folder] = (tmp_path / "cache").iterdir()
        made = (folder / "repository.git").stat().st_ino
        files, children = open_files(), descendants()

        for _ in range(3):
            with pytest.raises(Unverified):
                await source.fetch()

        assert (folder / "repository.git").stat().st_ino == made
        assert list(folder.glob("trust-*")) == []
        assert (open_files(), descendants()) == (files, children)
        await source.aclose()

    async def test_files_of_a_killed_process_are_removed(
        self, repository: Repository, tmp_path: Path, ada: Signer, allowed: Path
    ) -> None:
        """An old folder of keys is removed as abandoned, a recent one stays."""
        ada.sign_in(repository)
        repository.commit("Signed")
        await fetch(repository, tmp_path, by_ssh(allowed))
        [folder] = (tmp_path / "cache").iterdir()
        old, young = folder / "trust-old", folder / "trust-young"
        for left in (old, young):
            left.mkdir()
            (left / "allowed_signers").touch()
        os.utime(old, (0, 0))

        await fetch(repository, tmp_path, by_ssh(allowed))

        assert list(folder.glob("trust-*")) == [young]

    async def test_a_missing_program_is_reported(
        self,
        repository: Repository,
        tmp_path: Path,
        allowed: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Without ssh-keygen nothing is verified, and the message says what to install."""
        programs = tmp_path / "bin"
        programs.mkdir()
        for name in ("git", "sh"):
            (programs / name).symlink_to(shutil.which(name) or name)
        monkeypatch.setenv("PATH", str(programs))

        with pytest.raises(SourceError, match=r"ssh-keygen command.* openssh-client"):
            await fetch(repository, tmp_path, by_ssh(allowed))

    async def test_a_local_fault_does_not_make_a_signature_invalid(
        self,
        repository: Repository,
        tmp_path: Path,
        ada: Signer,
        allowed: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """ssh-keygen needs a user name: its absence is reported, and no revision is rejected."""
        ada.sign_in(repository)
        commit = repository.commit("Signed")
        nameless = tmp_path / "bin" / "ssh-keygen"
        nameless.parent.mkdir()
        put(nameless, "#!/bin/sh\necho 'No user exists for uid 4242' >&2\nexit 255\n")
        nameless.chmod(0o755)
        source = opened(repository, tmp_path, by_ssh(allowed))
        with monkeypatch.context() as patch:
            patch.setenv("PATH", f"{nameless.parent}:{os.environ['PATH']}")

            with pytest.raises(SourceError, match="No user exists for uid 4242") as failed:
                await source.fetch()
            assert not isinstance(failed.value, Unverified)

        assert (await source.fetch()).revision.commit == commit
        await source.aclose()

    @pytest.mark.parametrize(
        ("algorithm", "hashed", "named"),
        [
            ("ssh-rsa", "sha512", "ssh-rsa"),
            ("ssh-rsa", "sha256", "ssh-rsa"),
            ("rsa-sha2-256", "sha1", "sha1"),
            ("rsa-sha2-256", "md5", "md5"),
        ],
    )
    @pytest.mark.parametrize("verify", [Verify.COMMIT, Verify.TAG])
    async def test_a_weak_algorithm_is_rejected(
        self,
        repository: Repository,
        tmp_path: Path,
        algorithm: str,
        hashed: str,
        named: str,
        verify: Verify,
    ) -> None:
        """ssh-keygen refuses signatures with SHA-1; the message names the algorithm."""
        weak = weak_ssh_signer(tmp_path, "wim@git.example", algorithm=algorithm, hashed=hashed)
        weak.sign_in(repository)
        repository.commit("Signed")
        repository.tag("v1", "Release")
        trust = Trust(verify, allowed_signers_file=allow(tmp_path / "allowed", weak))

        with pytest.raises(Unverified) as refused:
            await fetch(repository, tmp_path, trust, ref="v1" if verify is Verify.TAG else "HEAD")

        assert f"with the SSH algorithm {named}, which is too weak to be" in str(refused.value)

    async def test_an_rsa_key_with_sha2_is_accepted(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        """Not the kind of key is weak, but the digest."""
        strong = weak_ssh_signer(tmp_path, "wim@git.example", algorithm="rsa-sha2-256")
        strong.sign_in(repository)
        repository.commit("Signed")

        trust = by_ssh(allow(tmp_path / "allowed", strong))
        assert (await fetch(repository, tmp_path, trust)).revision.verified_signer


class TestOpenPgp:
    """Test commits signed with OpenPGP keys."""

    @pytest.mark.parametrize("form", ["armored", "binary", "with CRLF"])
    async def test_a_trusted_signers_commit_is_read_and_carries_the_signer(
        self, repository: Repository, tmp_path: Path, ring: KeyRing, bob: Signer, form: str
    ) -> None:
        """The keyring file is the output of `gpg --export`, and may have several keys."""
        carol = ring.signer(f"Carol {form} <carol@git.example>")
        bob.sign_in(repository)
        repository.commit("Signed by Bob")
        armor = form != "binary"
        exported = ring.export(carol, armor=armor) + ring.export(bob, armor=armor)
        if form == "with CRLF":
            exported = exported.replace(b"\n", b"\r\n")
        trust = by_openpgp(tmp_path, exported)

        revision = (await fetch(repository, tmp_path, trust)).revision

        assert revision.verified_signer == f"Bob <bob@git.example> {bob.key}"
        carol.sign_in(repository)
        repository.commit("Signed by Carol")
        revision = (await fetch(repository, tmp_path, trust)).revision
        assert revision.verified_signer == f"{carol.name} {carol.key}"

    async def test_a_key_that_is_not_in_the_file_is_rejected(
        self, repository: Repository, tmp_path: Path, ring: KeyRing, bob: Signer
    ) -> None:
        """No key is looked up elsewhere."""
        dan = ring.signer("Dan <dan@git.example>")
        dan.sign_in(repository)
        repository.commit("Signed by Dan")

        with pytest.raises(Unverified, match=rf"OpenPGP key {dan.key[-16:]}, which is not in"):
            await fetch(repository, tmp_path, by_openpgp(tmp_path, ring.export(bob)))

    async def test_a_revoked_key_is_rejected(
        self, repository: Repository, tmp_path: Path, ring: KeyRing
    ) -> None:
        """A revoked key in the file makes no valid signatures."""
        fay = ring.signer("Fay <fay@git.example>")
        fay.sign_in(repository)
        repository.commit("Signed by Fay")
        trust = by_openpgp(tmp_path, ring.export(fay))
        source = opened(repository, tmp_path, trust)
        await source.fetch()
        ring.revoke(fay)
        by_openpgp(tmp_path, ring.export(fay))

        with pytest.raises(Unverified, match="which is revoked; have a trusted signer"):
            await source.fetch()
        await source.aclose()

    async def test_an_expired_key_is_rejected(
        self, repository: Repository, tmp_path: Path, ring: KeyRing
    ) -> None:
        """This includes commits dated while the key was valid."""
        old = ring.signer("Gil <gil@git.example>", made="20200102T000000", expires="1d")
        old.sign_in(repository)
        repository.commit("Signed by Gil")

        with pytest.raises(Unverified, match="which is expired; have a trusted signer"):
            await fetch(repository, tmp_path, by_openpgp(tmp_path, ring.export(old)))

    @pytest.mark.parametrize("digest", ["SHA256", "SHA384", "SHA512", "SHA224"])
    @pytest.mark.parametrize("algorithm", ["ed25519", "rsa2048"])
    async def test_a_strong_digest_is_accepted(
        self, repository: Repository, tmp_path: Path, ring: KeyRing, digest: str, algorithm: str
    ) -> None:
        """Every digest of the SHA-2 family is strong enough."""
        person = f"{digest} {algorithm} <a@git.example>"
        signer = ring.signer(person, algorithm=algorithm, options=("--digest-algo", digest))
        signer.sign_in(repository)
        repository.commit("Signed")

        revision = await fetch(repository, tmp_path, by_openpgp(tmp_path, ring.export(signer)))
        assert revision.revision.verified_signer == f"{person} {signer.key}"

    @pytest.mark.parametrize(
        ("digest", "named"), [("SHA1", "SHA-1"), ("RIPEMD160", "RIPEMD-160"), ("MD5", "MD5")]
    )
    @pytest.mark.parametrize("algorithm", ["ed25519", "rsa2048"])
    @pytest.mark.parametrize("verify", [Verify.COMMIT, Verify.TAG])
    async def test_a_weak_digest_is_rejected(
        self,
        repository: Repository,
        tmp_path: Path,
        ring: KeyRing,
        digest: str,
        named: str,
        algorithm: str,
        verify: Verify,
    ) -> None:
        """A trusted key does not help, since the signature may be for another commit."""
        if digest == "MD5" and algorithm == "ed25519":
            algorithm = "rsa3072"  # gpg makes no such signature with the other
        weak = ("--allow-weak-digest-algos", "--digest-algo", digest)
        person = f"{digest} {algorithm} {verify} <a@git.example>"
        signer = ring.signer(person, algorithm=algorithm, options=weak)
        signer.sign_in(repository)
        repository.commit("Signed")
        repository.tag("v1", "Release")
        by_openpgp(tmp_path, ring.export(signer))
        trust = Trust(verify, openpgp_keyring_file=tmp_path / "keyring")

        with pytest.raises(Unverified) as refused:
            await fetch(repository, tmp_path, trust, ref="v1" if verify is Verify.TAG else "HEAD")

        assert f"over a {named} digest, which is too weak to be trusted" in str(refused.value)
        assert signer.key[-16:] in str(refused.value)
        assert "GNUPG" not in str(refused.value)

    async def test_an_old_key_with_a_sha1_certification_is_accepted(
        self, repository: Repository, tmp_path: Path, ring: KeyRing
    ) -> None:
        """The key file says which keys are trusted, not how their user IDs were certified."""
        options = ("--cert-digest-algo", "SHA1")
        signer = ring.signer("Old <old@git.example>", algorithm="rsa2048", key_options=options)
        signer.sign_in(repository)
        repository.commit("Signed")

        snapshot = await fetch(repository, tmp_path, by_openpgp(tmp_path, ring.export(signer)))
        assert snapshot.revision.verified_signer == f"Old <old@git.example> {signer.key}"

    async def test_a_key_that_gpg_rejects_is_explained(
        self, repository: Repository, tmp_path: Path, ring: KeyRing
    ) -> None:
        """A user ID that is certified with MD5 makes the whole key unusable."""
        weak = ("--allow-weak-digest-algos",)
        options = ("--cert-digest-algo", "MD5", *weak)
        person = "Older <older@git.example>"
        signer = ring.signer(person, algorithm="rsa2048", options=weak, key_options=options)
        signer.sign_in(repository)
        repository.commit("Signed")

        with pytest.raises(Unverified) as refused:
            await fetch(repository, tmp_path, by_openpgp(tmp_path, ring.export(signer)))

        assert "its user ID is certified with MD5, which is too weak" in str(refused.value)
        assert f"gpg --quick-set-expire {signer.key[-16:]} 2y" in str(refused.value)

    async def test_a_key_of_the_future_names_the_clock(
        self, repository: Repository, tmp_path: Path, ring: KeyRing
    ) -> None:
        """Gpg rejects it until the clock has reached it; then it is accepted without a change."""
        signer = ring.signer("Zoe <zoe@git.example>", made="20500102T000000")
        signer.sign_in(repository)
        repository.commit("Signed by Zoe")
        source = opened(repository, tmp_path, by_openpgp(tmp_path, ring.export(signer)))
        try:
            with pytest.raises(Unverified) as refused:
                await source.fetch()
        finally:
            await source.aclose()

        text = str(refused.value)
        assert re.search(r"was created \d+ days in the future by the clock of this machine", text)
        assert "GNUPG" not in text

    async def test_a_key_newer_than_its_signature_names_the_clock(
        self, repository: Repository, tmp_path: Path, ring: KeyRing
    ) -> None:
        """The clock of the machine that signed was wrong."""
        early = ("--faked-system-time", "20190102T000000", "--ignore-time-conflict")
        options = (*early, "--ignore-valid-from")
        signer = ring.signer("Yan <yan@git.example>", options=options)
        signer.sign_in(repository)
        repository.commit("Signed by Yan")

        with pytest.raises(
            Unverified, match=r"\d+ days newer than the signature; correct the clock"
        ):
            await fetch(repository, tmp_path, by_openpgp(tmp_path, ring.export(signer)))

    async def test_a_signature_that_expired_is_rejected(
        self, repository: Repository, tmp_path: Path, ring: KeyRing
    ) -> None:
        """A signature can have an end of its own, whatever the key's."""
        options = ("--default-sig-expire", "1d", "--faked-system-time", "20210102T000000")
        signer = ring.signer("Xia <xia@git.example>", made="20200102T000000", options=options[:2])
        signer.sign_in(repository)
        repository.commit("Signed by Xia")

        with pytest.raises(Unverified, match="but the signature itself has expired"):
            await fetch(repository, tmp_path, by_openpgp(tmp_path, ring.export(signer)))

    @pytest.mark.parametrize("spoiled", ["content", "signature", "no signature"])
    async def test_a_spoiled_signature_is_explained_without_status_lines(
        self, repository: Repository, tmp_path: Path, ring: KeyRing, bob: Signer, spoiled: str
    ) -> None:
        """The lines that gpg prints for programs are not shown to people."""
        bob.sign_in(repository)
        commit = repository.commit("Signed by Bob")
        raw = repository.git("cat-file", "commit", commit) + "\n"
        match spoiled:
            case "content":
                raw = raw.replace("Signed by Bob", "Signed by Bop")
            case "signature":
                raw = re.sub(r"\n [A-Za-z0-9+/]{10}", "\n AAAAAAAAAA", raw, count=1)
            case _:
                raw = re.sub(
                    r"(BEGIN PGP SIGNATURE-----\n).*?( -----END)", r"\1 \n\2", raw, flags=re.DOTALL
                )
        spoiled_commit = repository.git(
            "hash-object", "-t", "commit", "-w", "--stdin", stdin=raw.encode()
        )
        repository.git("reset", "--quiet", "--hard", spoiled_commit)

        with pytest.raises(Unverified) as refused:
            await fetch(repository, tmp_path, by_openpgp(tmp_path, ring.export(bob)))

        assert "GNUPG" not in str(refused.value)
        assert re.search(r"for other content|is not valid \(gpg: ", str(refused.value))
        assert "have a trusted signer sign" in str(refused.value)

    async def test_each_file_trusts_keys_of_its_kind_only(
        self, repository: Repository, tmp_path: Path, ring: KeyRing, bob: Signer, ada: Signer
    ) -> None:
        """With both files both kinds of keys are trusted; with one file only its kind."""
        keyring = ring.export(bob)
        ada.sign_in(repository)
        repository.commit("Signed by Ada")
        with pytest.raises(Unverified):
            await fetch(repository, tmp_path, by_openpgp(tmp_path, keyring))
        allowed = allow(tmp_path / "allowed_signers", ada)
        bob.sign_in(repository)
        repository.commit("Signed by Bob")
        with pytest.raises(Unverified, match="not in the keyring file"):
            await fetch(repository, tmp_path, by_ssh(allowed))

        both = Trust(Verify.COMMIT, allowed, by_openpgp(tmp_path, keyring).openpgp_keyring_file)
        assert (await fetch(repository, tmp_path, both)).revision.verified_signer.startswith("Bob")
        ada.sign_in(repository)
        repository.commit("Signed by Ada again")
        assert (await fetch(repository, tmp_path, both)).revision.verified_signer.startswith("ada@")

    async def test_a_file_that_is_not_a_keyring_is_reported(
        self, repository: Repository, tmp_path: Path, ring: KeyRing, bob: Signer
    ) -> None:
        """This includes a private key, which must not be mounted."""
        armored = ring.export(bob)
        wrong = {
            "the file contains no OpenPGP key": b"ssh-ed25519 AAAA ada\n",
            "the file contains a private key": ring.export_secret(bob),
            "the file contains a damaged armored key": armored.replace(b"\n\n", b"\n\n!", 1),
        }

        for message, content in wrong.items():
            with pytest.raises(SourceError, match=f"{tmp_path / 'keyring'}: {message}"):
                await fetch(repository, tmp_path, by_openpgp(tmp_path, content))


class TestTags:
    """Test tags that must be signed."""

    @pytest.mark.parametrize("ref", ["live", "refs/tags/live"])
    async def test_the_commit_of_a_signed_tag_is_accepted(
        self, repository: Repository, tmp_path: Path, ada: Signer, allowed: Path, ref: str
    ) -> None:
        """The commit itself need not be signed."""
        commit = repository.head
        ada.sign_in(repository)
        repository.tag("live", "Released")

        trust = Trust(Verify.TAG, allowed)
        revision = (await fetch(repository, tmp_path, trust, ref=ref)).revision

        assert revision.commit == commit
        assert revision.verified_signer.startswith("ada@git.example SHA256:")

    async def test_a_tag_without_a_trusted_signature_is_rejected(
        self, repository: Repository, tmp_path: Path, ada: Signer, eve: Signer, allowed: Path
    ) -> None:
        """Plain tags, unsigned tags and tags of untrusted signers have different messages."""
        ada.sign_in(repository)
        repository.commit("A signed commit is no signed tag")
        stop_signing(repository)
        repository.tag("plain")
        repository.tag("annotated", "x")
        eve.sign_in(repository)
        repository.tag("somebody", "x")
        trust = Trust(Verify.TAG, allowed)

        for ref, message in (
            ("plain", "plain is not an annotated tag, but"),
            ("annotated", "tag .* is not signed; have a trusted signer replace it"),
            ("somebody", "not an allowed signer"),
        ):
            with pytest.raises(Unverified, match=message):
                await fetch(repository, tmp_path, trust, ref=ref)

    async def test_a_signed_tag_cannot_be_given_another_name(
        self, repository: Repository, tmp_path: Path, ada: Signer, allowed: Path
    ) -> None:
        """Without a key, a moved ref cannot present an old release under the live tag's name."""
        ada.sign_in(repository)
        repository.tag("v1", "The first")
        repository.git("update-ref", "refs/tags/live", repository.git("rev-parse", "v1"))

        with pytest.raises(Unverified, match="holds a tag that was signed under the name v1"):
            await fetch(repository, tmp_path, Trust(Verify.TAG, allowed), ref="live")

    async def test_a_tag_dated_before_its_commit_is_refused(
        self, repository: Repository, tmp_path: Path, ada: Signer, allowed: Path
    ) -> None:
        """An expired key cannot sign a current release with an earlier date."""
        allow(allowed, ada, options='valid-before="20200101"')
        ada.sign_in(repository)
        repository._clock, now = 1_500_000_000, repository._clock
        repository.tag("live", "Said to be of 2017")

        with pytest.raises(Unverified, match="live is dated more than a day before its commit"):
            await fetch(repository, tmp_path, Trust(Verify.TAG, allowed), ref="live")

        repository._clock = now
        allow(allowed, ada)
        repository.git("tag", "--force", "--annotate", "--message", "Of today", "live")
        trust = Trust(Verify.TAG, allowed)
        assert (await fetch(repository, tmp_path, trust, ref="live")).revision.verified_signer

    async def test_a_branch_does_not_take_the_place_of_the_tag(
        self, repository: Repository, tmp_path: Path, ada: Signer, allowed: Path
    ) -> None:
        """Only a tag is fetched."""
        ada.sign_in(repository)
        repository.tag("live", "Released")
        commit = repository.head
        repository.branch("live")
        repository.commit("On the branch")

        trust = Trust(Verify.TAG, allowed)
        assert (await fetch(repository, tmp_path, trust, ref="live")).revision.commit == commit

    @pytest.mark.parametrize("ref", ["HEAD", "refs/heads/main", "0" * 40])
    def test_a_ref_that_is_not_a_tag_is_an_error(
        self, repository: Repository, tmp_path: Path, allowed: Path, ref: str
    ) -> None:
        """The error is raised at the start, not at the first fetch."""
        with pytest.raises(UsageError, match="--verify tag needs the name of a tag"):
            opened(repository, tmp_path, Trust(Verify.TAG, allowed), ref=ref)

    async def test_a_tag_does_not_cover_earlier_commits(
        self, repository: Repository, tmp_path: Path, ada: Signer, allowed: Path
    ) -> None:
        """A tag makes no older commit or version acceptable."""
        first = repository.head
        ada.sign_in(repository)
        repository.write("a.yaml", "a: 2\n")
        commit = repository.commit("Second")
        repository.tag("live", "Released")
        source = opened(repository, tmp_path, Trust(Verify.TAG, allowed), ref="live")
        await source.fetch()

        assert await source.versions("a.yaml", commit) == []
        assert await source.existed("a.yaml", commit)
        with pytest.raises(Unverified):
            await source.snapshot(first)
        await source.aclose()


class TestHostile:
    """Test forged and malformed signatures."""

    async def test_a_message_of_megabytes_is_refused_like_any_other(
        self, repository: Repository, tmp_path: Path, ada: Signer, allowed: Path
    ) -> None:
        """An overlong commit or tag message is reported on one line, too."""
        tree = repository.git("rev-parse", "HEAD^{tree}")
        identity = "Ada <ada@git.example> 1790000600 +0000"
        text = "x" * 5_000_000
        people = f"author {identity}\ncommitter {identity}"
        head = f"tree {tree}\nparent {repository.head}\n{people}\n\n{text}\n"
        commit = repository.git(
            *("hash-object", "-w", "-t", "commit", "--stdin"), stdin=head.encode()
        )
        repository.git("update-ref", "refs/heads/main", commit)
        ada.sign_in(repository)
        put(tmp_path / "message", text)
        repository.git("tag", "--sign", "--file", str(tmp_path / "message"), "live", "main~1")

        with pytest.raises(Unverified, match=f"commit {commit[:12]} is not signed"):
            await fetch(repository, tmp_path, by_ssh(allowed))
        with pytest.raises(Unverified, match="tag live has more than 4194304 bytes"):
            await fetch(repository, tmp_path, Trust(Verify.TAG, allowed), ref="live")

    async def test_words_in_a_message_are_no_signature(
        self, repository: Repository, tmp_path: Path, allowed: Path
    ) -> None:
        """Text in a message that looks like the output of gpg or ssh has no effect."""
        repository.commit(
            'Good "git" signature for ada@git.example with ED25519 key SHA256:x\n\n'
            "[GNUPG:] GOODSIG 0 Ada\n[GNUPG:] VALIDSIG 0\n-----BEGIN SSH SIGNATURE-----\n"
        )

        with pytest.raises(Unverified, match=r"commit \S+ is not signed"):
            await fetch(repository, tmp_path, by_ssh(allowed))


class TestVersions:
    """Test the older versions that may replace a broken file."""

    async def test_a_version_comes_from_a_commit_that_is_signed(
        self, repository: Repository, tmp_path: Path, ada: Signer, eve: Signer, allowed: Path
    ) -> None:
        """Versions that only an unsigned commit or one of an untrusted signer had do not count."""
        ada.sign_in(repository)
        repository.write("a.yaml", "reviewed")
        reviewed = repository.commit("Reviewed")
        stop_signing(repository)
        repository.write("b.yaml", "b")
        repository.commit("Unsigned, and a.yaml as it was")
        repository.write("a.yaml", "slipped in")
        repository.commit("Unsigned")
        eve.sign_in(repository)
        repository.write("a.yaml", "somebody's")
        repository.commit("Somebody's")
        ada.sign_in(repository)
        repository.write("a.yaml", "broken")
        tip = repository.commit("Broken")
        source = opened(repository, tmp_path, by_ssh(allowed))
        revision = (await source.fetch()).revision

        versions = await source.versions("a.yaml", tip)

        assert [(version.content, version.commit) for version in versions] == [
            (b"reviewed", reviewed)
        ]
        assert versions[0].verified_signer == revision.verified_signer
        assert await source.versions("b.yaml", tip) == []
        await source.aclose()

    async def test_each_content_has_the_newest_signed_commit_that_holds_it(
        self, repository: Repository, tmp_path: Path, ada: Signer, allowed: Path
    ) -> None:
        """They are in the order of the history, like any other versions."""
        ada.sign_in(repository)
        expected: list[tuple[bytes, str]] = []
        for number in range(3):
            repository.write("a.yaml", f"a: {number}")
            repository.commit("Changed")
            repository.write("other.yaml", f"{number}")
            signed = repository.commit("Something else")
            expected.insert(0, (b"a: %d" % number, signed))
            stop_signing(repository)
            repository.write("other.yaml", f"{number} and more")
            repository.commit("Not signed")
            ada.sign_in(repository)
        repository.write("a.yaml", "broken")
        tip = repository.commit("Broken")
        source = opened(repository, tmp_path, by_ssh(allowed))
        await source.fetch()

        versions = await source.versions("a.yaml", tip)

        assert [(version.content, version.commit) for version in versions] == expected
        await source.aclose()

    async def test_an_older_commit_is_read_only_if_it_is_signed(
        self, repository: Repository, tmp_path: Path, ada: Signer, allowed: Path
    ) -> None:
        """Commits in the cache are verified, too."""
        unsigned = repository.head
        ada.sign_in(repository)
        signed = repository.commit("Signed")
        tip = repository.commit("Another")
        source = opened(repository, tmp_path, by_ssh(allowed))
        await source.fetch()

        assert await source.ancestors(tip) == [signed, unsigned]
        assert await source.ancestors(tip, 1) == [signed]
        assert (await source.snapshot(signed)).revision.commit == signed
        with pytest.raises(Unverified):
            await source.snapshot(unsigned)
        await source.aclose()


class TestSettings:
    """Test contradicting settings."""

    def test_signers_without_a_requirement_are_an_error(self, tmp_path: Path) -> None:
        """Signers without a requirement, and a requirement without signers, are errors."""
        with pytest.raises(UsageError, match="--verify is none; set --verify commit"):
            Trust(allowed_signers_file=tmp_path / "x")
        with pytest.raises(UsageError, match="--verify commit requires --allowed-signers-file"):
            Trust(Verify.COMMIT)
