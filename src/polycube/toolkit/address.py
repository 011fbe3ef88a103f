# SPDX-License-Identifier: Apache-2.0
"""One form for addresses of both IP versions, as data planes have them in their keys: IPv4 ones are mapped, ::ffff:a.b.c.d (RFC 4291)."""

from __future__ import annotations

import ipaddress

from polycube.net.addr import Address

_MAPPED = bytes(10) + b"\xff\xff"


def mapped(address: Address) -> bytes:
    """The 16 bytes of an address."""
    return address.packed if address.version == 6 else _MAPPED + address.packed


def unmapped(data: bytes) -> Address:
    """The address again."""
    if data.startswith(_MAPPED):
        return ipaddress.IPv4Address(data[len(_MAPPED) :])
    return ipaddress.IPv6Address(data)
