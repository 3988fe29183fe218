"""Requests to a real API server in the names of users, as the server sees them."""

from __future__ import annotations

import http.client
import json
import subprocess
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PATIENCE = 300  # seconds

APPLY = "application/apply-patch+yaml"  # JSON is YAML
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"


class RequestRefused(Exception):
    """The API server refused a request; the text is its message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Users:
    """Sends requests through `kubectl proxy`, and impersonates a user in each.

    Much faster than a kubectl for each request. The proxy has a kubeconfig that may impersonate.
    """

    def __init__(self, kubectl: Path, kubeconfig: Path, *options: str) -> None:
        """Start nothing; with the option `--as=USER` other programs can use the proxy as USER."""
        self._argv = [kubectl, f"--kubeconfig={kubeconfig}", *options, "proxy", "--port=0"]

    @property
    def url(self) -> str:
        """Where the proxy listens, while it runs."""
        return f"http://{self._address}"

    def __enter__(self) -> Self:
        """Start the proxy."""
        self._proxy = subprocess.Popen(self._argv, stdout=subprocess.PIPE, text=True)
        assert self._proxy.stdout is not None
        self._address = self._proxy.stdout.readline().split()[-1]
        return self

    def __exit__(self, *_: object) -> None:
        """End the proxy."""
        self._proxy.kill()
        self._proxy.communicate()

    def request(
        self,
        user: str | None,
        method: str,
        path: str,
        body: object = None,
        *,
        groups: Sequence[str] = (),
        content_type: str = "application/json",
    ) -> Any:
        """Send a request as a user, or as the user of the kubeconfig; return the answer.

        Raises:
            RequestRefused: the answer is an error.
        """
        connection = http.client.HTTPConnection(self._address, timeout=PATIENCE)
        connection.putrequest(method, path)
        if user is not None:
            connection.putheader("Impersonate-User", user)
        for group in groups:
            connection.putheader("Impersonate-Group", group)
        content = b"" if body is None else json.dumps(body).encode()
        connection.putheader("Content-Type", content_type)
        connection.putheader("Content-Length", str(len(content)))
        connection.endheaders(content)
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        if response.status >= http.client.BAD_REQUEST:
            raise RequestRefused(response.status, answer["message"])
        return answer


class Jobs:
    """The Jobs of a namespace, for one user."""

    def __init__(self, users: Users, namespace: str, user: str | None) -> None:
        self._users = users
        self._path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self.user = user

    def create(self, job: dict[str, Any]) -> dict[str, Any]:
        """Create a Job; return it as stored."""
        return dict(self._users.request(self.user, "POST", self._path, job))

    def apply(self, job: dict[str, Any]) -> dict[str, Any]:
        """Create or change a Job by a server-side apply; return it as stored."""
        path = f"{self._path}/{job['metadata']['name']}?fieldManager=test&force=true"
        return dict(self._users.request(self.user, "PATCH", path, job, content_type=APPLY))

    def get(self, name: str) -> dict[str, Any]:
        """Read a Job."""
        return dict(self._users.request(self.user, "GET", f"{self._path}/{name}"))

    def merge(self, name: str, change: object, subresource: str = "") -> dict[str, Any]:
        """Apply a JSON Merge Patch to a Job, or to its `/status`."""
        path = f"{self._path}/{name}{subresource}"
        return dict(self._users.request(self.user, "PATCH", path, change, content_type=MERGE))

    def patch(self, name: str, operations: object) -> dict[str, Any]:
        """Apply a JSON Patch to a Job."""
        path = f"{self._path}/{name}"
        return dict(
            self._users.request(self.user, "PATCH", path, operations, content_type=JSON_PATCH)
        )

    def delete(self, name: str, propagation: str = "Background") -> None:
        """Delete a Job."""
        options = {"propagationPolicy": propagation}
        self._users.request(self.user, "DELETE", f"{self._path}/{name}", options)
