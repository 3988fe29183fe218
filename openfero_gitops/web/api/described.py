"""Describes the operations that are served elsewhere: deliveries, push hooks, probes.

Their modules read bodies and count refusals in their own ways, so they are no `Route`s.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, Literal

from openfero_gitops.web.api.delivery_shape import DeliveryProblem, DeliveryShape, PushShape
from openfero_gitops.web.api.operation import PROBLEM, Operation, Reply, Tag
from openfero_gitops.web.api.payload import DeliveryBody
from openfero_gitops.web.api.probe_shape import AliveShape, ReadyShape
from openfero_gitops.web.api.route import problem_replies

DELIVER: Final = Operation(
    "POST",
    "/alerts",
    "Deliver alerts",
    Tag.DELIVERIES,
    {
        200: Reply("Each alert that an operario matches has its Job.", DeliveryShape),
        400: Reply("The delivery cannot be read.", DeliveryProblem, PROBLEM),
        401: Reply("Credentials are missing or wrong.", DeliveryProblem, PROBLEM),
        413: Reply("The delivery is too large.", DeliveryProblem, PROBLEM),
        415: Reply("The body is compressed.", DeliveryProblem, PROBLEM),
        422: Reply("An alert or its Job is not valid.", DeliveryProblem, PROBLEM),
        503: Reply("An alert has no Job yet: repeat the delivery.", DeliveryProblem, PROBLEM),
        **problem_replies(403, 500),
    },
    "The webhook of Alertmanager; also with a slash at the end.",
    body=DeliveryBody,
)
#: What people write, and OpenFero's documentation.
DELIVER_TO_ALERT: Final = replace(DELIVER, path="/alert")
ALERTS_OK: Final = Operation(
    "GET",
    "/alerts",
    "Answer OpenFero's check of the webhook",
    Tag.OPENFERO,
    {
        200: Reply("The text OK. A browser gets the page of alerts.", Literal["OK"]),
        **problem_replies(401, 403, 500, 503),
    },
)
PUSH: Final = Operation(
    "POST",
    "/hooks/git",
    "Report a push to the repository",
    Tag.DELIVERIES,
    {
        200: Reply("The push changes nothing that the controller reads.", PushShape),
        202: Reply("A sync was requested.", PushShape),
        **problem_replies(400, 401, 403, 408, 413, 415, 500, 503),
    },
    "The push hook of GitHub, GitLab, Gitea, Forgejo or Bitbucket, signed with a secret of "
    "--hook-secret-file. It can only request a sync.",
    body=dict[str, Any],
    guarded=False,
)
_ALIVE: Final = Operation(
    "GET",
    "/livez",
    "Show that the process answers",
    Tag.PROBES,
    {200: Reply("It does.", AliveShape), **problem_replies(403, 500)},
    guarded=False,
)
_READY: Final = Operation(
    "GET",
    "/readyz",
    "Show whether the replica can accept deliveries",
    Tag.PROBES,
    {
        200: Reply("It can.", ReadyShape),
        503: Reply("It cannot; the conditions say why.", ReadyShape),
        **problem_replies(403, 500),
    },
    guarded=False,
)
#: Kubernetes' paths, and OpenFero's.
ALIVE: Final = tuple(replace(_ALIVE, path=path) for path in ("/livez", "/healthz", "/startupz"))
READY: Final = tuple(replace(_READY, path=path) for path in ("/readyz", "/readiness"))
METRICS: Final = Operation(
    "GET",
    "/metrics",
    "Show the metrics",
    Tag.PROBES,
    {
        200: Reply("Metrics in the text format of Prometheus.", str, "text/plain"),
        **problem_replies(403, 500),
    },
    guarded=False,
)
