# SPDX-License-Identifier: Apache-2.0
"""Blocks of pcapng files (draft-ietf-opsawg-pcapng). Packets come as blocks from the data plane; here is what stands around them. Pure."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SECTION, INTERFACE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 5, 6
ETHERNET = 1  # LINKTYPE_ETHERNET
_PACKET = struct.Struct("<IIIIIII")
_END = 0, b""


@dataclass(frozen=True)
class Source:
    """Where the packets of a section come from."""

    interface: str
    description: str
    filter: str
    snaplen: int
    application: str


def block(kind: int, body: bytes) -> bytes:
    """A block: its type and length in front, its length again behind."""
    total = len(body) + 12
    return struct.pack("<II", kind, total) + body + struct.pack("<I", total)


def option(code: int, value: bytes) -> bytes:
    """An option of a block, filled up to whole words."""
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def head(source: Source) -> bytes:
    """What a file or stream begins with: a section of one interface, with nanoseconds."""
    section = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + option(4, source.application.encode()) + option(*_END)
    interface = struct.pack("<HHI", ETHERNET, 0, source.snaplen)
    interface += option(2, source.interface.encode()) + option(3, source.description.encode()) + option(9, b"\x09")
    interface += option(11, b"\0" + source.filter.encode()) + option(*_END)
    return block(SECTION, section) + block(INTERFACE, interface)


def statistics(time_ns: int, taken: int, lost: int) -> bytes:
    """What became of the packets of the section: taken by the filter, and lost of them."""
    body = struct.pack("<III", 0, time_ns >> 32, time_ns & 0xFFFFFFFF)
    body += option(4, struct.pack("<Q", taken)) + option(5, struct.pack("<Q", lost)) + option(*_END)
    return block(STATISTICS, body)


def packet(data: bytes) -> dict[str, Any]:
    """A packet block: its bytes, length on the wire, and time in ns since 1970."""
    _, _, _, high, low, caplen, length = _PACKET.unpack_from(data)
    return {"data": data[_PACKET.size : _PACKET.size + caplen], "length": length, "time": high << 32 | low}


def rewritten(data: bytes | memoryview, change: Callable[[bytes], bytes]) -> bytes:
    """A packet block whose bytes are changed to as many others."""
    block = bytearray(data)
    end = _PACKET.size + int.from_bytes(block[20:24], "little")
    block[_PACKET.size : end] = change(bytes(block[_PACKET.size : end]))
    return bytes(block)
