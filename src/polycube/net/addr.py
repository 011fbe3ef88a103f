# SPDX-License-Identifier: Apache-2.0
"""Addresses as values: MACs of our own, prefixes by the standard library's `ipaddress`.

A `Mac` is an immutable, ordered, hashable value. Of the two IPv6 mechanisms a router has to compute by itself, both
are here: the link-local address made from a MAC (modified EUI-64, RFC 4291 appendix A) and the solicited-node group of
an address with the MAC it is sent to (RFC 4291 2.7.1, RFC 2464 7).
"""

import hashlib
import ipaddress
import re
from dataclasses import dataclass
from typing import ClassVar, Self

from polycube.net.errors import InvalidAddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.IGNORECASE)
_LINK_LOCAL = int(ipaddress.IPv6Address("fe80::"))
_SOLICITED_NODE = int(ipaddress.IPv6Address("ff02::1:ff00:0"))


@dataclass(frozen=True, order=True, slots=True)
class Mac:
    """An Ethernet address; `str()` gives the canonical lower-case text."""

    value: int

    ZERO: ClassVar["Mac"]
    BROADCAST: ClassVar["Mac"]

    def __post_init__(self) -> None:
        if not 0 <= self.value < 1 << 48:
            raise InvalidAddress("MAC address", self.value, "a number below 2**48")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `aa:bb:cc:dd:ee:ff`, in either case."""
        if not _MAC.fullmatch(text):
            raise InvalidAddress("MAC address", text, "six bytes like 02:00:5e:10:00:01")
        return cls(int(text.replace(":", ""), 16))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read six bytes in network order."""
        if len(data) != 6:
            raise InvalidAddress("MAC address", bytes(data), "six bytes")
        return cls(int.from_bytes(data, "big"))

    @classmethod
    def derived(cls, *names: str) -> Self:
        """Make a locally administered unicast address from names: the same from the same, others from others as well as chance allows."""
        digest = hashlib.sha256("/".join(names).encode()).digest()
        return cls(int.from_bytes(digest[:6], "big") & ~(1 << 40) | 1 << 41)

    @property
    def is_multicast(self) -> bool:
        """Whether the group bit is set; broadcast is one of these."""
        return bool(self.value >> 40 & 1)

    def __bytes__(self) -> bytes:
        return self.value.to_bytes(6, "big")

    def __bool__(self) -> bool:
        return self.value != 0

    def __str__(self) -> str:
        return bytes(self).hex(":")


Mac.ZERO = Mac(0)
Mac.BROADCAST = Mac((1 << 48) - 1)


def parse_interface(text: str) -> Interface:
    """Read an address with its prefix length, `10.0.0.1/24`; without one it is a host's."""
    try:
        return ipaddress.ip_interface(text)
    except ValueError:
        raise InvalidAddress("address with prefix", text, "one like 10.0.0.1/24 or 2001:db8::1/64") from None


def parse_address(text: str) -> Address:
    """Read an address without a prefix length."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise InvalidAddress("address", text, "one like 10.0.0.1 or 2001:db8::1") from None


def link_local(mac: Mac) -> ipaddress.IPv6Address:
    """The IPv6 link-local address that belongs to a MAC (modified EUI-64)."""
    high, low = mac.value >> 24, mac.value & 0xFFFFFF
    return ipaddress.IPv6Address(_LINK_LOCAL | (high ^ 0x020000) << 40 | 0xFFFE << 24 | low)


def solicited_node(address: ipaddress.IPv6Address) -> ipaddress.IPv6Address:
    """The multicast group in which an IPv6 address is asked for."""
    return ipaddress.IPv6Address(_SOLICITED_NODE | int(address) & 0xFFFFFF)


def multicast_mac(group: Address) -> Mac:
    """The MAC that frames to a multicast group are sent to."""
    if not group.is_multicast:
        raise InvalidAddress("multicast group", str(group), "one in 224.0.0.0/4 or ff00::/8")
    if isinstance(group, ipaddress.IPv4Address):
        return Mac(0x01005E000000 | int(group) & 0x7FFFFF)
    return Mac(0x333300000000 | int(group) & 0xFFFFFFFF)
