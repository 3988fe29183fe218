"""Serves the in-memory cluster over HTTP on loopback, so that commands can use it.

It speaks as much of the Kubernetes API as `cluster.client` needs. Access requires the token in the
kubeconfig that it writes, which only the current user can read.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import secrets
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from openfero_gitops.cluster.api import (
    CONFIG_MAPS,
    EVENTS,
    EVERYWHERE,
    JOBS,
    LEASES,
    PODS,
    SERVICE_ACCOUNTS,
    Resource,
)
from openfero_gitops.demo.cluster.admission import check_changed_job, check_new_job
from openfero_gitops.demo.cluster.jsonpatch import apply_patch
from openfero_gitops.domain.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    NotFound,
    Unauthorized,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from aiohttp.typedefs import Handler

    from openfero_gitops.cluster.api import ApiServer

USER: Final = "demo-user"
_REVIEWS: Final = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
_LOOPBACK: Final = "127.0.0.1"
_NAME: Final = "openfero-demo"
_MAX_BODY_BYTES: Final = 4 * 2**20
#: Time for running requests, such as watches, to end. (0 would be no limit.)
_SHUTDOWN_SECONDS: Final = 0.1
_WATCH_SECONDS: Final = 300.0
_RESOURCES: Final = {
    (resource.group, resource.version, resource.plural): resource
    for resource in (CONFIG_MAPS, EVENTS, JOBS, LEASES, PODS, SERVICE_ACCOUNTS)
}
#: HTTP status and reason of each error, from the most specific class.
_STATUS: Final[tuple[tuple[type[ApiError], int, str], ...]] = (
    (AlreadyExists, 409, "AlreadyExists"),
    (Conflict, 409, "Conflict"),
    (Expired, 410, "Expired"),
    (Forbidden, 403, "Forbidden"),
    (Invalid, 422, "Invalid"),
    (NotFound, 404, "NotFound"),
    (Unauthorized, 401, "Unauthorized"),
    (ApiError, 500, "InternalError"),
)


@contextlib.asynccontextmanager
async def serve_cluster(
    api: ApiServer, folder: Path, namespace: str, *, for_users: bool = False
) -> AsyncIterator[Path]:
    """Serve a cluster within the block, and return the kubeconfig with which to reach it.

    Args:
        api: the cluster.
        folder: where the kubeconfig is written, readable by the current user only.
        namespace: the default namespace of the kubeconfig.
        for_users: refuse what only the controller may do with its Jobs; it does not use HTTP then.
    """
    token = secrets.token_urlsafe()
    runner = web.AppRunner(
        _application(_Requests(api, for_users=for_users), token),
        access_log=None,
        shutdown_timeout=_SHUTDOWN_SECONDS,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, _LOOPBACK, 0).start()
        port = runner.addresses[0][1]
        kubeconfig = folder / "kubeconfig"
        await asyncio.to_thread(
            _write, kubeconfig, _kubeconfig(f"http://{_LOOPBACK}:{port}", token, namespace)
        )
        yield kubeconfig
    finally:
        await runner.cleanup()
        await asyncio.sleep(0)  # the tasks that were cancelled end in the next iteration


def _write(file: Path, content: str) -> None:
    file.touch(0o600)
    file.write_text(content)


def _kubeconfig(server: str, token: str, namespace: str) -> str:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": _NAME, "cluster": {"server": server}}],
        "users": [{"name": _NAME, "user": {"token": token}}],
        "contexts": [
            {
                "name": _NAME,
                "context": {"cluster": _NAME, "user": _NAME, "namespace": namespace},
            }
        ],
        "current-context": _NAME,
    }
    return json.dumps(content, indent=2) + "\n"


def _application(requests: _Requests, token: str) -> web.Application:
    authorization = f"Bearer {token}".encode()

    @web.middleware
    async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check the token, and answer errors with a `Status` object."""
        try:
            header = request.headers.get("Authorization", "").encode("utf-8", "replace")
            if not hmac.compare_digest(header, authorization):
                raise Unauthorized(
                    "the token is not that of the demo's kubeconfig, which is for openfero-gitops: "
                    "kubectl sends no token without TLS"
                )
            return await handler(request)
        except web.HTTPException:
            error: ApiError = NotFound(
                f"the demo's API server does not support {request.method} {request.path}"
            )
        except ApiError as raised:
            error = raised
        status = _status(error)
        return web.json_response(status, status=status["code"])

    app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[answer_errors])
    app.router.add_get("/version", requests.version)
    app.router.add_post(_REVIEWS, requests.whoami)
    app.router.add_get("/api/v1/namespaces/{namespace}/pods/{name}/log", requests.log)
    for root in ("/api/{version}", "/apis/{group}/{version}"):
        collection = f"{root}/namespaces/{{namespace}}/{{plural}}"
        app.router.add_get(f"{root}/{{plural}}", requests.list)
        app.router.add_get(collection, requests.list)
        app.router.add_post(collection, requests.create)
        app.router.add_get(f"{collection}/{{name}}", requests.get)
        app.router.add_put(f"{collection}/{{name}}", requests.replace)
        app.router.add_patch(f"{collection}/{{name}}", requests.patch)
        app.router.add_delete(f"{collection}/{{name}}", requests.delete)
    return app


class _Requests:
    """Calls the method of the cluster that a request stands for."""

    def __init__(self, api: ApiServer, *, for_users: bool) -> None:
        self._api = api
        self._for_users = for_users

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"gitVersion": await self._api.version()})

    async def whoami(self, _: web.Request) -> web.Response:
        return web.json_response({"status": {"userInfo": {"username": USER}}}, status=201)

    async def log(self, request: web.Request) -> web.StreamResponse:
        """Send the log of a container, as it is written."""
        pod = await self._api.get(PODS, *_place(request))
        containers = [container["name"] for container in pod["spec"]["containers"]]
        pieces = self._api.pod_log(
            *_place(request),
            request.query.get("container") or containers[0],
            follow=request.query.get("follow") == "true",
            tail_lines=_number(request, "tailLines"),
            limit_bytes=_number(request, "limitBytes"),
        )
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                if not response.prepared:
                    await response.prepare(request)
                await response.write(piece)
        if not response.prepared:
            await response.prepare(request)
        return response

    async def get(self, request: web.Request) -> web.Response:
        return web.json_response(await self._api.get(_resource(request), *_place(request)))

    async def list(self, request: web.Request) -> web.StreamResponse:
        """List all objects as one page, or watch them."""
        resource, (namespace, _) = _resource(request), _place(request)
        label_selector = request.query.get("labelSelector", "")
        if request.query.get("watch") == "true":
            return await self._watch(request, resource, namespace, label_selector)
        listed = await self._api.list(
            resource,
            namespace,
            label_selector=label_selector,
            field_selector=request.query.get("fieldSelector", ""),
        )
        return web.json_response(
            {
                "apiVersion": resource.api_version,
                "kind": f"{resource.kind}List",
                "metadata": {"resourceVersion": listed.resource_version},
                "items": listed.items,
            }
        )

    async def create(self, request: web.Request) -> web.Response:
        resource, (namespace, _) = _resource(request), _place(request)
        dry_run = request.query.get("dryRun") == "All"
        body = await _body(request)
        if self._for_users and resource == JOBS:
            check_new_job(body)
        created = await self._api.create(resource, namespace, body, dry_run=dry_run)
        return web.json_response(created.object, status=201)

    async def replace(self, request: web.Request) -> web.Response:
        resource, place = _resource(request), _place(request)
        body = await _body(request)
        if self._for_users and resource == JOBS:
            check_changed_job(await self._api.get(resource, *place), body, USER)
        return web.json_response(await self._api.replace(resource, place[0], body))

    async def patch(self, request: web.Request) -> web.Response:
        resource, place = _resource(request), _place(request)
        body = await _body(request)
        if not (isinstance(body, list) and all(isinstance(part, dict) for part in body)):
            raise Invalid("the demo's API server supports JSON Patch only")
        if self._for_users and resource == JOBS:
            old = await self._api.get(resource, *place)
            check_changed_job(old, apply_patch(old, body), USER)
        return web.json_response(await self._api.patch(resource, *place, body))

    async def delete(self, request: web.Request) -> web.Response:
        conditions = ((await _body(request)) or {}).get("preconditions") or {}
        await self._api.delete(
            _resource(request),
            *_place(request),
            uid=conditions.get("uid") or "",
            resource_version=conditions.get("resourceVersion") or "",
        )
        return web.json_response({"apiVersion": "v1", "kind": "Status", "status": "Success"})

    async def _watch(
        self, request: web.Request, resource: Resource, namespace: str, label_selector: str
    ) -> web.StreamResponse:
        """Send each change as a line of JSON, until the watch ends or the client leaves."""
        seconds = request.query.get("timeoutSeconds", "")
        events = self._api.watch(
            resource,
            namespace,
            resource_version=request.query.get("resourceVersion", ""),
            label_selector=label_selector,
            timeout=float(seconds) if seconds.isdecimal() else _WATCH_SECONDS,
        )
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        async with contextlib.aclosing(events):
            try:
                async for event in events:
                    if not response.prepared:
                        await response.prepare(request)
                        continue  # the first bookmark says that the watch was accepted
                    await _send_line(response, event.change.value, event.object)
            except ApiError as error:
                if not response.prepared:
                    raise
                await _send_line(response, "ERROR", _status(error))
        return response


def _resource(request: web.Request) -> Resource:
    path = request.match_info
    resource = _RESOURCES.get((path.get("group", ""), path["version"], path["plural"]))
    if resource is None:
        raise NotFound(f"the demo's API server has no {request.path}")
    return resource


def _place(request: web.Request) -> tuple[str, str]:
    """Return the namespace and the name in a path."""
    path = request.match_info
    return path.get("namespace", EVERYWHERE), path.get("name", "")


def _number(request: web.Request, name: str) -> int | None:
    text = request.query.get(name, "")
    return int(text) if text.isdecimal() else None


async def _send_line(response: web.StreamResponse, kind: str, item: Mapping[str, Any]) -> None:
    await response.write(json.dumps({"type": kind, "object": item}).encode() + b"\n")


async def _body(request: web.Request) -> Any:
    """Read the JSON of a request; None if it has no body."""
    if not request.can_read_body:
        return None
    try:
        return await request.json()
    except ValueError as error:
        raise Invalid(f"the body is not JSON: {error}") from error


def _status(error: ApiError) -> dict[str, Any]:
    code, reason = next((code, reason) for kind, code, reason in _STATUS if isinstance(error, kind))
    return {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "message": str(error),
        "reason": reason,
        "code": code,
    }
