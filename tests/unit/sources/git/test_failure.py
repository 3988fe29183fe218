"""What failed in Git: the decision, its words, and what is quoted."""

from __future__ import annotations

import re

import pytest

from openfero_gitops.domain.errors import SourceError, SourceUnavailable
from openfero_gitops.sources.git.errors import Damaged, explain, last_line, reason_of
from openfero_gitops.sources.git.failure.kinds import GitSetup
from openfero_gitops.sources.git.process import Finished
from tests.support.refusals import OTHER_REFUSALS, REFUSALS, Refusal

CLOSING = (
    "fatal: Could not read from remote repository.\n\n"
    "Please make sure you have the correct access rights\nand the repository exists.\n"
)
LOGGED_IN = 'Authenticated to git.example.com ([192.0.2.1]:22) using "publickey".\n'
STATISTICS = (
    "Transferred: sent 3544, received 3448 bytes, in 0.5 seconds\n"
    "Bytes per second: sent 7557.6, received 7352.8\n"
)
WHERE = "Git repository x"
NO_SETUP = GitSetup()
CREDENTIALS = GitSetup(credentials=True)


def failed(stderr: str, log: str = "", code: int = 128, command: str = "fetch") -> Finished:
    """Return the result of a failed command."""
    return Finished(code, b"", stderr, command, log)


def over_ssh(stderr: str, log: str, code: int = 255) -> Finished:
    """Return a fetch whose ssh ended with an exit code."""
    return failed(stderr + CLOSING, f"{log}ssh ended with exit code {code}\n")


def trace(*exchanges: str) -> str:
    """Return a log of Git's HTTP library; `>` begins a sent, `<` a received header."""
    ways = {">": "=> Send header", "<": "<= Recv header", "=": "== Info"}
    return "".join(
        f"11:22:33.444555 http.c:684              {ways[line[0]]}: {line[1:]}\n"
        for exchange in exchanges
        for line in exchange.splitlines()
    )


def answered(status: int, *headers: str, stderr: str = "", version: str = "1.1") -> Finished:
    """Return a listing that a server answered with a status."""
    received = "\n".join(f"<{header}" for header in (f"HTTP/{version} {status} Words", *headers))
    log = trace("=Connected to h (192.0.2.1) port 443 (#0)\n>GET /p HTTP/1.1\n", received)
    words = f"fatal: unable to access 'https://h/p/': The requested URL returned error: {status}\n"
    return failed(stderr + words, log, command="ls-remote")


def error_of(finished: Finished, setup: GitSetup = NO_SETUP) -> SourceError:
    """Return the error of a failure that is not the cache's."""
    error = explain(WHERE, finished, (), setup)
    assert not isinstance(error, Damaged)
    text = str(error)
    assert text.startswith(f"{WHERE}: ")
    assert text.isprintable()
    assert "no message" not in text
    return error


@pytest.mark.parametrize(
    "refusal", [*REFUSALS, *OTHER_REFUSALS], ids=lambda refusal: str(refusal.host)
)
def test_a_refusal_after_the_login_is_not_damage(refusal: Refusal) -> None:
    """What the host says is quoted without its frame, and the fetch is retried."""
    error = error_of(over_ssh(refusal.text, LOGGED_IN + STATISTICS, refusal.code))

    assert isinstance(error, SourceUnavailable)
    assert refusal.advice in str(error)
    assert refusal.quoted in str(error)
    assert "==" not in str(error)
    assert "Could not read from remote" not in str(error)


@pytest.mark.parametrize(
    ("log", "advice"),
    [
        ("ssh: Could not resolve hostname h: Name or service not known", "cannot be resolved"),
        ("ssh: connect to host h port 22: Connection refused", "cannot connect; check"),
        ("ssh: connect to host h port 22: Connection timed out", "cannot connect; check"),
        ("ssh: connect to host h port 22: No route to host", "cannot connect; check"),
        (
            (
                "Unable to negotiate with h port 22: no matching host key type found. Their offer:"
                " ssh-rsa,ssh-dss"
            ),
            "offers only legacy ssh algorithms",
        ),
        (
            (
                "Unable to negotiate with h port 22: no matching key exchange method found. Their"
                " offer: diffie-hellman-group1-sha1"
            ),
            "offers only legacy ssh algorithms",
        ),
        (
            "Unable to negotiate with h port 22: no matching MAC found. Their offer: hmac-sha1-96",
            "offers only legacy ssh algorithms",
        ),
        ("Bad server host key: Invalid key length", "host key is too weak"),
        (
            (
                "No ED25519 host key is known for h and you have requested strict checking.\n"
                "Host key verification failed."
            ),
            "host key is not in the known_hosts file",
        ),
        (
            (
                "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n"
                "Host key for h has changed and you have requested strict checking.\n"
                "Host key verification failed."
            ),
            "host key is not the one in the known_hosts file",
        ),
        (
            (
                "@       WARNING: REVOKED HOST KEY DETECTED!               @\n"
                "The ED25519 host key for h is marked as revoked.\nHost key verification failed."
            ),
            "marked as revoked in the known_hosts file",
        ),
        ("git@h: Permission denied (publickey).", "the server refused the SSH key"),
        ("git@h: Permission denied (publickey,password).", "the server refused the SSH key"),
        (
            'Load key "/k": error in libcrypto\ngit@h: Permission denied (publickey).',
            "ssh cannot read the key file",
        ),
        (
            "Permissions 0644 for '/k' are too open.\ngit@h: Permission denied (publickey).",
            "ssh refuses a key file that other users can read",
        ),
        (
            (
                "sign_and_send_pubkey: no mutual signature supported\ngit@h: Permission denied"
                " (publickey)."
            ),
            "accepts this RSA key only with SHA-1 signatures",
        ),
        (
            "Received disconnect from h port 22:2: Too many authentication failures",
            "ended the login after too many attempts",
        ),
        ("Connection closed by 192.0.2.1 port 22", "connection was closed before the login"),
        (
            (
                "kex_exchange_identification: read: Connection reset by peer\n"
                "Connection reset by 192.0.2.1 port 22"
            ),
            "connection was closed before the login",
        ),
        (
            "Connection timed out during banner exchange\nConnection to h port 22 timed out",
            "connection was closed before the login",
        ),
        ("something that nobody has heard of", "ssh could not log in"),
    ],
)
def test_a_failed_login_shows_the_reason_of_ssh(log: str, advice: str) -> None:
    """The advice follows ssh's reason, which is quoted; nothing of it is damage."""
    error = error_of(over_ssh("", f"{log}\n"))

    assert isinstance(error, SourceUnavailable)
    assert advice in str(error)
    reason = log.splitlines()[-1].removeprefix("ssh: ")
    assert f"ssh: {reason}" in str(error) or f"/ {reason}" in str(error)


def test_the_offer_of_a_legacy_server_is_quoted() -> None:
    """The algorithms that the server offers are part of the error."""
    log = "Unable to negotiate with h port 22: no matching cipher found. Their offer: 3des-cbc\n"

    assert "Their offer: 3des-cbc" in str(error_of(over_ssh("", log)))


@pytest.mark.parametrize(
    ("stderr", "log", "code", "advice"),
    [
        ("sh: 1: ssh: not found\n", "", 127, "the ssh command is not installed"),
        ("sh: line 1: ssh: command not found\n", "", 127, "the ssh command is not installed"),
        ("No user exists for uid 12345\n", "", 255, "a user ID that has no entry in /etc/passwd"),
        ("Connection to h closed by remote host.\n", LOGGED_IN, 255, "interrupted after the login"),
        ("", LOGGED_IN + "client_loop: send disconnect: Broken pipe\n", 255, "after the login"),
        ("", LOGGED_IN + "Timeout, server h not responding.\n", 255, "after the login"),
        (
            "fatal: early EOF\nfatal: fetch-pack: invalid index-pack output\n",
            LOGGED_IN + "Connection to h closed by remote host.\n",
            255,
            "after the login",
        ),
        (
            "fatal: protocol error: bad line length character: This\n",
            LOGGED_IN + STATISTICS,
            1,
            "after the login, another program answers",
        ),
    ],
)
def test_a_failure_of_ssh_is_not_damage(stderr: str, log: str, code: int, advice: str) -> None:
    """A missing program, a missing user and a lost connection are errors that are retried."""
    error = error_of(over_ssh(stderr, log, code))

    assert isinstance(error, SourceUnavailable)
    assert advice in str(error)
    assert "(server: " not in str(error)


@pytest.mark.parametrize(
    ("finished", "setup", "advice"),
    [
        (answered(401), NO_SETUP, "requires a user name and password; set --git-credentials-file"),
        (answered(401), CREDENTIALS, "refused the credentials; update the user name, password"),
        (answered(403), NO_SETUP, "denies access (403); set --git-credentials-file"),
        (answered(403), CREDENTIALS, "denies access (403); grant these credentials read access"),
        (answered(404), NO_SETUP, "does not exist, or is private; check the URL, or set"),
        (answered(404), CREDENTIALS, "or these credentials cannot see it; check the URL"),
        (answered(404, version="2"), CREDENTIALS, "these credentials cannot see it"),
        (
            answered(302, "Location: https://ada:t0ken@h/new.git/info/refs?service=x&token=1"),
            NO_SETUP,
            "redirects to another URL, which is not followed (302 https://h/new.git); set",
        ),
        (answered(302, "Location: /login?next=x"), NO_SETUP, "not followed (302 /login); set"),
        (answered(302), NO_SETUP, "which is not followed (302); set"),
        (answered(418), NO_SETUP, "the server answers with status 418"),
        (answered(500), NO_SETUP, "overloaded or failing (500)"),
        (answered(503), NO_SETUP, "overloaded or failing (503)"),
        (answered(429), NO_SETUP, "asked too often (429)"),
        (answered(200, "content-type: text/html; charset=utf-8"), NO_SETUP, "page of a website"),
        (answered(200, "Content-Type: application/json"), NO_SETUP, "page of a website"),
        (answered(407), NO_SETUP, "the proxy requires a user name and password"),
    ],
)
def test_the_status_of_an_http_server_decides(
    finished: Finished, setup: GitSetup, advice: str
) -> None:
    """The advice follows the last status, and does not repeat what was done; it is retried."""
    error = error_of(finished, setup)

    assert isinstance(error, SourceUnavailable)
    assert advice in str(error)


@pytest.mark.parametrize(
    ("status", "text", "advice"),
    [
        (
            403,
            (
                "remote: The 'ops' organization has enabled or enforced SAML SSO.\n"
                "remote: To access this repository, visit https://github.com/orgs/ops/sso\n"
            ),
            "the server's rules deny access; do what its message asks (403)",
        ),
        (
            403,
            "remote: The 'ops' organization has an IP allow list enabled, and 192.0.2.7 is not\n",
            "the server's rules deny access",
        ),
        (
            403,
            "remote: CAPTCHA required\nremote: Your account has been marked; log in on the web.\n",
            "the server's rules deny access",
        ),
        (
            403,
            "remote: You have exceeded a secondary rate limit. Please wait a few minutes.\n",
            "the server is asked too often (403)",
        ),
        (
            401,
            (
                "remote: HTTP Basic: Access denied. If a password was provided for Git"
                " authentication, the token may have expired.\n"
            ),
            "the server refused the credentials",
        ),
        (401, "remote: Your password has expired.\n", "has expired or was revoked"),
        (
            503,
            "remote: \nremote: ====\nremote: Down for maintenance until 12:00 UTC.\nremote: ====\n",
            "the server is not available for now (503)",
        ),
        (404, "remote: Repository not found.\n", "these credentials cannot see it"),
    ],
)
def test_what_a_host_says_with_a_status_is_quoted(status: int, text: str, advice: str) -> None:
    """All lines of the server are quoted, without blank lines and frames, on one line."""
    error = str(error_of(answered(status, stderr=text), CREDENTIALS))

    assert advice in error
    for line in text.splitlines():
        said = line.removeprefix("remote:").strip()
        assert not re.search(r"\w", said) or said in error
    assert "====" not in error


@pytest.mark.parametrize("status", [429, 503, 403])
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("Retry-After: 120", 120),
        ("retry-after:   7  ", 7),
        ("Retry-After: 999999", 3600),
        ("Date: Wed, 21 Oct 2026 07:28:00 GMT\n<Retry-After: Wed, 21 Oct 2026 07:30:00 GMT", 120),
        ("Date: Wed, 21 Oct 2026 07:28:00 GMT\n<Retry-After: Wed, 21 Oct 2026 07:00:00 GMT", 0),
        ("Retry-After: Wed, 21 Oct 2099 07:30:00 GMT", 3600),
        ("Retry-After: -5", 0),
        ("Retry-After: soon", 0),
        ("Retry-After: ", 0),
        ("X-Other: 5", 0),
    ],
)
def test_retry_after_is_respected(status: int, header: str, seconds: float) -> None:
    """Seconds and dates are understood, with an hour as the longest time."""
    error = error_of(answered(status, header))

    assert isinstance(error, SourceUnavailable)
    assert error.retry_after == seconds
    assert (f"wants no request for {seconds:g} s" in str(error)) is (seconds > 0)


def test_the_answer_to_an_earlier_request_does_not_count() -> None:
    """The first 401, to a request without credentials, is not the failure."""
    log = trace(
        ">GET /p HTTP/1.1\n<HTTP/1.1 401 No\n<Retry-After: 9\n",
        ">GET /p HTTP/1.1\n<HTTP/1.1 404 No\n",
    )

    assert "cannot see it" in str(error_of(failed("", log), CREDENTIALS))


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("Repository not found.", "the repository does not exist, or may not be read; check"),
        ("access denied or repository not exported: /heal.git", "the server refused the request"),
        ("Down for maintenance until noon", "the server is not available for now"),
        ("E_POLICY_17", "the server refused the request; see what it says"),
    ],
)
@pytest.mark.parametrize("log", ["", trace(">POST /p HTTP/1.1\n<HTTP/1.1 200 OK\n")])
def test_an_error_packet_of_the_server_is_quoted(words: str, advice: str, log: str) -> None:
    """A server can refuse in Git's own protocol, after its HTTP answer was fine."""
    error = error_of(failed(f"fatal: remote error: {words}\n", log))

    assert isinstance(error, SourceUnavailable)
    assert f"{advice}" in str(error)
    assert f"(server: {words})" in str(error)


@pytest.mark.parametrize(
    ("words", "setup", "advice"),
    [
        ("Could not resolve host: h", NO_SETUP, "the host name cannot be resolved"),
        ("Could not resolve proxy: p", NO_SETUP, "host name of the proxy cannot be resolved"),
        ("Failed to connect to h port 443: Connection refused", NO_SETUP, "cannot connect; check"),
        (
            "Failed to connect to p port 3128: Connection refused",
            GitSetup(proxy="http://p:3128"),
            "cannot connect through the proxy http://p:3128; check the URL, the proxy",
        ),
        (
            "SSL certificate problem: unable to get local issuer certificate",
            NO_SETUP,
            (
                "the TLS connection failed; check the name and dates of the server's certificate,"
                " and set --git-ca-file"
            ),
        ),
        (
            "SSL certificate problem: self-signed certificate in certificate chain",
            GitSetup(ca=True),
            "and that the file of --git-ca-file has its CA",
        ),
        (
            "server certificate verification failed. CAfile: none CRLfile: none",
            NO_SETUP,
            "set --git-ca-file",
        ),
        ("SSL certificate problem: certificate has expired", NO_SETUP, "certificate has expired"),
        (
            "SSL certificate problem: certificate is not yet valid",
            NO_SETUP,
            "the certificate is not valid yet",
        ),
        (
            "SSL: no alternative certificate subject name matches target host name 'h'",
            NO_SETUP,
            "certificate is for another name",
        ),
        (
            "error:0A00010B:SSL routines::wrong version number",
            NO_SETUP,
            "does not speak TLS on this port",
        ),
        (
            "error:0A00045C:SSL routines::tlsv13 alert certificate required",
            NO_SETUP,
            "may require a client certificate (--git-client-cert-file)",
        ),
        (
            "error:0A000418:SSL routines::tlsv1 alert unknown ca",
            GitSetup(client_cert=True),
            "may not accept the client certificate",
        ),
        ("Can't complete SOCKS5 connection to h. (1)", NO_SETUP, "the SOCKS proxy refused"),
        ("Empty reply from server", NO_SETUP, "the connection was interrupted"),
        ("Recv failure: Connection reset by peer", NO_SETUP, "the connection was interrupted"),
    ],
)
def test_a_server_that_does_not_answer_is_explained(
    words: str, setup: GitSetup, advice: str
) -> None:
    """The advice follows the words of Git's HTTP library, and does not repeat what was done."""
    finished = failed(f"fatal: unable to access 'https://h/p/': {words}\n", trace("=  Trying h\n"))

    error = error_of(finished, setup)

    assert isinstance(error, SourceUnavailable)
    assert advice in str(error)


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (407, "requires a user name and password; set --git-proxy-credentials-file"),
        (403, "refuses to connect to the server (403); allow the server on the proxy"),
        (502, "cannot connect to the server (502)"),
    ],
)
def test_a_refusing_proxy_is_named(status: int, advice: str) -> None:
    """What the proxy answered is not taken for the server's answer."""
    log = trace(f">CONNECT h:443 HTTP/1.1\n<HTTP/1.1 {status} No\n")
    words = "fatal: unable to access 'https://h/p/': CONNECT tunnel failed\n"

    error = str(error_of(failed(words, log), GitSetup(proxy="http://p:3128")))

    assert f"the proxy http://p:3128 {advice}" in error


def test_a_certificate_behind_a_proxy_is_explained() -> None:
    """A tunnel that was opened is not an answer of the server."""
    log = trace(">CONNECT h:443 HTTP/1.1\n<HTTP/1.1 200 Connection established\n")
    words = "fatal: unable to access 'https://h/': SSL certificate problem: certificate has expired"

    assert "has expired" in str(error_of(failed(words, log)))


@pytest.mark.parametrize(
    ("stderr", "advice"),
    [
        ("fatal: write error: No space left on device\nfatal: index-pack failed", "disk"),
        ("error: RPC failed; curl 18 transfer closed\nfatal: early EOF", "interrupted"),
        ("error: cannot lock ref 'a': Unable to create '/c/a.lock': File exists.", "lock file"),
        ("fatal: detected dubious ownership in repository at '/r'", "belong to another user"),
        ("fatal: '/r' does not appear to be a git repository", "repository does not exist"),
        ("fatal: the repository is too large\nfatal: Out of memory, malloc failed", "more memory"),
    ],
)
def test_the_words_of_git_are_explained(stderr: str, advice: str) -> None:
    """Output of Git is translated into what happened and what to do."""
    assert advice in str(error_of(failed(stderr)))


def test_the_object_and_the_defect_that_the_check_refuses_are_named() -> None:
    """Of the check's lines the first is quoted, which has the object and its defect."""
    object_id = "1f" * 20
    stderr = (
        f"error: object {object_id}: missingEmail: invalid author/committer line - missing email\n"
        "fatal: fsck error in packed object\nfatal: fetch-pack: invalid index-pack output\n"
    )

    error = error_of(failed(stderr))

    assert "an object that Git's check refuses" in str(error)
    assert f"object {object_id}: missingEmail" in str(error)
    assert error.lasting


@pytest.mark.parametrize(
    "stderr",
    [
        "fatal: not a git repository: '/c/r.git'",
        "fatal: bad object HEAD",
        "error: object file /c/objects/aa/bb is empty\nfatal: loose object aabb is corrupt",
        "fatal: bad config line 1 in file /c/config",
        "error: https://h/p did not send all necessary objects",
        "fatal: pack has 3 unresolved deltas\nfatal: fetch-pack: invalid index-pack output",
        "fatal: something that nobody has heard of",
    ],
)
@pytest.mark.parametrize("log", ["", trace(">POST /p HTTP/1.1\n<HTTP/1.1 200 OK\n"), LOGGED_IN])
def test_only_a_look_at_the_cache_decides_about_damage(stderr: str, log: str) -> None:
    """Words that may concern the cache, or that nobody knows, cause it to be examined."""
    suspicion = explain(WHERE, failed(stderr, log))

    assert isinstance(suspicion, Damaged)
    assert isinstance(suspicion.otherwise, SourceUnavailable)
    assert stderr.splitlines()[0].removeprefix("fatal: ")[:30] in str(suspicion.otherwise)


def test_a_forge_that_speaks_of_damage_is_still_a_refusal() -> None:
    """A server's words about its own repository keep their explanation."""
    finished = over_ssh("fatal: bad object HEAD\n", LOGGED_IN + STATISTICS, 128)

    suspicion = explain(WHERE, finished)

    assert isinstance(suspicion, Damaged)
    assert "accepted the SSH key, and refused" in str(suspicion.otherwise)


def test_what_the_server_says_of_itself_is_no_sign_of_damage_here() -> None:
    """Lines that Git marks as the server's are never about the cache."""
    stderr = "remote: fatal: bad object HEAD\nfatal: protocol error: bad pack header"

    assert isinstance(explain(WHERE, failed(stderr)), SourceError)


@pytest.mark.parametrize(
    ("code", "ending"),
    [
        (1, "git fetch ended with exit code 1"),
        (-9, "git fetch was ended by signal 9 (SIGKILL)"),
        (-13, "git fetch was ended by signal 13 (SIGPIPE)"),
        (-99, "git fetch was ended by signal 99"),
    ],
)
def test_a_command_without_a_message_is_described_by_its_end(code: int, ending: str) -> None:
    """Where nothing was printed, the command and how it ended are reported."""
    finished = failed("", code=code)
    error = explain(WHERE, finished)

    assert ending in str(error.otherwise if isinstance(error, Damaged) else error)
    assert ending in reason_of(finished)
    assert isinstance(error, Damaged) is (code >= 0)  # a signal says nothing about the cache


def test_a_name_that_sounds_like_a_cause_is_not_taken_for_it() -> None:
    """The name of the repository does not affect the translation of errors."""
    stderr = "fatal: unable to access 'https://h/certificate-401.git/': Could not resolve host: h"

    assert "cannot be resolved" in str(error_of(failed(stderr, trace("=  Trying h\n"))))


def test_the_last_line_is_one_line_without_secrets_or_escapes() -> None:
    """Any output becomes one printable line without secrets."""
    stderr = (
        "remote: \x1b[31myour token t0ken is bad\x1b[0m at https://ada:t0ken@host/p\r\n" + CLOSING
    )

    line = last_line(stderr, ("t0ken",))

    assert "t0ken" not in line
    assert "ada" not in line
    assert line.isprintable()
    assert "your token" in line


def test_no_secret_is_in_what_is_quoted() -> None:
    """Secrets are removed from the lines of the server, of ssh and of Git."""
    log = LOGGED_IN + "debug: t0ken\n" + STATISTICS
    finished = over_ssh("ERROR: t0ken not found at https://ada:t0ken@h/\n", log, 1)
    error = explain(WHERE, finished, ("t0ken",))

    assert "not found" in str(error)
    assert "t0ken" not in str(error)
    assert "ada" not in str(error)


def test_a_flood_of_words_is_cut() -> None:
    """Long and many lines are shortened."""
    assert len(last_line("fatal: " + "x" * 100_000)) < 600
    flood = "".join(f"remote: {number} {'x' * 1000}\n" for number in range(1000))
    assert len(str(error_of(answered(403, stderr=flood)))) < 1000
