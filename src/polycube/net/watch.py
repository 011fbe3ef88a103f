# SPDX-License-Identifier: Apache-2.0
"""Events of a namespace's network: netdevs, addresses, routes, neighbours.

A netlink socket subscribes to the kernel's groups and is read only when the reader asks for the next event: the
kernel's own buffer is the queue. If the reader is too slow and that buffer overruns, the kernel says ENOBUFS once;
then the rest is thrown away, the netdevs are read anew and one `Resync` is given instead.

The kernel does not tell a new netdev from a changed one and repeats itself, so the watcher keeps a table of netdevs,
filled when it starts (after subscribing: nothing falls between), and gives only changes that `Netdev` shows.
A netdev moved to another namespace is removed here, with the number of its new namespace in the message, and added
there: without that number the netdev was deleted. A bridge announces its ports by messages of the same type under
another family; taken for netdevs, a port leaving a bridge would look like a netdev deleted.
"""

import asyncio
import errno
import os
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any, Self

from polycube.net import netns
from polycube.net.addr import Mac
from polycube.net.event import (
    AddressAdded,
    AddressRemoved,
    Event,
    LinkAdded,
    LinkChanged,
    LinkRemoved,
    NeighbourChanged,
    NextHop,
    Resync,
    Route,
    RouteAdded,
    RouteRemoved,
)
from polycube.net.netdev import Netdev, address_of, netdev_of
from polycube.net.rtnl import Rtnl, decode, split

__all__ = [
    "AddressAdded",
    "AddressRemoved",
    "Event",
    "LinkAdded",
    "LinkChanged",
    "LinkRemoved",
    "NeighbourChanged",
    "NextHop",
    "Resync",
    "Route",
    "RouteAdded",
    "RouteRemoved",
    "Watcher",
]

_NEWLINK, _DELLINK, _NEWADDR, _DELADDR = 16, 17, 20, 21
_NEWROUTE, _DELROUTE, _NEWNEIGH, _DELNEIGH = 24, 25, 28, 29
_GROUP_LINK, _GROUP_NEIGHBOUR = 1, 3
_GROUPS_ADDRESS, _GROUPS_ROUTE = (5, 9), (7, 11)
_SOL_NETLINK, _ADD_MEMBERSHIP, _SO_RCVBUFFORCE = 270, 1, 33
_NLM_F_REPLACE, _RTM_F_CLONED = 0x100, 0x200


class Watcher:
    """`async for event in Watcher(): …`; close it, or use `async with`, to give the socket back.

    One reader at a time. `netdevs` is the watcher's table, by ifindex, as of the last event given.
    """

    def __init__(
        self,
        where: netns.Where | None = None,
        *,
        routes: bool = True,
        neighbours: bool = True,
        buffer: int = 4 << 20,
    ) -> None:
        self.netdevs: dict[int, Netdev] = {}
        self.where = where
        self._groups = [_GROUP_LINK, *_GROUPS_ADDRESS]
        self._groups += _GROUPS_ROUTE if routes else ()
        self._groups += [_GROUP_NEIGHBOUR] if neighbours else []
        self._buffer = buffer
        self._socket: socket.socket | None = None
        self._lister: Rtnl | None = None
        self._pending: deque[Event] = deque()
        self._waiting: asyncio.Future[None] | None = None

    async def open(self) -> Self:
        """Subscribe; events from now on are given. Also done by `async with` and by the first iteration."""
        if self._socket is None:
            self._socket, self._lister = await netns.call_in(self.where, self._subscribe)
            await self._list()
        return self

    async def close(self) -> None:
        """Unsubscribe; a reader that waits ends its loop."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        if self._lister is not None:
            self._lister.close()
            self._lister = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if self._socket is None:
            await self.open()
        while not self._pending:
            if self._socket is None:
                raise StopAsyncIteration
            await self._receive(self._socket)
        return self._pending.popleft()

    def _subscribe(self) -> tuple[socket.socket, Rtnl]:
        sock = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
            socket.NETLINK_ROUTE,
        )
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer)
            if self._buffer > sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2:
                sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, self._buffer)  # beyond net.core.rmem_max
            sock.bind((0, 0))
            for group in self._groups:
                sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
            return sock, Rtnl()
        except BaseException:
            sock.close()
            raise

    async def _list(self) -> None:
        """Fill the table afresh; the lister's socket stays in the namespace, so any thread may read it."""
        assert self._lister is not None
        self.netdevs = {dev.ifindex: dev for dev in await asyncio.to_thread(self._lister.links)}

    async def _receive(self, sock: socket.socket) -> None:
        """Turn one datagram into events, waiting for it if need be."""
        try:
            data = sock.recv(1 << 18)
        except BlockingIOError:
            await self._readable(sock)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            _drain(sock)
            await self._list()
            self._pending.append(Resync(tuple(self.netdevs.values())))
        else:
            self._pending.extend(self._events(data))

    async def _readable(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        loop.add_reader(sock, _wake, self._waiting)
        try:
            await self._waiting
        finally:
            self._waiting = None
            if sock.fileno() >= 0:
                loop.remove_reader(sock)

    def _events(self, data: bytes) -> Iterator[Event]:
        for kind, _, message in split(data):
            if kind in (_NEWLINK, _DELLINK) and message[16] != socket.AF_UNSPEC:
                continue
            for decoded in decode(message):
                yield from self._event(kind, decoded, struct.unpack_from("=H", message, 6)[0])

    def _event(self, kind: int, message: Any, flags: int) -> Iterable[Event]:
        if kind == _NEWLINK:
            return self._link(netdev_of(message))
        if kind == _DELLINK:
            return self._link_removed(message)
        if kind in (_NEWADDR, _DELADDR):
            return self._address(kind == _NEWADDR, message)
        if kind in (_NEWNEIGH, _DELNEIGH):
            return _neighbour(kind == _DELNEIGH, message)
        if kind not in (_NEWROUTE, _DELROUTE) or message["flags"] & _RTM_F_CLONED:
            return ()
        route = _route(message)
        return [RouteAdded(route, bool(flags & _NLM_F_REPLACE)) if kind == _NEWROUTE else RouteRemoved(route)]

    def _link(self, netdev: Netdev) -> Iterator[Event]:
        old = self.netdevs.get(netdev.ifindex)
        if old is not None:
            netdev = replace(netdev, addresses=old.addresses)
        self.netdevs[netdev.ifindex] = netdev
        if old is None:
            yield LinkAdded(netdev)
            if netdev.peer_ifindex is not None and netdev.peer_netnsid is None:
                yield from self._peer_is(netdev.peer_ifindex, netdev.ifindex, None)
        elif netdev != old:
            yield LinkChanged(netdev, old)

    def _peer_is(self, ifindex: int, peer: int | None, netnsid: int | None) -> Iterator[Event]:
        """Tell of a veth that its other end came or went: the kernel announces only the end that did."""
        old = self.netdevs.get(ifindex)
        if old is not None and old.kind == "veth" and (old.peer_ifindex, old.peer_netnsid) != (peer, netnsid):
            self.netdevs[ifindex] = changed = replace(old, peer_ifindex=peer, peer_netnsid=netnsid)
            yield LinkChanged(changed, old)

    def _link_removed(self, message: Any) -> Iterator[Event]:
        known = self.netdevs.pop(message["index"], None) or netdev_of(message)
        netnsid = message.get_attr("IFLA_NEW_NETNSID")
        if netnsid is None:
            yield LinkRemoved(known)
            return
        # A number in host order that pyroute2 0.9 takes for a big-endian one
        netnsid = struct.unpack("=i", struct.pack(">I", netnsid))[0]
        there = message.get_attr("IFLA_NEW_IFINDEX") or known.ifindex
        yield LinkRemoved(known, True, netnsid, there)
        if known.peer_ifindex is not None and known.peer_netnsid is None:
            yield from self._peer_is(known.peer_ifindex, there, netnsid)

    def _address(self, added: bool, message: Any) -> Iterable[Event]:
        ifindex, address = message["index"], address_of(message)
        known = self.netdevs.get(ifindex)
        had = known is not None and address in known.addresses
        if known is not None:
            rest = tuple(one for one in known.addresses if one != address)
            addresses = rest if not added else known.addresses if had else (*rest, address)
            self.netdevs[ifindex] = replace(known, addresses=addresses)
        if added:
            return () if had else [AddressAdded(ifindex, address)]
        return [AddressRemoved(ifindex, address)]


def _route(message: Any) -> Route:
    everything = "0.0.0.0" if message["family"] == socket.AF_INET else "::"
    destination = ip_network(f"{message.get_attr('RTA_DST') or everything}/{message['dst_len']}", strict=False)
    multipath = message.get_attr("RTA_MULTIPATH")
    if multipath:
        hops = tuple(NextHop(hop["oif"], _gateway(hop), hop["hops"] + 1) for hop in multipath)
    else:
        oif = message.get_attr("RTA_OIF")
        hops = (NextHop(oif, _gateway(message)),) if oif is not None else ()
    return Route(
        destination=destination,
        hops=hops,
        table=message.get_attr("RTA_TABLE") or message["table"],
        priority=message.get_attr("RTA_PRIORITY") or 0,
        protocol=message["proto"],
        scope=message["scope"],
        kind=message["type"],
    )


def _gateway(message: Any) -> Any:
    text = message.get_attr("RTA_GATEWAY")
    if text is None:
        via = message.get_attr("RTA_VIA")  # an IPv6 gateway of an IPv4 route
        text = via["addr"] if via else None
    return ip_address(text) if text else None


def _neighbour(removed: bool, message: Any) -> Iterable[Event]:
    if message["family"] not in (socket.AF_INET, socket.AF_INET6):
        return ()  # a bridge's forwarding table
    address = message.get_attr("NDA_DST")
    if address is None:
        return ()
    text = message.get_attr("NDA_LLADDR")
    mac = Mac.parse(text) if text and len(text) == 17 and not removed else None
    return [NeighbourChanged(message["ifindex"], ip_address(address), mac, message["state"], removed)]


def _drain(sock: socket.socket) -> None:
    while True:
        try:
            sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise OSError(error.errno, os.strerror(error.errno or 0)) from None


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
