# SPDX-License-Identifier: Apache-2.0
"""ARP over Ethernet (RFC 826; announcements: RFC 5227). No I/O."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from polycube.net.addr import Mac
from polycube.toolkit.frame import ARP, IPV4, ethernet

REQUEST, REPLY = 1, 2
_ARP = struct.Struct(">HHBBH6s4s6s4s")
NOBODY = ipaddress.IPv4Address(0)


@dataclass(frozen=True)
class Message:
    """An ARP message."""

    operation: int
    sender_mac: Mac
    sender: ipaddress.IPv4Address
    target_mac: Mac
    target: ipaddress.IPv4Address


def read(frame: bytes) -> Message | None:
    """The message in a frame; None if it is not about IPv4 over Ethernet, or cut off."""
    if len(frame) < 14 + _ARP.size or frame[12:14] != ARP.to_bytes(2, "big"):
        return None
    hardware, protocol, mac, address, operation, sender_mac, sender, target_mac, target = _ARP.unpack_from(frame, 14)
    if (hardware, protocol, mac, address) != (1, IPV4, 6, 4):
        return None
    return Message(
        operation, Mac.from_bytes(sender_mac), ipaddress.IPv4Address(sender), Mac.from_bytes(target_mac), ipaddress.IPv4Address(target)
    )


def write(message: Message, to: Mac) -> bytes:
    """The frame of a message."""
    body = _ARP.pack(
        1,
        IPV4,
        6,
        4,
        message.operation,
        bytes(message.sender_mac),
        message.sender.packed,
        bytes(message.target_mac),
        message.target.packed,
    )
    return ethernet(to, message.sender_mac, ARP, body)


def request(mac: Mac, sender: ipaddress.IPv4Address, target: ipaddress.IPv4Address, to: Mac | None = None) -> bytes:
    """Asks everybody for an address, or the one who had it (RFC 1122 2.3.2.1)."""
    return write(Message(REQUEST, mac, sender, Mac.ZERO, target), to or Mac.BROADCAST)


def announcement(mac: Mac, address: ipaddress.IPv4Address) -> bytes:
    """Tells everybody who has an address: a request for the own one."""
    return write(Message(REQUEST, mac, address, Mac.ZERO, address), Mac.BROADCAST)
