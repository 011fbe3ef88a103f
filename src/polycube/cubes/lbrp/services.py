# SPDX-License-Identifier: Apache-2.0
"""From the configuration to what the data plane looks for, and what is wrong with it. No I/O."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from polycube.cubes.lbrp.model import Backend, LbrpConfig, LbrpPort, PortMode, Protocol, Service, SrcIpRewrite
from polycube.model import Problem, Tag
from polycube.net.addr import Address
from polycube.toolkit.address import mapped
from polycube.toolkit.balancer import BackendKey, Balanced, PortType, Server, ServiceKey
from polycube.toolkit.health import CheckType, Target
from polycube.toolkit.maglev import BackendState, Member

_PROTOCOLS = {Protocol.TCP: socket.IPPROTO_TCP, Protocol.UDP: socket.IPPROTO_UDP, Protocol.ICMP: socket.IPPROTO_ICMP}


def name_of(service: Service) -> str:
    """A service as it is configured."""
    return f"{service.vip} {service.vport} {service.proto}"


def about(service: Service, ip: Address) -> BackendKey:
    """One of its backends."""
    return BackendKey(name_of(service), str(ip))


def balanced(config: LbrpConfig) -> dict[ServiceKey, Balanced]:
    """All services by what stands for them in the data plane."""
    found: dict[ServiceKey, Balanced] = {}
    for service in config.service.values():
        key = ServiceKey(service.vip, service.vport, _PROTOCOLS[service.proto])
        found[key] = Balanced(service, partial(_servers, key, service), {"affinity": service.affinity})
    return found


def _servers(key: ServiceKey, service: Service) -> list[Server]:
    return [_server(key, service, one) for one in service.backend.values()]


def _server(key: ServiceKey, service: Service, one: Backend) -> Server:
    port = 0 if key.proto == socket.IPPROTO_ICMP else one.port
    backend = {"address": {"bytes": mapped(one.ip)}, "port": socket.htons(port)}
    weight = 0 if one.state is not BackendState.ACTIVE else 1 if one.weight is None else one.weight
    target = Target(one.ip, one.port, service.health_check) if service.health_check.type is not CheckType.NONE else None
    member = Member(f"{one.ip} {one.port}", weight, backend)
    return Server(about(service, one.ip), {"backend": backend}, {"takes": int(weight > 0)}, member, target)


def frontends(config: LbrpConfig, numbers: Mapping[str, int]) -> dict[Address, int]:
    """MULTI: who is behind which port."""
    if config.port_mode is PortMode.SINGLE:
        return {}
    return {ip: numbers[name] for name, port in config.ports.items() if name in numbers for ip in addresses_of(port)}


def addresses_of(port: LbrpPort) -> list[Address]:
    return ([port.ip] if port.ip is not None else []) + list(port.secondaryip)


def rewrite(config: SrcIpRewrite) -> dict[str, Any]:
    """struct lbrp_rewrite."""
    if config.ip_range is None or config.new_ip_range is None:
        return {}
    mask = config.ip_range.netmask.packed
    return {
        "on": 1,
        "range": {"bytes": mapped(config.ip_range.network_address)},
        "new_range": {"bytes": mapped(config.new_ip_range.network_address)},
        "mask": {"bytes": b"\xff" * (16 - len(mask)) + mask},
    }


def problems(config: LbrpConfig) -> list[Problem]:
    """What can't be done."""
    return [*_port_problems(config), *_rewrite_problems(config.src_ip_rewrite), *_service_problems(config)]


def _wrong(path: tuple[str, ...], text: str) -> Problem:
    return Problem(Tag.INVALID_VALUE, path, text)


def _port_problems(config: LbrpConfig) -> Iterator[Problem]:
    multi = config.port_mode is PortMode.MULTI
    first: dict[PortType, str] = {}
    owners: dict[Address, str] = {}
    for name, port in config.ports.items():
        before = first.setdefault(port.type, name)
        if before != name and not (multi and port.type is PortType.FRONTEND):
            yield _wrong(("ports", name), f"is a second {port.type} port, beside {before}" + ("" if multi else ": port_mode is SINGLE"))
        if port.type is PortType.BACKEND or not multi:
            if addresses_of(port):
                yield _wrong(("ports", name, "ip"), "is for frontends in port_mode MULTI")
            continue
        if port.ip is None:
            yield _wrong(("ports", name), "needs an ip: port_mode is MULTI")
        for ip in addresses_of(port):
            owner = owners.setdefault(ip, name)
            if owner != name:
                yield _wrong(("ports", name, "ip"), f"{ip} is that of {owner} already")


def _rewrite_problems(config: SrcIpRewrite) -> Iterator[Problem]:
    old, new = config.ip_range, config.new_ip_range
    if old is None and new is None:
        return
    if old is None or new is None:
        yield _wrong(("src-ip-rewrite",), "needs both ip-range and new_ip_range")
    elif old.version != new.version or old.prefixlen != new.prefixlen:
        yield _wrong(("src-ip-rewrite", "new_ip_range"), f"{new} is not of the size of {old}")
    elif old == new:
        yield _wrong(("src-ip-rewrite", "new_ip_range"), f"{new} is what it was")


def _service_problems(config: LbrpConfig) -> Iterator[Problem]:
    for service in config.service.values():
        path = ("service", str(service.vip), str(service.vport), str(service.proto))
        if (service.proto is Protocol.ICMP) != (service.vport == 0):
            yield _wrong(path, "ICMP has vport 0, and nothing else has")
        for one in service.backend.values():
            where = (*path, "backend", str(one.ip))
            if one.ip.version != service.vip.version:
                yield _wrong(where, f"is not of the IP version of {service.vip}")
            if one.port == 0 and service.proto is not Protocol.ICMP:
                yield _wrong((*where, "port"), "0 is no port to send to")
            if one.ip.is_multicast or one.ip.is_unspecified:
                yield _wrong(where, "is no host's address")
            if service.health_check.type in (CheckType.TCP, CheckType.HTTP) and not (one.port or service.health_check.port):
                yield _wrong((*path, "health-check", "port"), "is needed: backends of ICMP have none")
