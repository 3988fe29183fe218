"""The API of a real cluster, through the libraries `kubernetes` and aiohttp.

`kubernetes` does configuration, authentication and TLS. Its generated methods check and rebuild
every object, and its generic ones ask for proxies and `~/.netrc` in two thread hops per request,
which together cost three times the request itself. So objects pass as the plain JSON they are,
over an aiohttp session that is made here. Nothing is repeated behind the caller's back, nor is a
redirect followed.

Each failure is translated here, once, into the tree of `domain.errors`. Where a connection could
not even be made, the request surely was not carried out: that `Unavailable` has `answered` set.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import ssl
from contextlib import asynccontextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

import aiohttp
from kubernetes.aio.client import ApiClient

from openfero_gitops import __version__
from openfero_gitops.cluster.api import EVERYWHERE, Change, Created, ObjectList, WatchEvent
from openfero_gitops.cluster.kubeconfig import find_access
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
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from openfero_gitops.cluster.api import Object, Operation, Resource
    from openfero_gitops.cluster.clock import Clock
    from openfero_gitops.cluster.kubeconfig import Access

CONNECT: Final = 3.0  # seconds for TCP and TLS; a server that is there needs milliseconds
OPENING: Final = 10.0  # seconds until a watch answers with its HTTP status
SILENCE: Final = 5.0  # seconds that a watch may outlive the end it was asked to have
POOL: Final = 100  # connections at once; a request beyond them waits for one
PAGE: Final = 500  # objects per page of a list, as client-go asks
RESTARTS: Final = 3  # of a list whose continue token expired between two pages
LARGE: Final = 2**20  # bytes of a body
LONGEST_WAIT: Final = 600.0  # seconds that a server may ask us to wait
LONGEST: Final = 1000  # characters of a message; the server may quote a whole object

JSON: Final = "application/json"
JSON_PATCH: Final = "application/json-patch+json"
_WARNING: Final = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')  # RFC 7234, section 5.5
_NO_PATH_SEGMENT: Final = re.compile(r"\.\.?|.*[/%].*|", re.DOTALL)  # apimachinery's rule

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


class KubernetesApi:
    """An `ApiServer` that is one; made by `connect`, given back by `close`."""

    def __init__(self, client: ApiClient, access: Access, clock: Clock | None = None) -> None:
        self.default_namespace = access.namespace
        self._client = client
        self._access = access
        self._clock = clock
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=POOL, ssl=client.rest_client.ssl_context),
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(_only_once,),
        )
        configuration = access.configuration
        self._route: dict[str, Any] = {
            "server_hostname": configuration.tls_server_name,
            "proxy": configuration.proxy,
            "proxy_headers": configuration.proxy_headers,
            "allow_redirects": False,
        }
        self._server = urlsplit(access.configuration.host).netloc.rpartition("@")[2]
        self._closed = False

    @property
    def server(self) -> str:
        """The API server's host and port, without credentials."""
        return self._server

    @classmethod
    async def connect(
        cls,
        kubeconfig: Path | None = None,
        context: str | None = None,
        *,
        user_agent: str = f"openfero-gitops/{__version__}",
        clock: Clock | None = None,
    ) -> KubernetesApi:
        """Prepare to talk to a cluster; no request is made yet.

        Args:
            kubeconfig: None looks at `$KUBECONFIG`, the Pod's own access, `~/.kube/config`.
            context: of that kubeconfig; None is its current one.
            user_agent: up to its `/` it is also the field manager in the objects written.
            clock: is held against the `Date` of every answer.

        Raises:
            UsageError: there is no cluster to be found there.
        """
        access = await find_access(kubeconfig, context)
        try:  # it reads certificates
            client = await asyncio.to_thread(ApiClient, access.configuration)
        except OSError as error:
            raise UsageError(
                f"the certificates in {access.source} cannot be used: {_words(error)}"
            ) from error
        client.user_agent = user_agent
        return cls(client, access, clock)

    async def close(self) -> None:
        """Close every connection; requests under way fail, later ones are refused."""
        self._closed = True
        await self._session.close()
        await self._client.close()  # type: ignore[no-untyped-call]
        await asyncio.sleep(0)  # the transports' own callbacks run in the next turn of the loop

    async def whoami(self, *, timeout: float = 10.0) -> str:
        """The name under which the API server knows the caller (SelfSubjectReview)."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        answer = await self._call("POST", path, timeout, review)
        return str(answer["status"]["userInfo"]["username"])

    async def version(self, *, timeout: float = 10.0) -> str:
        """GET /version. See `ApiServer`."""
        answer = await self._call("GET", "/version", timeout)
        return str(answer.get("gitVersion", ""))

    async def published_schema(self, group: str, version: str, *, timeout: float = 30.0) -> Object:
        """The OpenAPI document in which the API server describes the objects of a group.

        Raises:
            ApiError: it does not; NotFound where it serves no such group, or is before 1.24.
        """
        return await self._call("GET", f"/openapi/v3/apis/{group}/{version}", timeout)

    async def create(
        self,
        resource: Resource,
        namespace: str,
        body: Object,
        *,
        dry_run: bool = False,
        timeout: float = 10.0,
    ) -> Created:
        """POST; `dry_run` asks for `dryRun=All`. See `ApiServer`."""
        query = {"dryRun": "All"} if dry_run else {}
        async with self._within(timeout):
            response = await self._send(
                "POST", _path(resource, namespace), timeout, query, body=body
            )
            stored = await self._read(response)
        said = response.headers.getall("Warning", ())
        warnings = [re.sub(r"\\(.)", r"\1", w) for line in said for w in _WARNING.findall(line)]
        return Created(stored, tuple(warnings))

    async def get(
        self, resource: Resource, namespace: str, name: str, *, timeout: float = 10.0
    ) -> Object:
        """GET without a resourceVersion, which is the consistent kind. See `ApiServer`."""
        return await self._call("GET", _path(resource, namespace, name), timeout)

    async def list(
        self,
        resource: Resource,
        namespace: str,
        *,
        label_selector: str = "",
        timeout: float = 30.0,
    ) -> ObjectList:
        """GET page by page; all of them show one resourceVersion. See `ApiServer`."""
        query = {"limit": str(PAGE)}
        if label_selector:
            query["labelSelector"] = label_selector
        async with self._within(timeout):
            for _ in range(RESTARTS):
                try:
                    return await self._pages(resource, namespace, query, timeout)
                except Expired:
                    continue
            return await self._pages(resource, namespace, query, timeout)

    async def _pages(
        self, resource: Resource, namespace: str, query: Mapping[str, str], timeout: float
    ) -> ObjectList:
        items: list[Object] = []
        following: dict[str, str] = {}
        while True:
            response = await self._send(
                "GET", _path(resource, namespace), timeout, {**query, **following}
            )
            page = await self._read(response)
            # The server leaves out of a list what all its items have in common.
            common = {"apiVersion": resource.api_version, "kind": resource.kind}
            items.extend({**common, **item} for item in page.get("items") or ())
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return ObjectList(items, metadata.get("resourceVersion", ""))
            following = {"continue": metadata["continue"]}

    async def replace(
        self, resource: Resource, namespace: str, body: Object, *, timeout: float = 10.0
    ) -> Object:
        """PUT. See `ApiServer`."""
        name = (body.get("metadata") or {}).get("name") or ""
        return await self._call("PUT", _path(resource, namespace, name), timeout, body)

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        operations: Sequence[Operation],
        *,
        timeout: float = 10.0,
    ) -> Object:
        """PATCH with a JSON Patch. See `ApiServer`."""
        path = _path(resource, namespace, name)
        return await self._call("PATCH", path, timeout, [*operations], JSON_PATCH)

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str = "",
        resource_version: str = "",
        timeout: float = 10.0,
    ) -> None:
        """DELETE with `propagationPolicy: Background`. See `ApiServer`."""
        given = {"uid": uid, "resourceVersion": resource_version}
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",  # without it a Job leaves its Pods behind
            "preconditions": {key: value for key, value in given.items() if value},
        }
        await self._call("DELETE", _path(resource, namespace, name), timeout, options)

    async def watch(
        self,
        resource: Resource,
        namespace: str,
        *,
        resource_version: str,
        label_selector: str = "",
        timeout: float = 300.0,
    ) -> AsyncGenerator[WatchEvent, None]:
        """GET that goes on. See `ApiServer`.

        The server ends it after `timeout`. One that then neither ends nor says anything for
        `SILENCE` seconds more hangs, or what is between: that raises `Unavailable`.
        """
        if resource_version in ("", "0"):
            raise Invalid("a watch needs the resourceVersion of a list or an object")
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, math.ceil(timeout))),
        }
        if label_selector:
            query["labelSelector"] = label_selector
        path = _path(resource, namespace)
        end = asyncio.get_running_loop().time() + timeout + SILENCE
        async with self._within(OPENING):
            response = await self._send("GET", path, None, query)
            if response.status != 200:  # noqa: PLR2004
                await self._read(response)
        try:
            yield WatchEvent(Change.BOOKMARK, _bookmark(resource, resource_version))
            lines = _Lines()
            while chunk := await self._chunk(response, end):
                for line in lines.feed(chunk):
                    yield _event(line, self._server)
            if lines.rest:
                raise Unavailable(f"{self._server}: the watch ended in the middle of an event")
        finally:
            response.close()

    async def _chunk(self, response: aiohttp.ClientResponse, end: float) -> bytes:
        left = end - asyncio.get_running_loop().time()
        async with self._within(left, "the watch hangs: neither news nor its end"):
            return await response.content.readany()

    async def _call(
        self,
        method: str,
        path: str,
        timeout: float,
        body: object = None,
        content: str = JSON,
    ) -> Object:
        async with self._within(timeout):
            response = await self._send(method, path, timeout, body=body, content=content)
            return await self._read(response)

    async def _send(
        self,
        method: str,
        path: str,
        timeout: float | None,
        query: Mapping[str, str] | None = None,
        *,
        body: object = None,
        content: str = JSON,
    ) -> aiohttp.ClientResponse:
        """Send, and wait for the status; `timeout` None bounds the connecting only."""
        data = None if body is None else _dumped(body)
        method, url, headers, _, _ = await self._client.param_serialize(
            method,
            path,
            query_params=query,
            header_params={"Accept": JSON, "Content-Type": content},
            auth_settings=["BearerToken"],
        )
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=min(CONNECT, timeout or CONNECT))
        asked = self._clock.seconds() if self._clock else 0.0
        response = await self._session.request(
            method, url, data=data, headers=headers, timeout=limits, **self._route
        )
        if self._clock:
            self._clock.compare(asked, response.headers.get("Date"))
        return response

    async def _read(self, response: aiohttp.ClientResponse) -> Object:
        raw = await response.read()
        if not 200 <= response.status <= 299:  # noqa: PLR2004
            raise self._refusal(response, raw)
        try:
            answer = json.loads(raw)
        except ValueError as error:
            raise Unavailable(f"{self._server} answered what is no JSON") from error
        if not isinstance(answer, dict):
            raise Unavailable(f"{self._server} answered JSON that is no object")
        return answer

    def _refusal(self, response: aiohttp.ClientResponse, raw: bytes) -> ApiError:
        try:
            status = json.loads(raw)
        except ValueError:
            status = None
        if not isinstance(status, dict) or status.get("kind") != "Status":
            # Not Kubernetes' own words: a proxy's, say. They may be a whole page.
            status = {"message": f"HTTP {response.status} from {self._server}"}
        error = _translated(response.status, status)
        if isinstance(error, Throttled):
            error.retry_after = _seconds(response.headers.get("Retry-After"), error.retry_after)
        if isinstance(error, Unauthorized):
            problem = self._access.renewal.problem
            return Unauthorized(
                f"{self._server} does not accept the credentials from {self._access.source}"
                + (f", and they could not be renewed: {problem}" if problem else "")
            )
        return error

    @asynccontextmanager
    async def _within(self, timeout: float, otherwise: str = "") -> AsyncIterator[None]:
        """Bound what is inside in time, and translate what can go wrong on the way."""
        if self._closed:
            raise _never_sent("the connection to the cluster has been closed")
        try:
            async with asyncio.timeout(timeout):
                yield
        except aiohttp.ConnectionTimeoutError as error:
            raise _never_sent(f"{self._server} did not accept a connection in time") from error
        except aiohttp.ClientConnectorError as error:
            raise _never_sent(f"{self._server} cannot be reached: {_words(error)}") from error
        except TimeoutError as error:
            said = otherwise or f"no answer within {timeout:g} s"
            raise Unavailable(f"{self._server}: {said}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unavailable(f"{self._server}: {_words(error)}") from error
        except RuntimeError as error:
            if not self._closed:
                raise
            raise _never_sent("the connection to the cluster has been closed") from error


class _Lines:
    """Lines of any length out of chunks of any length; aiohttp's own have a limit."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    @property
    def rest(self) -> bytes:
        """What came after the last line break."""
        return b"".join(self._parts)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that this chunk completes."""
        first, *others = chunk.split(b"\n")
        self._parts.append(first)
        if not others:
            return []
        *whole, last = (self.rest, *others)
        self._parts = [last]
        return whole


async def _only_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keep aiohttp from repeating a write by itself when a pooled connection breaks.

    It takes PUT and DELETE for repeatable. But where the first one was carried out, the second
    answers Conflict or NotFound, and a lease that was renewed looks lost.
    """
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        if request.method in ("PUT", "DELETE"):
            raise aiohttp.ClientConnectionError(_words(error)) from error
        raise


def _path(resource: Resource, namespace: str, name: str | None = None) -> str:
    """The URL path; an empty name must not turn one object into all of them."""
    for segment in (namespace,) if name is None else (namespace, name):
        if _NO_PATH_SEGMENT.fullmatch(segment):
            raise Invalid(f"{segment!r} is no name of a {resource.kind} or its namespace")
    if namespace == EVERYWHERE and name is None:
        return resource.path(EVERYWHERE)
    return resource.path(quote(namespace), quote(name or ""))


def _dumped(body: object) -> bytes | BytesIO:
    try:
        data = json.dumps(body).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid(f"the object cannot be written as JSON: {error}") from error
    # aiohttp warns of large bytes, since it writes them at once; a file goes in pieces.
    return data if len(data) <= LARGE else BytesIO(data)


def _bookmark(resource: Resource, resource_version: str) -> Object:
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"resourceVersion": resource_version},
    }


def _event(line: bytes, server: str) -> WatchEvent:
    """Read one line of a watch.

    Raises:
        ApiError: the line reports an error, as `Expired`; or it is none of a watch's.
    """
    try:
        event = json.loads(line)
        kind, changed = event["type"], event["object"]
        if kind != "ERROR":
            str(changed["metadata"]["resourceVersion"])  # whoever watches goes on from there
            return WatchEvent(Change(kind), changed)
        code = int(changed.get("code") or 500)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Unavailable(f"{server} sent what is no watch event") from error
    raise _translated(code, changed)


def _translated(code: int, status: Mapping[str, Any]) -> ApiError:
    """Turn an HTTP status code and a `Status` object into the error that says what to do next."""
    message = " ".join(str(status.get("message") or f"HTTP {code}").split())
    if len(message) > LONGEST:
        message = f"{message[: LONGEST * 2 // 3]} … {message[-LONGEST // 3 :]}"
    if status.get("reason") == "AlreadyExists":
        return AlreadyExists(message)
    error = _BY_STATUS.get(code, Unavailable)(message)
    if isinstance(error, Throttled):
        details = status.get("details")
        given = details.get("retryAfterSeconds") if isinstance(details, dict) else None
        error.retry_after = _seconds(given, error.retry_after)
    elif isinstance(error, Unavailable):
        error.answered = code < 500  # noqa: PLR2004, refused before anything was done
    return error


def _seconds(given: Any, otherwise: float) -> float:
    """How long to wait; not what stands there as a date, nor for ever."""
    text = str(given or "")
    return min(float(text), LONGEST_WAIT) if text.isdecimal() else otherwise


def _never_sent(message: str) -> Unavailable:
    error = Unavailable(message)
    error.answered = True
    return error


def _words(error: Exception) -> str:
    """Say what broke, without addresses and bytes that a log need not hold."""
    said = type(error).__name__
    match error:
        case aiohttp.ClientConnectorCertificateError():
            said = f"its certificate is not trusted: {error.certificate_error}"
        case aiohttp.ClientConnectorDNSError():
            said = "its name cannot be resolved"
        case aiohttp.ClientConnectorError():
            said = _words(error.os_error)
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError():
            said = "the connection ended before the answer did"
        case ssl.SSLError():
            said = f"TLS failed: {error.reason or 'not the key, certificate or protocol expected'}"
        case OSError(errno=number) if number:
            said = os.strerror(number)
    return said
