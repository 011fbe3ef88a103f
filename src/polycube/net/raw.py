# SPDX-License-Identifier: Apache-2.0
"""Frames sent out of a netdev as if the kernel's stack had made them.

An AF_PACKET socket bound to one netdev and to protocol 0, so that it only sends. Each frame may carry an skb mark, by a
SO_MARK control message beside it: the mark reaches `skb->mark` of TC programs on the netdev's egress, and on the
ingress of a veth's other end as long as that is in the same namespace (crossing namespaces scrubs it).
With `vnet_hdr` a frame may ask the kernel to finish its checksum and to cut it into segments, which is what a frame
taken from a slow path often needs. Frames pass the queueing discipline and TC egress; XDP programs of a veth's other
end see them, too.
"""

import errno
import socket
import struct
from dataclasses import dataclass
from typing import Self

from polycube.net.errors import NoSuchNetdev, Refused

SOL_PACKET = 263
PACKET_VNET_HDR = 15
SO_MARK = 36
_VNET_HDR = struct.Struct("=BBHHHH")  # flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
_PLAIN = _VNET_HDR.pack(0, 0, 0, 0, 0, 0)
_NEEDS_CSUM = 1
_GSO_TCPV4, _GSO_TCPV6 = 1, 4
# A full queue, ours or the netdev's: the frame is lost, the socket is fine
_BUSY = {errno.EAGAIN, errno.ENOBUFS}


@dataclass(frozen=True, slots=True)
class Checksum:
    """Where the kernel has to finish a checksum: summed from `start` on, stored `offset` bytes after it.

    The field must hold the sum of the pseudo header, as the kernel leaves it in frames with an unfinished checksum.
    `segment` is the payload length to cut TCP into, `header` the length of all headers then.
    """

    start: int
    offset: int
    segment: int = 0
    header: int = 0
    ipv6: bool = False

    def pack(self) -> bytes:
        gso = 0 if not self.segment else _GSO_TCPV6 if self.ipv6 else _GSO_TCPV4
        return _VNET_HDR.pack(_NEEDS_CSUM, gso, self.header, self.segment, self.start, self.offset)


class PacketSocket:
    """A non-blocking way to send frames out of one netdev; `with` closes it."""

    def __init__(self, netdev: str | int, *, vnet_hdr: bool = False) -> None:
        self.netdev = netdev
        self._vnet_hdr = vnet_hdr
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
        try:
            if vnet_hdr:
                self._socket.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
            name = socket.if_indextoname(netdev) if isinstance(netdev, int) else netdev
            self._socket.bind((name, 0))
        except OSError as error:
            self._socket.close()
            if error.errno in (errno.ENODEV, errno.ENXIO):
                raise NoSuchNetdev(netdev) from None
            raise Refused(f"open a packet socket on {netdev}", error.errno or 0) from None

    def send(self, frame: bytes | bytearray | memoryview, mark: int = 0, checksum: Checksum | None = None) -> bool:
        """Send one frame, Ethernet header first; False when a queue is full and the frame was lost.

        Raises NoSuchNetdev when the netdev is gone, Refused when it is down or the frame too long for it.
        """
        parts: list[bytes | bytearray | memoryview] = [frame]
        if self._vnet_hdr:
            parts.insert(0, _PLAIN if checksum is None else checksum.pack())
        elif checksum is not None:
            raise ValueError("a checksum can only be left to the kernel by a PacketSocket with vnet_hdr=True")
        control = [(socket.SOL_SOCKET, SO_MARK, struct.pack("=I", mark))] if mark else []
        try:
            self._socket.sendmsg(parts, control)
        except OSError as error:
            if error.errno in _BUSY:
                return False
            if error.errno in (errno.ENXIO, errno.ENODEV):
                raise NoSuchNetdev(self.netdev) from None
            raise Refused(f"send {len(frame)} bytes out of {self.netdev}", error.errno or 0) from None
        return True

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
