# SPDX-License-Identifier: Apache-2.0
"""ICMP errors and echo replies (RFC 792, RFC 4443), and when a router must keep silent. No I/O.

An error quotes the packet it is about: in IPv4 as much as makes 576 bytes (RFC 1812 4.3.2.3), in IPv6 as much as makes 1280 (RFC 4443
3.1). None is sent about an ICMP error, a later fragment, a packet that was sent to a group, or one whose source is not one host (RFC
1812 4.3.2.7, RFC 4443 2.4 (e)). IPv4 errors have the precedence of internetwork control (RFC 1812 4.3.2.5).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum

from polycube.net.addr import Address
from polycube.toolkit.frame import ICMP, ICMP6, Packet, checksum, pseudo_sum, write4, write6

QUOTE4 = 576 - 20 - 8
QUOTE6 = 1280 - 40 - 8
CONTROL = 0xC0
_ERRORS4 = {3, 4, 5, 11, 12}
ECHO4, REPLY4, ECHO6, REPLY6 = 8, 0, 128, 129


@dataclass(frozen=True)
class Codes:
    """Type and code in both protocols."""

    ipv4: tuple[int, int]
    ipv6: tuple[int, int]


class Error(Enum):
    """What a router has to report."""

    NO_ROUTE = Codes((3, 0), (1, 0))
    UNREACHABLE = Codes((3, 1), (1, 0))
    PROHIBITED = Codes((3, 13), (1, 1))  # RFC 1812 5.2.7.1: administratively
    HOST_UNREACHABLE = Codes((3, 1), (1, 3))
    PROTOCOL_UNREACHABLE = Codes((3, 2), (4, 1))
    PORT_UNREACHABLE = Codes((3, 3), (1, 4))
    TOO_BIG = Codes((3, 4), (2, 0))
    TIME_EXCEEDED = Codes((11, 0), (3, 0))


def may_answer(packet: Packet) -> bool:
    """Whether an error about a packet may be sent at all."""
    if not packet.first or packet.target.is_multicast or not _one_host(packet.source):
        return False
    kind = packet.payload[:1]
    if packet.version == 4:
        return str(packet.target) != "255.255.255.255" and not (packet.protocol == ICMP and (not kind or kind[0] in _ERRORS4))
    return not (packet.protocol == ICMP6 and (not kind or kind[0] < 128 or kind[0] == 137))


def _one_host(address: Address) -> bool:
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        return False
    return address.version == 6 or 0 < int(address) >> 24 < 240


def error(kind: Error, packet: Packet, source: Address, extra: int = 0) -> bytes:
    """The packet that reports an error. `extra`: the MTU (RFC 1191, RFC 8201), or where the protocol's number stands."""
    if packet.version == 4:
        code = kind.value.ipv4
        body = struct.pack(">BBHI", *code, 0, extra & 0xFFFF) + packet.data[:QUOTE4]
        return write4(source, packet.source, ICMP, _summed4(body), tos=CONTROL)
    body = struct.pack(">BBHI", *kind.value.ipv6, 0, extra) + packet.data[:QUOTE6]
    return write6(source, packet.source, ICMP6, _summed6(source, packet.source, body))


def echo_reply(packet: Packet) -> bytes | None:
    """The answer to an echo request; None if it is none, or not right."""
    body = packet.payload
    if len(body) < 8 or not packet.whole or body[1]:
        return None
    if packet.version == 4 and packet.protocol == ICMP and body[0] == ECHO4 and not checksum(body):
        return write4(packet.target, packet.source, ICMP, _summed4(bytes([REPLY4, 0, 0, 0]) + body[4:]))
    if packet.version == 6 and packet.protocol == ICMP6 and body[0] == ECHO6:
        if pseudo_sum(packet.source, packet.target, ICMP6, body):
            return None
        reply = _summed6(packet.target, packet.source, bytes([REPLY6, 0, 0, 0]) + body[4:])
        return write6(packet.target, packet.source, ICMP6, reply)
    return None


def _summed4(body: bytes) -> bytes:
    return body[:2] + checksum(body).to_bytes(2, "big") + body[4:]


def _summed6(source: Address, target: Address, body: bytes) -> bytes:
    return body[:2] + pseudo_sum(source, target, ICMP6, body).to_bytes(2, "big") + body[4:]
