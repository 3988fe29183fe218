"""Verifies push hooks of forges and reads the pushed refs.

A push hook only triggers a sync of the configured repository. No address, commit or other content
of it is used, so replaying one costs one sync.

Each forge signs in its own way. The first of these headers decides:

- `webhook-signature`: GitLab's signing token (Standard Webhooks): HMAC-SHA256 in base64 of id,
  time and body; old ones are refused;
- `X-Gitlab-Token`: GitLab's secret token itself;
- `X-Forgejo-Signature`, `X-Gitea-Signature`: HMAC-SHA256 of the body in hex;
- `X-Hub-Signature-256`: the same by GitHub, after `sha256=`;
- `X-Hub-Signature`: the same by Bitbucket. (GitHub's header of this name is SHA-1 and refused.)
- `X-Gogs-Signature`: as Gitea, which also sends it, by Gogs;
- `Authorization: Basic`: Azure DevOps signs nothing, but sends a password, which is the secret.

Sources: the forges' documentation of their webhooks; standardwebhooks.com.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.errors import PayloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

#: Maximum difference of a signed time from ours (Standard Webhooks).
_MAX_CLOCK_SKEW_SECONDS: Final = 300
_SIGNING_TOKEN: Final = "whsec_"  # noqa: S105 - prefix of GitLab's tokens
#: Of the key in a signing token; GitLab makes 32, Standard Webhooks asks for 24 or more.
_MIN_KEY_BYTES: Final = 16
_HEADS: Final = "refs/heads/"
_TAGS: Final = "refs/tags/"


class Forge(StrEnum):
    """The sender of a push hook, by its signature; Gitea and Forgejo sign in the same way."""

    GITHUB = "github"
    GITLAB = "gitlab"
    GITEA = "gitea"
    BITBUCKET = "bitbucket"
    GOGS = "gogs"
    AZURE_DEVOPS = "azure-devops"


@dataclass(frozen=True, slots=True)
class Push:
    """The full refs that were pushed (`refs/heads/main`), and the name of the default branch.

    `refs` is empty for other events, such as a forge's test of the hook. `default_branch` is empty
    if the forge does not send it. `is_known` is False if the refs are too far from the beginning of
    a large body.
    """

    forge: Forge
    event: str
    refs: tuple[str, ...]
    default_branch: str
    is_known: bool = True


def check_secrets(lines: Iterable[str]) -> None:
    """Raise ValueError for a signing token whose key anybody could guess.

    The prefix alone would be an empty key: everybody could sign with it.
    """
    for line in lines:
        if not line.startswith(_SIGNING_TOKEN):
            continue
        try:
            key = base64.b64decode(line.removeprefix(_SIGNING_TOKEN), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) < _MIN_KEY_BYTES:
            raise ValueError(
                f"a signing token must be {_SIGNING_TOKEN} and at least {_MIN_KEY_BYTES} bytes in "
                "base64; copy it again from the forge"
            )


class Proof:
    """Verifies the signature of a body piece by piece, without keeping it."""

    def __init__(
        self, forge: Forge, digests: Sequence[hmac.HMAC], is_right: Callable[[bytes], bool]
    ) -> None:
        """Take a digest for each secret; one of them must be `is_right`."""
        self.forge = forge
        self._digests = digests
        self._is_right = is_right

    def update(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        for digest in self._digests:
            digest.update(piece)

    def holds(self) -> bool:
        """Whether the whole body was signed with one of the secrets.

        It takes the same time for a wrong secret as for a right one.
        """
        verified = False
        for digest in self._digests:  # all of them, for the same reason
            verified |= self._is_right(digest.digest())
        return verified


class _Token(Proof):
    """The secret itself was sent, and was right."""

    def __init__(self, forge: Forge) -> None:
        super().__init__(forge, (), lambda _: True)

    def holds(self) -> bool:
        return True


def begin_proof(headers: Mapping[str, str], secrets: Sequence[bytes], now: float) -> Proof | None:
    """Begin to verify a body; None if the headers show that it cannot be verified.

    Then nothing of the body needs to be read. `now` is in seconds since 1970.
    """
    for header, forge, begin in _SCHEMES:
        value = headers.get(header)
        if value is not None:
            return begin(forge, value.encode("utf-8", "surrogateescape"), secrets, headers, now)
    return None


def _token(forge: Forge, signature: bytes, secrets: Sequence[bytes], *_: Any) -> Proof | None:
    verified = False
    for secret in secrets:
        verified |= _same(signature, secret)
    return _Token(forge) if verified else None


def _password(forge: Forge, signature: bytes, secrets: Sequence[bytes], *_: Any) -> Proof | None:
    scheme, value = (*signature.split(b" ", maxsplit=1), b"")[:2]
    if scheme.lower() != b"basic":
        return None
    try:
        pair = base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    return _token(forge, pair.partition(b":")[2], secrets)


def _hex(forge: Forge, signature: bytes, secrets: Sequence[bytes], *_: Any) -> Proof | None:
    if not _HEX.fullmatch(signature):
        return None
    return Proof(
        forge,
        [hmac.new(secret, digestmod=hashlib.sha256) for secret in secrets],
        lambda digest: _same(signature, digest.hex().encode()),
    )


def _prefixed_hex(
    forge: Forge, signature: bytes, secrets: Sequence[bytes], *_: Any
) -> Proof | None:
    if not signature.startswith(_PREFIX):
        return None
    return _hex(forge, signature.removeprefix(_PREFIX), secrets)


def _standard(
    forge: Forge,
    signature: bytes,
    secrets: Sequence[bytes],
    headers: Mapping[str, str],
    now: float,
) -> Proof | None:
    name, moment = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not (moment.isascii() and moment.isdecimal() and len(moment) <= len("9999999999")):
        return None
    if abs(now - int(moment)) > _MAX_CLOCK_SKEW_SECONDS:
        return None
    signed = f"{name}.{moment}.".encode("utf-8", "surrogateescape")
    parts = signature.split()  # several while the forge's token is being rotated

    def is_right(digest: bytes) -> bool:
        expected = b"v1," + base64.b64encode(digest)
        verified = False
        for part in parts:
            verified |= _same(part, expected)
        return verified

    digests = [
        hmac.new(key, signed, hashlib.sha256) for key in map(_key, secrets) if key is not None
    ]
    return Proof(forge, digests, is_right)


def _key(secret: bytes) -> bytes | None:
    """The key of a signing token; None for a secret of another kind."""
    text = secret.decode("utf-8", "surrogateescape")
    try:
        return base64.b64decode(text.removeprefix(_SIGNING_TOKEN), validate=True)
    except (binascii.Error, ValueError):
        return None


def _same(value: bytes, expected: bytes) -> bool:
    """Compare in constant time (the digests also hide the length)."""
    return hmac.compare_digest(hashlib.sha256(value).digest(), hashlib.sha256(expected).digest())


_PREFIX: Final = b"sha256="
_HEX: Final = re.compile(rb"[0-9a-f]{64}")
_SCHEMES: Final[tuple[tuple[str, Forge, Callable[..., Proof | None]], ...]] = (
    ("webhook-signature", Forge.GITLAB, _standard),
    ("X-Gitlab-Token", Forge.GITLAB, _token),
    ("X-Forgejo-Signature", Forge.GITEA, _hex),
    ("X-Gitea-Signature", Forge.GITEA, _hex),
    ("X-Hub-Signature-256", Forge.GITHUB, _prefixed_hex),
    ("X-Hub-Signature", Forge.BITBUCKET, _prefixed_hex),
    ("X-Gogs-Signature", Forge.GOGS, _hex),
    ("Authorization", Forge.AZURE_DEVOPS, _password),
)

# (Azure DevOps names the event in the body.)
_EVENTS: Final[Mapping[Forge, tuple[str, ...]]] = {
    Forge.GITHUB: ("X-GitHub-Event",),
    Forge.GITLAB: ("X-Gitlab-Event",),
    Forge.GITEA: ("X-Forgejo-Event", "X-Gitea-Event"),
    Forge.BITBUCKET: ("X-Event-Key",),
    Forge.GOGS: ("X-Gogs-Event",),
}
_PUSHES: Final = frozenset(
    {
        *("push", "Push Hook", "Tag Push Hook", "System Hook"),
        *("repo:push", "repo:refs_changed", "git.push"),
    }
)


def read_push(
    forge: Forge, headers: Mapping[str, str], body: bytes, *, complete: bool = True
) -> Push:
    """Read an authenticated push hook; `body` is its beginning unless it is complete.

    Raises:
        PayloadError: the body is not what this forge sends.
    """
    event = next((value for name in _EVENTS.get(forge, ()) if (value := headers.get(name))), "")
    if event not in _PUSHES and forge in _EVENTS:
        return Push(forge, event, (), "")
    try:
        payload = json.loads(body) if complete else _first_members(body)
    except (ValueError, RecursionError) as error:
        raise PayloadError(
            "the body is not JSON; set the content type of the hook to application/json"
        ) from error
    if forge not in _EVENTS:
        event = str(_at(payload, "eventType") or "")
        if event not in _PUSHES and (event or complete):
            return Push(forge, event, (), "")
    refs = tuple(dict.fromkeys(_refs(payload)))
    # Azure DevOps can be told to send no details.
    if not refs and (not complete or forge is Forge.AZURE_DEVOPS):
        return Push(forge, event, (), "", is_known=False)
    if not refs and event != "System Hook":  # (which reports all events of the server)
        raise PayloadError(f"the body of this {event!r} event contains no ref")
    return Push(forge, event, refs, _default_branch(payload))


def _first_members(beginning: bytes) -> dict[str, Any]:
    """Read an object of which only the beginning is there: the members that are complete."""
    text = beginning.decode(errors="ignore")
    decoder = json.JSONDecoder()
    members: dict[str, Any] = {}
    position = 0
    while separator := (_COMMA if members else _BRACE).match(text, position):
        try:
            name, end = decoder.raw_decode(text, separator.end())
            colon = _COLON.match(text, end)
            if colon is None:
                break
            members[name], position = decoder.raw_decode(text, colon.end())
        except (ValueError, RecursionError):
            break
    return members


_BRACE: Final = re.compile(r"\s*\{\s*")
_COMMA: Final = re.compile(r"\s*,\s*")
_COLON: Final = re.compile(r"\s*:\s*")


def _refs(payload: Any) -> Iterator[str]:
    """List the refs of a push.

    They are in `ref` (GitHub, Gitea, Gogs, GitLab), in `changes` (Bitbucket Data Center), in
    `resource` (Azure DevOps), or in `push` (Bitbucket Cloud).
    """
    for change in (
        _at(payload, "ref"),
        *_each(_at(payload, "changes"), "ref", "id"),
        *_each(_at(payload, "resource", "refUpdates"), "name"),
    ):
        if isinstance(change, str):
            yield change if change.startswith("refs/") else _HEADS + change
    changes = _at(payload, "push", "changes")
    for change in changes if isinstance(changes, list) else ():
        for side in ("new", "old"):
            name, kind = _at(change, side, "name"), _at(change, side, "type")
            if isinstance(name, str):
                yield (_TAGS if kind in ("tag", "annotated_tag") else _HEADS) + name


def _default_branch(payload: Any) -> str:
    for owner in ("repository", "project"):
        name = _at(payload, owner, "default_branch")
        if isinstance(name, str):
            return name
    for path in (("repository", "mainbranch", "name"), ("resource", "repository", "defaultBranch")):
        name = _at(payload, *path)
        if isinstance(name, str):
            return name.removeprefix(_HEADS)
    return ""


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _each(values: Any, *path: str) -> Iterator[Any]:
    for value in values if isinstance(values, list) else ():
        yield _at(value, *path)


def may_move(push: Push, ref: str) -> bool:
    """Whether a push may have changed the followed ref, as written in `--ref`.

    A full commit never changes. `HEAD` is the default branch; if the forge does not send its name,
    it may be any branch. If the pushed refs are not known, it may be any ref.
    """
    if not push.is_known:
        return True
    if ref == "HEAD":
        if push.default_branch:
            return _HEADS + push.default_branch in push.refs
        return any(pushed.startswith(_HEADS) for pushed in push.refs)
    names = {ref} if ref.startswith("refs/") else {_HEADS + ref, _TAGS + ref}
    return not names.isdisjoint(push.refs)
