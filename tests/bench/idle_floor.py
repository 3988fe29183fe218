"""The least that an idle leader does, to compare with: renew a Lease, hold a watch, be probed.

python -m tests.bench.idle_floor KUBECONFIG NAMESPACE PORT
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from aiohttp import web

from tests.support.attacks import Admin, jobs_path

_RENEW_SECONDS: Final = 2.0
_LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
_METRICS: Final = "# a page of the size of ours\n" * 700


async def _renew(admin: Admin, namespace: str) -> None:
    path = _LEASES.format(namespace)
    spec = {"holderIdentity": "floor", "leaseDurationSeconds": 15}
    _, lease = await admin.request("POST", path, {"metadata": {"name": "floor"}, "spec": spec})
    while True:
        lease["spec"]["renewTime"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        _, lease = await admin.request("PUT", f"{path}/floor", lease)
        await asyncio.sleep(_RENEW_SECONDS)


async def _watch(admin: Admin, namespace: str) -> None:
    while True:
        async with admin.stream(f"{jobs_path(namespace)}?watch=1&timeoutSeconds=300") as answer:
            async for line in answer.content:
                json.loads(line)


async def _answer(request: web.Request) -> web.Response:
    return web.Response(text=_METRICS if request.path == "/metrics" else "ok")


async def main(kubeconfig: str, namespace: str, port: str) -> None:
    """Run until killed."""
    app = web.Application()
    app.router.add_get("/{path}", _answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    async with Admin(Path(kubeconfig)) as admin:
        await web.TCPSite(runner, "127.0.0.1", int(port)).start()
        await asyncio.gather(_renew(admin, namespace), _watch(admin, namespace))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
