from __future__ import annotations

import pytest
from multidict import CIMultiDict

from openfero_gitops.domain.network import parse_network
from openfero_gitops.web.proxies import TrustedProxies

PROXIES = TrustedProxies(
    (parse_network("10.0.0.0/24"), parse_network("fd00::/64")), "X-Forwarded-User"
)


def named(peer: str, *values: str) -> tuple[str, str]:
    """Return the user that a peer names with these headers, or the refusal."""
    return PROXIES.user_of(peer, CIMultiDict([("x-forwarded-user", value) for value in values]))


@pytest.mark.parametrize("peer", ["10.0.0.7", "::ffff:10.0.0.7", "fd00::1", "fd00::1%eth0"])
@pytest.mark.parametrize("name", ["anna", "anna@example.com", "Ännä Übel", "x" * 256])
def test_a_proxy_names_the_user(peer: str, name: str) -> None:
    """One value in the header of a trusted proxy is the user."""
    assert named(peer, name) == (name, "")


@pytest.mark.parametrize("peer", ["10.0.1.7", "127.0.0.1", "::1", "fd00:1::1", "", "10.0.0", "x"])
def test_nobody_else_names_users(peer: str) -> None:
    """The header of another address does not count, whatever it holds."""
    assert named(peer, "anna") == ("", "only the proxies of --web-trusted-proxy may read this")
    assert named(peer)[0] == ""


@pytest.mark.parametrize(
    ("values", "refusal"),
    [
        ((), "no user in X-Forwarded-User"),
        (("",), "no user in X-Forwarded-User"),
        (("  ",), "no user in X-Forwarded-User"),
        (("anna", "anna"), "X-Forwarded-User more than once"),
        (("anna", "root"), "X-Forwarded-User more than once"),
        (("anna,root",), "no valid user name"),
        (("an\u202ena",), "no valid user name"),
        (("an\tna",), "no valid user name"),
        (("an\udcffna",), "no valid user name"),
        (("x" * 257,), "no valid user name"),
    ],
)
def test_a_name_that_may_be_forged_is_refused(values: tuple[str, ...], refusal: str) -> None:
    """Exactly one printable name counts: two may come from the proxy and from its client."""
    name, said = named("10.0.0.7", *values)
    assert name == ""
    assert refusal in said


@pytest.mark.parametrize(
    ("peer", "forwards", "client"),
    [
        ("10.0.0.7", ["192.0.2.1"], "192.0.2.1"),
        ("10.0.0.7", ["::ffff:192.0.2.1"], "192.0.2.1"),
        ("10.0.0.7", ["2001:db8::1"], "2001:db8::1"),
        # What the client sent itself is before what the proxy added.
        ("10.0.0.7", ["203.0.113.9, 192.0.2.1"], "192.0.2.1"),
        ("10.0.0.7", ["203.0.113.9", "192.0.2.1"], "192.0.2.1"),
        # Two proxies in a row.
        ("10.0.0.7", ["203.0.113.9, 192.0.2.1, 10.0.0.8"], "192.0.2.1"),
        ("10.0.0.7", ["10.0.0.9"], "10.0.0.9"),
        ("10.0.0.7", [], "10.0.0.7"),
        ("10.0.0.7", ["unknown"], "10.0.0.7"),
        ("10.0.0.7", ["192.0.2.1, "], "10.0.0.7"),
        ("10.0.0.7", ["192.0.2.1, <script>"], "10.0.0.7"),
        ("10.0.0.7", ["192.0.2.1:4711"], "10.0.0.7"),
        ("10.0.1.7", ["192.0.2.1"], "10.0.1.7"),
        ("", ["192.0.2.1"], ""),
    ],
)
def test_the_address_of_the_client(peer: str, forwards: list[str], client: str) -> None:
    """The last address that no trusted proxy has counts; what clients make up does not."""
    headers = CIMultiDict([("X-Forwarded-For", value) for value in forwards])
    assert PROXIES.client_of(peer, headers) == client


def test_no_proxies() -> None:
    """Without trusted proxies, the connection's address counts."""
    headers = CIMultiDict([("X-Forwarded-For", "192.0.2.1")])
    assert TrustedProxies().client_of("10.0.0.7", headers) == "10.0.0.7"
