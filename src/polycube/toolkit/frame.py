# SPDX-License-Identifier: Apache-2.0
"""Frames of the slow path: reading Ethernet, IPv4 (RFC 791) and IPv6 (RFC 8200), and what forwarding changes. No I/O.

Invariants: whatever is read was checked for its length; a frame that lies about it is None, never an exception. Padding behind the packet
is cut off.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from polycube.core.slowpath import folded_sum
from polycube.net.addr import Address, Mac

IPV4, ARP, VLAN, IPV6 = 0x0800, 0x0806, 0x8100, 0x86DD
ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
HOP_LIMIT = 64
EXTENSIONS = {0, 43, 60, 135}  # hop-by-hop, routing, destination options, mobility: next header, length in 8 bytes without the first 8
FRAGMENT, AUTHENTICATION, NONE = 44, 51, 59


@dataclass(frozen=True)
class Packet:
    """An IP packet."""

    data: bytes  # the packet, without frame and padding
    source: Address
    target: Address
    protocol: int  # of the transport
    transport: int  # where that begins
    first: bool  # not a later fragment
    whole: bool  # no fragment at all
    pointer: int = 0  # IPv6: where the number of the protocol stands

    @property
    def version(self) -> int:
        return self.source.version

    @property
    def payload(self) -> bytes:
        return self.data[self.transport :]


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    return 0xFFFF - folded_sum(data)


def pseudo_sum(source: Address, target: Address, protocol: int, payload: bytes) -> int:
    """The checksum of a transport payload over IPv6 (RFC 8200 8.1); IPv4's ICMP has no pseudo header."""
    return checksum(source.packed + target.packed + struct.pack(">II", len(payload), protocol) + payload)


def ethernet(target: Mac, source: Mac, ethertype: int, payload: bytes) -> bytes:
    """A frame, of at least 60 bytes."""
    return (bytes(target) + bytes(source) + ethertype.to_bytes(2, "big") + payload).ljust(60, b"\0")


def tagged(frame: bytes, vlan: int) -> bytes:
    """A frame in a VLAN (IEEE 802.1Q)."""
    return frame[:12] + VLAN.to_bytes(2, "big") + vlan.to_bytes(2, "big") + frame[12:]


def ip_frame(target: Mac, source: Mac, packet: bytes) -> bytes:
    """The frame of an IP packet."""
    return ethernet(target, source, IPV4 if packet[0] >> 4 == 4 else IPV6, packet)


def source_mac(frame: bytes) -> Mac:
    return Mac.from_bytes(frame[6:12])


def ethertype(frame: bytes) -> int:
    return int.from_bytes(frame[12:14], "big")


def read_ip(frame: bytes) -> Packet | None:
    """The packet in a frame; None if it is none, or cut off."""
    kind = ethertype(frame)
    return _read4(frame[14:]) if kind == IPV4 else _read6(frame[14:]) if kind == IPV6 else None


def _read4(data: bytes) -> Packet | None:
    if len(data) < 20 or data[0] >> 4 != 4:
        return None
    header, length = (data[0] & 15) * 4, int.from_bytes(data[2:4], "big") or len(data)
    if header < 20 or length < header or length > len(data):
        return None
    fragment = int.from_bytes(data[6:8], "big")
    source, target = ipaddress.IPv4Address(data[12:16]), ipaddress.IPv4Address(data[16:20])
    return Packet(data[:length], source, target, data[9], header, not fragment & 0x1FFF, not fragment & 0x3FFF)


def _read6(data: bytes) -> Packet | None:
    if len(data) < 40 or data[0] >> 4 != 6:
        return None
    length = 40 + int.from_bytes(data[4:6], "big")
    if length == 40 and len(data) > 0xFFFF:
        length = len(data)
    if length > len(data):
        return None
    data = data[:length]
    protocol, at, pointer, first, whole = data[6], 40, 6, True, True
    while (protocol in EXTENSIONS or protocol in (FRAGMENT, AUTHENTICATION)) and first:
        if len(data) < at + 8:
            return None
        following, size = data[at], (data[at + 1] + 1) * 8
        if protocol == FRAGMENT:
            offset = int.from_bytes(data[at + 2 : at + 4], "big")
            first, whole, size = not offset & 0xFFF8, whole and not offset & 0xFFF9, 8
        elif protocol == AUTHENTICATION:
            size = (data[at + 1] + 2) * 4
        protocol, pointer, at = following, at, at + size
    if at > length:
        return None
    source, target = ipaddress.IPv6Address(data[8:24]), ipaddress.IPv6Address(data[24:40])
    return Packet(data, source, target, protocol, at, first, whole, pointer)


def write4(source: Address, target: Address, protocol: int, payload: bytes, *, ttl: int = HOP_LIMIT, tos: int = 0) -> bytes:
    """An IPv4 packet that is not to be fragmented, hence needs no identification (RFC 6864)."""
    head = struct.pack(">BBHHHBBH", 0x45, tos, 20 + len(payload), 0, 0x4000, ttl, protocol, 0) + source.packed + target.packed
    return _summed(head) + payload


def write6(source: Address, target: Address, protocol: int, payload: bytes, *, hops: int = HOP_LIMIT) -> bytes:
    """An IPv6 packet."""
    return struct.pack(">IHBB", 6 << 28, len(payload), protocol, hops) + source.packed + target.packed + payload


def fragments(packet: bytes, mtu: int) -> list[bytes]:
    """An IPv4 packet in pieces that fit an MTU (RFC 791, 3.2); none if it must not be cut, or can't be. Options that say so are in all."""
    header, flags = (packet[0] & 15) * 4, int.from_bytes(packet[6:8], "big")
    step, payload = (mtu - header) // 8 * 8, packet[header:]
    if flags & 0x4000 or step <= 0:
        return []
    later = packet[:20] + _copied(packet[20:header])
    pieces = []
    for at in range(0, len(payload), step):
        head, body = packet[:header] if at == 0 else later, payload[at : at + step]
        more = flags & 0x2000 if at + step >= len(payload) else 0x2000
        head = bytes([0x40 | len(head) // 4, head[1]]) + struct.pack(">H", len(head) + len(body)) + head[4:]
        head = head[:6] + struct.pack(">H", more | (flags & 0x1FFF) + at // 8) + head[8:]
        pieces.append(_summed(head) + body)
    return pieces


def _copied(options: bytes) -> bytes:
    """The options of an IPv4 header that later fragments have, too: those with the upper bit, padded to words."""
    kept = b""
    while options and options[0]:
        size = 1 if options[0] == 1 else options[1] if len(options) > 1 else 0
        if not size or size > len(options):
            break
        if options[0] & 0x80:
            kept += options[:size]
        options = options[size:]
    return kept.ljust(len(kept) + 3 & ~3, b"\0")


def _summed(head: bytes) -> bytes:
    """An IPv4 header with its checksum."""
    return head[:10] + checksum(head[:10] + b"\0\0" + head[12:]).to_bytes(2, "big") + head[12:]


def forwarded(packet: bytes) -> bytes | None:
    """The packet one hop further; None if it ends here."""
    if packet[0] >> 4 == 6:
        return packet[:7] + bytes([packet[7] - 1]) + packet[8:] if packet[7] > 1 else None
    if packet[8] <= 1:
        return None
    header = (packet[0] & 15) * 4
    return _summed(packet[:8] + bytes([packet[8] - 1]) + packet[9:header]) + packet[header:]
