"""Addresses of clients."""

import ipaddress
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]


def read_address(text: str) -> Address:
    """Return an address without its zone; an IPv4 address in IPv6 becomes one of IPv4. Raises ValueError."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def is_in(text: str, networks: Networks) -> bool:
    """Return whether an address is in one of the networks. What is no address is in none."""
    try:
        address = read_address(text)
    except ValueError:
        return False
    return any(address in network for network in networks)
