from __future__ import annotations

import pytest

from openfero_gitops.web.headers import add_default_headers, foreign, is_loopback


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "localhost.", "127.0.0.1", "127.8.9.1", "::1", "[::1]",
             "::ffff:127.0.0.1"],
)  # fmt: skip
def test_hosts_of_this_machine(host: str) -> None:
    """Loopback addresses and localhost are this machine."""
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "10.0.0.1", "localhost.evil.example", "127.0.0.1.evil.example",
             "127.1", "2130706433", "evil.example", "::ffff:10.0.0.1", "[", "fe80::1"],
)  # fmt: skip
def test_hosts_of_other_machines(host: str) -> None:
    """Anything else is not, also if a resolver would make it a loopback address."""
    assert not is_loopback(host)


def check(
    method: str = "GET", *, https: bool = False, loopback: bool = False, **headers: str
) -> str:
    """Return the reason for a request with these headers; _ stands for -."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return foreign(
        method, names, https=https, loopback=loopback, allowed_hosts=("heal.example.com",)
    )


@pytest.mark.parametrize(
    ("origin", "host", "https"),
    [
        ("http://10.0.0.1:8080", "10.0.0.1:8080", False),
        ("http://controller", "controller", False),
        ("http://controller", "controller:80", False),
        ("http://Controller:8080", "controller:8080", False),
        ("https://controller", "controller", True),
        ("https://controller", "controller:443", True),
        # A proxy in front ends TLS and passes the host on.
        ("https://controller", "controller", False),
        ("https://controller:8443", "controller:8443", False),
        ("http://[::1]:8080", "[::1]:8080", False),
        # The proxy does not pass the host on, but it is allowed.
        ("https://heal.example.com", "10.0.0.1:8080", False),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_own_pages(origin: str, host: str, https: bool, method: str) -> None:  # noqa: FBT001 - a case
    """Requests of our own pages are accepted."""
    assert check(method, https=https, Host=host, Origin=origin) == ""


@pytest.mark.parametrize(
    ("origin", "host", "https"),
    [
        ("null", "controller:8080", False),
        ("", "controller:8080", False),
        ("http://evil.example", "controller:8080", False),
        ("http://controller", "controller:8080", False),
        ("http://controller:8081", "controller:8080", False),
        ("http://controller.evil.example:8080", "controller:8080", False),
        ("http://controller:8080@evil.example", "controller:8080", False),
        ("http://evil.example/controller:8080", "controller:8080", False),
        ("ftp://controller:8080", "controller:8080", False),
        ("http://controller", "controller", True),
        ("file://", "controller", False),
        ("http://evil.example", "", False),
        ("http://a:b:c", "a:b:c", False),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_pages_of_others(origin: str, host: str, https: bool, method: str) -> None:  # noqa: FBT001 - a case
    """A foreign origin is refused, whatever the method; the reason names the flag to set."""
    reason = check(method, https=https, Host=host, Origin=origin)
    assert repr(origin) in reason
    assert "--allowed-host" in reason


@pytest.mark.parametrize(
    "host", ["localhost:8080", "127.0.0.1", "127.0.0.2:9", "[::1]:8080", "heal.example.com",
             "HEAL.example.com:8443", ""],
)  # fmt: skip
def test_hosts_on_loopback(host: str) -> None:
    """A listener on loopback accepts its own names, the allowed ones, and requests without one."""
    assert check(loopback=True, Host=host) == ""


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "10.0.0.1", "a b",
             "localhost:8080:9", "localhost@evil.example"],
)  # fmt: skip
def test_foreign_hosts_on_loopback(host: str) -> None:
    """A listener on loopback refuses other names; one that others reach accepts them."""
    assert repr(host) in check(loopback=True, Host=host)
    assert check(loopback=False, Host=host) == ""


def test_cross_site_requests_without_an_origin() -> None:
    """Browsers send no Origin with images and scripts; only links to pages may come from others."""
    site = {"Host": "controller", "Sec_Fetch_Site": "cross-site"}
    assert "another site" in check(**site, Sec_Fetch_Mode="no-cors", Sec_Fetch_Dest="image")
    assert "another site" in check(**site, Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="iframe")
    link = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert check(**site, **link) == ""
    assert "another site" in check("POST", **site, **link)
    for own in ("same-origin", "same-site", "none"):
        assert check(Host="controller", Sec_Fetch_Site=own, Sec_Fetch_Mode="no-cors") == ""


def test_long_values_are_cut() -> None:
    """A reason is short, however long the header."""
    assert len(check(Host="h" * 5000, Origin="http://" + "o" * 5000)) < 500


def test_default_headers() -> None:
    """Headers that an answer has are kept; the server's version is not named."""
    headers = {"Cache-Control": "public"}
    add_default_headers(headers)
    assert headers["Cache-Control"] == "public"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Server"] == "openfero-gitops"


@pytest.mark.parametrize("host", ["heal.example.com", "heal.example.com:8443", "10.0.0.1:8443", ""])
def test_https_is_remembered(host: str) -> None:
    """Browsers remember that the server speaks https, if TLS ends here."""
    headers: dict[str, str] = {}
    add_default_headers(headers, https=True, host=host)
    assert headers["Strict-Transport-Security"] == "max-age=31536000"
    headers = {}
    add_default_headers(headers, https=False, host=host)
    assert "Strict-Transport-Security" not in headers


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8081", "127.0.0.1:8081", "[::1]:8081", "[::1]", "127.0.0.1"]
)
def test_https_on_loopback_is_not_remembered(host: str) -> None:
    """Other programs on this machine may speak http on the same name."""
    headers: dict[str, str] = {}
    add_default_headers(headers, https=True, host=host)
    assert "Strict-Transport-Security" not in headers
