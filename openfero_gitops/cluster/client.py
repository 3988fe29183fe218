"""The client of a real API server, on top of the libraries `kubernetes` and aiohttp.

`kubernetes` provides configuration, authentication and TLS. Its generated methods validate and
convert every object, and its generic ones look up proxies and `~/.netrc` in two thread hops per
request; together this costs three times as much as the request. So objects stay plain JSON, and
requests go through an aiohttp session of our own. No request is repeated, and no redirect is
followed.

Every failure is translated here into the tree of `domain.errors`. If not even a connection could
be made, the request was certainly not carried out: `answered` of that `Unavailable` is set.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec
from aiohttp.connector import NEEDS_CLEANUP_CLOSED
from yarl import URL

from openfero_gitops import __version__
from openfero_gitops.cluster.answers import (
    LARGE_ANSWERS,
    MAX_ANSWER_BYTES,
    MAX_ERROR_BYTES,
    AnswerBody,
    Lines,
    Pages,
    TooLongError,
    parse_event,
    parse_object,
)
from openfero_gitops.cluster.api import EVERYWHERE, PODS, Change, Created, ObjectList, WatchEvent
from openfero_gitops.cluster.batches import await_batch
from openfero_gitops.cluster.exchange import Exchange, Peer
from openfero_gitops.cluster.failures import parse_seconds, translate
from openfero_gitops.cluster.kubeconfig import find_access
from openfero_gitops.cluster.library import ApiClient
from openfero_gitops.domain.errors import (
    ApiError,
    Expired,
    Invalid,
    Throttled,
    Unauthorized,
    Unavailable,
    UsageError,
)
from openfero_gitops.request_errors import describe

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        Callable,
        Mapping,
        Sequence,
    )
    from pathlib import Path

    from openfero_gitops.cluster.api import Object, Operation, Resource
    from openfero_gitops.cluster.clock import Clock
    from openfero_gitops.cluster.kubeconfig import ClusterAccess

CONNECT_SECONDS: Final = 3.0  # for TCP and TLS; a reachable server needs milliseconds
WATCH_START_SECONDS: Final = 10.0  # until a watch returns its HTTP status
WATCH_GRACE_SECONDS: Final = 5.0  # that a watch may exceed its timeout
LOG_SECONDS: Final = 300.0  # for all of a log that is not followed
_STALLED: Final = "the watch has stalled: it neither sends events nor ends"
MAX_CONNECTIONS: Final = 100  # further requests wait
PAGE_SECONDS: Final = 30.0  # for one page of a list
MAX_LIST_RESTARTS: Final = 3  # when the continue token has expired between two pages
STREAMED_BYTES: Final = 2**20  # above which a body is sent in pieces

JSON: Final = "application/json"
METADATA: Final = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{JSON}"
JSON_PATCH: Final = "application/json-patch+json"
_WARNING: Final = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')  # RFC 7234, section 5.5
_REPEATED_WRITES: Final = ("PUT", "DELETE")  # by aiohttp
#: Names of a bearer token in the configuration of the library.
_TOKEN: Final = ("BearerToken", "authorization")
_ENCODE: Final = msgspec.json.Encoder().encode
_NO_PATH_SEGMENT: Final = re.compile(r"\.\.?|.*[/%].*|", re.DOTALL)  # apimachinery's rule


class KubernetesApi:
    """An `ApiServer` over HTTP; opened by `connect`, closed by `close`."""

    def __init__(
        self, client: ApiClient, access: ClusterAccess, clock: Clock | None = None
    ) -> None:
        self.default_namespace = access.namespace
        self._client = client
        self._access = access
        self._clock = clock
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=MAX_CONNECTIONS,
                ssl=client.rest_client.ssl_context,
                # Older Pythons may never close the connection of a cancelled request.
                enable_cleanup_closed=NEEDS_CLEANUP_CLOSED,
            ),
            headers=[("User-Agent", client.user_agent), *access.impersonation],
            timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        configuration = access.configuration
        self._route: dict[str, Any] = {
            "server_hostname": configuration.tls_server_name,
            "proxy": configuration.proxy,
            "proxy_headers": configuration.proxy_headers,
            "allow_redirects": False,
        }
        url = URL(configuration.host).with_query(None).with_fragment(None)
        self._base_url = str(url).rstrip("/")
        netloc = urlsplit(configuration.host).netloc
        self._peer = Peer(netloc.rpartition("@")[2], CONNECT_SECONDS)
        self._large_answers = asyncio.Semaphore(LARGE_ANSWERS)

    @property
    def server(self) -> str:
        """The API server's host and port, without credentials."""
        return self._peer.name

    @property
    def description(self) -> str:
        """Which cluster this is: its host and port, and where the access to it was found."""
        return f"{self._peer.name} ({self._access.description})"

    @classmethod
    async def connect(
        cls,
        kubeconfig: Path | None = None,
        context: str | None = None,
        *,
        user_agent: str = f"openfero-gitops/{__version__}",
        clock: Clock | None = None,
    ) -> KubernetesApi:
        """Prepare the connection to a cluster; no request is sent yet.

        Args:
            kubeconfig: None uses `$KUBECONFIG`, the Pod's own access, or `~/.kube/config`.
            context: of the kubeconfig; None is its current context.
            user_agent: the part before its `/` is the field manager of the objects written.
            clock: compared with the `Date` of every response.

        Raises:
            UsageError: no usable configuration was found.
        """
        access = await find_access(kubeconfig, context)
        try:  # it reads certificates
            client = await asyncio.to_thread(ApiClient, access.configuration)
        except OSError as error:
            raise UsageError(
                f"cannot use the certificates in {access.source}: {describe(error)}"
            ) from error
        client.user_agent = user_agent
        return cls(client, access, clock)

    async def close(self) -> None:
        """Close every connection; running requests fail, later ones are refused."""
        self._peer.closed = True
        await self._session.close()
        await self._client.close()  # type: ignore[no-untyped-call]
        await asyncio.sleep(
            0
        )  # the callbacks of the transports run in the next iteration of the loop

    async def whoami(self, *, timeout: float = 10.0) -> str:
        """Return the username of the caller, by a SelfSubjectReview."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        answer = await self._request("POST", path, timeout, review)
        return str(answer["status"]["userInfo"]["username"])

    async def version(self, *, timeout: float = 10.0) -> str:
        """GET /version. See `ApiServer`."""
        answer = await self._request("GET", "/version", timeout)
        return str(answer.get("gitVersion", ""))

    async def published_schema(self, group: str, version: str, *, timeout: float = 30.0) -> Object:
        """Read the OpenAPI document of an API group.

        Raises:
            ApiError: NotFound if the group does not exist, or the server is older than 1.24.
        """
        return await self._request("GET", f"/openapi/v3/apis/{group}/{version}", timeout)

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
            response = await self._send("POST", _path(resource, namespace), query, body=body)
            stored = await self._read(response, resource)
        headers = response.headers.getall("Warning", ())
        warnings = [re.sub(r"\\(.)", r"\1", w) for line in headers for w in _WARNING.findall(line)]
        return Created(stored, tuple(warnings))

    async def get(
        self, resource: Resource, namespace: str, name: str, *, timeout: float = 10.0
    ) -> Object:
        """GET without a resourceVersion, which is consistent. See `ApiServer`."""
        path = _path(resource, namespace, name)
        return await self._request("GET", path, timeout, resource=resource)

    async def list(
        self,
        resource: Resource,
        namespace: str,
        *,
        label_selector: str = "",
        field_selector: str = "",
        read: Callable[[Object], Any] | None = None,
        max_objects: int | None = None,
        timeout: float = 30.0,
    ) -> ObjectList:
        """GET page by page; all pages have one resourceVersion. See `ApiServer`."""
        pages = Pages(resource, read, max_objects)
        selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        query = {name: value for name, value in selectors.items() if value}
        path = _path(resource, namespace)
        restarts = 0
        async with self._within(timeout):
            while not pages.complete:
                try:
                    await self._read_page(pages, path, query, min(timeout, PAGE_SECONDS))
                except Expired:
                    if restarts == MAX_LIST_RESTARTS:
                        raise
                    restarts += 1
                    pages.restart()
        return ObjectList(pages.items, pages.resource_version)

    async def _read_page(
        self, pages: Pages, path: str, query: Mapping[str, str], timeout: float
    ) -> None:
        """Read one page, or find that it must be requested again with fewer objects."""
        accept = METADATA if pages.resource.metadata_only else JSON
        query = {**query, **pages.query()}
        async with self._within(timeout):
            response = await self._send("GET", path, query, accept=accept)
            if not _succeeded(response):
                raise await self._refusal(response)
            try:
                async with self._body(response, pages.max_bytes) as text:
                    await pages.read(text)
            except TooLongError:
                if not pages.shrink():
                    raise self._too_long(pages.max_bytes) from None
            except ValueError as error:
                raise self._not_json() from error

    async def replace(
        self, resource: Resource, namespace: str, body: Object, *, timeout: float = 10.0
    ) -> Object:
        """PUT. See `ApiServer`."""
        name = (body.get("metadata") or {}).get("name") or ""
        return await self._request("PUT", _path(resource, namespace, name), timeout, body)

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
        return await self._request(
            "PATCH", path, timeout, [*operations], JSON_PATCH, resource=resource
        )

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
            "propagationPolicy": "Background",  # without it, the Pods of a Job would stay
            "preconditions": {key: value for key, value in given.items() if value},
        }
        await self._request("DELETE", _path(resource, namespace, name), timeout, options)

    async def watch(
        self,
        resource: Resource,
        namespace: str,
        *,
        resource_version: str,
        label_selector: str = "",
        timeout: float = 300.0,
        batch_seconds: Callable[[], float] | None = None,
    ) -> AsyncGenerator[WatchEvent, None]:
        """GET with `watch=true`. See `ApiServer`.

        The server ends the watch after `timeout`. If it has not done so `WATCH_GRACE_SECONDS`
        later, the connection is dead, and `Unavailable` is raised.
        """
        if resource_version in ("", "0"):
            raise Invalid("a watch requires the resourceVersion of a list or an object")
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, math.ceil(timeout))),
        }
        if label_selector:
            query["labelSelector"] = label_selector
        path = _path(resource, namespace)
        end = asyncio.get_running_loop().time() + timeout + WATCH_GRACE_SECONDS
        async with self._within(WATCH_START_SECONDS):
            response = await self._send("GET", path, query)
            if response.status != 200:  # noqa: PLR2004
                await self._read(response)
        try:
            yield WatchEvent(Change.BOOKMARK, _bookmark(resource, resource_version))
            lines = Lines()
            while chunk := await self._chunk(response, end, _STALLED):
                received = response.content.total_bytes
                for line in lines.feed(chunk):
                    yield self._event(line, resource)
                if batch_seconds is not None:
                    await await_batch(response, received, batch_seconds())
            if lines.rest:
                raise Unavailable(f"{self._peer.name}: the watch ended in the middle of an event")
        except TooLongError:
            raise self._too_long(MAX_ANSWER_BYTES) from None
        finally:
            # Without a TLS shutdown, whose answer a dead server would keep us waiting for.
            if response.connection is not None and response.connection.transport is not None:
                response.connection.transport.abort()
            response.close()

    async def pod_log(
        self,
        namespace: str,
        name: str,
        container: str,
        *,
        follow: bool = False,
        tail_lines: int | None = None,
        limit_bytes: int | None = None,
        timeout: float = LOG_SECONDS,
    ) -> AsyncGenerator[bytes, None]:
        """GET the subresource `log`. See `ApiServer`."""
        query = {"container": container, "follow": str(follow).lower()}
        if tail_lines is not None:
            query["tailLines"] = str(tail_lines)
        if limit_bytes is not None:
            query["limitBytes"] = str(limit_bytes)
        path = f"{_path(PODS, namespace, name)}/log"
        async with self._within(min(timeout, WATCH_START_SECONDS)):
            response = await self._send("GET", path, query, accept="*/*")
            if not response.ok:
                await self._read(response)
        try:
            end = math.inf if follow else asyncio.get_running_loop().time() + timeout
            incomplete = f"the log was not complete within {timeout:g} s"
            while chunk := await self._chunk(response, end, incomplete):
                yield chunk
        finally:
            response.close()

    async def _chunk(self, response: aiohttp.ClientResponse, end: float, late: str) -> bytes:
        left = end - asyncio.get_running_loop().time()
        async with self._within(left, late):
            return await response.content.readany()

    async def _request(
        self,
        method: str,
        path: str,
        timeout: float,
        body: object = None,
        content: str = JSON,
        *,
        resource: Resource | None = None,
    ) -> Object:
        async with self._within(timeout):
            response = await self._send(method, path, body=body, content=content)
            return await self._read(response, resource)

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: object = None,
        content: str = JSON,
        accept: str = JSON,
    ) -> aiohttp.ClientResponse:
        """Send a request and wait for its status; only connecting is limited in time."""
        data = None if body is None else encode_body(body)
        url = URL(self._base_url + path, encoded=True)  # yarl remembers the last ones
        headers = {"Accept": accept, "Content-Type": content}
        token = await self._access.configuration.get_api_key_with_prefix(*_TOKEN)
        if token is not None:
            headers["Authorization"] = token
        sent_at = self._clock.seconds() if self._clock else 0.0
        response = await self._session.request(
            method,
            url.with_query(query) if query else url,
            data=data,
            headers=headers,
            middlewares=(_only_once,) if method in _REPEATED_WRITES else (),
            **self._route,
        )
        if self._clock:
            self._clock.compare(sent_at, response.headers.get("Date"))
        return response

    async def _read(
        self, response: aiohttp.ClientResponse, resource: Resource | None = None
    ) -> Object:
        if not _succeeded(response):
            raise await self._refusal(response)
        try:
            async with self._body(response, MAX_ANSWER_BYTES) as text:
                return parse_object(text, resource)
        except TooLongError:
            raise self._too_long(MAX_ANSWER_BYTES) from None
        except ValueError as error:
            raise self._not_json() from error

    def _body(self, response: aiohttp.ClientResponse, max_bytes: int) -> AnswerBody:
        return AnswerBody(response, max_bytes, self._large_answers)

    def _not_json(self) -> Unavailable:
        return Unavailable(f"{self._peer.name} returned a response that is not JSON")

    def _too_long(self, max_bytes: int) -> Unavailable:
        return Unavailable(f"{self._peer.name} returned more than {max_bytes >> 20} MiB at once")

    def _event(self, line: bytes, resource: Resource) -> WatchEvent:
        try:
            event = parse_event(line, resource)
            if isinstance(event, WatchEvent):
                return event
            code = int(event.get("code") or 500)
        except (ValueError, TypeError) as error:
            raise Unavailable(f"{self._peer.name} sent a line that is not a watch event") from error
        raise translate(code, event)

    async def _refusal(self, response: aiohttp.ClientResponse) -> ApiError:
        """Read a response that reports a failure."""
        try:
            async with self._body(response, MAX_ERROR_BYTES) as text:
                status = parse_object(text)
        except (ValueError, TooLongError):
            status = {}
        if status.get("kind") != "Status":
            # Not from Kubernetes, perhaps from a proxy: it may be a whole page.
            status = {"message": f"HTTP {response.status} from {self._peer.name}"}
        error = translate(response.status, status)
        if isinstance(error, Throttled):
            error.retry_after = parse_seconds(
                response.headers.get("Retry-After"), error.retry_after
            )
        if isinstance(error, Unauthorized):
            problem = self._access.renewal.problem
            return Unauthorized(
                f"{self._peer.name} rejects the credentials from {self._access.source}"
                + (f", which could not be renewed: {problem}" if problem else "")
            )
        return error

    def _within(self, timeout: float, on_timeout: str = "") -> Exchange:
        """Limit the time of a block, and translate errors of the connection."""
        return Exchange(self._peer, timeout, on_timeout)


async def _only_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Prevent aiohttp from repeating a write when a pooled connection breaks.

    It repeats PUT and DELETE. But if the first request was carried out, the second returns Conflict
    or NotFound, and a Lease that was renewed looks lost.
    """
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(describe(error)) from error


def _path(resource: Resource, namespace: str, name: str | None = None) -> str:
    """Return the URL path; an empty name must not select all objects."""
    for segment in (namespace,) if name is None else (namespace, name):
        if _NO_PATH_SEGMENT.fullmatch(segment):
            raise Invalid(f"{segment!r} is not a valid name of a {resource.kind} or namespace")
    if namespace == EVERYWHERE and name is None:
        return resource.path(EVERYWHERE)
    return resource.path(quote(namespace), quote(name or ""))


def _succeeded(response: aiohttp.ClientResponse) -> bool:
    return 200 <= response.status <= 299  # noqa: PLR2004


def encode_body(body: object) -> bytes | BytesIO:
    """Serialize the body of a request to JSON.

    Raises:
        Invalid: it contains something that JSON cannot represent.
    """
    try:
        data = _ENCODE(body)
    except (TypeError, ValueError, OverflowError, RecursionError):
        # Such as half of a surrogate pair, which UTF-8 cannot represent, but `\\u` can.
        try:
            data = json.dumps(body).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise Invalid(f"the object cannot be serialized to JSON: {error}") from error
    # aiohttp writes bytes at once, and warns if they are large; a file is sent in pieces.
    return data if len(data) <= STREAMED_BYTES else BytesIO(data)


def _bookmark(resource: Resource, resource_version: str) -> Object:
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"resourceVersion": resource_version},
    }
