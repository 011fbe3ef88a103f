# SPDX-License-Identifier: Apache-2.0
"""BPDUs as bytes and as values: configuration, topology change notification (802.1D-1998, 9.3) and RST BPDUs (802.1D-2004, 9.3.3), in
frames of 802.3 with LLC, or of Cisco's per-VLAN trees (SNAP, and the VLAN at the end).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import NamedTuple

from polycube.net.addr import Mac

ADDRESS = Mac.parse("01:80:c2:00:00:00")
PVST_ADDRESS = Mac.parse("01:00:0c:cc:cc:cd")
LLC = b"\x42\x42\x03"
SNAP = b"\xaa\xaa\x03\x00\x00\x0c\x01\x0b"
_HEADER = struct.Struct("!HBB")
_BODY = struct.Struct("!BQIQH4H")
_UNIT = 256  # times are in units of 1/256 s
_TLV = struct.Struct("!HHH")
_MINIMUM = 60


class BpduType(IntEnum):
    """By version and type of the BPDU."""

    CONFIG = 0x00
    RST = 0x02
    TCN = 0x80


class Flag(IntFlag):
    """Flags of a BPDU; the port's role is in two bits of them."""

    TOPOLOGY_CHANGE = 0x01
    PROPOSAL = 0x02
    LEARNING = 0x10
    FORWARDING = 0x20
    AGREEMENT = 0x40
    TOPOLOGY_CHANGE_ACK = 0x80


class SentRole(IntEnum):
    """The sender's role, bits 2 and 3 of the flags."""

    UNKNOWN = 0
    ALTERNATE = 1  # or backup
    ROOT = 2
    DESIGNATED = 3


class Times(NamedTuple):
    """Timer values, in seconds."""

    message_age: int
    max_age: int
    hello: int
    forward_delay: int


class Vector(NamedTuple):
    """What trees are compared by, the lower the better (802.1D-2004, 17.5). Identifiers are priority << 48 | MAC address."""

    root: int
    cost: int
    bridge: int
    port: int  # priority << 8 | number, of the sender


TIMES = Times(0, 20, 2, 15)
NO_VECTOR = Vector(0, 0, 0, 0)
NO_FLAGS = Flag(0)


@dataclass(frozen=True)
class Bpdu:
    """A message; a TCN is nothing but its type."""

    type: BpduType
    vector: Vector = NO_VECTOR
    times: Times = TIMES
    flags: Flag = NO_FLAGS
    role: SentRole = SentRole.DESIGNATED

    def pack(self) -> bytes:
        """The BPDU without its frame."""
        version = 2 if self.type is BpduType.RST else 0
        head = _HEADER.pack(0, version, self.type)
        if self.type is BpduType.TCN:
            return head
        flags = int(self.flags) | (self.role << 2 if self.type is BpduType.RST else 0)
        body = _BODY.pack(flags, *self.vector, *(seconds * _UNIT for seconds in self.times))
        return head + body + (b"\0" if self.type is BpduType.RST else b"")

    @staticmethod
    def unpack(data: bytes) -> Bpdu | None:
        """None: no BPDU, or none that counts (802.1D-2004, 9.3.4)."""
        if len(data) < _HEADER.size:
            return None
        protocol, version, kind = _HEADER.unpack_from(data)
        if protocol or kind not in set(BpduType):
            return None
        if kind == BpduType.TCN:
            return Bpdu(BpduType.TCN)
        if len(data) < _HEADER.size + _BODY.size + (kind == BpduType.RST) or (kind == BpduType.RST and version < 2):
            return None
        flags, *rest = _BODY.unpack_from(data, _HEADER.size)
        times = Times(*(value // _UNIT for value in rest[4:]))
        if kind == BpduType.CONFIG and rest[4] >= rest[5]:  # older than it may become
            return None
        role = SentRole(flags >> 2 & 3) if kind == BpduType.RST else SentRole.DESIGNATED
        return Bpdu(BpduType(kind), Vector(*rest[:4]), times, Flag(flags & ~0x0C), role)


def frame(bpdu: Bpdu, source: Mac, vlan: int, *, per_vlan: bool) -> bytes:
    """The frame of a BPDU, always with the tag of the VLAN: the data plane takes it off where it does not belong."""
    content = (SNAP if per_vlan else LLC) + bpdu.pack()
    if per_vlan:
        pad = b"" if bpdu.type is BpduType.RST else b"\0"
        content += pad + _TLV.pack(0, 2, vlan)
    head = bytes(PVST_ADDRESS if per_vlan else ADDRESS) + bytes(source) + struct.pack("!HH", 0x8100, vlan) + struct.pack("!H", len(content))
    return (head + content).ljust(_MINIMUM + 4, b"\0")


def parse(data: bytes) -> Bpdu | None:
    """The BPDU in a frame, tagged or not; None if there is none."""
    at = 16 if data[12:14] == b"\x81\x00" else 12
    if len(data) < at + 2:
        return None
    length = int.from_bytes(data[at : at + 2], "big")
    content = data[at + 2 : at + 2 + length]
    for llc in (LLC, SNAP):
        if content.startswith(llc):
            return Bpdu.unpack(content[len(llc) :])
    return None
