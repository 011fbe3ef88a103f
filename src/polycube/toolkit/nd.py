# SPDX-License-Identifier: Apache-2.0
"""Neighbour Discovery (RFC 4861): solicitations and advertisements. No I/O.

A message counts only if it can't come from another link (hop limit 255), its checksum is right and its options are whole
(7.1.1, 7.1.2).
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from polycube.net.addr import Mac, multicast_mac, solicited_node
from polycube.toolkit.frame import ICMP6, ip_frame, pseudo_sum, read_ip, write6

SOLICITATION, ADVERTISEMENT = 135, 136
SOURCE_MAC, TARGET_MAC = 1, 2
ROUTER, SOLICITED, OVERRIDE = 0x80, 0x40, 0x20
ALL_NODES = ipaddress.IPv6Address("ff02::1")
UNSPECIFIED = ipaddress.IPv6Address(0)


@dataclass(frozen=True)
class Message:
    """A solicitation or an advertisement."""

    kind: int
    source: ipaddress.IPv6Address
    destination: ipaddress.IPv6Address
    target: ipaddress.IPv6Address
    mac: Mac | None = None  # of the sender (solicitation), of the target (advertisement)
    solicited: bool = False
    override: bool = False


def read(frame: bytes) -> Message | None:
    """The message in a frame; None if there is none, or it must not be believed."""
    packet = read_ip(frame)
    if packet is None or packet.protocol != ICMP6 or packet.transport != 40 or packet.data[7] != 255:
        return None
    body = packet.payload
    if len(body) < 24 or body[0] not in (SOLICITATION, ADVERTISEMENT) or body[1]:
        return None
    if pseudo_sum(packet.source, packet.target, ICMP6, body):
        return None
    options = _options(body[24:])
    source, destination, target = packet.source, packet.target, ipaddress.IPv6Address(body[8:24])
    if options is None or target.is_multicast:
        return None
    assert isinstance(source, ipaddress.IPv6Address) and isinstance(destination, ipaddress.IPv6Address)
    flags = body[4]
    message = Message(
        body[0],
        source,
        destination,
        target,
        options.get(SOURCE_MAC if body[0] == SOLICITATION else TARGET_MAC),
        bool(flags & SOLICITED),
        bool(flags & OVERRIDE),
    )
    return message if _plausible(message) else None


def _options(data: bytes) -> dict[int, Mac] | None:
    """The MACs among the options; None if one has no length, or more than there is."""
    found: dict[int, Mac] = {}
    while data:
        size = data[1] * 8 if len(data) > 1 else 0
        if not size or size > len(data):
            return None
        if data[0] in (SOURCE_MAC, TARGET_MAC) and size == 8 and not data[2] & 1:
            found.setdefault(data[0], Mac.from_bytes(data[2:8]))
        data = data[size:]
    return found


def _plausible(message: Message) -> bool:
    if message.kind == SOLICITATION and message.source == UNSPECIFIED:
        # duplicate address detection asks by multicast and names no MAC
        return message.mac is None and message.destination == solicited_node(message.target)
    return not (message.kind == ADVERTISEMENT and message.destination.is_multicast and message.solicited)


def _write(kind: int, flags: int, target: ipaddress.IPv6Address, option: int, mac: Mac | None) -> bytes:
    options = bytes([option, 1]) + bytes(mac) if mac is not None else b""
    return struct.pack(">BBHI", kind, 0, 0, flags << 24) + target.packed + options


def _frame(to: Mac, mac: Mac, source: ipaddress.IPv6Address, destination: ipaddress.IPv6Address, body: bytes) -> bytes:
    total = pseudo_sum(source, destination, ICMP6, body)
    body = body[:2] + total.to_bytes(2, "big") + body[4:]
    return ip_frame(to, mac, write6(source, destination, ICMP6, body, hops=255))


def solicitation(mac: Mac, source: ipaddress.IPv6Address, target: ipaddress.IPv6Address, to: Mac | None = None) -> bytes:
    """Asks for an address: the group it is in, or the one who had it (7.2.2)."""
    destination = solicited_node(target) if to is None else target
    return _frame(to or multicast_mac(destination), mac, source, destination, _write(SOLICITATION, 0, target, SOURCE_MAC, mac))


def advertisement(mac: Mac, target: ipaddress.IPv6Address, answer: tuple[ipaddress.IPv6Address, Mac] | None = None) -> bytes:
    """Tells who has an address: the one who asked, or everybody (7.2.4, 7.2.6)."""
    if answer is None:
        return _frame(multicast_mac(ALL_NODES), mac, target, ALL_NODES, _write(ADVERTISEMENT, ROUTER | OVERRIDE, target, TARGET_MAC, mac))
    body = _write(ADVERTISEMENT, ROUTER | SOLICITED | OVERRIDE, target, TARGET_MAC, mac)
    return _frame(answer[1], mac, target, answer[0], body)
