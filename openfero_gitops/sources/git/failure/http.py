"""Decides what failed over http and https."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from openfero_gitops.sources.git.failure.kinds import (
    CUT,
    GARBAGE,
    NOT_GIT,
    FetchFailure,
    Stage,
    first_match,
    rules,
)
from openfero_gitops.sources.git.failure.words import LIMITS, POLICIES, server_lines

if TYPE_CHECKING:
    from datetime import datetime

    from openfero_gitops.sources.git.failure.kinds import GitSetup
    from openfero_gitops.sources.git.process import Finished
    from openfero_gitops.sources.git.transport import HttpAnswer, HttpLog

# Why no HTTP server answered: the words of curl.
_NO_ANSWER: Final = rules(
    (
        r"could not resolve proxy",
        Stage.CONNECT,
        "the host name of the proxy cannot be resolved; check --git-proxy and DNS",
    ),
    (
        r"could not resolve|name or service not known|name resolution",
        Stage.CONNECT,
        "the host name cannot be resolved; check the URL and DNS",
    ),
    (
        r"socks|no authentication method was acceptable",
        Stage.CONNECT,
        (
            "the SOCKS proxy refused the connection; check --git-proxy, the user name and password"
            " in --git-proxy-credentials-file, and the proxy's log"
        ),
    ),
    (
        r"error setting certificate|problem with the (?:ssl )?ca cert|certificate verify locations",
        Stage.START,
        "the CA file cannot be used; it must contain certificates in PEM format",
    ),
    (
        r"certificate has expired|certificate is expired|expired certificate",
        Stage.CONNECT,
        (
            "the TLS connection failed: the certificate has expired (check the dates of the"
            " server's certificate and its CA's, and this machine's clock)"
        ),
    ),
    (
        r"not yet valid|not activated",
        Stage.CONNECT,
        (
            "the TLS connection failed: the certificate is not valid yet; check the dates of the"
            " server's certificate, and this machine's clock"
        ),
    ),
    (
        r"subject name|does not match|hostname mismatch|host name mismatch",
        Stage.CONNECT,
        (
            "the TLS connection failed: the server's certificate is for another name; correct the"
            " host name in the URL, or the certificate"
        ),
    ),
    (
        (
            r"wrong version number|packet length|record overflow|unexpected message"
            r"|unexpected tls packet"
        ),
        Stage.CONNECT,
        "the TLS connection failed: the server does not speak TLS on this port; check the URL",
    ),
)
_HANDSHAKE: Final = re.compile(
    r"alert (?:certificate|bad certificate|handshake|unknown ca|access denied)"
    r"|certificate required|fatal alert has been received",
    re.IGNORECASE,
)
_TLS: Final = re.compile(
    r"certificate|gnutls|ssl_error|ssl routines|ssl connection|tls alert|\btls", re.IGNORECASE
)
_UNREACHABLE: Final = re.compile(
    r"connection refused|failed to connect|couldn't connect|timed out|no route to host"
    r"|network is unreachable|unable to connect",
    re.IGNORECASE,
)
_REDIRECTION: Final = 300
_CLIENT_ERROR: Final = 400
_FORBIDDEN: Final = 403
_PROXY_AUTHENTICATION: Final = 407
_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERROR: Final = 500
_UNAVAILABLE: Final = 503
_ASK_LESS: Final = "raise --interval, or use fewer replicas, if this continues"
_PAGE: Final = FetchFailure(
    Stage.TRANSFER,
    (
        "the response is not from a Git server, but a page of a website; check the URL: the server"
        " may show a page to log in there"
    ),
)
# By status, and by whether credentials were given.
_BY_STATUS: Final = {
    (401, False): FetchFailure(
        Stage.AUTHENTICATE,
        "the server requires a user name and password; set --git-credentials-file",
    ),
    (401, True): FetchFailure(
        Stage.AUTHENTICATE,
        (
            "the server refused the credentials; update the user name, password or token in the"
            " credentials file"
        ),
    ),
    (403, False): FetchFailure(
        Stage.AUTHORISE,
        (
            "the server denies access (403); set --git-credentials-file, or allow access without"
            " credentials"
        ),
    ),
    (403, True): FetchFailure(
        Stage.AUTHORISE, "the server denies access (403); grant these credentials read access"
    ),
    (404, False): FetchFailure(
        Stage.FIND,
        (
            "the repository does not exist, or is private; check the URL, or set"
            " --git-credentials-file"
        ),
    ),
    (404, True): FetchFailure(
        Stage.FIND,
        "the repository does not exist, or these credentials cannot see it; check the URL",
    ),
}


def diagnose_http(
    log: HttpLog, finished: Finished, own: str, setup: GitSetup, now: datetime
) -> FetchFailure | None:
    """Decide by the last answer; None where the connection is not the cause.

    Args:
        log: the log of Git's HTTP library.
        finished: the failed command.
        own: its messages, without quoted names.
        setup: what the user has configured.
        now: the current time.
    """
    answer = log.last
    if answer is None:
        return _diagnose_no_answer(own, setup)
    if answer.method == "CONNECT" or answer.status == _PROXY_AUTHENTICATION:
        return _diagnose_proxy(answer, own, setup)
    if answer.status >= _REDIRECTION:
        return _diagnose_status(answer, "\n".join(server_lines(finished)), setup, now)
    return _PAGE if log.is_page else None


def _diagnose_no_answer(own: str, setup: GitSetup) -> FetchFailure:
    if failure := first_match(_NO_ANSWER, own):
        return failure
    if _HANDSHAKE.search(own):
        advice = (
            "the server ends the TLS handshake; it may not accept the client certificate, see its"
            " log"
            if setup.client_cert
            else "the server ends the TLS handshake; it may require a client certificate"
            " (--git-client-cert-file), or another version of TLS"
        )
        return FetchFailure(Stage.AUTHENTICATE, f"the TLS connection failed: {advice}")
    if _TLS.search(own):
        advice = (
            "check the name and dates of the server's certificate, and that the file of"
            " --git-ca-file has its CA"
            if setup.ca
            else "check the name and dates of the server's certificate, and set --git-ca-file if a"
            " private CA issued it"
        )
        return FetchFailure(Stage.CONNECT, f"the TLS connection failed; {advice}")
    if _UNREACHABLE.search(own):
        way = f" through the proxy {setup.proxy}" if setup.proxy else ""
        proxy = ", the proxy" if setup.proxy else ""
        return FetchFailure(
            Stage.CONNECT, f"cannot connect{way}; check the URL{proxy}, the network and the server"
        )
    if GARBAGE.search(own):
        return NOT_GIT
    return CUT


def _diagnose_proxy(answer: HttpAnswer, own: str, setup: GitSetup) -> FetchFailure | None:
    status, proxy = answer.status, setup.proxy or "the proxy"
    if status == _PROXY_AUTHENTICATION:
        return FetchFailure(
            Stage.AUTHENTICATE,
            (
                f"the proxy {proxy} refuses the user name and password of"
                " --git-proxy-credentials-file; correct them (407)"
                if setup.proxy_credentials
                else f"the proxy {proxy} requires a user name and password; set"
                " --git-proxy-credentials-file (407)"
            ),
        )
    if status >= _SERVER_ERROR:
        return FetchFailure(
            Stage.CONNECT,
            f"the proxy {proxy} cannot connect to the server ({status}); check the URL, and the"
            " proxy's log",
        )
    if status >= _REDIRECTION:
        return FetchFailure(
            Stage.AUTHORISE,
            f"the proxy {proxy} refuses to connect to the server ({status}); allow the server on"
            " the proxy, or check the URL",
        )
    return _diagnose_no_answer(own, setup)  # the tunnel is there, and nothing came through it


def _diagnose_status(answer: HttpAnswer, said: str, setup: GitSetup, now: datetime) -> FetchFailure:
    """Decide by the status of the last answer, and by what the server said with it."""
    status = answer.status
    if failure := _diagnose_limit(answer, said, now):
        return failure
    if status < _CLIENT_ERROR:
        target = _without_query(answer.headers.get("location", ""))
        return FetchFailure(
            Stage.FIND,
            (
                "the server redirects to another URL, which is not followed"
                f" ({' '.join((str(status), target)).strip()}); set the final URL (on many hosts it"
                " ends in .git)"
            ),
        )
    if policy := first_match(POLICIES, said):
        return replace(policy, advice=f"{policy.advice} ({status})")
    return _BY_STATUS.get((status, setup.credentials)) or FetchFailure(
        Stage.TRANSFER, f"the server answers with status {status}; check the URL and its log"
    )


def _diagnose_limit(answer: HttpAnswer, said: str, now: datetime) -> FetchFailure | None:
    """Decide whether the server wants fewer requests, or none for now."""
    status, wait = answer.status, answer.retry_after(now)
    if status == _FORBIDDEN and (wait or first_match(LIMITS, said)):
        return _limit(f"the server is asked too often ({status})", _ASK_LESS, wait)
    if status == _TOO_MANY_REQUESTS:
        return _limit(f"the server is asked too often ({status})", _ASK_LESS, wait)
    if status == _UNAVAILABLE and (wait or first_match(LIMITS, said)):
        what = f"the server is not available for now ({status})"
        return _limit(what, "see what it says", wait)
    if status >= _SERVER_ERROR:
        return FetchFailure(
            Stage.LIMIT, f"the server is overloaded or failing ({status}); check its log"
        )
    return None


def _limit(what: str, advice: str, wait: float) -> FetchFailure:
    if not wait:
        return FetchFailure(Stage.LIMIT, f"{what}; {advice}")
    return FetchFailure(
        Stage.LIMIT, f"{what}, and wants no request for {wait:g} s (Retry-After)", retry_after=wait
    )


def _without_query(location: str) -> str:
    """Return the URL of a redirect, without what may be a secret in it."""
    try:
        url = urlsplit(location)
        host = f"{url.hostname}:{url.port}" if url.port else url.hostname
    except ValueError:
        return ""
    path = url.path.removesuffix("/info/refs")
    return f"{url.scheme}://{host}{path}" if url.scheme and host else path
