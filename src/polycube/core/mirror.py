# SPDX-License-Identifier: Apache-2.0
"""What `ip` shows and changes in a cube's namespace, as facts: MACs, addresses, routes, permanent neighbours of the cube's ports.

A fact is a value that stands in the namespace or does not, in a form that is the same for the kernel and for the cube, so that two sets
of them are compared by their difference. What is added here carries PROTOCOL, by which it is known after a restart (rtnetlink(7),
rtm_protocol; addresses have the same as IFA_PROTO, neighbours as NDA_PROTOCOL).

Only the netdevs of ports count, of routes only the main table. Link-local addresses that follow from the MAC are nobody's configuration,
nor are the routes that the kernel makes of addresses.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from polycube.core.topology import SHADOW_BASE
from polycube.net import netns
from polycube.net.addr import Mac, link_local
from polycube.net.rtnl import NLM_F_ACK, NLM_F_DUMP, Rtnl, attribute, attributes

PROTOCOL = 0x9C  # of what the daemon has added
COST = 1  # of a route without a metric
BLACKHOLE, UNREACHABLE, PROHIBIT = WORDS = ("blackhole", "unreachable", "prohibit")

_NEWADDR, _DELADDR, _GETADDR, _NEWROUTE, _DELROUTE, _GETROUTE, _NEWNEIGH, _DELNEIGH, _GETNEIGH = 20, 21, 22, 24, 25, 26, 28, 29, 30
_REPLACE, _CREATE, _APPEND = 0x100, 0x400, 0x800
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS, _IFA_PROTO = 1, 2, 4, 8, 11
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_MULTIPATH, _RTA_TABLE = 1, 4, 5, 6, 9, 15
_NLMSG, _RTMSG, _RTNEXTHOP = 16, struct.Struct("=8BI"), struct.Struct("=HBBi")  # struct nlmsghdr has 16 bytes
_NDA_DST, _NDA_LLADDR, _NDA_PROTOCOL = 1, 2, 12
_PERMANENT, _NODAD, _ONLINK, _CLONED = 0x80, 0x02, 0x04, 0x200
_MAIN, _NOWHERE = 254, 255
_LINK_LOCAL = 3  # IFAPROT_KERNEL_LL
_KERNELS = (2, 9)  # RTPROT_KERNEL, RTPROT_RA
_UNICAST, _TYPES = 1, {6: BLACKHOLE, 7: UNREACHABLE, 8: PROHIBIT}
_THERE, _GONE = {errno.EEXIST}, {errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL}


class MacOf(NamedTuple):
    """The MAC of a port, in lower case."""

    port: str
    mac: str


class AddressOf(NamedTuple):
    """An address of a port, with its prefix length."""

    port: str
    address: str


class RouteTo(NamedTuple):
    """A way to a network: by a next hop at a port, or nowhere ("blackhole", "unreachable", "prohibit"; the port is "" then)."""

    port: str
    network: str
    nexthop: str
    cost: int = COST


class NeighbourOf(NamedTuple):
    """Who has an address at a port."""

    port: str
    address: str
    mac: str


Fact = MacOf | AddressOf | RouteTo | NeighbourOf
_KINDS = {kind.__name__: kind for kind in (MacOf, AddressOf, RouteTo, NeighbourOf)}


def cost_of(network: str, metric: int) -> int:
    """The cost that a route's metric means: the kernel's own choices are none."""
    return COST if metric in ((0, 1, 1024) if ":" in network else (0, 1)) else metric


def fact_data(fact: Fact) -> list[Any]:
    """A fact as data."""
    return [type(fact).__name__, *fact]


def fact_from(data: Sequence[Any]) -> Fact:
    """The inverse of `fact_data`."""
    kind, *values = data
    made: Fact = _KINDS[kind](*values)
    return made


@dataclass
class Seen:
    """What stands in a namespace."""

    facts: set[Fact] = field(default_factory=set)
    own: set[Fact] = field(default_factory=set)  # those that the daemon has added; MACs are
    ports: set[str] = field(default_factory=set)  # that are there
    down: set[str] = field(default_factory=set)  # of them
    fresh: set[str] = field(default_factory=set)  # of them, made since `Mirror.keep` was last called


class Mirror:
    """The facts of one namespace; `with` closes it. May be used from any thread, by one at a time."""

    def __init__(self, namespace: str) -> None:
        """Raises NoSuchNamespace."""
        self._rtnl = netns.run_in(namespace, Rtnl)
        self._indexes: dict[str, int] = {}
        self._macs: dict[str, Mac] = {}
        self._link_locals: dict[str, set[ipaddress.IPv4Address | ipaddress.IPv6Address]] = {}  # those that follow from MACs

    def close(self) -> None:
        self._rtnl.close()

    def __enter__(self) -> Mirror:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- reading ----

    def read(self) -> Seen:
        """All facts. OSError if the kernel does not tell."""
        seen = Seen()
        ports = [netdev for netdev in self._rtnl.links() if netdev.ifindex >= SHADOW_BASE]
        self._indexes = {one.name: one.ifindex for one in ports}
        self._macs = {one.name: one.mac for one in ports}
        self._link_locals = {}
        names = {one.ifindex: one.name for one in ports}
        seen.ports = set(self._indexes)
        seen.down = {one.name for one in ports if not one.up}
        seen.fresh = {one.name for one in ports if not one.alias}
        for netdev in ports:
            seen.own.add(MacOf(netdev.name, str(netdev.mac)))
        for find in (self._addresses, self._routes, self._neighbours):
            for fact, own in find(names):
                (seen.own if own else seen.facts).add(fact)
        seen.facts |= seen.own
        return seen

    def _addresses(self, names: dict[int, str]) -> Iterator[tuple[Fact, bool]]:
        for message in self._rtnl.dump(_GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
            port = names.get(message["index"])
            if port is None or not (message.get_attr("IFA_FLAGS") or message["flags"]) & _PERMANENT:
                continue
            text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            address = ipaddress.ip_interface(f"{text}/{message['prefixlen']}")
            protocol = message.get_attr("IFA_PROTO")
            if protocol == _LINK_LOCAL or address.ip == link_local(self._macs[port]):
                self._link_locals.setdefault(port, set()).add(address.ip)
            else:
                yield AddressOf(port, str(address)), protocol == PROTOCOL

    def _routes(self, names: dict[int, str]) -> Iterator[tuple[Fact, bool]]:
        """There may be many: decoded by hand, a tenth of what pyroute2 takes."""
        for family in (socket.AF_INET, socket.AF_INET6):
            for _, message in self._rtnl.request(_GETROUTE, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0), NLM_F_DUMP):
                _, length, _, _, table, protocol, _, kind, flags = _RTMSG.unpack_from(message, _NLMSG)
                if protocol in _KERNELS or flags & _CLONED or (kind != _UNICAST and kind not in _TYPES):
                    continue
                found = attributes(message[_NLMSG + _RTMSG.size :])
                if int.from_bytes(found.get(_RTA_TABLE, bytes([table])), "little") != _MAIN:
                    continue
                network = f"{_text(family, found.get(_RTA_DST, bytes(4 if family == socket.AF_INET else 16)))}/{length}"
                cost = cost_of(network, int.from_bytes(found.get(_RTA_PRIORITY, b""), "little"))
                if kind in _TYPES:
                    yield RouteTo("", network, _TYPES[kind], cost), protocol == PROTOCOL
                for oif, gateway in _hops(found) if kind == _UNICAST else ():
                    if oif in names and gateway:
                        yield RouteTo(names[oif], network, _text(family, gateway), cost), protocol == PROTOCOL

    def _neighbours(self, names: dict[int, str]) -> Iterator[tuple[Fact, bool]]:
        for family in (socket.AF_INET, socket.AF_INET6):
            for message in self._rtnl.dump(_GETNEIGH, struct.pack("=B3xiHBB", family, 0, 0, 0, 0)):
                port, mac, address = names.get(message["ifindex"]), message.get_attr("NDA_LLADDR"), message.get_attr("NDA_DST")
                if port is not None and message["state"] == _PERMANENT and mac and address:
                    yield NeighbourOf(port, address, mac), message.get_attr("NDA_PROTOCOL") == PROTOCOL

    # ---- changing ----

    def keep(self, port: str) -> None:
        """The port has its facts: from now on, what goes was taken away by somebody."""
        self._rtnl.change(self._indexes[port], alias=port)

    def align(self) -> None:
        """Link-local addresses that follow from MACs follow; the kernel leaves them as they were. OSError if it refuses."""
        for port, standing in self._link_locals.items():
            right = link_local(self._macs[port])
            if standing != {right}:
                self._address(port, f"{right}/64", True, _LINK_LOCAL)
                for one in standing - {right}:
                    self._address(port, f"{one}/64", False)

    def add(self, fact: Fact) -> str:
        """Has a fact stand; why it can't, or "". A port that is not there is no reason: it will be asked for again."""
        return self._do(fact, True, _THERE)

    def remove(self, fact: Fact) -> str:
        """The opposite."""
        return self._do(fact, False, _GONE)

    def _do(self, fact: Fact, add: bool, fine: set[int]) -> str:
        if fact.port and fact.port not in self._indexes:
            return ""
        try:
            if isinstance(fact, MacOf):
                self._rtnl.change(self._indexes[fact.port], mac=Mac.parse(fact.mac))
                self._macs[fact.port] = Mac.parse(fact.mac)
            elif isinstance(fact, AddressOf):
                self._address(fact.port, fact.address, add)
            elif isinstance(fact, RouteTo):
                self._route(fact, add)
            else:
                self._neighbour(fact, add)
        except OSError as error:
            return "" if error.errno in fine else str(error.strerror)
        return ""

    def _address(self, port: str, text: str, add: bool, protocol: int = PROTOCOL) -> None:
        address = ipaddress.ip_interface(text)
        flags = _NODAD if address.version == 6 else 0
        header = struct.pack("=BBBBI", _family(address), address.network.prefixlen, flags, 0, self._indexes[port])
        more = attribute(_IFA_LOCAL, address.ip.packed) + attribute(_IFA_ADDRESS, address.ip.packed)
        if add:
            more += attribute(_IFA_FLAGS, struct.pack("=I", flags)) + attribute(_IFA_PROTO, bytes([protocol]))
            if address.version == 4 and address.network.prefixlen < 31:
                more += attribute(_IFA_BROADCAST, address.network.broadcast_address.packed)
        self._rtnl.request(_NEWADDR if add else _DELADDR, header + more, NLM_F_ACK | (_CREATE | _REPLACE if add else 0))

    def _route(self, fact: RouteTo, add: bool) -> None:
        network = ipaddress.ip_network(fact.network)
        kind = next((number for number, word in _TYPES.items() if word == fact.nexthop), _UNICAST)
        # A next hop may be in no network of the port, as the cube has it
        flags = _ONLINK if add and kind == _UNICAST else 0
        scope, protocol = (0, PROTOCOL) if add else (_NOWHERE, 0)
        header = _RTMSG.pack(_family(network), network.prefixlen, 0, 0, _MAIN, protocol, scope, kind, flags)
        more = attribute(_RTA_DST, network.network_address.packed)
        if kind == _UNICAST:
            more += attribute(_RTA_OIF, struct.pack("=I", self._indexes[fact.port]))
            more += attribute(_RTA_GATEWAY, ipaddress.ip_address(fact.nexthop).packed)
        if fact.cost != COST:
            more += attribute(_RTA_PRIORITY, struct.pack("=I", fact.cost))
        self._rtnl.request(_NEWROUTE if add else _DELROUTE, header + more, NLM_F_ACK | (_CREATE | _APPEND if add else 0))

    def _neighbour(self, fact: NeighbourOf, add: bool) -> None:
        address = ipaddress.ip_address(fact.address)
        header = struct.pack("=B3xiHBB", _family(address), self._indexes[fact.port], _PERMANENT, 0, 0)
        more = attribute(_NDA_DST, address.packed)
        if add:
            more += attribute(_NDA_LLADDR, bytes(Mac.parse(fact.mac))) + attribute(_NDA_PROTOCOL, bytes([PROTOCOL]))
        self._rtnl.request(_NEWNEIGH if add else _DELNEIGH, header + more, NLM_F_ACK | (_CREATE | _REPLACE if add else 0))


def _family(one: Any) -> int:
    return socket.AF_INET if one.version == 4 else socket.AF_INET6


def _text(family: int, address: bytes) -> str:
    return socket.inet_ntoa(address) if family == socket.AF_INET else str(ipaddress.IPv6Address(address))


def _hops(found: Mapping[int, bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Ifindex and gateway of each next hop: of a route by one, or of each struct rtnexthop."""
    several = found.get(_RTA_MULTIPATH, b"")
    if not several:
        yield int.from_bytes(found.get(_RTA_OIF, b""), "little"), found.get(_RTA_GATEWAY)
    while len(several) >= _RTNEXTHOP.size:
        length, _, _, oif = _RTNEXTHOP.unpack_from(several)
        yield oif, attributes(several[_RTNEXTHOP.size : length]).get(_RTA_GATEWAY)
        several = several[max(_RTNEXTHOP.size, (length + 3) & ~3) :]
