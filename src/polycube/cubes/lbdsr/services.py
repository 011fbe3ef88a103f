# SPDX-License-Identifier: Apache-2.0
"""The services of a configuration, wherever they stand in it, and what is wrong with them. No I/O."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from polycube.cubes.lbdsr.model import Encapsulation, LbdsrConfig, PoolEntry, Protocol
from polycube.model import Problem, Tag
from polycube.net.addr import Address, Mac
from polycube.toolkit.address import mapped
from polycube.toolkit.balancer import BackendKey, PortType, Server, ServiceKey
from polycube.toolkit.health import CheckType, HealthCheck, Target
from polycube.toolkit.maglev import BackendState, Member

PROTOCOLS = {Protocol.TCP: socket.IPPROTO_TCP, Protocol.UDP: socket.IPPROTO_UDP, Protocol.ALL: 0}
ENCAPSULATIONS = {Encapsulation.L2: 0, Encapsulation.IPIP: 1, Encapsulation.GUE: 2}


@dataclass(frozen=True)
class Pool:
    """A service, wherever it stands in the configuration."""

    vip: Address
    vport: int
    proto: Protocol
    path: tuple[str, ...]  # of its servers
    encapsulation: Encapsulation
    check: HealthCheck
    entries: Mapping[int, PoolEntry]

    @property
    def key(self) -> ServiceKey:
        return ServiceKey(self.vip, self.vport, PROTOCOLS[self.proto])

    def about(self, id: int) -> BackendKey:
        return BackendKey(f"{self.vip} {self.vport} {self.proto}", str(id))

    def servers(self) -> list[Server]:
        return [self._server(one) for one in self.entries.values()]

    def _server(self, one: PoolEntry) -> Server:
        address = mapped(one.ip) if one.ip is not None else bytes(16)
        mac = bytes(Mac.parse(one.mac)) if one.mac is not None else bytes(6)
        value = {"address": {"bytes": address}, "mac": mac, "encapsulation": ENCAPSULATIONS[self.encapsulation]}
        member = Member(str(one.id), one.weight if one.state is BackendState.ACTIVE else 0, {"id": one.id})
        target = Target(one.ip, self.vport, self.check) if self.check.type is not CheckType.NONE and one.ip is not None else None
        return Server(self.about(one.id), {"id": one.id}, value, member, target)


def pools(config: LbdsrConfig) -> list[Pool]:
    """All services, the frontend's VIP first."""
    found = []
    if config.frontend.vip is not None:
        pool = config.backend
        found.append(Pool(config.frontend.vip, 0, Protocol.ALL, ("backend", "pool"), pool.encapsulation, pool.health_check, pool.pool))
    for one in config.service.values():
        path = ("service", str(one.vip), str(one.vport), str(one.proto), "backend")
        found.append(Pool(one.vip, one.vport, one.proto, path, one.encapsulation, one.health_check, one.backend))
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
    for pool in pools(config):
        found += [problem for one in pool.entries.values() for problem in _server_problems(config, pool, one)]
    return found


def _server_problems(config: LbdsrConfig, pool: Pool, one: PoolEntry) -> Iterator[Problem]:
    path = (*pool.path, str(one.id))
    if pool.encapsulation is Encapsulation.L2:
        if one.mac is None:
            yield Problem(Tag.INVALID_VALUE, path, "needs a mac: packets reach it at layer 2")
    elif one.ip is None:
        yield Problem(Tag.INVALID_VALUE, path, f"needs an ip: packets reach it by {pool.encapsulation}")
    elif one.mac is None and config.outer.gateway is None:
        yield Problem(Tag.INVALID_VALUE, path, "needs a mac, or outer/gateway, to be reached by")
    if one.mac is not None and Mac.parse(one.mac).is_multicast:
        yield Problem(Tag.INVALID_VALUE, (*path, "mac"), f"{one.mac} is a group address")
    if pool.check.type is not CheckType.NONE and one.ip is None:
        yield Problem(Tag.INVALID_VALUE, path, "needs an ip to be checked at")
    if pool.check.type in (CheckType.TCP, CheckType.HTTP) and not (pool.check.port or pool.vport):
        yield Problem(Tag.INVALID_VALUE, path, "can't be checked: health-check needs a port, since the service is for all ports")
