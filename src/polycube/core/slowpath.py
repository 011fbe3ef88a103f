# SPDX-License-Identifier: Apache-2.0
"""Frames between the data plane and a cube's control plane, as bytes: records of the ring buffer up, injected frames down.

Up: a record is a `struct pcn_event` (abi.h) and the frame. What the kernel kept beside the bytes is put back into them: the VLAN tag of
an skb, and a checksum left to the NIC. An unfinished checksum is told by its value, the folded sum of the pseudo header; finishing one
that happens to be right already gives the same value again, so that a coincidence does no harm.

Down: on TC through the injection device, a veth pair whose inner end has a program that reads the way from the skb's mark. On XDP by
BPF_PROG_TEST_RUN with live frames of a program that reads it from 16 bytes in front of the frame. Both end in a tail call.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from polycube.bpf import BpfError, Program, xdp_md
from polycube.core.cube import Packet, PortFacts
from polycube.core.paths import GENERIC_DEVICE, INJECTION_DEVICE, XDP_INJECTOR, Paths
from polycube.core.topology import SHADOW_BASE
from polycube.model import PolycubeError
from polycube.net.errors import NetError
from polycube.net.raw import PacketSocket

EVENT = struct.Struct("<IIHHHH2sHI3I")
FLAG_XDP, FLAG_VLAN, FLAG_EGRESS, FLAG_TRUNCATED = 1, 2, 4, 8
INJECT = struct.Struct("<HHIII")  # struct pcn_inject: port, flags, id, slot, pad
META_OUT, META_SEEN, MARK_OUT = 1, 8, 0x8000
MARK_SPAN = 0x9C0B59A4

# 4 KB page - 112 struct xdp_page_head (kernel 6.18) - 256 headroom - 320 struct skb_shared_info: live frames have one buffer
MAX_XDP = 4096 - 112 - 256 - 320 - INJECT.size

_VLAN = (b"\x81\x00", b"\x88\xa8", b"\x91\x00")
_CHECKSUM = {6: 16, 17: 6}  # of TCP and UDP: offset of the field
_EXTENSIONS = (0, 43, 60)  # IPv6: hop-by-hop, routing, destination options


class NotSent(PolycubeError):
    """A frame of the control plane that the kernel did not take."""

    status = 500

    def __init__(self, cube: str, port: str, length: int, reason: str) -> None:
        self.cube, self.port, self.length, self.reason = cube, port, length, reason
        super().__init__(f"cannot send a frame of {length} bytes by {cube}:{port}: {reason}")


def decode(record: bytes, ports: Mapping[int, PortFacts]) -> Packet:
    """A record of the ring buffer; `ports` by number. Raises ValueError if it is shorter than it says."""
    if len(record) < EVENT.size:
        raise ValueError(f"a slow-path record of {len(record)} bytes, at least {EVENT.size} expected")
    _, caplen, port, reason, flags, tci, proto, _, ifindex, a, b, c = EVENT.unpack_from(record)
    frame = record[EVENT.size : EVENT.size + caplen]
    if len(frame) < caplen:
        raise ValueError(f"a slow-path record with {len(frame)} of the {caplen} bytes it announces")
    if not flags & FLAG_TRUNCATED:  # generic XDP sees unfinished sums, too
        frame = finish_checksum(frame)
    if flags & FLAG_VLAN:
        frame = frame[:12] + proto + tci.to_bytes(2, "big") + frame[12:]
    return Packet(
        data=frame,
        port=ports.get(port),
        reason=reason,
        metadata=(a, b, c),
        egress=bool(flags & FLAG_EGRESS),
        truncated=bool(flags & FLAG_TRUNCATED),
        xdp=bool(flags & FLAG_XDP),
        ifindex=ifindex,
    )


def folded_sum(data: bytes) -> int:
    """The one's-complement sum of 16-bit words, not inverted."""
    if len(data) % 2:
        data += b"\0"
    # 2**16 is 1 modulo 2**16 - 1, so the remainder of the whole number is the sum of its words
    whole = int.from_bytes(data, "big")
    return whole % 0xFFFF or (0xFFFF if whole else 0)


def finish_checksum(frame: bytes) -> bytes:
    """The frame with the checksum of TCP or UDP computed, if it was left to the NIC; else the same frame."""
    found = _transport(frame)
    if found is None:
        return frame
    protocol, addresses, start, end = found
    field = start + _CHECKSUM[protocol]
    if field + 2 > end or end > len(frame):
        return frame
    pseudo = folded_sum(addresses + (end - start).to_bytes(4, "big") + protocol.to_bytes(4, "big"))
    if int.from_bytes(frame[field : field + 2], "big") != pseudo:
        return frame
    checksum = 0xFFFF - folded_sum(frame[start:end])
    if checksum == 0 and protocol == 17:
        checksum = 0xFFFF
    return frame[:field] + checksum.to_bytes(2, "big") + frame[field + 2 :]


def _transport(frame: bytes) -> tuple[int, bytes, int, int] | None:
    """Protocol, addresses, start and end of a TCP or UDP segment that is in the frame as a whole."""
    at = 12
    while frame[at : at + 2] in _VLAN:
        at += 4
    ethertype, at = frame[at : at + 2], at + 2
    if ethertype == b"\x08\x00":
        return _ipv4(frame, at)
    if ethertype == b"\x86\xdd":
        return _ipv6(frame, at)
    return None


def _ipv4(frame: bytes, at: int) -> tuple[int, bytes, int, int] | None:
    if len(frame) < at + 20:
        return None
    length = int.from_bytes(frame[at + 2 : at + 4], "big") or len(frame) - at
    fragment = int.from_bytes(frame[at + 6 : at + 8], "big") & 0x3FFF
    protocol = frame[at + 9]
    if fragment or protocol not in _CHECKSUM:
        return None
    return protocol, frame[at + 12 : at + 20], at + (frame[at] & 0xF) * 4, at + length


def _ipv6(frame: bytes, at: int) -> tuple[int, bytes, int, int] | None:
    if len(frame) < at + 40:
        return None
    length = int.from_bytes(frame[at + 4 : at + 6], "big")
    end = at + 40 + length if length else len(frame)
    addresses, protocol, at = frame[at + 8 : at + 40], frame[at + 6], at + 40
    while protocol in _EXTENSIONS and len(frame) >= at + 8:
        protocol, at = frame[at], at + (frame[at + 1] + 1) * 8
    return (protocol, addresses, at, end) if protocol in _CHECKSUM else None


class ShadowSockets:
    """The way into namespaces of cubes, from the outer ends of their veths."""

    def __init__(self) -> None:
        self._sockets: dict[int, PacketSocket] = {}

    def send(self, id: int, frame: bytes, mark: int = 0) -> bool:
        """As received by the port with this id; False if a queue was full. Raises NetError."""
        if id not in self._sockets:
            self._sockets[id] = PacketSocket(SHADOW_BASE + id)
        try:
            return self._sockets[id].send(frame, mark=mark)
        except NetError:
            self._sockets.pop(id).close()  # the veth may have been made anew
            raise

    def close(self) -> None:
        for opened in self._sockets.values():
            opened.close()
        self._sockets.clear()


class Injector:
    """The way down, shared by all cubes of a worker. What it needs is opened at first use, since it may come later than the worker."""

    def __init__(self, paths: Paths, device: str = INJECTION_DEVICE) -> None:
        self._paths = paths
        self._device = device
        self.shadows = ShadowSockets()
        self._socket: PacketSocket | None = None
        self._generic: PacketSocket | None = None
        self._program: Program | None = None

    def tc(self, slot: int, port: int, frame: bytes, *, out: bool) -> bool:
        """Has program `slot` treat a frame; False if a queue was full. Raises NetError."""
        if self._socket is None:
            self._socket = PacketSocket(self._device)
        try:
            return self._socket.send(frame, mark=slot << 16 | (MARK_OUT if out else 0) | port)
        except NetError:
            self.close()  # the device may have been made anew
            raise

    def xdp(self, slot: int, port: int, id: int, frame: bytes, *, out: bool, ifindex: int = 0) -> None:
        """The same on XDP, as if received by netdev `ifindex` (the loopback device if 0). Raises BpfError."""
        if self._program is None:
            self._program = Program.open(self._paths.shared_map(XDP_INJECTOR))
        data = INJECT.pack(port, META_OUT if out else 0, id, slot, 0) + frame
        context = xdp_md(len(data), ingress_ifindex=ifindex) if ifindex else None
        try:
            self._program.test_run(data, context=context, live=True, batch_size=1)
        except BpfError:
            self.close()
            raise

    def generic(self, slot: int, port: int, id: int, frame: bytes, *, out: bool) -> bool:
        """The same on generic XDP, where live frames would be redirected natively; False if a queue was full. Raises NetError."""
        if self._generic is None:
            self._generic = PacketSocket(GENERIC_DEVICE)
        try:
            return self._generic.send(INJECT.pack(port, META_OUT if out else 0, id, slot, 0) + frame)
        except NetError:
            self.close()
            raise

    def close(self) -> None:
        self.shadows.close()
        for opened in (self._socket, self._generic, self._program):
            if opened is not None:
                opened.close()
        self._socket = self._generic = self._program = None
