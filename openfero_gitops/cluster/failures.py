"""Translates failed requests to an API server into the errors of `domain.errors`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    NotFound,
    Throttled,
    Unauthorized,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_RETRY_AFTER_SECONDS: Final = 600.0
MAX_MESSAGE: Final = 1000  # characters; a server may quote a whole object
MAX_CAUSES: Final = 100  # of one error
_BY_STATUS: Final[Mapping[int, type[ApiError]]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Expired,
    413: Invalid,
    422: Invalid,
    429: Throttled,
}


def translate(code: int, status: Mapping[str, Any]) -> ApiError:
    """Translate an HTTP status code and a `Status` object."""
    message = " ".join(str(status.get("message") or f"HTTP {code}").split())
    if len(message) > MAX_MESSAGE:
        message = f"{message[: MAX_MESSAGE * 2 // 3]} … {message[-MAX_MESSAGE // 3 :]}"
    if status.get("reason") == "AlreadyExists":
        return AlreadyExists(message)
    error = _BY_STATUS.get(code, Unavailable)(message)
    error.causes = tuple(_causes(status))
    if isinstance(error, Throttled):
        details = status.get("details")
        seconds = details.get("retryAfterSeconds") if isinstance(details, dict) else None
        error.retry_after = parse_seconds(seconds, error.retry_after)
    elif isinstance(error, Unavailable):
        error.answered = code < 500  # noqa: PLR2004, refused before it was carried out
    return error


def _causes(status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The fields that a `Status` names, and what is wrong with each; at most `MAX_CAUSES`."""
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    for cause in (causes if isinstance(causes, list) else [])[:MAX_CAUSES]:
        if isinstance(cause, dict) and cause.get("field"):
            message = " ".join(str(cause.get("message") or "").split())
            yield str(cause["field"])[:MAX_MESSAGE], message[:MAX_MESSAGE]


def parse_seconds(value: Any, default: float) -> float:
    """Parse a number of seconds, with an upper limit; `default` for a date."""
    text = str(value or "")
    return min(float(text), MAX_RETRY_AFTER_SECONDS) if text.isdecimal() else default


def never_sent(message: str) -> Unavailable:
    """The error of a request that certainly did not reach the server."""
    error = Unavailable(message)
    error.answered = True
    return error
