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

Sources: the forges' documentation of their webhooks; standardwebhooks.com.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.errors import PayloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

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


@dataclass(frozen=True, slots=True)
class Push:
    """The full refs that were pushed (`refs/heads/main`), and the name of the default branch.

    `refs` is empty for other events, such as a forge's test of the hook. `default_branch` is empty
    if the forge does not send it.
    """

    forge: Forge
    event: str
    refs: tuple[str, ...]
    default_branch: str


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


def authenticate(
    headers: Mapping[str, str], body: bytes, secrets: Iterable[bytes], now: float
) -> Forge | None:
    """Return the forge that signed this with one of the secrets; None if the signature is wrong.

    It takes the same time for a wrong secret as for a right one. `now` is in seconds since 1970.
    """
    for header, forge, verifies in _SCHEMES:
        value = headers.get(header)
        if value is None:
            continue
        signature = value.encode("utf-8", "surrogateescape")
        verified = False
        for secret in secrets:  # all of them, so that the time does not depend on which matches
            verified |= verifies(signature, secret, body, headers, now)
        return forge if verified else None
    return None


def _is_token(signature: bytes, secret: bytes, _body: bytes, *_: Any) -> bool:
    return _same(signature, secret)


def _is_hex(signature: bytes, secret: bytes, body: bytes, *_: Any) -> bool:
    return _same(signature, hmac.new(secret, body, hashlib.sha256).hexdigest().encode())


def _is_prefixed_hex(signature: bytes, secret: bytes, body: bytes, *_: Any) -> bool:
    expected = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
    return _same(signature, expected.encode())


def _is_standard(
    signature: bytes, secret: bytes, body: bytes, headers: Mapping[str, str], now: float
) -> bool:
    name, moment = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not (moment.isascii() and moment.isdecimal() and len(moment) <= len("9999999999")):
        return False
    text = secret.decode("utf-8", "surrogateescape")
    try:
        key = base64.b64decode(text.removeprefix(_SIGNING_TOKEN), validate=True)
    except (binascii.Error, ValueError):
        return False  # a secret of another kind
    signed = f"{name}.{moment}.".encode("utf-8", "surrogateescape") + body
    expected = b"v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
    verified = False
    for part in signature.split():  # several while the forge's token is being rotated
        verified |= _same(part, expected)
    return verified and abs(now - int(moment)) <= _MAX_CLOCK_SKEW_SECONDS


def _same(value: bytes, expected: bytes) -> bool:
    """Compare in constant time (the digests also hide the length)."""
    return hmac.compare_digest(hashlib.sha256(value).digest(), hashlib.sha256(expected).digest())


_SCHEMES: Final[tuple[tuple[str, Forge, Callable[..., bool]], ...]] = (
    ("webhook-signature", Forge.GITLAB, _is_standard),
    ("X-Gitlab-Token", Forge.GITLAB, _is_token),
    ("X-Forgejo-Signature", Forge.GITEA, _is_hex),
    ("X-Gitea-Signature", Forge.GITEA, _is_hex),
    ("X-Hub-Signature-256", Forge.GITHUB, _is_prefixed_hex),
    ("X-Hub-Signature", Forge.BITBUCKET, _is_prefixed_hex),
)

_EVENTS: Final[Mapping[Forge, tuple[str, ...]]] = {
    Forge.GITHUB: ("X-GitHub-Event",),
    Forge.GITLAB: ("X-Gitlab-Event",),
    Forge.GITEA: ("X-Forgejo-Event", "X-Gitea-Event"),
    Forge.BITBUCKET: ("X-Event-Key",),
}
_PUSHES: Final = frozenset(
    {"push", "Push Hook", "Tag Push Hook", "System Hook", "repo:push", "repo:refs_changed"}
)


def read_push(forge: Forge, headers: Mapping[str, str], body: bytes) -> Push:
    """Read an authenticated push hook.

    Raises:
        PayloadError: the body is not what this forge sends.
    """
    event = next((value for name in _EVENTS[forge] if (value := headers.get(name))), "")
    if event not in _PUSHES:
        return Push(forge, event, (), "")
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise PayloadError(
            "the body is not JSON; set the content type of the hook to application/json"
        ) from error
    refs = tuple(dict.fromkeys(_refs(payload)))
    if not refs and event != "System Hook":  # (which reports all events of the server)
        raise PayloadError(f"the body of this {event!r} event contains no ref")
    return Push(forge, event, refs, _default_branch(payload))


def _refs(payload: Any) -> Iterator[str]:
    """List the refs of a push: GitHub, Gitea, GitLab and Bitbucket Data Center, Bitbucket Cloud."""
    for change in (_at(payload, "ref"), *_each(_at(payload, "changes"), "ref", "id")):
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
    name = _at(payload, "repository", "mainbranch", "name")
    return name if isinstance(name, str) else ""


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
    it may be any branch.
    """
    if ref == "HEAD":
        if push.default_branch:
            return _HEADS + push.default_branch in push.refs
        return any(pushed.startswith(_HEADS) for pushed in push.refs)
    names = {ref} if ref.startswith("refs/") else {_HEADS + ref, _TAGS + ref}
    return not names.isdisjoint(push.refs)
