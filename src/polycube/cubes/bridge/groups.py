# SPDX-License-Identifier: Apache-2.0
"""What IGMP (RFC 1112, 2236, 3376) and MLD (RFC 2710, 3810) messages say of listeners, from whole frames. Pure functions.

Sources are not told apart: who wants a group from some sources gets it from all, as RFC 4541 leaves to the bridge.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address
NOBODY = IPv4Address(0)

_VLAN, _IPV4, _IPV6 = b"\x81\x00", b"\x08\x00", b"\x86\xdd"
_EXTENSIONS = {0, 43, 60}
_ICMPV6 = 58
_INCLUDE, _TO_INCLUDE, _BLOCK = 1, 3, 6  # record types of version 3: with sources listed, or without any as a leave
_RECORDS = range(1, 7)


class Said(Enum):
    """What a message says."""

    QUERY = "query"
    JOIN = "join"
    LEAVE = "leave"


@dataclass(frozen=True)
class Message:
    """One statement; a message may make several. `group` is None in a query for all groups. `response`: seconds that listeners may take."""

    said: Said
    group: Address | None = None
    response: float = 10.0
    source: Address = NOBODY


def messages(frame: bytes) -> list[Message]:
    """What the frame says; nothing if it is damaged."""
    at = 18 if frame[12:14] == _VLAN else 14
    proto = frame[at - 2 : at]
    try:
        if proto == _IPV4:
            return list(_ipv4(frame[at:]))
        if proto == _IPV6:
            return list(_ipv6(frame[at:]))
    except (struct.error, ValueError, IndexError):
        pass
    return []


def _ipv4(packet: bytes) -> Iterator[Message]:
    header, total = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big")
    igmp = packet[header:total]
    if packet[9] != 2 or len(igmp) < 8 or not sums_up(igmp):
        return
    kind, code, group = igmp[0], igmp[1], IPv4Address(igmp[4:8])
    if kind == 0x11:
        response = (_floating(code) if len(igmp) >= 12 else code or 100) / 10  # version 1 has no code and means 10 s
        yield Message(Said.QUERY, None if group == NOBODY else group, response, IPv4Address(packet[12:16]))
    elif kind in (0x12, 0x16) and group.is_multicast:
        yield Message(Said.JOIN, group)
    elif kind == 0x17 and group.is_multicast:
        yield Message(Said.LEAVE, group)
    elif kind == 0x22:
        yield from _records(igmp[8:], int.from_bytes(igmp[6:8], "big"), 4)


def _ipv6(packet: bytes) -> Iterator[Message]:
    payload = packet[40 : 40 + int.from_bytes(packet[4:6], "big")]
    following = packet[6]
    while following in _EXTENSIONS:
        following, payload = payload[0], payload[(payload[1] + 1) * 8 :]
    if following != _ICMPV6 or len(payload) < 8 or not sums_up(packet[8:40] + struct.pack("!II", len(payload), _ICMPV6) + payload):
        return
    kind = payload[0]
    if kind in (130, 131, 132):
        response, group = int.from_bytes(payload[4:6], "big"), IPv6Address(payload[8:24])
        if kind == 130:
            seconds = (_floating16(response) if len(payload) >= 28 else response) / 1000
            yield Message(Said.QUERY, None if group == IPv6Address(0) else group, seconds, IPv6Address(packet[8:24]))
        elif group.is_multicast:
            yield Message(Said.JOIN if kind == 131 else Said.LEAVE, group)
    elif kind == 143:
        yield from _records(payload[8:], int.from_bytes(payload[6:8], "big"), 16)


def _records(data: bytes, count: int, size: int) -> Iterator[Message]:
    """Group records of a version 3 (MLD: 2) report."""
    for _ in range(count):
        kind, words, sources = struct.unpack_from("!BBH", data)
        group = (IPv4Address if size == 4 else IPv6Address)(data[4 : 4 + size])
        data = data[4 + size * (1 + sources) + words * 4 :]
        if not group.is_multicast or kind not in _RECORDS:
            continue
        if kind in (_INCLUDE, _TO_INCLUDE) and not sources:
            yield Message(Said.LEAVE, group)
        elif kind != _BLOCK:
            yield Message(Said.JOIN, group)


def _floating(code: int) -> int:
    """Tenths of a second (RFC 3376, 4.1.1)."""
    return code if code < 128 else (code & 15 | 16) << (code >> 4 & 7) + 3


def _floating16(code: int) -> int:
    """Milliseconds (RFC 3810, 5.1.3)."""
    return code if code < 32768 else (code & 0xFFF | 0x1000) << (code >> 12 & 7) + 3


def sums_up(data: bytes) -> bool:
    """Whether an Internet checksum over the data is right (RFC 1071)."""
    padded = data + b"\0" * (len(data) & 1)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF
