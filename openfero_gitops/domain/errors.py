"""Every failure the controller distinguishes, named after what happens next.

OpenFeroError
├── UsageError            a person gave a setting, file or argument that cannot work
├── PayloadError          the webhook's body is not an Alertmanager payload (400)
├── RenderRefusal         this alert must not reach this operario (a refused Job, 200)
├── SourceError           Git or a folder could not be read; the catalog in force stays
│   ├── Unusable          the commit that the ref names cannot be taken: no such folder, too large
│   │   └── Unverified    nobody who is trusted signed it
│   └── CatalogRefusal    it was read, and its openfero.yaml cannot be followed
├── ClockWrong            this replica's clock is not the API server's: decide nothing by it
└── ApiError              the API server did not do what was asked
    ├── AlreadyExists     409, reason AlreadyExists: the name is taken
    ├── Conflict          every other 409: somebody wrote in between, or a quota did
    ├── Expired           410: the resourceVersion is too old, list again
    ├── Forbidden         403: RBAC, a full quota, a namespace that is ending
    ├── Invalid           400, 413, 422: the object itself; repeating does not help
    ├── NotFound          404
    ├── Throttled         429: wait, then repeat
    ├── Unauthorized      401: the credentials are wrong or expired
    └── Unavailable       5xx, no connection, no answer in time: repeat
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openfero_gitops.domain.catalog import Revision, Snapshot
    from openfero_gitops.domain.problem import Problem
    from openfero_gitops.domain.reason import Reason


class OpenFeroError(Exception):
    """The root: its text is one line that says what, where, and what to do."""


class UsageError(OpenFeroError):
    """A setting, file or argument cannot work; the text says how to mend it."""


class PayloadError(OpenFeroError):
    """The body of a delivery is not an Alertmanager payload; `where` leads to the member."""

    def __init__(self, message: str, where: tuple[str | int, ...] = ()) -> None:
        """Keep where the trouble is."""
        super().__init__(message)
        self.where = where


class RenderRefusal(OpenFeroError):
    """An alert's values are missing, or not safe, in the place where an operario uses them."""

    def __init__(self, reason: Reason, message: str) -> None:
        """Keep the reason beside the sentence."""
        super().__init__(message)
        self.reason = reason


class SourceError(OpenFeroError):
    """A repository or folder could not be read.

    `lasting` says that trying again will not help until a person has changed something.
    """

    lasting = True


class SourceUnavailable(SourceError):
    """The same for now: the network, the server or the disk may mend by itself."""

    lasting = False


class Unusable(SourceError):
    """A commit is there and cannot be taken as it is.

    `snapshot` is what was read of it, if it could be: to be told of, never to be put in force.
    """

    def __init__(self, message: str, revision: Revision, snapshot: Snapshot | None = None) -> None:
        """Keep which it was."""
        super().__init__(message)
        self.revision = revision
        self.snapshot = snapshot


class Unverified(Unusable):
    """A commit's signature is missing, bad, or of nobody who is trusted."""


class CatalogRefusal(SourceError):
    """A revision is not taken: its safety envelope is missing, or says what it cannot mean.

    `paused` is True where it says all the same that nothing may start.
    """

    def __init__(self, message: str, problems: tuple[Problem, ...], *, paused: bool) -> None:
        """Keep what was found."""
        super().__init__(message)
        self.problems = problems
        self.paused = paused


class ClockWrong(OpenFeroError):
    """This replica's clock cannot be right: others must decide until it is."""


class ApiError(OpenFeroError):
    """The API server refused, failed or did not answer.

    `answered` is False where the request may have been carried out all the same.
    """

    answered = True


class AlreadyExists(ApiError):
    """An object of that name is there."""


class Conflict(ApiError):
    """Somebody else's write came first, or a quota was contended."""


class Expired(ApiError):
    """The resourceVersion asked for is no longer kept."""


class Forbidden(ApiError):
    """RBAC, an admission policy, a full quota or an ending namespace said no."""


class Invalid(ApiError):
    """The object or patch is not acceptable, and will not be when repeated."""


class NotFound(ApiError):
    """There is no such object."""


class Throttled(ApiError):
    """Too many requests; `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        """Keep what the server asked for."""
        super().__init__(message)
        self.retry_after = retry_after


class Unauthorized(ApiError):
    """The credentials are missing, wrong or expired."""


class Unavailable(ApiError):
    """No connection, no answer in time, or a server error: nobody knows whether it happened."""

    answered = False
