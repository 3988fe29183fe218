"""A file with the credentials for one server: `user:password`, or a token."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from openfero_gitops.keyfiles.content import UnusableFile, decode, numbered

#: Forges accept a token as the password of any user.
ANY_USER: Final = "x-access-token"
_CONTENT: Final = "user:password, or a token, in one line"
_FORM: Final = f"write {_CONTENT}"
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_OTHER_FORMS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), form)
    for pattern, form in (
        (r"machine\s+\S+|default\s+login\s", "a .netrc file"),
        (r"(?:protocol|host|username|password)=", "the format of git credential"),
        (r"\{", "JSON"),
        (r"(?:user(?:name)?|login|password|token)\s*:\s+\S", "YAML"),
        (r"(?:authorization:\s*)?(?:bearer|basic|token)\s+\S", "an HTTP header"),
        (r"-----BEGIN ", "a key or certificate in PEM format"),
        (r"(?:ssh-|ecdsa-sha2-)\S+ AAAA", "a public SSH key"),
    )
)


@dataclass(frozen=True, slots=True)
class UserPassword:
    """A user name and a password, which may be a token."""

    user: str
    password: str = field(repr=False)


def credentials(content: bytes) -> UserPassword:
    """Read the credentials from the first line that is not empty.

    A line without a colon, or whose user name is empty (`:token`), is a token.

    Raises:
        UnusableFile: there are none, or they have another form.
    """
    (number, first), *rest = numbered(decode(content, _CONTENT))
    if first != first.strip():
        raise UnusableFile("begins or ends with an unusual space character; remove it", number)
    if not first.isprintable():
        raise UnusableFile("contains a control character; remove it", number)
    if _URL.match(first):
        raise UnusableFile(f"is a URL; {_FORM}", number)
    for pattern, form in _OTHER_FORMS:
        if pattern.match(first):
            raise UnusableFile(f"looks like {form}; {_FORM}", number)
    user, separator, password = first.partition(":")
    if not separator:
        user, password = "", first
        if rest:
            raise UnusableFile(f"has no colon, and another line follows; {_FORM}", number)
    if not password:
        raise UnusableFile(f"contains no password; {_FORM}", number)
    return UserPassword(user or ANY_USER, password)


def user_and_password(content: bytes) -> UserPassword:
    """Read credentials of a server that knows no tokens, such as a proxy.

    Raises:
        UnusableFile: there are none, they have another form, or no user is named.
    """
    pair = credentials(content)
    if pair.user == ANY_USER:
        raise UnusableFile("the file names no user; write user:password in one line")
    return pair


def bearer_token(content: bytes) -> str:
    """Read a token, alone in its line, for a server that knows no users.

    Raises:
        UnusableFile: there is none, or the file has another form.
    """
    pair = credentials(content)
    if pair.user != ANY_USER:
        raise UnusableFile("the file contains user:password, not a token; write the token alone")
    if not pair.password.isascii() or " " in pair.password:
        raise UnusableFile("the token contains characters that a header cannot have")
    return pair.password
