"""Files of ssh: private keys, known hosts and allowed signers."""

from __future__ import annotations

import base64
import subprocess
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.keyfiles.content import UnusableFile
from openfero_gitops.keyfiles.ssh import allowed_signers, known_hosts, private_key
from tests.support.optional import require

if TYPE_CHECKING:
    from pathlib import Path

BOM = b"\xef\xbb\xbf"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make keys of several types, with and without a passphrase."""
    program = require("ssh-keygen", "apt-get install openssh-client", "ssh-keygen")
    folder = tmp_path_factory.mktemp("keys")
    for name, passphrase, options in (
        ("ed25519", "", ("-t", "ed25519")),
        ("ecdsa", "", ("-t", "ecdsa")),
        ("rsa-pem", "", ("-t", "rsa", "-b", "2048", "-m", "PEM")),
        ("rsa-pkcs8", "", ("-t", "rsa", "-b", "2048", "-m", "PKCS8")),
        ("locked", "s3cret", ("-t", "ed25519")),
        ("locked-pem", "s3cret", ("-t", "rsa", "-b", "2048", "-m", "PEM")),
        ("locked-pkcs8", "s3cret", ("-t", "rsa", "-b", "2048", "-m", "PKCS8")),
    ):
        subprocess.run(
            [program, "-q", *options, "-N", passphrase, "-C", "", "-f", str(folder / name)],
            timeout=60,
            check=True,
        )
    return folder


def public(folder: Path, name: str) -> bytes:
    """Return the public half of a key, as one line."""
    return (folder / f"{name}.pub").read_bytes().strip()


class TestPrivateKey:
    """A private key that works without a person."""

    @pytest.mark.parametrize("name", ["ed25519", "ecdsa", "rsa-pem", "rsa-pkcs8"])
    def test_a_key_stays_as_it_is(self, keys: Path, name: str) -> None:
        """A key as ssh-keygen writes it needs no repair, so no copy of it is made."""
        content = (keys / name).read_bytes()

        assert private_key(content).encode() == content

    @pytest.mark.parametrize("name", ["ed25519", "rsa-pem"])
    @pytest.mark.parametrize(
        "spoil",
        [
            lambda key: key.replace(b"\n", b"\r\n"),
            lambda key: key.replace(b"\n", b"\r"),
            lambda key: key.rstrip(b"\n"),
            lambda key: BOM + key,
            lambda key: b"\n \n" + key + b"\n\n",
            lambda key: b"    " + key.replace(b"\n", b"\n    "),
            lambda key: key.replace(b"\n", b" \n"),
            lambda key: key.replace(b"\n", b"\\n"),
            lambda key: key.replace(b"\n", b" ").strip(),
            lambda key: key.replace(b"\n", b"\n\n"),
        ],
        ids=[
            "crlf",
            "cr",
            "cut",
            "bom",
            "empty",
            "indented",
            "blanks",
            "escaped",
            "line",
            "double",
        ],
    )
    def test_traces_of_editors_are_repaired(
        self, keys: Path, tmp_path: Path, name: str, spoil: object
    ) -> None:
        """What ssh-keygen makes of the repaired key is its public half."""
        repaired = private_key(spoil((keys / name).read_bytes()))  # type: ignore[operator]
        file = tmp_path / "key"
        file.write_text(repaired)
        file.chmod(0o600)

        shown = subprocess.run(
            ["ssh-keygen", "-y", "-P", "", "-f", str(file)],
            stdout=subprocess.PIPE,
            timeout=120,
            check=True,
        )

        assert shown.stdout.split()[:2] == public(keys, name).split()[:2]

    @pytest.mark.parametrize("name", ["locked", "locked-pem", "locked-pkcs8"])
    def test_a_passphrase_is_named(self, keys: Path, name: str) -> None:
        """A key with a passphrase is refused in every format, and the way out is named."""
        with pytest.raises(UnusableFile, match=r"has a passphrase.*ssh-keygen -p -N ''"):
            private_key((keys / name).read_bytes())

    def test_another_file_is_named(self, keys: Path) -> None:
        """The cause is named for each file that is often mistaken for a private key."""
        key = (keys / "ed25519").read_bytes()
        causes = {
            b"": "the file is empty; it must contain a private SSH key",
            public(keys, "ed25519"): "the file contains the public key",
            public(keys, "rsa-pem"): "the file contains the public key",
            public(keys, "ecdsa"): "the file contains the public key",
            b"---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n": "the file contains the public key",
            b"-----BEGIN RSA PUBLIC KEY-----\nMIIB\n": "the file contains the public key",
            b"PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n": "the format of PuTTY",
            b"PuTTY-User-Key-File-2: ssh-rsa\r\n": "the format of PuTTY",
            b"<!DOCTYPE html><html><body>Sign in": "an HTML page",
            b"\n<html>": "an HTML page",
            base64.b64encode(key): "base64-encoded once too often",
            key.decode().encode("utf-16"): "UTF-16",
            key[: len(key) // 2]: "cut off: the line -----END OPENSSH PRIVATE KEY----- is missing",
            b"no key\n": "contains no private SSH key in PEM format",
            b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n": "a certificate, but",
            key.replace(b"b3Bl", b"b3Bm", 1): "damaged",
            key.replace(b"b3Bl", b"b*Bl", 1): "its base64 is not valid",
            b"\n".join(key.splitlines()[:2] + key.splitlines()[-1:]): "cut off",
            b"0\x82\x04\xa4\x02\x01\x00\x02\x82\x01\x01\x00\xc1\xf5": "binary DER format",
        }
        for content, cause in causes.items():
            with pytest.raises(UnusableFile) as refused:
                private_key(content)
            assert cause in str(refused.value), content


class TestKnownHosts:
    """The file of the host keys that are trusted."""

    @pytest.mark.parametrize(
        "begin",
        [
            b"git.example ",
            b"git.example,192.0.2.1 ",
            b"[git.example]:2222 ",
            b"|1|JfKTdBh7rNbXkVAQCRp4OQoPfmI=|USECr3SWf1JUPsms5AqfD5QfxkM= ",
            b"@cert-authority *.example ",
            BOM + b"git.example ",
            b"# git.example:22 SSH-2.0-OpenSSH\r\n\r\n  git.example\t",
            b"git.example 1024 35 1234\ngit.example ",
        ],
    )
    def test_a_host_key_is_enough(self, keys: Path, begin: bytes) -> None:
        """Every form of a line is accepted, beside comments and lines that ssh ignores, too."""
        read = known_hosts(begin + public(keys, "ed25519"))

        assert read.endswith("\n")
        assert "\r" not in read
        assert not read.startswith(("\ufeff", " "))

    def test_another_file_is_named(self, keys: Path) -> None:
        """The line and the cause are named."""
        key = public(keys, "ed25519")
        causes = {
            b"": "the file is empty; it must contain the lines that ssh-keyscan",
            b"# git.example:22 SSH-2.0-babeld\n": "contains no host key",
            key: "line 1 has no host name",
            b"# comment\n\n" + key: "line 3 has no host name",
            b"git.example SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDhk": "line 1 is a fingerprint",
            b"256 SHA256:+DiY3wvvV6TuJJhbpZisF git.example (ED25519)": "line 1 is a fingerprint",
            b"git.example\n": "line 1 is no host key",
            b"git.example ssh-ed25519\n": "line 1 is no host key",
            b"git.example ssh-ed25519 " + key.split()[1][:20]: "line 1 contains a damaged key",
            b"git.example ssh-ed25519 " + key.split()[1][:40]: "line 1 contains a damaged key",
            b"git.example ssh-rsa " + key.split()[1]: "another type than ssh-rsa",
            (keys / "ed25519").read_bytes(): "contains a private key",
            b"<html>": "an HTML page",
            (b"git.example " + key).decode().encode("utf-16"): "UTF-16",
        }
        for content, cause in causes.items():
            with pytest.raises(UnusableFile) as refused:
                known_hosts(content)
            number = f"line {refused.value.line} " if refused.value.line else ""
            assert cause in f"{number}{refused.value}", content


class TestAllowedSigners:
    """The file of the SSH keys that may sign."""

    @pytest.mark.parametrize(
        "begin",
        [
            b"ada@example.com ",
            b'ada@example.com namespaces="git" ',
            b'ada@example.com,bob@example.com namespaces="git,file",valid-before="20300101" ',
            b'"Ada Lovelace,ada" cert-authority ',
            BOM + b"ada@example.com ",
            b"# people\r\n\r\n \tada@example.com ",
        ],
    )
    def test_a_signer_is_enough(self, keys: Path, begin: bytes) -> None:
        """Every form of a line is accepted, and what editors leave is removed."""
        read = allowed_signers(begin + public(keys, "ed25519") + b" comment\r\n")

        assert read.splitlines()[-1].endswith(" comment")
        assert not read.startswith("\ufeff")

    def test_another_file_is_named(self, keys: Path) -> None:
        """The line and the cause are named."""
        key = public(keys, "ed25519")
        good = b"ada@example.com " + key + b"\n"
        causes = {
            b"": "the file is empty; it must contain lines such as",
            b"# nobody\n": "contains no signer",
            key: "line 1 begins with the key",
            good + b"\n" + key: "line 3 begins with the key",
            good + b"bob@example.com\n": "line 2 names no key",
            good + b"bob@example.com SHA256:uNiVztksCsDhcc0u9e8\n": "line 2 is a fingerprint",
            good + b"bob@example.com ssh-ed25519\n": "line 2 contains no key after ssh-ed25519",
            good + b"bob@example.com ssh-ed25519 AAAA\n": "line 2 contains a damaged key",
            good + b"bob@example.com ssh-rsa " + key.split()[1]: "another type than ssh-rsa",
            (keys / "ed25519").read_bytes(): "contains a private key",
            b"<html>": "an HTML page",
            good.decode().encode("utf-16"): "UTF-16",
        }
        for content, cause in causes.items():
            with pytest.raises(UnusableFile) as refused:
                allowed_signers(content)
            number = f"line {refused.value.line} " if refused.value.line else ""
            assert cause in f"{number}{refused.value}", content
