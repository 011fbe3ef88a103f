# SPDX-License-Identifier: Apache-2.0
"""The services of a configuration, wherever they stand in it, and what is wrong with them. No I/O."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from polycube.cubes.lbdsr.model import Encapsulation, LbdsrConfig, PoolEntry, PortType, Protocol
from polycube.model import Problem, Tag
from polycube.net.addr import Address, Mac
from polycube.toolkit.address import mapped
from polycube.toolkit.health import CheckType, HealthCheck, Target
from polycube.toolkit.maglev import BackendState, Member

PROTOCOLS = {Protocol.TCP: socket.IPPROTO_TCP, Protocol.UDP: socket.IPPROTO_UDP, Protocol.ALL: 0}
ENCAPSULATIONS = {Encapsulation.L2: 0, Encapsulation.IPIP: 1, Encapsulation.GUE: 2}


class ServiceKey(NamedTuple):
    """What clients ask for; 0 is any."""

    vip: Address
    vport: int
    proto: Protocol

    def __str__(self) -> str:
        return f"{self.vip} {self.vport} {self.proto}"

    def as_map(self) -> dict[str, Any]:
        return {"vip": {"bytes": mapped(self.vip)}, "vport": socket.htons(self.vport), "proto": PROTOCOLS[self.proto]}


class BackendKey(NamedTuple):
    """A server of a service."""

    service: ServiceKey
    id: int


@dataclass(frozen=True)
class Balanced:
    """A service with its servers."""

    key: ServiceKey
    path: tuple[str, ...]  # of its servers in the configuration
    encapsulation: Encapsulation
    check: HealthCheck
    servers: Mapping[int, PoolEntry]

    def members(self, down: frozenset[int]) -> list[Member]:
        """The servers that new flows go to."""
        return [
            Member(str(one.id), one.weight, {"id": one.id})
            for one in self.servers.values()
            if one.state is BackendState.ACTIVE and one.weight and one.id not in down
        ]

    def backend(self, one: PoolEntry) -> dict[str, Any]:
        """Its entry in the map `backends`, but for what is counted and found out."""
        address = mapped(one.ip) if one.ip is not None else bytes(16)
        mac = bytes(Mac.parse(one.mac)) if one.mac is not None else bytes(6)
        return {"address": {"bytes": address}, "mac": mac, "encapsulation": ENCAPSULATIONS[self.encapsulation]}

    def targets(self) -> Iterator[tuple[BackendKey, Target]]:
        """Who is to be checked."""
        for one in self.servers.values():
            if self.check.type is not CheckType.NONE and one.ip is not None:
                yield BackendKey(self.key, one.id), Target(one.ip, self.key.vport, self.check)


def services_of(config: LbdsrConfig) -> dict[ServiceKey, Balanced]:
    """All services, the frontend's VIP first."""
    found = {}
    if config.frontend.vip is not None:
        pool, key = config.backend, ServiceKey(config.frontend.vip, 0, Protocol.ALL)
        found[key] = Balanced(key, ("backend", "pool"), pool.encapsulation, pool.health_check, pool.pool)
    for one in config.service.values():
        key = ServiceKey(one.vip, one.vport, one.proto)
        path = ("service", str(one.vip), str(one.vport), str(one.proto), "backend")
        found[key] = Balanced(key, path, one.encapsulation, one.health_check, one.backend)
    return found


def problems(config: LbdsrConfig) -> list[Problem]:
    """What can't be done."""
    found = []
    for type in PortType:
        names = [name for name, port in config.ports.items() if port.type is type]
        if len(names) > 1:
            found.append(Problem(Tag.INVALID_VALUE, ("ports", names[1]), f"is a second {type} port, beside {names[0]}"))
    frontend = config.frontend.vip
    for one in config.service.values():
        path = ("service", str(one.vip), str(one.vport), str(one.proto))
        if one.proto is Protocol.ALL and one.vport:
            found.append(Problem(Tag.INVALID_VALUE, path, "is for all protocols, which goes with port 0 only"))
        if one.proto is Protocol.ALL and one.vip == frontend:
            found.append(Problem(Tag.INVALID_VALUE, path, "is the VIP of the frontend, whose servers stand in backend/pool"))
    for service in services_of(config).values():
        found += [problem for one in service.servers.values() for problem in _server_problems(config, service, one)]
    return found


def _server_problems(config: LbdsrConfig, service: Balanced, one: PoolEntry) -> Iterator[Problem]:
    path = (*service.path, str(one.id))
    if service.encapsulation is Encapsulation.L2:
        if one.mac is None:
            yield Problem(Tag.INVALID_VALUE, path, "needs a mac: packets reach it at layer 2")
    elif one.ip is None:
        yield Problem(Tag.INVALID_VALUE, path, f"needs an ip: packets reach it by {service.encapsulation}")
    elif one.mac is None and config.outer.gateway is None:
        yield Problem(Tag.INVALID_VALUE, path, "needs a mac, or outer/gateway, to be reached by")
    if one.mac is not None and Mac.parse(one.mac).is_multicast:
        yield Problem(Tag.INVALID_VALUE, (*path, "mac"), f"{one.mac} is a group address")
    if service.check.type is not CheckType.NONE and one.ip is None:
        yield Problem(Tag.INVALID_VALUE, path, "needs an ip to be checked at")
    if service.check.type in (CheckType.TCP, CheckType.HTTP) and not (service.check.port or service.key.vport):
        yield Problem(Tag.INVALID_VALUE, path, "can't be checked: health-check needs a port, since the service is for all ports")
