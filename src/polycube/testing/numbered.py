# SPDX-License-Identifier: Apache-2.0
"""Numbered frames: what they look like, and a socket that sends many at once."""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import os
import socket
import struct
from dataclasses import dataclass

MAGIC = 0x74726166
PAYLOAD = struct.Struct("<IHH2HII")  # struct traffic_payload
_IOVEC = struct.Struct("@PN")
_MMSGHDR = struct.Struct("@16xPN16x16x")  # struct mmsghdr: only the vector is set
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Headers:
    """What frames look like. What is not given is that of the two netdevs."""

    size: int = 64  # without checksum
    source: str = ""
    destination: str = ""
    source_mac: str = ""
    destination_mac: str = ""
    vlan: int | None = None
    source_port: int = 20000
    destination_port: int = 9  # discard
    stations: int = 1  # bursts: they are sent to in turn; their addresses follow destination_mac
    networks: int = 1  # bursts, IPv4 without a tag: so many /24 are sent to in turn, beginning with that of `destination`

    def template(self, source_mac: bytes, destination_mac: bytes, run: int) -> tuple[bytes, int]:
        """The headers with the payload's fixed part, and the offset of the UDP header."""
        source, destination = ipaddress.ip_address(self.source), ipaddress.ip_address(self.destination)
        tag = b"" if self.vlan is None else struct.pack(">HH", 0x8100, self.vlan)
        ethernet = destination_mac + source_mac + tag
        udp_length = max(self.size, 64) - len(ethernet) - 2 - (20 if source.version == 4 else 40)
        if udp_length < 8 + PAYLOAD.size:
            raise ValueError(f"frames of {self.size} bytes have no room for their number")
        ports = struct.pack(">HHH", self.source_port, self.destination_port, udp_length)
        if source.version == 4:
            start = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + udp_length, 0, 0, 64, 17, 0, source.packed, destination.packed)
            ethernet += b"\x08\x00"
            network = start[:10] + struct.pack(">H", _checksum(start)) + start[12:]
        else:
            ethernet += b"\x86\xdd"
            network = struct.pack(">IHBB16s16s", 6 << 28, udp_length, 17, 64, source.packed, destination.packed)
        pseudo = source.packed + destination.packed + struct.pack(">HH", udp_length, 17)
        payload = PAYLOAD.pack(MAGIC, run, 0, 0xFFFF, 0xFFFF, 0, 0xFFFFFFFF)
        checksum = _checksum(pseudo + ports + payload) or 0xFFFF
        header = ethernet + network + ports + struct.pack(">H", checksum)
        return header + payload, len(header) - 8


class Batch:
    """Frames that leave by one sendmmsg(2) on a packet socket, as what the host's own stack sends."""

    def __init__(self, ifname: str, frame: bytes, udp: int, source_port: int, flows: int, run: int, size: int) -> None:
        self._port, self._flows, self._run, self._udp = source_port, flows, run, udp
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.bind((ifname, 0))
        self._frames = [ctypes.create_string_buffer(frame, len(frame)) for _ in range(size)]
        self._vectors = ctypes.create_string_buffer(b"".join(_IOVEC.pack(ctypes.addressof(f), len(frame)) for f in self._frames))
        vectors = ctypes.addressof(self._vectors)
        self._messages = ctypes.create_string_buffer(b"".join(_MMSGHDR.pack(vectors + i * _IOVEC.size, 1) for i in range(size)))

    def send(self, first: int, count: int) -> int:
        """Sends frames from a number on; returns how many. Those that found a queue full are not counted, and may be sent again."""
        for number, frame in zip(range(first, first + count), self._frames, strict=False):
            flow = number % self._flows
            struct.pack_into(">H", frame, self._udp, self._port + flow)
            flow = flow << 8 & 0xFF00 | flow >> 8
            other = flow ^ 0xFFFF
            PAYLOAD.pack_into(frame, self._udp + 8, MAGIC, self._run, flow, other, other, number, number ^ 0xFFFFFFFF)
        sent = int(_libc.sendmmsg(self._socket.fileno(), self._messages, count, 0))
        if sent < 0 and ctypes.get_errno() not in (errno.ENOBUFS, errno.EAGAIN, errno.EINTR):
            raise OSError(ctypes.get_errno(), f"send frames: {os.strerror(ctypes.get_errno())}")
        return max(sent, 0)

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
