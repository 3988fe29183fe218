"""Networks in CIDR notation."""

from __future__ import annotations

import ipaddress
from typing import TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_network(text: str) -> Network:
    """Read an address or a network, such as 10.0.0.1 or 10.0.0.0/24.

    Raises:
        ValueError: it is none, or it holds all addresses.
    """
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(
            f"{text!r} is not an address or a network such as 10.0.0.0/24: {error}"
        ) from error
    if not network.prefixlen:
        raise ValueError(f"{text!r} holds all addresses, so anybody could name any user")
    return network
