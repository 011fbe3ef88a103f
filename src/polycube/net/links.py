# SPDX-License-Identifier: Apache-2.0
"""The netdevs of one namespace: list, create, change, delete.

One netlink socket lives as long as the `Links` object; requests go over it one at a time, since a netlink socket
carries one dump at once. It is bound to the namespace it was opened in, whatever happens to the thread later. Every
refusal of the kernel comes as one of `polycube.net.errors`, with a sentence that names the netdev.
"""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from polycube.net import netns
from polycube.net.addr import Address, Interface, Mac
from polycube.net.errors import NoSuchNetdev, Refused
from polycube.net.netdev import Netdev, Xdp, address_of, netdev_of

__all__ = ["Links", "Netdev", "Xdp"]

T = TypeVar("T")
# `list` is a method of the class below
_Netdevs = list[Netdev]
_Messages = list[Any]
_GONE = {errno.ENODEV, errno.ENXIO}


class Links:
    """Netlink for the netdevs of one namespace, by default the calling thread's."""

    def __init__(self, where: netns.Where | None = None) -> None:
        self.where = where
        self._route: Any = None
        self._lock = asyncio.Lock()

    async def open(self) -> Self:
        """Open the socket; also done by `async with`."""
        if self._route is None:
            self._route = await self._connect()
        return self

    async def close(self) -> None:
        """Close the socket; a second time does nothing."""
        if self._route is not None:
            route, self._route = self._route, None
            route.close()
            await asyncio.sleep(0)  # the transport closes its socket in the loop's next turn

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def list(self) -> _Netdevs:
        """All netdevs with their addresses, by ifindex."""
        addresses: dict[int, list[Interface]] = {}
        for message in await self._dump("list addresses", "addr"):
            addresses.setdefault(message["index"], []).append(address_of(message))
        links = await self._dump("list netdevs", "link")
        return sorted((netdev_of(m, addresses.get(m["index"], ())) for m in links), key=lambda dev: dev.ifindex)

    async def get(self, netdev: str | int) -> Netdev:
        """One netdev by name or ifindex, with its addresses; NoSuchNetdev if there is none."""
        found = await self.find(netdev)
        if found is None:
            raise NoSuchNetdev(netdev)
        return found

    async def find(self, netdev: str | int) -> Netdev | None:
        """One netdev by name or ifindex, with its addresses; None if there is none."""
        which: dict[str, Any] = {"index": netdev} if isinstance(netdev, int) else {"ifname": netdev}
        try:
            answer = await self._call(f"look up the netdev {netdev}", lambda ipr: ipr.link("get", **which))
        except NoSuchNetdev:
            return None
        message = next(iter(answer))
        return netdev_of(message, await self.addresses(message["index"]))

    async def addresses(self, netdev: str | int) -> tuple[Interface, ...]:
        """The addresses of a netdev, in the kernel's order."""
        index = await self._index(netdev)
        found = await self._dump(f"list the addresses of {netdev}", "addr", index=index)
        return tuple(address_of(message) for message in found)

    async def create_veth(
        self,
        name: str,
        peer: str,
        *,
        where: netns.Where | None = None,
        mtu: int | None = None,
        mac: Mac | None = None,
        peer_mac: Mac | None = None,
    ) -> Netdev:
        """Make a veth pair and return the near end; the other end may be born in another namespace."""
        near: dict[str, Any] = {"ifname": name, "kind": "veth"}
        far: dict[str, Any] = {"ifname": peer}
        for end, address in ((near, mac), (far, peer_mac)):
            if mtu is not None:
                end["mtu"] = mtu
            if address is not None:
                end["address"] = str(address)
        opened = None if where is None else _opened(where)
        try:
            if opened is not None:
                far["net_ns_fd"] = opened[0]
            await self._call(f"create the veth pair {name}, {peer}", lambda ipr: ipr.link("add", peer=far, **near))
        finally:
            if opened is not None and opened[1] is not None:
                opened[1].close()
        return await self.get(name)

    async def create(self, name: str, kind: str, **options: Any) -> Netdev:
        """Make a netdev of any kind the kernel has; `options` are rtnetlink's, in lower case without prefix."""
        await self._call(f"create the {kind} {name}", lambda ipr: ipr.link("add", ifname=name, kind=kind, **options))
        return await self.get(name)

    async def delete(self, netdev: str | int) -> None:
        """Delete a netdev; of a veth this takes the other end along."""
        await self._set(f"delete {netdev}", netdev, "del")

    async def set_up(self, netdev: str | int, up: bool = True) -> None:
        """Set a netdev up or down."""
        await self._set(f"set {netdev} {'up' if up else 'down'}", netdev, state="up" if up else "down")

    async def set_mtu(self, netdev: str | int, mtu: int) -> None:
        await self._set(f"set the MTU of {netdev} to {mtu}", netdev, mtu=mtu)

    async def set_mac(self, netdev: str | int, mac: Mac) -> None:
        await self._set(f"set the MAC of {netdev} to {mac}", netdev, address=str(mac))

    async def rename(self, netdev: str | int, name: str) -> None:
        """Give a netdev another name; its ifindex stays."""
        await self._set(f"rename {netdev} to {name}", netdev, ifname=name)

    async def move(self, netdev: str | int, where: netns.Where) -> None:
        """Move a netdev to another namespace; it is down there, without addresses, perhaps with another ifindex."""
        fd, opened = _opened(where)
        try:
            await self._set(f"move {netdev} to {where}", netdev, net_ns_fd=fd)
        finally:
            if opened is not None:
                opened.close()

    async def set_master(self, netdev: str | int, master: str | int | None) -> None:
        """Put a netdev into a bridge, or take it out again."""
        index = 0 if master is None else await self._index(master)
        await self._set(f"make {netdev} a port of {master}", netdev, master=index)

    async def add_address(self, netdev: str | int, address: Interface) -> None:
        """Add an address. IPv6 ones are usable at once: no duplicate address detection."""
        await self._address("add", netdev, address)

    async def del_address(self, netdev: str | int, address: Interface) -> None:
        await self._address("del", netdev, address)

    async def add_default_route(self, gateway: Address) -> None:
        """Send what has no route of its own to a router."""
        family = socket.AF_INET if gateway.version == 4 else socket.AF_INET6
        route = {"dst": "default", "gateway": str(gateway), "family": family}
        await self._call(f"add the default route by {gateway}", lambda ipr: ipr.route("add", **route))

    async def disable_ipv6(self, netdev: str | int) -> None:
        """Keep IPv6 off a netdev: no link-local address, no router or neighbour messages from this host.

        By sysctl; where /proc/sys is read-only, as in many containers, by not generating a link-local address.
        """
        found = await self.get(netdev)
        knob = Path("/proc/sys/net/ipv6/conf", found.name, "disable_ipv6")

        def write() -> None:
            if knob.parent.parent.exists():
                knob.write_text("1")

        try:
            await netns.call_in(self.where, write)
        except OSError:
            with suppress(Refused):
                none = {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", 1)]})]}
                await self._set(f"disable IPv6 on {netdev}", found.ifindex, IFLA_AF_SPEC=none)

    async def _address(self, command: str, netdev: str | int, address: Interface) -> None:
        index = await self._index(netdev)
        options: dict[str, Any] = {"index": index, "address": str(address.ip), "prefixlen": address.network.prefixlen}
        if address.version == 6 and command == "add":
            options["flags"] = 0x02  # IFA_F_NODAD
        action = "add the address {} to {}" if command == "add" else "remove the address {} from {}"
        await self._call(action.format(address, netdev), lambda ipr: ipr.addr(command, **options))

    async def _set(self, action: str, netdev: str | int, command: str = "set", **options: Any) -> None:
        index = await self._index(netdev)
        await self._call(action, lambda ipr: ipr.link(command, index=index, **options), netdev)

    async def _index(self, netdev: str | int) -> int:
        if isinstance(netdev, int):
            return netdev
        answer = await self._call(f"look up {netdev}", lambda ipr: ipr.link("get", ifname=netdev), netdev)
        return int(next(iter(answer))["index"])

    async def _dump(self, action: str, noun: str, **match: Any) -> _Messages:
        async def collect(ipr: Any) -> _Messages:
            return [message async for message in await getattr(ipr, noun)("dump", **match)]

        return await self._call(action, collect)

    async def _call(self, action: str, request: Callable[[Any], Awaitable[T]], netdev: str | int | None = None) -> T:
        if self._route is None:
            raise RuntimeError("Links is not open")
        async with self._lock:
            try:
                return await request(self._route)
            except NetlinkError as error:
                if error.code in _GONE:
                    raise NoSuchNetdev(netdev if netdev is not None else action.rsplit(" ", 1)[-1]) from None
                # The kernel's own explanation, where it has one, follows the errno's text
                raise Refused(action, error.code, _detail(error)) from None
            except OSError as error:
                # After an overrun pyroute2's socket refuses all further work: the next request gets a fresh one
                self._route.close()
                self._route = await self._connect()
                raise Refused(action, error.errno or 0, str(error)) from error

    async def _connect(self) -> Any:
        if self.where is None:
            route = AsyncIPRoute(ext_ack=True)
        else:
            # Not pyroute2's netns argument: that forks
            sock = await netns.call_in(self.where, _netlink_socket)
            route = AsyncIPRoute(ext_ack=True, fileno=sock.detach())
        await route.setup_endpoint()
        return route


def _netlink_socket() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)


def _opened(where: netns.Where) -> tuple[int, netns.Namespace | None]:
    """A file descriptor for a namespace, and what to close afterwards."""
    if isinstance(where, int):
        return where, None
    if isinstance(where, netns.Namespace):
        return where.fd, None
    opened = netns.Namespace(where) if "/" in str(where) else netns.Namespace.named(str(where))
    return opened.fd, opened


def _detail(error: NetlinkError) -> str:
    text = error.args[1] if len(error.args) > 1 else ""
    return text if isinstance(text, str) else ""
