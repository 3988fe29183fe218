"""Whose trouble ended an operation over ssh: the server's shell and its Git write to our stderr."""

from __future__ import annotations

import re

import pytest

from openfero_gitops.domain.errors import SourceError, SourceUnavailable
from openfero_gitops.sources.git.errors import Damaged, explain
from openfero_gitops.sources.git.process import Finished

COULD_NOT_READ = (
    "fatal: Could not read from remote repository.\n\n"
    "Please make sure you have the correct access rights\nand the repository exists.\n"
)
HUNG_UP = "fatal: the remote end hung up unexpectedly\n"
EARLY_EOF = (
    "fetch-pack: unexpected disconnect while reading sideband packet\nfatal: early EOF\n"
    "fatal: fetch-pack: invalid index-pack output\n"
)
LOGGED_IN = 'Authenticated to git.example.com ([192.0.2.1]:22) using "publickey".\n'
OBJECT = "1f" * 20
ABSENT = "the repository does not exist, or this key may not read it"
DENIED = "the server does not let this key read the repository"
RULES = "the server's rules deny access; do what its message asks"
UNAVAILABLE = "the server is not available for now"
MEMORY_THERE = "the server lacks memory or processes; see what it says"
DISK_THERE = "the server cannot use its disk; see what it says"
CLOSED = "the connection was closed before the login"
LONG_GREETING = "".join(
    f"Rule {number}: {'all use is recorded and may be disclosed, ' * 2}\n" for number in range(8)
)


def error_of(stderr: str, log: str, code: int | None = None) -> SourceError:
    """Return the error of a fetch over ssh."""
    ending = f"ssh ended with exit code {code}\n" if code is not None else ""
    error = explain("repo", Finished(128, b"", stderr, "fetch", f"{log}{ending}"))
    if isinstance(error, Damaged):
        assert error.otherwise is not None
        return error.otherwise
    return error


@pytest.mark.parametrize("closing", [COULD_NOT_READ, HUNG_UP, EARLY_EOF])
@pytest.mark.parametrize("code", [1, 128, 254, 255, None])
@pytest.mark.parametrize(
    "line",
    [
        "bash: fork: Cannot allocate memory",
        "bash: fork: retry: Resource temporarily unavailable",
        "fatal: Out of memory, malloc failed (tried to allocate 1048576 bytes)",
        "fatal: unable to create thread: Resource temporarily unavailable",
        "error: cannot fork to run git-pack-objects: Cannot allocate memory",
        "Could not chdir to home directory /home/git: Read-only file system",
        "fatal: Unable to create '/srv/heal.git/x.lock': Read-only file system",
        "fatal: write error: No space left on device",
        "mktemp: failed to create file: Disk quota exceeded",
        f"error: object {OBJECT}: missingEmail: invalid author/committer line",
        "fatal: fsck error in packed object",
        "git: 'http-fetch' is not a git command. See 'git --help'.",
    ],
)
def test_the_trouble_of_a_server_is_not_of_this_machine(
    line: str, code: int | None, closing: str
) -> None:
    """It is retried, quoted, and no setting of this machine is blamed."""
    error = error_of(f"{line}\n{closing}", LOGGED_IN, code)

    assert isinstance(error, SourceUnavailable)
    assert line.removeprefix("fatal: ") in str(error)
    for words in ("--git-max-memory", "cache directory", "Git's check", "packfile URIs"):
        assert words not in str(error)


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("bash: fork: Cannot allocate memory", MEMORY_THERE),
        ("-bash: fork: retry: Resource temporarily unavailable", MEMORY_THERE),
        ("fatal: Out of memory, malloc failed", MEMORY_THERE),
        ("Could not chdir to home directory /home/git: Read-only file system", DISK_THERE),
        ("fatal: write error: No space left on device", DISK_THERE),
        ("mktemp: failed to create file: Disk quota exceeded", DISK_THERE),
        (
            (
                "Could not chdir to home directory /home/git: Read-only file system\n"
                "ERROR: Repository not found."
            ),
            ABSENT,
        ),
        (
            (
                "Could not chdir to home directory /home/git: Input/output error\n"
                "Access denied: the deploy key is not enabled for ops/heal"
            ),
            DENIED,
        ),
    ],
)
def test_the_trouble_of_a_server_is_named(line: str, advice: str) -> None:
    """The advice says what the server lacks, unless its last words say more."""
    assert advice in str(error_of(f"{line}\n{COULD_NOT_READ}", LOGGED_IN, 128))


@pytest.mark.parametrize("code", [0, 141, 255, None])
@pytest.mark.parametrize(
    ("stderr", "advice", "lasting"),
    [
        (
            (
                f"error: object {OBJECT}: missingEmail: invalid line\nfatal: fsck error in packed"
                " object\nfatal: fetch-pack: invalid index-pack output\n"
            ),
            "an object that Git's check refuses",
            True,
        ),
        (
            "fatal: Out of memory, malloc failed\nfatal: fetch-pack: invalid index-pack output\n",
            "--git-max-memory",
            True,
        ),
        (
            (
                "fatal: write error: No space left on device\n"
                "fatal: fetch-pack: invalid index-pack output\n"
            ),
            "the disk of the cache directory is full",
            False,
        ),
        (
            "fatal: Unable to create '/c/shallow.lock': Read-only file system\n",
            "the cache directory is read-only",
            True,
        ),
    ],
)
def test_what_git_refuses_here_keeps_its_advice(
    stderr: str, advice: str, *, lasting: bool, code: int | None
) -> None:
    """Where Git did not report that the server ended the connection, the failure is local."""
    error = error_of(stderr, LOGGED_IN, code)

    assert advice in str(error)
    assert error.lasting is lasting


def test_a_greeting_does_not_make_a_local_failure_lasting() -> None:
    """Only lines in the form of Git's errors are taken for Git's."""
    stderr = (
        "Could not chdir to home directory /home/git: Read-only file system\n"
        "error: cannot lock ref 'a': Unable to create '/c/a.lock': File exists.\n"
    )

    error = error_of(stderr, LOGGED_IN, 0)

    assert "another git process left a lock file" in str(error)
    assert not error.lasting


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("By logging in you agree to monitoring\nERROR: Repository not found.", ABSENT),
        ("By logging in you agree to the terms of use\nRepository not found", ABSENT),
        ("Scheduled maintenance every Sunday\nERROR: Repository not found.", ABSENT),
        ("Scheduled maintenance every Sunday\nGitea: Unauthorized", DENIED),
        (
            (
                "No access without authorization! Rate limits apply\n"
                "fatal: '/srv/heal.git' does not appear to be a git repository"
            ),
            ABSENT,
        ),
        (
            (
                "Unauthorized access is forbidden\nremote: \nremote: ERROR: The project you were"
                " looking for could not be found\nremote: \nremote: Ask your administrator for help"
            ),
            ABSENT,
        ),
        ("Welcome! Access is restricted\nDown for maintenance, try again later", UNAVAILABLE),
        ("Repository not found? Ask the helpdesk\nERROR: Your SSH key has expired.", "has expired"),
        ("ERROR: The organization enforces SAML SSO.\nPlease log in on the web", RULES),
        ("The organization enforces SAML SSO.\nPlease log in on the web", RULES),
        ("The server is down for maintenance\nContact: ops@example.com", UNAVAILABLE),
        ("You must log in on the web first", DENIED),
        (LONG_GREETING + "ERROR: Repository not found.", ABSENT),
    ],
)
def test_the_last_words_of_a_server_decide(said: str, advice: str) -> None:
    """A greeting, which every login gets, does not say why this request was refused."""
    error = str(error_of(f"{said}\n{COULD_NOT_READ}", LOGGED_IN, 1))

    assert advice in error
    assert re.sub(r"^(?:remote|fatal): ", "", said.splitlines()[-1]) in error


@pytest.mark.parametrize(
    ("banner", "reason", "advice"),
    [
        ("Host key verification failed? Ask ops", "Connection closed by 192.0.2.1 port 22", CLOSED),
        ("Permission denied to all others", "Connection reset by 192.0.2.1 port 22", CLOSED),
        (
            "Out of memory of the last outage: connection refused",
            "git@h: Permission denied (publickey).",
            "the server refused the SSH key",
        ),
        (
            "Too many authentication failures lock the account",
            "Host key verification failed.",
            "host key is not in the known_hosts file",
        ),
        (LONG_GREETING, "git@h: Permission denied (publickey).", "the server refused the SSH key"),
    ],
)
def test_the_log_of_ssh_precedes_a_banner(banner: str, reason: str, advice: str) -> None:
    """Before the login, a banner of the server decides nothing that ssh logs a reason for."""
    error = str(error_of(f"{banner}\n{COULD_NOT_READ}", f"{reason}\n", 255))

    assert advice in error
    assert reason in error


@pytest.mark.parametrize("words", ["sh: 1: Cannot fork", "sh: fork: Cannot allocate memory"])
def test_an_ssh_without_memory_is_retried(words: str) -> None:
    """Before the login, the memory of this machine is meant; it may be free again later."""
    error = error_of(f"{words}\n{COULD_NOT_READ}", "ssh starts\n", 2)

    assert "ssh did not get enough memory; raise --git-max-memory" in str(error)
    assert not error.lasting


@pytest.mark.parametrize(
    ("stderr", "advice", "lasting"),
    [
        (
            "git: 'remote-https' is not a git command. See 'git --help'.\n",
            "git cannot start its program for http and https",
            False,
        ),
        (
            "fatal: unable to find remote helper for 'https'\n",
            "git cannot start its program for http and https",
            False,
        ),
        (
            (
                "git: 'http-fetch' is not a git command. See 'git --help'.\n"
                "fatal: fetch-pack: unable to spawn http-fetch\n"
            ),
            "disable packfile URIs",
            True,
        ),
    ],
)
def test_a_missing_program_of_git_is_named(stderr: str, advice: str, *, lasting: bool) -> None:
    """Only the program that downloads from other servers is missing on purpose."""
    error = error_of(stderr, "")

    assert advice in str(error)
    assert error.lasting is lasting
