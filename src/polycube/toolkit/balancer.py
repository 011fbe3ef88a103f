# SPDX-License-Identifier: Apache-2.0
"""What load balancers have in common: services by virtual address, a Maglev table of backends for each, health checks.

The data plane's half is `balance.h`. A service that changes gets another Maglev table, whole, and its entry is switched to it; all its
backends stand in a map of the cube's, with what health checks say (`down`) and how often they were chosen (`flows`). `apply` records
that; what checks find out is written at once, by the same functions (`Tables` keeps the two apart).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, TypeVar

from polycube.core.config import StandardCube
from polycube.core.cube import Cube, Packet, every
from polycube.core.slowpath import NotSent
from polycube.model import Choice, Diff, container, leaf
from polycube.net.addr import Address
from polycube.toolkit.address import mapped
from polycube.toolkit.checker import Checker
from polycube.toolkit.health import Health, Record, Target
from polycube.toolkit.maglev import Member, Tables, TableSize, number_for, number_of
from polycube.toolkit.vantage import ProbeHost, set_limit

VANTAGE = 1  # the reason of frames for the cube's own host (vantage.h)
NO_PORT = 0xFFFF


class PortType(Choice):
    """Which side a port is on."""

    FRONTEND = "FRONTEND"
    BACKEND = "BACKEND"


class BalancerConfig(StandardCube):
    """What is configured of any balancer; its ports have a `type`."""

    probe: ProbeHost = container("Where health checks go out from")
    table_size: TableSize = leaf("Slots of the table of each service, a power of two", default=16384, init_only=True)


C = TypeVar("C", bound=BalancerConfig)


class ServiceKey(NamedTuple):
    """A service as the data plane has it (struct pcn_service_key); port or protocol 0: as the data plane understands that."""

    vip: Address
    vport: int
    proto: int

    def __str__(self) -> str:
        return f"{self.vip} {self.vport} {self.proto}"

    def as_map(self) -> dict[str, Any]:
        return {"vip": {"bytes": mapped(self.vip)}, "vport": socket.htons(self.vport), "proto": self.proto}


class BackendKey(NamedTuple):
    """A backend as it is configured: whom a health check is about. Several services of the data plane may have it."""

    service: str
    backend: str

    def __str__(self) -> str:
        return f"backend {self.backend} of {self.service}"


@dataclass(frozen=True)
class Server:
    """A backend of a service."""

    about: BackendKey
    key: Mapping[str, Any]  # its entry's, beside the number of the service
    value: Mapping[str, Any]  # there, beside `flows` and `down`
    member: Member  # weight 0: it gets no new flows
    target: Target | None = None  # how it is checked; None: it is taken to be well


@dataclass(frozen=True)
class Balanced:
    """A service with its backends. Equal, if what it was made from is."""

    source: Any  # the part of the configuration
    make: Callable[[], Sequence[Server]] = field(compare=False, repr=False)  # its backends, when somebody asks for them
    value: Mapping[str, Any] = field(default_factory=dict)  # its entry's, beside the table and the number

    @cached_property
    def servers(self) -> Sequence[Server]:
        return self.make()


class Balancer(Cube[C]):
    """A cube that spreads flows over backends."""

    backends: ClassVar[str]  # the map with an entry for each backend of each service

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._checker: Checker[BackendKey] = Checker(self._turned, self._probe, self.log)
        self._made: list[tuple[C, Mapping[ServiceKey, Balanced]]] = []  # of the last two configurations: the new and the old one

    # ---- for authors to define ----

    def services(self, config: C) -> Mapping[ServiceKey, Balanced]:
        """What a configuration means to the data plane."""
        raise NotImplementedError

    def lost(self, servers: Sequence[tuple[ServiceKey, Server]]) -> None:
        """A backend was found to be down: its entries."""

    # ---- configuration ----

    def balance(self, change: Diff[C]) -> None:
        """The part of `apply` that is about services and the cube's own host."""
        if change.new is None:
            return
        if change.old is None:
            set_limit(self.maps)
        placed = change.new.probe.placed(self.uuid)
        self.cfg["vantage"] = placed.cfg() if placed is not None else {}
        before, after = self._services_of(change.old) if change.old is not None else {}, self._services_of(change.new)
        self._write_vips({key.vip for key in before}, {key.vip for key in after})
        for key, service in after.items():
            if before.get(key) != service:
                self._place(key, service, before.get(key), recorded=True)
        for key in before.keys() - after.keys():
            self._erase(key, before[key])

    def _services_of(self, config: C) -> Mapping[ServiceKey, Balanced]:
        """`services`, but made once for each configuration, and of the one before what is still the same."""
        for known, made in self._made:
            if known is config:
                return made
        before = self._made[0][1] if self._made else {}
        found = {key: before[key] if before.get(key) == one else one for key, one in self.services(config).items()}
        self._made = [(config, found), *self._made[:1]]
        return found

    def _write_vips(self, before: set[Address], after: set[Address]) -> None:
        for vip in after - before:
            self.maps["vips"][{"bytes": mapped(vip)}] = 1
        for vip in before - after:
            del self.maps["vips"][{"bytes": mapped(vip)}]

    def _place(self, key: ServiceKey, service: Balanced, before: Balanced | None = None, *, recorded: bool = False) -> None:
        """Writes backends, then a table of them, then the service's entry; what is no longer used goes last."""
        assert self.current is not None
        services, backends = self.maps["services"], self.maps[self.backends]
        present = services.get(key.as_map())
        number = present["number"] if present is not None else number_for(str(key), self._numbers())
        down = self._down(key, service.servers)
        for one in service.servers:
            where = {"service": number, **one.key}
            known = backends.get(where)
            value = {**one.value, "flows": known["flows"] if known is not None else 0, "down": int(one.about in down)}
            if value != known:
                backends[where] = value
        members = [one.member for one in service.servers if one.member.weight and one.about not in down]
        maglev = self._tables.place(number, present["maglev"] if present is not None else None, members, recorded=recorded)
        entry = {**service.value, "maglev": maglev, "number": number}
        if entry != present:
            services[key.as_map()] = entry
        kept = {repr(one.key) for one in service.servers}
        for one in before.servers if before is not None else ():
            if repr(one.key) not in kept:
                del backends[{"service": number, **one.key}]

    def _erase(self, key: ServiceKey, service: Balanced) -> None:
        present = self.maps["services"].get(key.as_map())
        if present is None:
            return
        del self.maps["services"][key.as_map()]
        for one in service.servers:
            del self.maps[self.backends][{"service": present["number"], **one.key}]
        self._tables.erase(present["number"])

    @property
    def _tables(self) -> Tables:
        assert self.current is not None
        return Tables(self.maps, self.current.table_size)

    def _numbers(self) -> set[int]:
        return {number_of(value["maglev"]) for _, value in self.maps["services"].items()}

    # ---- health ----

    def _down(self, key: ServiceKey, servers: Iterable[Server]) -> set[BackendKey]:
        """Backends that are down, by the checks of this control plane or, before they have said anything, by what stands in the map."""
        checked = [one for one in servers if one.target is not None]
        health = {one.about: self._checker.monitor.health(one.about) for one in checked}
        marked = self._marked(key, [one for one in checked if health[one.about] is Health.UNCHECKED])
        return {about for about, known in health.items() if known is Health.DOWN} | marked

    def _marked(self, key: ServiceKey, servers: Iterable[Server]) -> set[BackendKey]:
        return {one.about for one, found in self._entries(key, servers) if found["down"]}

    def _entries(self, key: ServiceKey, servers: Iterable[Server]) -> Iterable[tuple[Server, Mapping[str, Any]]]:
        """What the data plane has of them."""
        present = self.maps["services"].get(key.as_map())
        for one in servers if present is not None else ():
            found = self.maps[self.backends].get({"service": present["number"], **one.key})
            if found is not None:
                yield one, found

    def _standing(self) -> Mapping[ServiceKey, Balanced]:
        return self._services_of(self.current) if self.current is not None else {}

    async def start(self) -> None:
        """What was found in the maps may be older than the configuration, if the daemon died between the two."""
        for key, service in self._standing().items():
            self._place(key, service)

    @every(1.0)
    async def check(self) -> None:
        """Follows the configuration, and mends what a change that came to nothing may have left."""
        assert self.current is not None
        targets: dict[BackendKey, Target] = {}
        known: dict[BackendKey, bool] = {}
        for key, service in self._standing().items():
            asked = {one.about: one.target for one in service.servers if one.target is not None}
            if asked:
                targets |= asked
                known |= dict.fromkeys(self._marked(key, (one for one in service.servers if one.target is not None)), False)
                self._place(key, service)
        await self._checker.follow(self.current.probe.placed(self.uuid), targets, known)

    def _turned(self, about: BackendKey, record: Record) -> None:
        concerned = [(key, one) for key, service in self._standing().items() for one in service.servers if one.about == about]
        if not concerned:
            return
        down = record.health is Health.DOWN
        self.log.info(f"{about} is {record.health}" + (f": {record.reason}" if down else ""))
        for key, _ in concerned:
            self._place(key, self._standing()[key])
        if down:
            self.lost(concerned)

    def _probe(self, frame: bytes) -> None:
        """Out of the backend port."""
        for name, port in self.current.ports.items() if self.current is not None else ():
            if getattr(port, "type", None) is PortType.BACKEND and name in self.ports:
                try:
                    self.send(self.ports[name], frame)
                except NotSent as error:
                    self.log.debug(str(error))

    async def packet(self, packet: Packet) -> None:
        if packet.reason == VANTAGE:
            self._checker.receive(packet.data)

    def close(self) -> None:
        self._checker.close()

    # ---- state ----

    def known(self) -> dict[BackendKey, dict[str, Any]]:
        """Of each backend its `health`, and the `flows` that it was chosen for, in all services that have it."""
        found: dict[BackendKey, dict[str, Any]] = {}
        for key, service in self._standing().items():
            for one in service.servers:
                found.setdefault(one.about, {"health": str(self._checker.monitor.health(one.about)), "flows": 0})
            for one, entry in self._entries(key, service.servers):
                found[one.about]["flows"] += entry["flows"]
        return found
