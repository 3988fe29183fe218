"""Reads what `git verify-commit` and `git verify-tag` print: the signer, or why there is none.

Git's exit code decides whether a signature is good. One more thing is decided here: a good OpenPGP
signature over an MD5, SHA-1 or RIPEMD-160 digest is refused, which gpg accepts by default (MD5
aside): somebody else can make another commit with the same digest. ssh-keygen refuses such
signatures itself.

Sources: doc/DETAILS of GnuPG for the status lines (`[GNUPG:] …`) that Git prints with `--raw`;
RFC 4880, section 9.4, for the numbers of digests; libgpg-error for the numbers of errors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from openfero_gitops.domain.text import printable
from openfero_gitops.sources.git.errors import last_line

_SSH_GOOD: Final = re.compile(
    r'^Good "git" signature for (?P<signer>.+) with \S+ key (?P<key>SHA256:\S+)$', re.MULTILINE
)
_SSH_KEY: Final = re.compile(r"with (?P<kind>\S+) key (?P<key>SHA256:\S+)$", re.MULTILINE)
_SSH_WEAK: Final = re.compile(
    r"unsupported RSA signature algorithm (?P<algorithm>\S+)"
    r'|unsupported hash algorithm "(?P<hash>[^"\n]+)"'
)
_GPG_GOOD: Final = re.compile(r"^\[GNUPG:\] GOODSIG \S+ (?P<signer>.+)$", re.MULTILINE)
_GPG_VALID: Final = re.compile(
    r"^\[GNUPG:\] VALIDSIG (?:\S+ ){7}(?P<digest>\d+) \S+ (?P<key>[0-9A-F]{40,64})", re.MULTILINE
)
_GPG_UNKNOWN: Final = re.compile(r"^\[GNUPG:\] NO_PUBKEY (?P<key>[0-9A-F]+)", re.MULTILINE)
_GPG_INVALID: Final = re.compile(
    r"^\[GNUPG:\] (?P<status>REVKEYSIG|EXPKEYSIG|EXPSIG|BADSIG) (?P<key>\S+)", re.MULTILINE
)
_GPG_ERROR: Final = re.compile(
    r"^\[GNUPG:\] ERRSIG (?P<key>\S+) \d+ (?P<digest>\d+) \S+ \d+ (?P<error>\d+)", re.MULTILINE
)
#: What gpg prints for people, and in no status line.
_FUTURE: Final = re.compile(r"key (?P<key>\S+) was created (?P<age>\d+ \w+) in the future")
_REJECTED_DIGEST: Final = re.compile(r"signatures using the (?P<digest>\w+) algorithm are rejected")
_NEWER: Final = re.compile(r"is (?P<age>\d+ \w+) newer than the signature")

_WEAK_DIGESTS: Final = {"1": "MD5", "2": "SHA-1", "3": "RIPEMD-160"}
_DIGEST_ALGORITHM: Final = "5"  # GPG_ERR_DIGEST_ALGO
_INVALID: Final = {
    "REVKEYSIG": "which is revoked",
    "EXPKEYSIG": "which is expired",
    "EXPSIG": "but the signature itself has expired",
    "BADSIG": "but the signature is for other content",
}
_STATUS: Final = re.compile(r"^\[GNUPG:\] [^\n]*\n?", re.MULTILINE)
#: What gpg says about a signature, without its lines that say only that there is one, or none.
_GPG_SAID: Final = re.compile(
    r"^(?!gpg: (?:Signature made|the signature could not be verified| ))(gpg: .*)$", re.MULTILINE
)

_SHA256_DIGITS: Final = 64  # of an ID
_SSH_SIGNATURE: Final = b"-----BEGIN SSH SIGNATURE-----"
_PGP_SIGNATURE: Final = b"-----BEGIN PGP "
_X509_SIGNATURE: Final = b"-----BEGIN SIGNED MESSAGE-----"


@dataclass(frozen=True, slots=True)
class SignatureVerdict:
    """The result for a commit or tag: its signer, or why it is not trusted.

    `transient` says that the machine may be the reason, so that the next attempt may differ.
    """

    signer: str = ""
    refusal: str = ""
    transient: bool = False


def accepted(kind: str, sha: str, output: str) -> SignatureVerdict:
    """Return the signer of a commit or tag whose signature Git calls good.

    Args:
        kind: `commit` or `tag`.
        sha: its ID.
        output: what Git printed to stderr with `--raw`.
    """
    if good := _SSH_GOOD.search(output):
        return SignatureVerdict(signer=f"{printable(good['signer'])} {good['key']}")
    named, valid = _GPG_GOOD.search(output), _GPG_VALID.search(output)
    if valid is None:
        return SignatureVerdict(
            refusal=f"{kind} {sha[:12]}: Git's report on its signature is unreadable; {_SIGN[kind]}"
        )
    if weak := _WEAK_DIGESTS.get(valid["digest"]):
        return SignatureVerdict(refusal=_weak(kind, sha, valid["key"], weak))
    signer = named["signer"] if named else "unnamed"
    return SignatureVerdict(signer=f"{printable(signer)} {valid['key']}")


def refused(kind: str, sha: str, content: bytes, output: str, explained: str) -> SignatureVerdict:
    """Explain why Git does not accept a signature, and who must do what.

    Args:
        kind: `commit` or `tag`.
        sha: its ID.
        content: the raw object.
        output: what Git printed to stderr with `--raw`.
        explained: the same without `--raw`, for people.
    """
    name, sign = f"{kind} {sha[:12]}", _SIGN[kind]
    if reason := _openpgp_reason(kind, sha, output, explained):
        return SignatureVerdict(refusal=reason, transient=_FUTURE.search(explained) is not None)
    if "No principal matched" in output and (key := _SSH_KEY.search(output)):
        return SignatureVerdict(
            refusal=f"{name} is signed with the {key['kind']} key {key['key']}, which was not an"
            f" allowed signer at the time of the signature; add the key, or {sign}"
        )
    if weak := _SSH_WEAK.search(output):
        algorithm = printable(weak["algorithm"] or weak["hash"])
        return SignatureVerdict(
            refusal=f"{name} is signed with the SSH algorithm {algorithm}, which is too weak to be"
            " trusted, as it uses SHA-1; use OpenSSH 8.2 or later, or an ed25519 key, and"
            f" {sign}"
        )
    head, _, text = content.partition(b"\n\n")
    # A SHA-256 repository has the second header. Git ignores the one of the other hash.
    header = b"\ngpgsig-sha256 " if len(sha) == _SHA256_DIGITS else b"\ngpgsig "
    signature = head.partition(header)[2] if kind == "commit" else text
    if _X509_SIGNATURE in signature:
        return SignatureVerdict(
            refusal=f"{name} is signed with an X.509 certificate, which is not supported; {sign}"
        )
    if _SSH_SIGNATURE not in signature and _PGP_SIGNATURE not in signature:
        return SignatureVerdict(refusal=f"{name} is not signed; {sign}")
    said = last_line("\n".join(_GPG_SAID.findall(explained)) or _STATUS.sub("", output))
    return SignatureVerdict(
        refusal=f"the signature of {name} is not valid ({said or 'git does not say why'}); {sign}",
        transient=True,
    )


_SIGN: Final = {
    "commit": (
        "have a trusted signer sign a commit on top of it (git commit --allow-empty --gpg-sign)"
    ),
    "tag": "have a trusted signer replace it (git tag --sign --force)",
}


def _weak(kind: str, sha: str, key: str, digest: str) -> str:
    return (
        f"{kind} {sha[:12]} is signed with the OpenPGP key {key}, but over a {digest} digest, which"
        " is too weak to be trusted; use SHA-256 or better (`digest-algo` in the signer's gpg.conf"
        f" may name another), and {_SIGN[kind]}"
    )


def _openpgp_reason(kind: str, sha: str, output: str, explained: str) -> str:
    """Explain an OpenPGP signature that gpg refuses; empty where its output is not known."""
    name, sign = f"{kind} {sha[:12]}", _SIGN[kind]
    if unknown := _GPG_UNKNOWN.search(output):
        return (
            f"{name} is signed with the OpenPGP key {unknown['key']}, which is not in the keyring"
            f" file; add the key, or {sign}"
        )
    if invalid := _GPG_INVALID.search(output):
        why = _INVALID[invalid["status"]]
        return f"{name} is signed with the OpenPGP key {invalid['key']}, {why}; {sign}"
    error = _GPG_ERROR.search(output)
    if error is None:
        return ""
    if error["error"] == _DIGEST_ALGORITHM and (weak := _WEAK_DIGESTS.get(error["digest"])):
        return _weak(kind, sha, error["key"], weak)
    signed = f"{name} is signed with the OpenPGP key {error['key']}"
    return _key_reason(signed, error["key"], sign, explained)


def _key_reason(signed: str, key: str, sign: str, explained: str) -> str:
    """Explain why gpg cannot use a key for a signature; empty where it does not say it."""
    if future := _FUTURE.search(explained):
        return (
            f"{signed}, which was created {future['age']} in the future by the clock of this"
            " machine; correct its clock, or that of the machine where the key was created"
        )
    if newer := _NEWER.search(explained):
        return (
            f"{signed}, which is {newer['age']} newer than the signature; correct the clock of the"
            f" machine that signed, and {sign}"
        )
    if rejected := _REJECTED_DIGEST.search(explained):
        return (
            f"{signed}, which gpg rejects: its user ID is certified with {rejected['digest']},"
            f" which is too weak; renew the key (gpg --quick-set-expire {key} 2y), export it"
            f" again, and {sign}"
        )
    return ""
