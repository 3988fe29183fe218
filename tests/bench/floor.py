"""The least that turning alerts into Jobs can cost: a handler without any guarantee.

`python -m tests.bench.floor KUBECONFIG NAMESPACE MANIFEST PORT` parses each delivery, fills a copy
of a Job that the controller rendered, creates it, and answers. It neither matches nor checks,
remembers or admits anything. `GET /` answers at once, which shows what the load generator can do.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

from openfero_gitops.domain import keys
from tests.support.attacks import Admin, jobs_path


def filled(manifest: dict[str, Any], alert: dict[str, Any]) -> dict[str, Any]:
    """Fill a copy of the Job with an alert."""
    job = copy.deepcopy(manifest)
    text = json.dumps(alert, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    metadata = job["metadata"]
    metadata["name"] = f"floor-{digest[:16]}"
    metadata["annotations"][keys.ALERT] = text
    metadata["labels"][keys.OCCURRENCE] = digest[:52]
    values = {"OPENFERO_ALERT_JSON": text, "OPENFERO_HOST": alert["labels"]["host"]}
    for container in job["spec"]["template"]["spec"]["containers"]:
        for variable in container["env"]:
            variable["value"] = values.get(variable["name"], variable["value"])
    return job


async def serve(kubeconfig: Path, namespace: str, manifest: dict[str, Any], port: int) -> None:
    """Serve deliveries until the process is ended."""
    async with Admin(kubeconfig, connections=100) as admin:

        async def create(alert: dict[str, Any]) -> dict[str, str]:
            job = filled(manifest, alert)
            status, answer = await admin.request("POST", jobs_path(namespace), job)
            if status != 201:
                raise web.HTTPServiceUnavailable(text=json.dumps(answer))
            return {"alertname": alert["labels"]["alertname"], "job": answer["metadata"]["name"]}

        async def deliver(request: web.Request) -> web.Response:
            body = await request.json()
            return web.json_response({"items": await asyncio.gather(*map(create, body["alerts"]))})

        async def answer(request: web.Request) -> web.Response:
            await request.read()
            return web.json_response({"items": []})

        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/alerts", deliver)
        app.router.add_route("*", "/", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    _kubeconfig, _namespace, _manifest, _port = sys.argv[1:]
    with Path(_manifest).open() as file:
        asyncio.run(serve(Path(_kubeconfig), _namespace, json.load(file), int(_port)))
