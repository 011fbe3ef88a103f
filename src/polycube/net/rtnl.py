# SPDX-License-Identifier: Apache-2.0
"""A synchronous rtnetlink socket for short work in a thread of another namespace.

pyroute2's synchronous client starts an event loop of its own and refuses to run beside asyncio, and the asynchronous
one belongs to one loop and one namespace. What runs inside `netns.run_in` needs a few requests and no loop: this
socket sends one request and reads its answer; pyroute2's message classes decode it.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, Self

from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from polycube.net.addr import Interface, Mac
from polycube.net.netdev import Netdev, address_of, netdev_of

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_GETADDR, RTM_GETNSID = 16, 17, 18, 22, 90
NETNSA_NSID, NETNSA_FD = 1, 3
_CREATE, _EXCL = 0x400, 0x200
_ADDRESS, _IFNAME, _MTU, _LINKINFO, _IFALIAS, _NET_NS_FD, _INFO_KIND, _INFO_DATA, _VETH_INFO_PEER = 1, 3, 4, 18, 20, 28, 1, 2, 1

_HEADER = struct.Struct("=IHHII")
_BUFFER = 1 << 18


class Rtnl:
    """One netlink socket in the namespace of the calling thread; `with` closes it."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.settimeout(10)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(self, kind: int, payload: bytes, flags: int = NLM_F_ACK) -> list[tuple[int, bytes]]:
        """Send one request and return its answers as (message type, whole message); OSError if it was refused."""
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(payload), kind, NLM_F_REQUEST | flags, self._sequence, 0)
        self._socket.send(header + payload)
        answers: list[tuple[int, bytes]] = []
        while True:
            for answer, sequence, message in split(self._socket.recv(_BUFFER)):
                if sequence != self._sequence:
                    continue
                if answer in (NLMSG_ERROR, NLMSG_DONE):
                    code = struct.unpack_from("=i", message, _HEADER.size)[0] if len(message) >= 20 else 0
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return answers
                answers.append((answer, message))

    def links(self) -> list[Netdev]:
        """All netdevs of the namespace, with their addresses."""
        addresses: dict[int, list[Interface]] = {}
        for message in self.dump(RTM_GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
            addresses.setdefault(message["index"], []).append(address_of(message))
        payload = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
        return [netdev_of(m, addresses.get(m["index"], ())) for m in self.dump(RTM_GETLINK, payload)]

    def link(self, ifindex: int) -> Netdev | None:
        """One netdev, without its addresses; None if there is none of that number."""
        try:
            answers = self.request(RTM_GETLINK, struct.pack("=BxHiII", 0, 0, ifindex, 0, 0))
        except OSError:
            return None
        return next((netdev_of(m) for _, data in answers for m in decode(data)), None)

    def netnsid(self, fd: int) -> int | None:
        """The number by which the calling thread's namespace knows the one `fd` is open on; None if by none."""
        answers = self.request(RTM_GETNSID, struct.pack("=B3xHHI", 0, 8, NETNSA_FD, fd))
        for _, message in answers:
            length, attribute, value = struct.unpack_from("=HHi", message, _HEADER.size + 4)
            if attribute == NETNSA_NSID and length == 8 and value >= 0:
                return int(value)
        return None

    def create_veth(self, name: str, index: int, peer: str, peer_index: int, mtu: int = 1500, where: int | None = None) -> None:
        """Makes a veth pair whose ends have chosen ifindexes; pyroute2 can't give one to the other end. `where`: a descriptor of the
        namespace that the other end is born in."""

        def end(name: str, index: int) -> bytes:
            header = struct.pack("=BxHiII", 0, 0, index, 0, 0)
            return header + attribute(_IFNAME, name.encode() + b"\0") + attribute(_MTU, struct.pack("=I", mtu))

        far = end(peer, peer_index) + (b"" if where is None else attribute(_NET_NS_FD, struct.pack("=I", where)))
        data = attribute(_INFO_DATA, attribute(_VETH_INFO_PEER, far))
        info = attribute(_LINKINFO, attribute(_INFO_KIND, b"veth") + data)
        self.request(RTM_NEWLINK, end(name, index) + info, NLM_F_ACK | _CREATE | _EXCL)

    def change(
        self, index: int, *, up: bool | None = None, mac: Mac | None = None, mtu: int | None = None, alias: str | None = None
    ) -> None:
        """Changes a netdev. OSError if the kernel refuses."""
        flags = (0, 0) if up is None else (int(up), 1)
        more = b"" if mac is None else attribute(_ADDRESS, bytes(mac))
        more += b"" if mtu is None else attribute(_MTU, struct.pack("=I", mtu))
        more += b"" if alias is None else attribute(_IFALIAS, alias.encode() + b"\0")
        self.request(RTM_NEWLINK, struct.pack("=BxHiII", 0, 0, index, *flags) + more)

    def delete(self, index: int) -> None:
        """Deletes a netdev; nothing happens if it is gone."""
        try:
            self.request(RTM_DELLINK, struct.pack("=BxHiII", 0, 0, index, 0, 0))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def dump(self, kind: int, payload: bytes) -> Iterator[Any]:
        """All objects that a request for a list gives, decoded."""
        for _, data in self.request(kind, payload, NLM_F_DUMP):
            yield from decode(data)


def attribute(kind: int, payload: bytes) -> bytes:
    """A netlink attribute, padded."""
    return struct.pack("=HH", len(payload) + 4, kind) + payload + bytes(-len(payload) % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """Netlink attributes by kind."""
    found, offset = {}, 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += max(4, (length + 3) & ~3)
    return found


def split(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Cut a datagram into messages: (type, sequence number, message with its header)."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, sequence, data[offset : offset + length]
        offset += (length + 3) & ~3


def _decoder() -> Callable[[bytes], Iterator[Any]]:
    marshal = MarshalRtnl()
    return lambda data: marshal.parse(data)


decode: Callable[[bytes], Iterator[Any]] = _decoder()
