# SPDX-License-Identifier: Apache-2.0
"""The slow path: what the data plane hands up, and what the router says by itself.

Frames come with a reason (enum router_reason of router.h) and lead to changes of the neighbour tables, to answers, or to ICMP errors. The
engines decide; this carries out. What the router sends goes the way the data plane would send it; an error whose way back is not known
goes back to whoever handed the packet over.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

from polycube.bpf import BpfError
from polycube.core.cube import Packet as Received
from polycube.core.maps import MapViews
from polycube.core.slowpath import NotSent
from polycube.cubes.router import tables
from polycube.cubes.router.addresses import is_link_local6
from polycube.cubes.router.interface import Interface
from polycube.cubes.router.neighbour import Effect, Entry, Install, Key, Neighbours, Release, Remove, Seen, Solicit, Unreachable, Waiting
from polycube.cubes.router.routes import Kind
from polycube.net.addr import Address, Mac
from polycube.toolkit import arp, frame, icmp, nd
from polycube.toolkit.icmp import Error
from polycube.toolkit.limit import Bucket

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

ADOPT = 5  # ticks between looks at what the data plane has learnt


class Reason(IntEnum):
    """enum router_reason."""

    ARP = 1
    ND = 2
    RESOLVE = 3
    NO_ROUTE = 4
    TTL = 5
    TOO_BIG = 6
    LOCAL = 7
    FRAGMENT = 8
    UNREACHABLE = 9
    PROHIBITED = 10


ERRORS = {
    Reason.NO_ROUTE: Error.NO_ROUTE,
    Reason.TTL: Error.TIME_EXCEEDED,
    Reason.TOO_BIG: Error.TOO_BIG,
    Reason.UNREACHABLE: Error.UNREACHABLE,
    Reason.PROHIBITED: Error.PROHIBITED,
}


class Outside(Protocol):
    """What the slow path needs of its cube."""

    maps: MapViews
    log: FilteringBoundLogger

    @property
    def route_table_size(self) -> int: ...

    def interfaces(self) -> Mapping[int, Interface]: ...

    def send(self, port: int, frame: bytes) -> None: ...

    def hand_over(self, port: int, frame: bytes) -> None: ...


class Traffic:
    """The slow path of one router."""

    def __init__(self, outside: Outside, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._outside = outside
        self._clock = clock
        self.neighbours = {4: Neighbours(limit), 6: Neighbours(limit)}
        self._buckets: dict[int, Bucket] = {}
        self._announced: dict[int, object] = {}
        self._ticks = 0

    # ---- from outside ----

    def packet(self, received: Received) -> None:
        """A frame from the data plane."""
        port = self._outside.interfaces().get(received.metadata[2]) if received.port is not None else None
        if port is None or len(received.data) < 14:
            return
        if received.reason == Reason.ARP:
            self._arp(port, received.data)
            self._share(port, received.data)
        elif received.reason == Reason.ND:
            self._nd(port, received.data)
            self._share(port, received.data)
        else:
            packet = frame.read_ip(received.data)
            if packet is not None:
                self._ip(port, received, packet)

    def tick(self) -> None:
        """Once a second."""
        now = self._clock()
        self._ticks += 1
        if self._ticks % ADOPT == 1:
            self.adopt()
        for table in self.neighbours.values():
            self._do(table.tick(now, self._look))
        self._announce()

    def adopt(self) -> None:
        """Takes note of what the data plane has learnt, or kept from a control plane before this one."""
        now = self._clock()
        for version, table in self.neighbours.items():
            for key, seen in list(tables.learnt(self._outside.maps, version)):
                entry = table.get(key)
                if entry is None or entry.mac != seen.mac:
                    self._do(table.adopt(key, seen, now))

    def forget(self, wanted: Callable[[Key], bool]) -> bool:
        """Removes learnt neighbours; False if there was none."""
        found = False
        for version, table in self.neighbours.items():
            keys = {key for key, _ in table.items()} | {key for key, _ in tables.learnt(self._outside.maps, version)}
            for key in filter(wanted, keys):
                found = True
                self._do([*table.forget(key), Remove(key)])
        return found

    def now(self) -> float:
        """The time that entries are noted with."""
        return self._clock()

    def learnt(self) -> Iterator[tuple[Key, Entry]]:
        """All neighbours that were not configured."""
        for table in self.neighbours.values():
            yield from table.items()

    @property
    def refused(self) -> int:
        """Neighbours that found no room."""
        return sum(table.refused for table in self.neighbours.values())

    def _share(self, port: Interface, data: bytes) -> None:
        """What neighbours answer may have been asked for in the namespace of a shadow router."""
        try:
            self._outside.hand_over(port.port, frame.tagged(data, port.vlan) if port.vlan else data)
        except NotSent as error:
            self._outside.log.debug(str(error))

    # ---- neighbours ----

    def _look(self, key: Key) -> Seen | None:
        return tables.read_neighbour(self._outside.maps, key) if key.interface in self._outside.interfaces() else None

    def _arp(self, port: Interface, data: bytes) -> None:
        message = arp.read(data)
        if message is None or message.operation != arp.REPLY or message.sender_mac.is_multicast:
            return
        if port.owns(message.sender):
            self._conflict(port, message.sender, message.sender_mac)
            return
        solicited = port.owns(message.target) and not data[0] & 1
        key = Key(port.number, message.sender)
        self._do(self.neighbours[4].heard(key, message.sender_mac, self._clock(), solicited=solicited))

    def _nd(self, port: Interface, data: bytes) -> None:
        message = nd.read(data)
        if message is None:
            return
        if message.kind == nd.SOLICITATION:
            self._solicited(port, message, frame.source_mac(data))
        elif port.owns(message.target):
            self._conflict(port, message.target, message.mac)
        else:
            key = Key(port.number, message.target)
            effects = self.neighbours[6].heard(key, message.mac, self._clock(), solicited=message.solicited, override=message.override)
            self._do(effects)

    def _solicited(self, port: Interface, message: nd.Message, sender: Mac) -> None:
        if not port.owns(message.target):
            return
        if message.source == nd.UNSPECIFIED:  # somebody wants our address: tell everybody that it is taken
            self._send(port, nd.advertisement(port.mac, message.target))
            return
        if message.mac is not None and self._on_link(port, message.source):
            key = Key(port.number, message.source)
            self._do(self.neighbours[6].heard(key, message.mac, self._clock(), solicited=False, create=True))
        self._send(port, nd.advertisement(port.mac, message.target, (message.source, message.mac or sender)))

    def _on_link(self, port: Interface, address: Address) -> bool:
        return is_link_local6(address) or any(address in one.network for one in port.ipv6)

    def _conflict(self, port: Interface, address: Address, mac: Mac | None) -> None:
        self._outside.log.warning(f"{mac or 'somebody'} claims {address}, an address of port {port.name}")

    def _do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Solicit):
                self._solicit(effect)
            elif isinstance(effect, Install):
                self._install(effect)
            elif isinstance(effect, Remove):
                tables.remove_neighbour(self._outside.maps, effect.key)
            elif isinstance(effect, Release):
                self._release(effect)
            else:
                self._unreachable(effect)

    def _install(self, effect: Install) -> None:
        try:
            tables.write_neighbour(self._outside.maps, effect.key, effect.mac)
        except BpfError as error:  # full: what waits is sent all the same, the next packet asks again
            self._outside.log.warning(f"cannot keep neighbour {effect.key.address}: {error}")

    def _solicit(self, effect: Solicit) -> None:
        port = self._outside.interfaces().get(effect.key.interface)
        if port is None:
            return
        target = effect.key.address
        if isinstance(target, ipaddress.IPv4Address):
            source = port.source4(target) or self._any(4)
            sender = source if isinstance(source, ipaddress.IPv4Address) else arp.NOBODY
            self._send(port, arp.request(port.mac, sender, target, effect.mac))
        else:
            self._send(port, nd.solicitation(port.mac, port.source6(target), target, effect.mac))

    def _release(self, effect: Release) -> None:
        port = self._outside.interfaces().get(effect.key.interface)
        for waiting in effect.packets if port is not None else ():
            packet = frame.read_ip(waiting.frame)
            onward = frame.forwarded(packet.data) if packet is not None else None
            if onward is not None:
                assert port is not None
                self._forward(port, effect.mac, onward)

    def _forward(self, port: Interface, mac: Mac, packet: bytes) -> None:
        """One hop further, in pieces if need be."""
        fits = packet[0] >> 4 != 4 or not port.mtu or len(packet) <= port.mtu
        for piece in [packet] if fits else frame.fragments(packet, port.mtu):
            self._send(port, frame.ip_frame(mac, port.mac, piece))

    def _unreachable(self, effect: Unreachable) -> None:
        for waiting in effect.packets:
            port = self._outside.interfaces().get(waiting.interface)
            packet = frame.read_ip(waiting.frame)
            if port is not None and packet is not None:
                self._report(Error.HOST_UNREACHABLE, port, waiting.frame, packet)

    # ---- packets ----

    def _ip(self, port: Interface, received: Received, packet: frame.Packet) -> None:
        if received.reason in (Reason.RESOLVE, Reason.FRAGMENT):
            self._resolve(received.data, port, packet.target, received.metadata[0] >> 28)
        elif received.reason == Reason.LOCAL:
            self._local(port, received.data, packet)
        elif received.reason in ERRORS:
            self._report(ERRORS[Reason(received.reason)], port, received.data, packet, received.metadata[1])

    def _resolve(self, data: bytes, port: Interface, target: Address, path: int = 0) -> bool:
        """A packet for a neighbour to be found; False if there is no way at all."""
        way = tables.lookup(self._outside.maps, target, self._outside.route_table_size, path)
        if way is None or way[1] is not Kind.UNICAST:
            return False
        key = Key(way[0], way[2] if way[2] is not None else target)
        seen = tables.read_neighbour(self._outside.maps, key, configured=True)
        self._do(self._found(key, data, port, seen))
        return True

    def _found(self, key: Key, data: bytes, port: Interface, seen: Seen | None) -> list[Effect]:
        waiting = Waiting(data, port.number)
        if seen is not None and tables.read_neighbour(self._outside.maps, key) is None:
            return [Release(key, seen.mac, (waiting,))]  # configured
        return self.neighbours[key.address.version].resolve(key, waiting, self._clock(), seen)

    def _local(self, port: Interface, data: bytes, packet: frame.Packet) -> None:
        """To the router itself, and not answered by the data plane."""
        reply = icmp.echo_reply(packet)
        if reply is not None:
            self._originate(reply, port, data, packet.source)
        elif not packet.whole or packet.protocol in (frame.ICMP, frame.ICMP6, frame.NONE):
            return
        elif packet.protocol in (frame.TCP, frame.UDP):
            self._report(Error.PORT_UNREACHABLE, port, data, packet, source=packet.target)
        else:
            self._report(Error.PROTOCOL_UNREACHABLE, port, data, packet, packet.pointer, source=packet.target)

    def _report(
        self, kind: Error, port: Interface, data: bytes, packet: frame.Packet, extra: int = 0, source: Address | None = None
    ) -> None:
        """An ICMP error to the sender of a packet, if it may be told and was not told too often."""
        if data[0] & 1 or not icmp.may_answer(packet) or any(one.owns(packet.source) for one in self._outside.interfaces().values()):
            return
        source = source or self._source(port, packet.source)
        if source is None or not self._buckets.setdefault(port.number, Bucket()).take(self._clock()):
            return
        self._originate(icmp.error(kind, packet, source, extra), port, data, packet.source)

    def _source(self, port: Interface, target: Address) -> Address | None:
        """The address to report from: the port's primary one (RFC 1812 4.3.2.4), else any."""
        if target.version == 4:
            return port.ipv4[0].ip if port.ipv4 else self._any(4)
        if target.is_link_local:
            return port.link_local
        return port.ipv6[0].ip if port.ipv6 else self._any(6) or port.link_local

    def _any(self, version: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        for one in self._outside.interfaces().values():
            for address in one.ipv4 if version == 4 else one.ipv6:
                return address.ip
        return None

    def _originate(self, packet: bytes, port: Interface, data: bytes, target: Address) -> None:
        """A packet of the router's own, caused by a frame from `port`."""
        back = frame.ip_frame(frame.source_mac(data), port.mac, packet)
        if is_link_local6(target) or not self._resolve(back, port, target):
            self._send(port, back)

    # ---- sending ----

    def _announce(self) -> None:
        """Tells neighbours of addresses and MACs that are new, on ports that are up (RFC 5227 2.3, RFC 4861 7.2.6)."""
        ports = self._outside.interfaces()
        self._announced = {number: known for number, known in self._announced.items() if number in ports and ports[number].up}
        for number, port in ports.items():
            if not port.up or self._announced.get(number) == port.announced():
                continue
            self._announced[number] = port.announced()
            for address in port.ipv4:
                self._send(port, arp.announcement(port.mac, address.ip))
            for target in (port.link_local, *(one.ip for one in port.ipv6)):
                self._send(port, nd.advertisement(port.mac, target))

    def _send(self, port: Interface, data: bytes) -> None:
        try:
            self._outside.send(port.port, frame.tagged(data, port.vlan) if port.vlan else data)
        except NotSent as error:
            self._outside.log.debug(str(error))
