from __future__ import annotations

import pytest

from openfero_gitops.web.repository_links import RepositoryLinks

COMMIT = "4f1c9a2e7b5d8036c1e4a9f2b7d05c8e3a6f1b94"
LINKS = RepositoryLinks()


@pytest.mark.parametrize(
    ("repository", "commit", "file"),
    [
        (
            "https://github.com/acme/operarios.git",
            f"https://github.com/acme/operarios/commit/{COMMIT}",
            f"https://github.com/acme/operarios/blob/{COMMIT}/a/b.yaml",
        ),
        (
            "git@github.com:acme/operarios.git",
            f"https://github.com/acme/operarios/commit/{COMMIT}",
            f"https://github.com/acme/operarios/blob/{COMMIT}/a/b.yaml",
        ),
        (
            "https://user:secret@gitlab.example.com:8443/ops/sub/group/heal",
            f"https://gitlab.example.com:8443/ops/sub/group/heal/-/commit/{COMMIT}",
            f"https://gitlab.example.com:8443/ops/sub/group/heal/-/blob/{COMMIT}/a/b.yaml",
        ),
        (
            "ssh://git@gitea.example.com:2222/ops/heal.git",
            f"https://gitea.example.com/ops/heal/commit/{COMMIT}",
            f"https://gitea.example.com/ops/heal/src/commit/{COMMIT}/a/b.yaml",
        ),
        (
            "https://codeberg.org/ops/heal",
            f"https://codeberg.org/ops/heal/commit/{COMMIT}",
            f"https://codeberg.org/ops/heal/src/commit/{COMMIT}/a/b.yaml",
        ),
        (
            "https://bitbucket.org/ops/heal.git",
            f"https://bitbucket.org/ops/heal/commits/{COMMIT}",
            f"https://bitbucket.org/ops/heal/src/{COMMIT}/a/b.yaml",
        ),
        (
            "https://bitbucket.example.com/scm/ops/heal.git",
            f"https://bitbucket.example.com/projects/ops/repos/heal/commits/{COMMIT}",
            f"https://bitbucket.example.com/projects/ops/repos/heal/browse/a/b.yaml?at={COMMIT}",
        ),
        (
            "ssh://git@bitbucket.example.com:7999/~ada/heal.git",
            f"https://bitbucket.example.com/users/ada/repos/heal/commits/{COMMIT}",
            f"https://bitbucket.example.com/users/ada/repos/heal/browse/a/b.yaml?at={COMMIT}",
        ),
        *(
            (
                repository,
                f"https://dev.azure.com/acme/Site%20Ops/_git/heal/commit/{COMMIT}",
                f"https://dev.azure.com/acme/Site%20Ops/_git/heal?path=/a/b.yaml&version=GC{COMMIT}",
            )
            for repository in (
                "https://acme@dev.azure.com/acme/Site%20Ops/_git/heal",
                "git@ssh.dev.azure.com:v3/acme/Site%20Ops/heal",
                "https://acme.visualstudio.com/DefaultCollection/Site%20Ops/_git/heal",
            )
        ),
    ],
)
def test_forges(repository: str, commit: str, file: str) -> None:
    """The links of a forge are derived from every form of the repository's URL."""
    assert LINKS.commit(repository, COMMIT) == commit
    assert LINKS.file(repository, COMMIT, "a/b.yaml") == file


@pytest.mark.parametrize(
    "repository",
    [
        "",
        "/srv/git/github.com/heal.git",
        "file:///srv/github.com/a/heal.git",
        "https://git.example.com/ops/heal.git",
        "https://notgithub.example.com/a/b",
        "https://github.com/",
        "https://github.com/../../a",
        "https://github.com\\@evil.example/a/b",
        "https://github.com/a/b\u202e",
        "javascript://github.com/a/%0aalert(1)",
        "https://[github.com/a/b",
        "https://github.com:port/a/b",
        "C:\\github.com\\a\\b",
    ],
)
def test_no_link(repository: str) -> None:
    """There is no link where the forge is not certain."""
    assert LINKS.commit(repository, COMMIT) == ""
    assert LINKS.file(repository, COMMIT, "a.yaml") == ""


@pytest.mark.parametrize("commit", ["", "main", "4f1c9a2", '"><script>', f"{COMMIT}/../x"])
def test_only_full_commits(commit: str) -> None:
    """Only a full commit id becomes a link."""
    assert LINKS.commit("https://github.com/acme/heal", commit) == ""
    assert LINKS.file("https://github.com/acme/heal", commit, "a.yaml") == ""


def test_path_is_quoted() -> None:
    """Characters of a path cannot change the address."""
    link = LINKS.file("https://github.com/acme/heal", COMMIT, 'a b/?x#"<.yaml')
    assert link.endswith("/a%20b/%3Fx%23%22%3C.yaml")


def test_templates_of_the_followed_repository() -> None:
    """Templates are used for the followed repository, and for no other."""
    links = RepositoryLinks(
        "https://git.example.com/heal",
        "https://git.example.com/heal/c/{commit}",
        "https://git.example.com/heal/f/{path}?id={commit}",
    )
    assert links.commit("https://git.example.com/heal", COMMIT).endswith(f"/heal/c/{COMMIT}")
    file = links.file("https://git.example.com/heal", COMMIT, "a b.yaml")
    assert file.endswith(f"/heal/f/a%20b.yaml?id={COMMIT}")
    assert links.commit("https://git.example.com/other", COMMIT) == ""
