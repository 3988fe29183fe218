"""The model of errors: `application/problem+json` (RFC 9457)."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict

from openfero_gitops.web.api.shape import OMITTED, Shape, Text


class ProblemDocument(Shape):
    """An error (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: Text
    """Where to read what to do; `about:blank` if the status says everything."""
    title: Text
    """The name of the HTTP status."""
    status: int
    """The HTTP status."""
    detail: Text
    """What is wrong, and what to do."""
    reason: Annotated[Text | None, OMITTED] = None
    """Why a delivery was refused, if one of the documented reasons applies."""
