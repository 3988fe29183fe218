"""A forge tells that something was pushed: who proves to be one, and which refs it speaks of.

A push hook is a reason to look at the configured repository now, and nothing else: no address,
commit or content of it is used. So a captured one that is sent again costs one look.

Each forge signs in its own way; what decides is the first of these headers that is there:

- `webhook-signature`: GitLab's signing token (Standard Webhooks): HMAC-SHA256 in base64 over id,
  time and body; old ones are refused;
- `X-Gitlab-Token`: GitLab's secret token, as it is;
- `X-Forgejo-Signature`, `X-Gitea-Signature`: HMAC-SHA256 of the body in hex;
- `X-Hub-Signature-256`: GitHub's, the same behind `sha256=`;
- `X-Hub-Signature`: Bitbucket's, the same; GitHub's of this name is SHA-1, and not taken.

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

#: Seconds that a signed time may be away from ours (Standard Webhooks).
_TOLERANCE: Final = 300
_SIGNING_TOKEN: Final = "whsec_"  # noqa: S105 - how GitLab's tokens begin
_HEADS: Final = "refs/heads/"
_TAGS: Final = "refs/tags/"


class Forge(StrEnum):
    """Who sent a push hook, by its way of signing; Gitea and Forgejo sign alike."""

    GITHUB = "github"
    GITLAB = "gitlab"
    GITEA = "gitea"
    BITBUCKET = "bitbucket"


@dataclass(frozen=True, slots=True)
class Push:
    """What a forge tells of: refs in full (`refs/heads/main`), and the default branch's name.

    `refs` is empty for an event that is no push, such as a forge's own test of the hook;
    `default_branch` is empty where the forge does not tell.
    """

    forge: Forge
    event: str
    refs: tuple[str, ...]
    default_branch: str


def authenticate(
    headers: Mapping[str, str], body: bytes, secrets: Iterable[bytes], now: float
) -> Forge | None:
    """Which forge has signed this with one of the secrets; None where none has.

    Takes the same time for a wrong secret as for a right one. `headers` are looked up without
    regard to case where the mapping does so; `now` is in seconds since 1970.
    """
    for header, forge, proves in _SCHEMES:
        given = headers.get(header)
        if given is None:
            continue
        signature = given.encode("utf-8", "surrogateescape")
        proven = False
        for secret in secrets:  # every one, so that the time does not tell which came close
            proven |= proves(signature, secret, body, headers, now)
        return forge if proven else None
    return None


def _is_token(signature: bytes, secret: bytes, _body: bytes, *_: Any) -> bool:
    return _same(signature, secret)


def _is_hex(signature: bytes, secret: bytes, body: bytes, *_: Any) -> bool:
    return _same(signature, hmac.new(secret, body, hashlib.sha256).hexdigest().encode())


def _is_prefixed_hex(signature: bytes, secret: bytes, body: bytes, *_: Any) -> bool:
    made = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
    return _same(signature, made.encode())


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
        return False  # a secret of another kind, which cannot have made this
    signed = f"{name}.{moment}.".encode("utf-8", "surrogateescape") + body
    made = b"v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
    proven = False
    for one in signature.split():  # several, while the forge's token is being changed
        proven |= _same(one, made)
    return proven and abs(now - int(moment)) <= _TOLERANCE


def _same(given: bytes, made: bytes) -> bool:
    """Compare in a time that depends on neither (digests also hide the length)."""
    return hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(made).digest())


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
    event = next((found for name in _EVENTS[forge] if (found := headers.get(name))), "")
    if event not in _PUSHES:
        return Push(forge, event, (), "")
    try:
        told = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise PayloadError(
            "the body is no JSON: let the forge send application/json, not a form"
        ) from error
    refs = tuple(dict.fromkeys(_refs(told)))
    if not refs and event != "System Hook":  # (which tells of everything on the server)
        raise PayloadError(f"the body of this {event!r} event names no ref")
    return Push(forge, event, refs, _default_branch(told))


def _refs(told: Any) -> Iterator[str]:
    """The refs of a push: of GitHub, Gitea and GitLab; of Bitbucket Data Center; of its cloud."""
    for change in (_at(told, "ref"), *_each(_at(told, "changes"), "ref", "id")):
        if isinstance(change, str):
            yield change if change.startswith("refs/") else _HEADS + change
    changes = _at(told, "push", "changes")
    for change in changes if isinstance(changes, list) else ():
        for side in ("new", "old"):
            name, kind = _at(change, side, "name"), _at(change, side, "type")
            if isinstance(name, str):
                yield (_TAGS if kind in ("tag", "annotated_tag") else _HEADS) + name


def _default_branch(told: Any) -> str:
    for where in ("repository", "project"):
        name = _at(told, where, "default_branch")
        if isinstance(name, str):
            return name
    name = _at(told, "repository", "mainbranch", "name")
    return name if isinstance(name, str) else ""


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _each(values: Any, *path: str) -> Iterator[Any]:
    for value in values if isinstance(values, list) else ():
        yield _at(value, *path)


def concerns(push: Push, ref: str) -> bool:
    """Whether a push may have moved the ref that is followed, written as in `--ref`.

    A full commit never moves. `HEAD` is the default branch; where the forge does not say which
    that is, any branch may be it.
    """
    if ref == "HEAD":
        return any(
            one == _HEADS + push.default_branch if push.default_branch else one.startswith(_HEADS)
            for one in push.refs
        )
    wanted = {ref} if ref.startswith("refs/") else {_HEADS + ref, _TAGS + ref}
    return not wanted.isdisjoint(push.refs)
