"""Deliver a test alert to the Service, as Alertmanager does, and check the answers.

No Job is created: the alert looks like one of the controller's own, which no operario matches
unless it has the option own-jobs.
"""

from __future__ import annotations

import base64
import json
import os
import pathlib
import ssl
import sys
import time
import urllib.error
import urllib.request

URL = os.environ["URL"]
AUTH = os.environ["AUTH"]
CREDENTIALS_FILE = pathlib.Path(os.environ.get("CREDENTIALS_FILE", ""))
CA_FILE = pathlib.Path(os.environ.get("CA_FILE", ""))
ATTEMPTS = int(os.environ.get("ATTEMPTS", "10"))
PAYLOAD = {
    "version": "4",
    "groupKey": "helm-test",
    "status": "firing",
    "receiver": "helm-test",
    "groupLabels": {},
    "commonLabels": {},
    "commonAnnotations": {},
    "externalURL": "",
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "OpenFeroRemediating", "openfero": "true"},
            "annotations": {"summary": "helm test"},
            "startsAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "",
            "fingerprint": "",
        }
    ],
}


def request(path: str, body: bytes | None = None, authorization: str = "") -> tuple[int, str]:
    """Return status and text of an answer; without one, try again some times."""
    headers = {"Content-Type": "application/json"}
    if authorization:
        headers["Authorization"] = authorization
    context = ssl.create_default_context(cafile=CA_FILE if CA_FILE.is_file() else None)
    sent = urllib.request.Request(URL + path, body, headers)
    for attempt in range(ATTEMPTS):
        try:
            with urllib.request.urlopen(sent, timeout=10, context=context) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (urllib.error.URLError, OSError) as error:
            message = f"{URL} cannot be reached: {getattr(error, 'reason', error)}"
            # A wrong certificate does not become right.
            if attempt + 1 == ATTEMPTS or "CERTIFICATE" in message:
                sys.exit(f"FAILED: {message}")
            time.sleep(1)
    raise AssertionError


def authorization() -> str:
    """Return the header for the first credentials of the Secret."""
    if AUTH == "none":
        return ""
    line = CREDENTIALS_FILE.read_text().splitlines()[0].strip()
    if AUTH == "bearer":
        return f"Bearer {line}"
    return "Basic " + base64.b64encode(line.encode()).decode()


def check(what: str, status: int, text: str, expected: int) -> None:
    """Print the result of a request, and end if it is not the expected one."""
    if status != expected:
        sys.exit(f"FAILED: {what}: the answer is {status}, not {expected}: {text}")
    print(f"ok: {what}: {status}")


status, text = request("/readyz")
check("the Service has a replica that is ready", status, text, 200)
if os.environ.get("CLIENT_CERTIFICATES"):
    print("skipped: a delivery, since tls.clientCaKey requires a client certificate")
    sys.exit()
body = json.dumps(PAYLOAD).encode()
if AUTH != "none":
    status, text = request("/alerts", body, "Bearer wrong")
    check("a delivery with wrong credentials is refused", status, text, 401)
status, text = request("/alerts", body, authorization())
check("a delivery with the credentials of the Secret is accepted", status, text, 200)
items = [(item["outcome"], item["reason"]) for item in json.loads(text)["items"]]
if items != [("no-match", "own-alert")]:
    sys.exit(f"FAILED: the alert was not recognized as a test: {text}")
print("ok: the alert was read, and got no Job, because it looks like one of the controller's own")
