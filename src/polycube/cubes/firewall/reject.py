# SPDX-License-Identifier: Apache-2.0
"""Answers to packets that a rule rejects (RFC 9293 3.10.7.1, RFC 1812 5.2.7.1). Pure."""

from __future__ import annotations

import struct

from polycube.cubes.firewall.model import RejectWith
from polycube.net.addr import Mac
from polycube.toolkit import icmp
from polycube.toolkit.frame import Packet, ethertype, ip_frame, pseudo_sum, read_ip, source_mac, write4, write6

TCP = 6
FIN, SYN, RST, ACK = 1, 2, 4, 16
TAGS = (0x8100, 0x88A8)


def answer(frame: bytes, how: RejectWith) -> bytes | None:
    """The frame to send back; None where none may be sent."""
    tags, plain = _untagged(frame)
    packet = read_ip(plain)
    if packet is None or plain[6] & 1:
        return None
    reply = _reset(packet) if packet.protocol == TCP and how in (RejectWith.AUTO, RejectWith.RST) else None
    if reply is None:
        if (packet.protocol == TCP and how is RejectWith.RST) or not icmp.may_answer(packet):
            return None
        kind = icmp.Error.PROHIBITED if how is RejectWith.PROHIBITED else icmp.Error.PORT_UNREACHABLE
        reply = icmp.error(kind, packet, packet.target)
    made = ip_frame(source_mac(plain), Mac.from_bytes(plain[:6]), reply)
    return made[:12] + tags + made[12:]


def _untagged(frame: bytes) -> tuple[bytes, bytes]:
    """Tags, and the frame without them."""
    tags = b""
    while len(frame) >= 18 and ethertype(frame) in TAGS and len(tags) < 8:
        tags, frame = tags + frame[12:16], frame[:12] + frame[16:]
    return tags, frame


def _reset(packet: Packet) -> bytes | None:
    """A reset that the sender believes (RFC 9293 3.5.2, group 1); none in answer to one, nor to a fragment."""
    head = packet.payload
    if len(head) < 20 or not packet.whole or packet.target.is_multicast:
        return None
    sport, dport, seq, ack, offset, flags = struct.unpack_from(">HHIIBB", head)
    if flags & RST:
        return None
    if flags & ACK:
        numbers = (ack, 0, RST)
    else:
        length = len(head) - (offset >> 4) * 4 + bool(flags & SYN) + bool(flags & FIN)
        numbers = (0, seq + length & 0xFFFFFFFF, RST | ACK)
    body = struct.pack(">HHIIBBHHH", dport, sport, numbers[0], numbers[1], 0x50, numbers[2], 0, 0, 0)
    whole = body[:16] + _sum(packet, body) + body[18:]
    return write4(packet.target, packet.source, TCP, whole) if packet.version == 4 else write6(packet.target, packet.source, TCP, whole)


def _sum(packet: Packet, body: bytes) -> bytes:
    return pseudo_sum(packet.target, packet.source, TCP, body).to_bytes(2, "big")
