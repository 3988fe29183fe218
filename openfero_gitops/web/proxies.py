"""Decides what a reverse proxy may say about a request: who the user is, and from where.

Anybody can send such headers. They count only on connections from the addresses of the proxies.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from multidict import MultiMapping

    from openfero_gitops.domain.network import Network

#: Of an X-Forwarded-For, from its end. Each proxy in a row adds one address.
_MAX_FORWARDS: Final = 20
_MAX_USER_CHARACTERS: Final = 256


class NamedUser(NamedTuple):
    """The user that a proxy names, or why the request is refused; one of both is empty."""

    name: str
    refusal: str


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The addresses of the proxies, and the header in which they name the user."""

    networks: tuple[Network, ...] = ()
    user_header: str = ""

    def trusts(self, address: str) -> bool:
        """Whether a connection comes from one of the proxies."""
        parsed = _parse(address)
        return parsed is not None and any(parsed in network for network in self.networks)

    def client_of(self, peer: str, headers: MultiMapping[str]) -> str:
        """Return the address of the client.

        A proxy adds the address of its own client at the end of X-Forwarded-For; what is before it
        may be made up by that client. So the last one that is no proxy counts.
        """
        if "X-Forwarded-For" not in headers:
            return peer
        client = peer
        forwards = ",".join(headers.getall("X-Forwarded-For", ())).split(",")
        for forward in reversed(forwards[-_MAX_FORWARDS:]):
            parsed = _parse(forward.strip())
            if not self.trusts(client) or parsed is None:
                break
            client = str(parsed)
        return client

    def user_of(self, peer: str, headers: MultiMapping[str]) -> NamedUser:
        """Return the user whom the proxy names."""
        if not self.trusts(peer):
            return NamedUser("", "only the proxies of --web-trusted-proxy may read this")
        values = headers.getall(self.user_header, ())
        if len(values) > 1:
            return NamedUser("", f"the proxy sent {self.user_header} more than once")
        name = values[0].strip() if values else ""
        if not name:
            return NamedUser("", f"the proxy sent no user in {self.user_header}")
        if len(name) > _MAX_USER_CHARACTERS or "," in name or not name.isprintable():
            # (A comma may be the trace of a proxy that joined two headers, one of them forged.)
            return NamedUser("", f"the proxy sent no valid user name in {self.user_header}")
        return NamedUser(name, "")


def _parse(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read an address; one of IPv4 that is written as IPv6 counts as IPv4."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed
