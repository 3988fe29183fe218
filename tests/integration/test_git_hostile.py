"""What a hostile Git server can do: each attack ends in an error of one line, or harmlessly."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import threading
import time
import zlib
from random import Random
from typing import TYPE_CHECKING, Any, Final

import pytest

from openfero_gitops.domain.errors import SourceError, Unusable
from openfero_gitops.sources.git.access import GitAccess, GitConnection
from openfero_gitops.sources.git.source import GitSettings, GitSource
from openfero_gitops.sources.git.url import parse_remote
from tests.support.descendants import descendants
from tests.support.hostile_git import (
    BLOB,
    COMMIT,
    DELIMITER,
    FLUSH,
    REF_DELTA,
    TAG,
    TREE,
    HostileServer,
    commit,
    copies,
    entry,
    hostile_server,
    object_id,
    pack,
    packet,
    sideband,
    tree,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

MIB: Final = 1 << 20
FILE: Final = b"kind: Service\n"
FILE_ID: Final = object_id(BLOB, FILE)
FOLDER: Final = tree((b"100644", b"a.yaml", FILE_ID))
FOLDER_ID: Final = object_id(TREE, FOLDER)
TIP: Final = commit(FOLDER_ID)
TIP_ID: Final = object_id(COMMIT, TIP)
FILES: Final = ([entry(TREE, FOLDER)], [entry(BLOB, FILE)])
#: Of each Git process in these tests.
MEMORY: Final = 64 * MIB
_OWN_PROGRAM: Final = os.readlink("/proc/self/exe")  # noqa: PTH115 - as it is compared


@pytest.fixture
def server() -> Iterator[HostileServer]:
    """Start a server with one harmless commit."""
    with hostile_server() as server:
        server.serve_commit(TIP_ID, [entry(COMMIT, TIP)], *FILES)
        yield server


@pytest.fixture
def other() -> Iterator[HostileServer]:
    """Start a server that nobody may come to."""
    with hostile_server() as server:
        server.serve_commit(TIP_ID, [entry(COMMIT, TIP)], *FILES)
        yield server


@contextlib.contextmanager
def measured() -> Iterator[list[int]]:
    """Yield a list, which has the largest resident memory of any new child at the end, in bytes."""
    peaks = [0]
    ended = threading.Event()
    earlier = descendants()  # such as an API server of other tests

    def watch() -> None:
        while not ended.wait(0.02):
            peaks[0] = max([peaks[0], *(_peak(pid) for pid in descendants() - earlier)])

    thread = threading.Thread(target=watch, name="memory of children")
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()


def _peak(pid: int) -> int:
    """Of a program; until a child has started one, its memory is this process's."""
    with contextlib.suppress(OSError):
        if os.readlink(f"/proc/{pid}/exe") == _OWN_PROGRAM:  # noqa: PTH115 - cheap
            return 0
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii") as status:  # noqa: PTH123 - cheap
        for line in status:
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return 0


async def outcome(url: str, tmp_path: Path, timeout: float = 30.0, **access: Any) -> str:
    """Fetch with a new source; return the error, or what was read. Nothing may be left behind."""
    settings = GitSettings(
        url=url,
        cache_dir=tmp_path / "cache",
        access=GitAccess(timeout=timeout, memory_bytes=MEMORY, **access),
    )
    source = GitSource(settings)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        snapshot = await source.fetch()
    except SourceError as error:
        text = str(error)
        assert "\n" not in text
        assert text.isprintable()
        assert len(text) < 1000
        size = sum(path.lstat().st_size for path in (tmp_path / "cache").rglob("*"))
        assert size < MIB
        return text
    finally:
        await source.aclose()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 * 1024  # KiB
    return ",".join(file.path for file in snapshot.files)


async def test_a_harmless_commit_is_read(server: HostileServer, tmp_path: Path) -> None:
    """The server of these tests is a Git server."""
    assert await outcome(server.url, tmp_path) == "a.yaml"


class TestElsewhere:
    """A server cannot make Git connect to another one."""

    async def test_packfile_uris_are_not_followed(
        self, server: HostileServer, other: HostileServer, tmp_path: Path
    ) -> None:
        """Git would download from any URL that a server names, even unasked."""
        packed = b"".join(pack([entry(COMMIT, TIP)], *FILES))

        def answer() -> Iterator[bytes]:
            yield packet(b"packfile-uris\n")
            yield packet(b"%s %s/secret\n" % (b"1" * 40, other.url.encode()))
            yield DELIMITER
            yield packet(b"packfile\n")
            yield from sideband([packed])
            yield FLUSH

        server.answer = answer
        credentials = _credentials(tmp_path)
        text = await outcome(server.url, tmp_path, credentials_file=credentials)
        assert "names other servers" in text
        assert other.requests == []
        bodies = [body for _, _, _, body in server.requests]
        assert not any(b"packfile-uris" in body for body in bodies)  # Git did not request it
        assert not any(b"bundle-uri" in body for body in bodies)

    async def test_alternates_are_not_followed(
        self, server: HostileServer, other: HostileServer, tmp_path: Path
    ) -> None:
        """In Git's dumb protocol a server can name others that have its objects."""

        def respond(request: BaseHTTPRequestHandler) -> bool:
            files = {
                "info/refs?service=git-upload-pack": f"{TIP_ID}\trefs/heads/main\n",
                "HEAD": "ref: refs/heads/main\n",
                "objects/info/http-alternates": f"{other.url}/objects\n",
                "objects/info/alternates": f"{other.url}/objects\n",
            }
            return _send_file(request, files)

        server.respond = respond
        assert "git: " in await outcome(server.url, tmp_path)
        assert other.requests == []

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize("method", ["GET", "POST"])
    async def test_no_redirect_takes_the_credentials_along(
        self,
        server: HostileServer,
        other: HostileServer,
        tmp_path: Path,
        status: int,
        method: str,
    ) -> None:
        """Neither that of the first request nor that of a later one is followed."""

        def respond(request: BaseHTTPRequestHandler) -> bool:
            if request.command != method:
                return False
            request.send_response(status)
            request.send_header("Location", f"{other.url}{request.path}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return True

        server.respond = respond
        credentials = _credentials(tmp_path)
        error = await outcome(server.url, tmp_path, credentials_file=credentials)
        assert "redirects to another URL, which is not followed" in error
        assert other.requests == []

    async def test_the_credentials_are_for_one_host(
        self, server: HostileServer, other: HostileServer, tmp_path: Path
    ) -> None:
        """However Git comes to ask, its helper answers for the repository's host alone."""
        access = GitAccess(credentials_file=_credentials(tmp_path))
        options = GitConnection(parse_remote(server.url), access).options()
        own, foreign = (url.url.removesuffix("/repository.git") for url in (server, other))
        address = own.removeprefix("http://")
        answers = {
            own: "ada s3cret",
            f"{own}/other": "ada s3cret",
            f"http://eve@{address}": "ada s3cret",
            foreign: "",
            f"https://{address}": "",
            f"http://{address}.example": "",
            f"http://{address.partition(':')[0]}": "",
            "http://": "",
        }
        for url, answer in answers.items():
            process = await asyncio.create_subprocess_exec(
                *("git", *options, "credential", "fill"),
                env={
                    "PATH": os.environ["PATH"],
                    "GIT_ASKPASS": "false",
                    "GIT_TERMINAL_PROMPT": "0",
                },
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            printed, _ = await process.communicate(f"url={url}\n\n".encode())
            lines = dict(line.split("=", 1) for line in printed.decode().splitlines())
            sent = f"{lines.get('username', '')} {lines.get('password', '')}".strip()
            assert sent == answer, url


class TestMemory:
    """A server cannot make Git or this process take much memory."""

    async def test_a_delta_of_a_kilobyte_that_makes_gigabytes(
        self, server: HostileServer, tmp_path: Path
    ) -> None:
        """A process of Git ends before it takes more than it may, and the error says why."""
        base = bytes(0xFFFFFF)
        delta = copies(len(base), 128)
        assert len(delta) < 1024
        server.serve_commit(
            TIP_ID,
            [entry(COMMIT, TIP)],
            *FILES,
            [entry(BLOB, base)],
            [entry(REF_DELTA, delta, object_id(BLOB, base))],
        )
        with measured() as peaks:
            text = await outcome(server.url, tmp_path)
        assert "more memory than --git-max-memory allows" in text
        assert peaks[0] < 2 * MEMORY

    async def test_refs_without_end(self, server: HostileServer, tmp_path: Path) -> None:
        """Git holds all refs in memory: it ends at its limit, or at its deadline."""

        def refs() -> Iterator[bytes]:
            number = 0
            while True:
                yield b"".join(
                    packet(b"%040x refs/heads/%s%08d\n" % (number + i + 1, b"x" * 2000, number + i))
                    for i in range(100)
                )
                number += 100

        server.refs = refs
        with measured() as peaks:
            text = await outcome(server.url, tmp_path)
        assert "--git-max-memory" in text or "--git-timeout" in text
        assert peaks[0] < 2 * MEMORY

    @pytest.mark.parametrize("part", ["message", "author", "parents", "tag"])
    async def test_a_commit_or_tag_of_megabytes(
        self, server: HostileServer, tmp_path: Path, part: str
    ) -> None:
        """It is refused before it is read, since it would be held in memory several times."""
        many = b"x" * (20 * MIB)
        parent = commit(FOLDER_ID, message=b"First\n")
        parent_id = object_id(COMMIT, parent)
        kind, content = COMMIT, TIP
        if part == "message":
            content = commit(FOLDER_ID, message=many)
        elif part == "author":
            content = commit(FOLDER_ID, author=many)
        elif part == "parents":
            content = commit(FOLDER_ID, *[parent_id] * 250_000)
        else:
            head = f"object {TIP_ID}\ntype commit\ntag main\n".encode()
            kind, content = TAG, head + b"tagger A <a@example.com> 1790000000 +0000\n\n" + many
        server.serve_commit(
            object_id(kind, content),
            [entry(kind, content)],
            [entry(COMMIT, TIP)],
            [entry(COMMIT, parent)],
            *FILES,
        )
        before = _peak_of_self()
        text = await outcome(server.url, tmp_path)
        assert "more than 8388608" in text or "--git-max-memory" in text
        assert _peak_of_self() - before < 40 * MIB

    async def test_a_commit_of_megabytes_is_refused_like_others_that_cannot_be_used(
        self, server: HostileServer, tmp_path: Path
    ) -> None:
        """A replica that starts goes back to an ancestor, and the commit is not fetched again."""
        tip = commit(FOLDER_ID, TIP_ID, message=b"x" * (9 * MIB))
        tip_id = object_id(COMMIT, tip)
        server.serve_commit(tip_id, [entry(COMMIT, tip)], [entry(COMMIT, TIP)], *FILES)
        settings = GitSettings(
            url=server.url, cache_dir=tmp_path / "cache", access=GitAccess(timeout=30)
        )
        async with contextlib.aclosing(GitSource(settings)) as source:
            for _ in range(2):
                with pytest.raises(Unusable, match="more than 8388608") as refused:
                    await source.fetch()
                assert refused.value.revision.commit == tip_id
            assert await source.ancestors(tip_id) == [TIP_ID]
            assert (await source.snapshot(TIP_ID)).files
            packs = [body for *_, body in server.requests if b"command=fetch" in body]
            assert len(packs) == 1

    async def test_messages_without_end(self, server: HostileServer, tmp_path: Path) -> None:
        """What a server says is not kept, and its escape sequences reach no terminal."""

        def answer() -> Iterator[bytes]:
            yield packet(b"packfile\n")
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                yield from sideband([b"\x1b[31mflood\x07\n" * 4000], band=2)

        server.answer = answer
        with measured() as peaks:
            text = await outcome(server.url, tmp_path, timeout=5)
        assert "--git-timeout" in text
        assert peaks[0] < 2 * MEMORY


class TestDisk:
    """A server cannot fill the disk."""

    async def test_files_without_end(self, server: HostileServer, tmp_path: Path) -> None:
        """In Git's dumb protocol each object is a file: all of them together are limited."""
        contents = {}
        for number in range(100):
            content = Random(number).randbytes(MIB)  # noqa: S311, not a secret
            contents[object_id(BLOB, content)] = b"blob %d\0" % len(content) + content
        folder = tree(*sorted((b"100644", sha.encode(), sha) for sha in contents))
        tip = commit(object_id(TREE, folder))
        contents[object_id(TREE, folder)] = b"tree %d\0" % len(folder) + folder
        contents[object_id(COMMIT, tip)] = b"commit %d\0" % len(tip) + tip
        files: dict[str, str | bytes] = {
            f"objects/{sha[:2]}/{sha[2:]}": zlib.compress(content, 0)
            for sha, content in contents.items()
        }
        refs = f"{object_id(COMMIT, tip)}\trefs/heads/main\n"
        files |= {"info/refs?service=git-upload-pack": refs, "HEAD": "ref: refs/heads/main\n"}

        def respond(request: BaseHTTPRequestHandler) -> bool:
            time.sleep(0.02)
            return _send_file(request, files)

        server.respond = respond
        text = await outcome(server.url, tmp_path, pack_bytes=20 * MIB)
        assert "--git-max-size" in text


class TestTime:
    """A server cannot keep a command beyond its deadline."""

    async def test_keepalives_without_end(self, server: HostileServer, tmp_path: Path) -> None:
        """A server that is alive but sends nothing is given up like one that stalls."""

        def answer() -> Iterator[bytes]:
            yield packet(b"packfile\n")
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                time.sleep(0.1)
                yield packet(b"\x01")

        server.answer = answer
        began = time.monotonic()
        assert "--git-timeout" in await outcome(server.url, tmp_path, timeout=3)
        assert time.monotonic() - began < 30


class TestObjects:
    """Objects that lie about each other are refused."""

    @pytest.mark.parametrize(
        ("tip", "entries"),
        [
            pytest.param(commit(FILE_ID), [[entry(BLOB, FILE)]], id="a blob as the tree"),
            pytest.param(commit(TIP_ID), [[entry(COMMIT, TIP)], *FILES], id="a commit as the tree"),
            pytest.param(commit("1" * 40), [], id="no tree"),
            pytest.param(commit(FOLDER_ID, FILE_ID), [*FILES], id="a blob as the parent"),
            pytest.param(b"tree " + FOLDER_ID.encode(), [*FILES], id="half a commit"),
            pytest.param(
                commit(FOLDER_ID) + b"\0hidden", [*FILES], id="a commit with a NUL character"
            ),
        ],
    )
    async def test_they_are_reported(
        self,
        server: HostileServer,
        tmp_path: Path,
        tip: bytes,
        entries: Iterable[Iterable[bytes]],
    ) -> None:
        """Git's checks of the objects and of their connections end the fetch."""
        server.serve_commit(object_id(COMMIT, tip), [entry(COMMIT, tip)], *entries)
        assert (await outcome(server.url, tmp_path)).startswith("Git repository http://")

    async def test_a_delta_that_needs_itself(self, server: HostileServer, tmp_path: Path) -> None:
        """Deltas in a circle have no base."""
        ids = ("1" * 40, "2" * 40)
        circle = [[entry(REF_DELTA, copies(10, 1), base)] for base in ids]
        server.serve_commit(TIP_ID, [entry(COMMIT, TIP)], *FILES, *circle)
        assert (await outcome(server.url, tmp_path)).startswith("Git repository http://")


def _send_file(request: BaseHTTPRequestHandler, files: Mapping[str, str | bytes]) -> bool:
    content = files.get(request.path.removeprefix("/repository.git/"), b"")
    content = content.encode() if isinstance(content, str) else content
    request.send_response(200 if content else 404)
    request.send_header("Content-Type", "text/plain")
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        request.wfile.write(content)
    return True


def _credentials(tmp_path: Path) -> Path:
    file = tmp_path / "credentials"
    file.write_text("ada:s3cret\n")
    return file


def _peak_of_self() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
