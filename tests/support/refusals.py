"""What hosts of repositories write when they refuse a request, as their public pages show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Refusal:
    """What a host writes to stderr over ssh, with which exit code, and what must be reported.

    `quoted` is what the error must quote of it; `advice` the beginning of ours.
    """

    host: str
    text: str
    code: int
    quoted: str
    advice: str


_ABSENT: Final = "the repository does not exist, or this key may not read it; check the URL"
_DENIED: Final = "the server does not let this key read the repository"
_RULES: Final = "the server's rules deny access; do what its message asks"
_FRAME: Final = "remote: " + "=" * 72

#: One for each host, and the ways in which they differ: prefixes, frames, case, exit codes.
REFUSALS: Final = (
    Refusal(
        "github",
        "ERROR: Repository not found.\n",
        1,
        "server: ERROR: Repository not found.",
        _ABSENT,
    ),
    Refusal(
        "gitlab",
        f"remote: \n{_FRAME}\nremote: \nremote: ERROR: The project you were looking for could not"
        f" be found or you don't have permission to view it.\n\nremote: \n{_FRAME}\nremote: \n",
        1,
        "server: ERROR: The project you were looking for could not be found or you don't have",
        _ABSENT,
    ),
    Refusal("bitbucket", "Unauthorized\n", 1, "server: Unauthorized", _DENIED),
    Refusal(
        "gitea",
        "Gitea: Unauthorized\nUser: 7:ada with Key: 3:deploy is not authorized to read ops/heal.\n",
        1,
        "is not authorized to read ops/heal",
        _DENIED,
    ),
    Refusal(
        "gerrit",
        "fatal: project ops/heal not found\n",
        128,
        "project ops/heal not found",
        _ABSENT,
    ),
    Refusal(
        "azure-devops",
        "remote: TF401019: The Git repository with name or identifier heal does not exist or you do"
        " not have permissions for the operation you are attempting.\n",
        128,
        "TF401019: The Git repository with name or identifier heal does not exist",
        _ABSENT,
    ),
    Refusal(
        "gitee",
        "[session-1f2e3d] Access denied: the deploy key is not enabled for ops/heal\n",
        255,
        "Access denied: the deploy key is not enabled",
        _DENIED,
    ),
)

#: More of the same kinds.
OTHER_REFUSALS: Final = (
    Refusal(
        "bitbucket-server",
        "Repository not found\nThe requested repository does not exist, or you do not have"
        " permission to access it.\n",
        1,
        "The requested repository does not exist",
        _ABSENT,
    ),
    Refusal(
        "bitbucket-cloud",
        "remote: You may not have access to this repository or it no longer exists in this"
        " workspace. If you think this repository exists and you have access, make sure you are"
        " authenticated.\n",
        1,
        "You may not have access to this repository",
        _ABSENT,
    ),
    Refusal("bitbucket-forbidden", "Forbidden\n", 1, "server: Forbidden", _DENIED),
    Refusal("gitea-absent", "Gitea: Cannot find repository: ops/heal\n", 1, "Cannot find", _ABSENT),
    Refusal(
        "gitolite",
        "FATAL: R any ops/heal ada DENIED by fallthru\n(or you mis-spelled the reponame)\n",
        1,
        "DENIED by fallthru",
        _ABSENT,
    ),
    Refusal(
        "github-key-denied",
        "ERROR: Permission to ops/heal.git denied to deploy key\n",
        1,
        "denied to deploy key",
        _DENIED,
    ),
    Refusal(
        "github-sso",
        "ERROR: The 'ops' organization has enabled or enforced SAML SSO. To access this repository,"
        " you must use the HTTPS remote with a personal access token or SSH with an SSH key and"
        " passphrase that has been authorized for this organization.\n",
        1,
        "has enabled or enforced SAML SSO",
        _RULES,
    ),
    Refusal(
        "github-addresses",
        "ERROR: The 'ops' organization has an IP allow list enabled, and 192.0.2.7 is not permitted"
        " to access this repository.\n",
        1,
        "has an IP allow list enabled",
        _RULES,
    ),
    Refusal(
        "github-sha-1",
        "ERROR: You're using an RSA key with SHA-1, which is no longer allowed. Please use a newer"
        " client or a different key type.\n",
        1,
        "RSA key with SHA-1",
        "the server does not accept this kind of SSH key",
    ),
    Refusal(
        "gitlab-key-expired",
        "remote: \nremote: ERROR: Your SSH key has expired.\nremote: \n",
        1,
        "Your SSH key has expired",
        "what was used to log in has expired or was revoked on the server; renew it there",
    ),
    Refusal(
        "gitlab-locked",
        "remote: ERROR: Your account has been blocked.\n",
        1,
        "Your account has been blocked",
        _RULES,
    ),
    Refusal(
        "maintenance",
        "remote: GitLab is currently under maintenance. Please try again later.\n",
        1,
        "under maintenance",
        "the server is not available for now",
    ),
    Refusal(
        "too-often",
        "remote: Too many requests. Retry in 60 seconds.\n",
        1,
        "Too many requests",
        "the server is asked too often",
    ),
    Refusal(
        "no-git",
        "bash: line 1: git-upload-pack: command not found\n",
        127,
        "command not found",
        "the server has no git command",
    ),
    Refusal(
        "owned-by-others",
        "fatal: detected dubious ownership in repository at '/srv/heal.git'\nTo add an exception"
        " for this directory, call:\n\n\tgit config --global --add safe.directory /srv/heal.git\n",
        128,
        "dubious ownership",
        "git on the server refuses the repository, because its files belong to another user",
    ),
    Refusal(
        "gitlab-download",
        "remote: You are not allowed to download code from this project.\n",
        1,
        "You are not allowed to download code",
        _DENIED,
    ),
    Refusal(
        "github-disabled",
        "ERROR: Access to this repository has been disabled by GitHub staff due to excessive"
        " resource use. Please contact support.\n",
        1,
        "has been disabled by GitHub staff",
        _RULES,
    ),
    Refusal(
        "github-suspended",
        "ERROR: Your account is suspended. Please check your email for next steps.\n",
        1,
        "Your account is suspended",
        _RULES,
    ),
    Refusal("forgejo", "Forgejo: Unauthorized\n", 1, "Forgejo: Unauthorized", _DENIED),
    Refusal(
        "gogs",
        "Gogs: Repository does not exist or you do not have access\nGogs internal error:"
        " Repository does not exist\n",
        1,
        "Repository does not exist or you do not have access",
        _ABSENT,
    ),
    Refusal(
        "bitbucket-old",
        "conq: repository access denied. deployment key is not associated with the requested"
        " repository.\n",
        1,
        "conq: repository access denied",
        _DENIED,
    ),
    Refusal(
        "azure-key",
        "remote: Public key authentication failed.\n",
        255,
        "server: Public key authentication failed.",
        _DENIED,
    ),
    Refusal(
        "phabricator",
        '[1] Exception: No repository "heal" exists!\n',
        255,
        "No repository",
        _ABSENT,
    ),
    Refusal(
        "launchpad",
        "fatal: remote error: Repository '~ops/heal' not found.\n",
        128,
        "server: Repository '~ops/heal' not found.",
        _ABSENT,
    ),
    Refusal(
        "gerrit-permission",
        "fatal: remote error: Gerrit Code Review: Access denied for project ops/heal\n",
        128,
        "Access denied for project ops/heal",
        _DENIED,
    ),
    Refusal(
        "no-login-shell",
        "This account is currently not available.\n",
        1,
        "This account is currently not available.",
        _RULES,
    ),
    Refusal(
        "greeting",
        "*" * 40 + "\nUnauthorized use is prohibited\n" + "Rule 1\n" * 20 + "*" * 40 + "\n"
        "ERROR: Repository not found.\n",
        1,
        "ERROR: Repository not found.",
        _ABSENT,
    ),
    Refusal(
        "unknown-words",
        "E_POLICY_17: contact the helpdesk\n",
        3,
        "E_POLICY_17: contact the helpdesk",
        "the server accepted the SSH key, and refused the request; see what it says",
    ),
    Refusal(
        "silence",
        "",
        1,
        "the command on the server ended with exit code 1",
        "the server accepted the SSH key, and refused the request",
    ),
)
