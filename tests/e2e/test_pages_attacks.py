"""Hostile text from outside, on the pages of a real replica in a real browser."""

from __future__ import annotations

import asyncio
import http.client
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Error

from openfero_gitops.domain import keys
from tests.support.chromium import chromium
from tests.support.process import free_port
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository
from tests.support.workers import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from playwright.async_api import Browser, ConsoleMessage, Page, Request

    from tests.support.cluster import Cluster, Kubectl

pytestmark = [
    pytest.mark.browser,
    pytest.mark.cluster,
    pytest.mark.asyncio(loop_scope="module"),
]

#: Text that runs as a script if a page does not treat it as text.
PAYLOADS = (
    "<script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    '"><svg onload=window.pwned=1>',
    "' autofocus onfocus=window.pwned=1 x='",
    "javascript:window.pwned=1",
    "</script></style></textarea><script>window.pwned=1</script>",
    '<a href="javascript:window.pwned=1">more</a>',
    '<iframe srcdoc="<script>parent.pwned=1</script>"></iframe>',
    '<base href="//elsewhere.example/">',
    '<meta http-equiv=refresh content="0;url=//elsewhere.example">',
    "{{ 7 * 7 }}{% for x in [] %}",
    "\x1b]0;title\x07\x1b[2J\u202e\u2066",
)
EVERYTHING = "".join(PAYLOADS)
PATHS = (
    "/",
    "/alerts",
    "/api/remediations",
    "/api/operarios",
    "/api/problems",
    "/api/sync",
    "/api/about",
    "/api/jobs",
    "/metrics",
    "/readyz",
)
#: What a page holds that could run a script or leave the site.
DANGERS = """() => {
  const dangers = [];
  for (const element of document.querySelectorAll("*")) {
    for (const { name, value } of element.attributes) {
      if (name.startsWith("on") || name === "srcdoc") dangers.push(name + "=" + value);
      if (["href", "src", "action", "formaction"].includes(name) && !value.startsWith("#")) {
        const address = new URL(value, location.href);
        if (address.origin !== location.origin) dangers.push(name + "=" + value);
      }
    }
    if (["IFRAME", "OBJECT", "EMBED", "BASE"].includes(element.tagName)) {
      dangers.push(element.tagName);
    }
  }
  if (window.pwned) dangers.push("pwned");
  return dangers;
}"""


@pytest.fixture(scope="module")
def replica(
    tmp_path_factory: pytest.TempPathFactory,
    control_plane: Cluster,
    kubectl: Kubectl,
    shared_namespace: str,
) -> Iterator[Replica]:
    """Give a replica whose repository, alerts and Jobs hold hostile text wherever they can."""
    folder = tmp_path_factory.mktemp("hostile")
    repository = Repository(folder / "operarios")
    repository.git("config", "user.name", PAYLOADS[3])
    repository.write("hostile.json", operario("Hostile"))
    repository.write("named.json", operario("Named").replace("openfero-named-firing", PAYLOADS[0]))
    repository.write(f"{PAYLOADS[1]}.yaml", f"kind: Job\napiVersion: batch/v1\n{PAYLOADS[0]}: 1\n")
    repository.write(
        "problem.yaml",
        json.dumps(
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {
                    "name": "openfero-problem-firing",
                    "annotations": {keys.PREFIX + "matchers": EVERYTHING, EVERYTHING[:60]: "x"},
                },
                "spec": {EVERYTHING: EVERYTHING, "backoffLimit": EVERYTHING, "template": {}},
            }
        ),
    )
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message", EVERYTHING)
    with Replica(
        folder,
        name="hostile",
        kubeconfig=control_plane.kubeconfig,
        namespace=shared_namespace,
        repository=repository.url,
        identity=PAYLOADS[2],
        development=False,
    ) as hostile:
        labels = {"pod": EVERYTHING, "namespace": PAYLOADS[0], "q": PAYLOADS[1]}
        firing = alert("Hostile", **labels) | {
            "annotations": {
                "runbook_url": "javascript:window.pwned=1",
                "summary": EVERYTHING,
                "dashboard": PAYLOADS[6],
            },
            "generatorURL": "javascript:window.pwned=1",
            "fingerprint": PAYLOADS[1],
        }
        status, answer = hostile.deliver(firing, groupKey=EVERYTHING, receiver=PAYLOADS[0])
        assert status == 200, answer
        job = answer["items"][0]["job"]
        overwritten = (keys.MESSAGE, keys.REASON, keys.APPROVED_BY, keys.PATH, keys.COMMIT)
        written = dict.fromkeys(overwritten, EVERYTHING)
        kubectl(
            "patch",
            "job",
            job,
            "-n",
            shared_namespace,
            "--type=merge",
            "-p",
            json.dumps({"metadata": {"annotations": written}}),
        )
        hostile.wait_for(lambda: "window.pwned" in hostile.read("/api/remediations"))
        yield hostile


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Start Chromium."""
    async with chromium() as browser:
        yield browser


@dataclass
class Visitor:
    """A tab, and what it noticed: dialogs, violations of the policy, requests to other sites."""

    page: Page
    site: str
    noticed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen."""
        self.page.on("console", self._on_console)
        self.page.on("dialog", lambda dialog: self.noticed.append(f"dialog {dialog.message}"))
        self.page.on("request", self._on_request)

    def _on_console(self, message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text or "pwned" in message.text:
            self.noticed.append(message.text)

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((self.site + "/", "data:")):
            self.noticed.append(request.url)


@pytest_asyncio.fixture(loop_scope="module")
async def visitor(browser: Browser, replica: Replica) -> AsyncIterator[Visitor]:
    """Give a tab of its own."""
    context = await browser.new_context(locale="en-US")
    yield Visitor(await context.new_page(), replica.url)
    await context.close()


async def test_hostile_text_is_text_on_every_page(replica: Replica, visitor: Visitor) -> None:
    """Labels, annotations, names, paths, authors, problems and parameters run no script."""
    payload = quote(EVERYTHING, safe="")
    paths = (
        *PATHS,
        f"/?q={payload}",
        f"/?phase={payload}",
        f"/{payload}",
        f"/static/{payload}",
        f"/api/remediations?phase={payload}",
        f"/api/remediations?{payload}=1",
        f"/api/remediations?continue={payload}",
    )
    for path in paths:
        await visitor.page.goto(replica.url + path)
        assert await visitor.page.evaluate(DANGERS) == [], path
        assert len(visitor.page.frames) == 1, path
    assert visitor.noticed == []


async def test_opened_rows_run_no_script(replica: Replica, visitor: Visitor) -> None:
    """What a row shows when it is opened, and after a refresh, is text too."""
    page = visitor.page
    await page.goto(replica.url + "/")
    for summary in await page.locator("main summary").all():
        if await summary.is_visible():
            await summary.click()
    assert "window.pwned" in await page.inner_text("main")
    assert await page.evaluate(DANGERS) == []
    refreshed = page.locator("#seen .age")
    before = await page.content()
    await page.wait_for_function("before => document.body.innerHTML !== before", arg=before)
    assert await refreshed.count() == 1
    assert await page.evaluate(DANGERS) == []
    assert visitor.noticed == []


async def test_the_policy_blocks_what_was_injected(replica: Replica, visitor: Visitor) -> None:
    """If markup were injected, no script, handler, link, form or address of it would work."""
    page = visitor.page
    await page.goto(replica.url + "/")
    await page.evaluate(
        """() => {
          const add = (name, attributes, text) => {
            const element = document.createElement(name);
            for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
            element.textContent = text ?? "";
            document.body.append(element);
            return element;
          };
          add("script", {}, "window.pwned = 1");
          add("script", { src: "data:text/javascript,window.pwned=1" });
          add("img", { src: "x", onerror: "window.pwned=1" });
          add("iframe", { srcdoc: "<script>parent.pwned=1</script>" });
          add("iframe", { src: "https://elsewhere.example/" });
          add("base", { href: "https://elsewhere.example/" });
          add("a", { href: "javascript:window.pwned=1" }, "x").click();
          const form = add("form", { action: "https://elsewhere.example/", method: "post" });
          form.submit();
        }"""
    )
    await page.wait_for_timeout(500)
    assert not await page.evaluate("window.pwned")
    assert page.url == replica.url + "/"
    await until(lambda: sum("Content Security Policy" in text for text in visitor.noticed) >= 5)


async def test_no_other_site_frames_or_reads_the_pages(replica: Replica, visitor: Visitor) -> None:
    """A page of another origin can neither frame the pages nor read the API."""
    app = web.Application()

    async def lure(_: web.Request) -> web.Response:
        text = f"<iframe src='{replica.url}/'></iframe>"
        return web.Response(text=text, content_type="text/html")

    app.router.add_get("/", lure)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        page = visitor.page
        await page.goto(f"http://127.0.0.1:{port}/")
        for frame in page.frames[1:]:
            assert "Remediations" not in await frame.content()
        await until(lambda: any("frame-ancestors" in text for text in visitor.noticed))
        for path in PATHS:
            with pytest.raises(Error, match="Failed to fetch"):
                await page.evaluate(
                    "address => fetch(address).then(r => r.text())", replica.url + path
                )
    finally:
        await runner.cleanup()


async def test_no_address_leads_to_another_site(replica: Replica) -> None:
    """No path or parameter makes the server redirect, and each answer names its type."""
    targets = (
        "//elsewhere.example/",
        "/\\elsewhere.example/",
        "/static//elsewhere.example/..",
        "/static/..%2f..%2f..%2fetc%2fpasswd",
        "/static/../../settings.py",
        f"/static/{'a' * 3000}",
        "/?next=//elsewhere.example",
        "/alerts//",
        "/%0d%0aLocation:%20//elsewhere.example",
        "/api/remediations/",
    )
    for target in targets:
        headers, body = await asyncio.to_thread(raw_get, replica, target)
        assert "location" not in headers, target
        assert headers.get("x-content-type-options") == "nosniff", target
        assert headers["content-type"].partition(";")[0] in (
            "application/problem+json",
            "text/html",
        ), target
        assert b"root:" not in body
        assert b"pydantic" not in body


def raw_get(replica: Replica, target: str) -> tuple[dict[str, Any], bytes]:
    """Send a GET with exactly this target; the headers in lower case, and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", replica.port, timeout=60)
    connection.putrequest("GET", target, skip_host=True)
    connection.putheader("Host", f"127.0.0.1:{replica.port}")
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return {name.lower(): value for name, value in answer.getheaders()}, body
