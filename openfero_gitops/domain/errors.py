"""Every error that the controller distinguishes, named after what happens next.

OpenFeroError
├── UsageError            a setting, file or argument of the user is invalid
├── PayloadError          the webhook's body is not an Alertmanager payload (400)
│   └── TooLarge          it is larger than the limits, and was not read (413)
├── Overloaded            the requests in progress need too much memory; repeat (503)
├── RenderRefusal         the alert's values are not safe in this operario (a refused Job, 200)
├── SourceError           Git or a folder could not be read; the active catalog stays active
│   ├── SourceUnavailable an error of the network, the server or the disk: retry
│   ├── Unusable          the commit of the ref cannot become active: no such folder, too large
│   │   ├── FolderMissing it does not have the configured folder
│   │   └── Unverified    it has no valid signature of a trusted signer
│   ├── NoSuchFolder      the same, without the commit: raised where it is read
│   └── CatalogRefusal    it was read, and its openfero.yaml is missing or invalid
├── AlertmanagerError     an Alertmanager did not accept alerts; they are sent again
├── ClockWrong            this replica's clock differs too much from the API server's
└── ApiError              a request to the API server failed
    ├── AlreadyExists     409, reason AlreadyExists: the name is taken
    ├── Conflict          every other 409: a concurrent write, also to a quota
    ├── Expired           410: the resourceVersion is too old, list again
    ├── Forbidden         403: RBAC, a policy, a full quota, a terminating namespace
    ├── Invalid           400, 413, 422: the object itself is invalid; do not retry
    ├── NotFound          404
    ├── Throttled         429: wait, then retry
    ├── Unauthorized      401: the credentials are invalid or expired
    └── Unavailable       5xx, no connection, no answer in time: retry
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openfero_gitops.domain.catalog import Revision, Snapshot
    from openfero_gitops.domain.problem import Problem
    from openfero_gitops.domain.reason import Reason


class OpenFeroError(Exception):
    """The root; the text is one line: what happened, where, and what to do."""


class UsageError(OpenFeroError):
    """A setting, file or argument is invalid; the text says how to correct it."""


class PayloadError(OpenFeroError):
    """The body of a delivery is not an Alertmanager payload; `path` is that of the member."""

    def __init__(self, message: str, path: tuple[str | int, ...] = ()) -> None:
        """Keep the path of the invalid member."""
        super().__init__(message)
        self.path = path


class TooLarge(PayloadError):
    """A body is larger than a limit; `cause` says which, in kebab case."""

    def __init__(self, message: str, cause: str = "too-large") -> None:
        """Keep the cause."""
        super().__init__(message)
        self.cause = cause


class Overloaded(OpenFeroError):
    """The requests in progress need more memory for their bodies than they may use."""


class RenderRefusal(OpenFeroError):
    """An alert lacks a value that an operario uses, or the value is not safe there."""

    def __init__(self, reason: Reason, message: str) -> None:
        """Keep the reason beside the message."""
        super().__init__(message)
        self.reason = reason


class SourceError(OpenFeroError):
    """A repository or folder could not be read.

    `lasting` is whether retrying is useless until somebody changes something.
    """

    lasting = True


class SourceUnavailable(SourceError):
    """A repository could not be read for now: an error of the network, server or disk.

    The server wants no request for `retry_after` seconds; 0 if it did not say.
    """

    lasting = False

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        """Keep the server's Retry-After."""
        super().__init__(message)
        self.retry_after = retry_after


class Unusable(SourceError):
    """A commit exists and cannot become active.

    `snapshot` has its files, if they could be read: to report on, never to activate.
    """

    def __init__(self, message: str, revision: Revision, snapshot: Snapshot | None = None) -> None:
        """Keep the revision."""
        super().__init__(message)
        self.revision = revision
        self.snapshot = snapshot


class NoSuchFolder(SourceError):
    """A commit does not have a folder."""


class FolderMissing(Unusable):
    """A commit does not have the configured folder."""


class Unverified(Unusable):
    """A commit's signature is missing, invalid, or not of a trusted signer."""


class CatalogRefusal(SourceError):
    """A revision is refused: its openfero.yaml is missing or invalid.

    `paused` is whether that file says nevertheless that nothing may start, and `ignore` what it
    says about files, as far as that can be read.
    """

    def __init__(
        self,
        message: str,
        problems: tuple[Problem, ...],
        *,
        paused: bool,
        ignore: tuple[str, ...] = (),
    ) -> None:
        """Keep the problems."""
        super().__init__(message)
        self.problems = problems
        self.paused = paused
        self.ignore = ignore


class AlertmanagerError(OpenFeroError):
    """An Alertmanager did not accept alerts; the text does not name it."""


class ClockWrong(OpenFeroError):
    """This replica's clock is wrong; other replicas must decide until it is right."""


class ApiError(OpenFeroError):
    """A request to the API server failed.

    `answered` is False if the request may have been carried out nevertheless. `causes` are the
    fields that the API server names, each as `spec.template.spec`, with what is wrong there.
    """

    answered = True
    causes: tuple[tuple[str, str], ...] = ()


class AlreadyExists(ApiError):
    """An object of that name exists."""


class Conflict(ApiError):
    """There was a concurrent write, also to a quota."""


class Expired(ApiError):
    """The resourceVersion is too old."""


class Forbidden(ApiError):
    """RBAC, an admission policy, a full quota or a terminating namespace forbids the request."""


class Invalid(ApiError):
    """The object or patch is invalid; retrying is useless."""


class NotFound(ApiError):
    """The object does not exist."""


class Throttled(ApiError):
    """Too many requests; `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        """Keep the server's Retry-After."""
        super().__init__(message)
        self.retry_after = retry_after


class Unauthorized(ApiError):
    """The credentials are missing, invalid or expired."""


class Unavailable(ApiError):
    """No connection, no answer in time, or a server error; it may have been carried out."""

    answered = False
