"""What ssh and Git's HTTP library log, parsed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.sources.git.transport import HttpLog, SshLog, logged_ssh, parse_log, progress

TIME = "11:22:33.444555 http.c:684              "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("ssh: connect to host h port 22: Connection refused\n", "ssh had not logged in yet"),
        ('Authenticated to h ([192.0.2.1]:22) using "publickey".\n', "ssh had logged in"),
        (f"{TIME}== Info:   Trying 192.0.2.1:443...\n", "no connection was made yet"),
        (f"{TIME}== Info: Connected to h (192.0.2.1)\n", "the server had not answered yet"),
        (f"{TIME}== Info: Established connection to h\n", "the server had not answered yet"),
        (f"{TIME}<= Recv header: HTTP/2 200\n", "the server had begun to answer"),
    ],
)
def test_the_progress_of_a_stopped_operation_is_known(text: str, expected: str) -> None:
    """A log shows how far an operation came."""
    assert progress(text) == expected


def test_http_2_is_understood() -> None:
    """Version 2 has no words after the status, and headers in lower case."""
    log = parse_log(
        f"{TIME}== Info: Using HTTP2, server supports multiplexing\n"
        f"{TIME}=> Send header: GET /p/info/refs HTTP/2\n"
        f"{TIME}<= Recv header, 0000000013 bytes (0x0000000d)\n"
        f"{TIME}<= Recv header: HTTP/2 429 \n"
        f"{TIME}<= Recv header: retry-after: 30\n"
        f"{TIME}<= Recv header:\n"
    )

    assert isinstance(log, HttpLog)
    assert log.last is not None
    assert (log.last.method, log.last.status) == ("GET", 429)
    assert log.last.headers == {"retry-after": "30"}


def test_an_interim_answer_is_not_the_answer() -> None:
    """A status below 200 is followed by another one."""
    log = parse_log(f"{TIME}<= Recv header: HTTP/1.1 100 Continue\n")

    assert log == HttpLog((), connected=True)


def test_the_exit_code_of_ssh_is_the_last_line() -> None:
    """What a server makes ssh log is not taken for the exit code that the shell wrote."""
    log = parse_log(
        "Connection closed by h\nssh ended with exit code x\nssh ended with exit code 255\n"
    )

    assert isinstance(log, SshLog)
    assert log.code == 255
    assert log.reasons == ("Connection closed by h",)


def test_the_command_of_ssh_quotes_its_options() -> None:
    """No option is split or expanded by the shell."""
    command = logged_ssh(["ssh", "-o", "X=$(touch /tmp/x) '"])

    assert """'X=$(touch /tmp/x) '"'"''""" in command


@given(st.text(max_size=300))
def test_any_log_is_parsed(text: str) -> None:
    """No log is an error."""
    parse_log(text)
    parse_log(f"{TIME}<= Recv header: {text}")
    progress(text)
