# SPDX-License-Identifier: Apache-2.0
"""Addresses of the ports: which there are, which may not be. No I/O.

Invariants, kept for every configuration: an address belongs to one port, and so does a network; networks of different length may lie in
one another, the longer one wins. A port has one IPv6 link-local address: the configured one, else that made from its MAC (RFC 4291,
appendix A).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from polycube.cubes.router.model import RouterPort, Vlan
from polycube.model import Problem, Tag
from polycube.net.addr import Address, Interface, Mac, Network, link_local, parse_interface

FILTER_BITS = 1024


@dataclass(frozen=True)
class Place:
    """Where addresses are configured: a port, or a VLAN of one."""

    name: str  # "lan", "lan.10"
    port: RouterPort
    config: RouterPort | Vlan
    vlan: int = 0

    @property
    def ip(self) -> Interface | None:
        return self.config.ip

    @property
    def path(self) -> tuple[str, ...]:
        """In the model."""
        return ("ports", self.port.name, "vlan", str(self.vlan)) if self.vlan else ("ports", self.port.name)

    def number(self, port: int) -> int:
        """What the data plane knows it by, if it knows the port by this number."""
        return self.vlan << 16 | port


def places(ports: Mapping[str, RouterPort]) -> dict[str, Place]:
    """All of them by name, a port before its VLANs."""
    found = {}
    for port in ports.values():
        found[port.name] = Place(port.name, port, port)
        for vlan, config in port.vlan.items():
            found[f"{port.name}.{vlan}"] = Place(f"{port.name}.{vlan}", port, config, vlan)
    return found


def addresses_of(place: Place) -> Iterator[Interface]:
    """The configured addresses, the primary one first."""
    if place.ip is not None:
        yield place.ip
    yield from place.config.secondaryip


def routed(port: Place) -> tuple[Interface, ...]:
    """The addresses that make routes: all but link-local ones."""
    return tuple(address for address in addresses_of(port) if not is_link_local6(address))


def link_local_of(port: Place, mac: Mac) -> ipaddress.IPv6Address:
    """The port's link-local address."""
    for address in addresses_of(port):
        if is_link_local6(address):
            assert isinstance(address, ipaddress.IPv6Interface)
            return address.ip
    return link_local(mac)


def is_link_local6(address: Address | Interface) -> bool:
    """Whether it is in fe80::/10."""
    return address.version == 6 and address.is_link_local


def first_ipv4(addresses: Iterable[str]) -> ipaddress.IPv4Interface | None:
    """The first IPv4 prefix of a netdev, loopback left out."""
    for text in addresses:
        address = parse_interface(text)
        if isinstance(address, ipaddress.IPv4Interface) and not address.is_loopback:
            return address
    return None


def filter_bit(address: Address) -> int:
    """Which bit of the data plane's filter an address has: `filter_bit` of router.h, on words as a little-endian machine loads them."""
    packed, folded = address.packed, 0
    for at in range(0, len(packed), 4):
        folded ^= int.from_bytes(packed[at : at + 4], "little")
    return (folded * 0x9E3779B1 & 0xFFFFFFFF) >> 22


def own_filter(addresses: Iterable[Address]) -> dict[str, list[int]]:
    """The value of the map `filters`."""
    words = {4: [0] * (FILTER_BITS // 64), 6: [0] * (FILTER_BITS // 64)}
    for address in addresses:
        bit = filter_bit(address)
        words[address.version][bit // 64] |= 1 << bit % 64
    return {"ipv4": words[4], "ipv6": words[6]}


def problems(ports: Mapping[str, RouterPort]) -> list[Problem]:
    """What is wrong with the addresses of all ports together."""
    found = [problem for port in ports.values() for problem in _port(port, ports)]
    seen: dict[Address, str] = {}
    networks: dict[Network, str] = {}
    for port in places(ports).values():
        found += _shape(port)
        for address in addresses_of(port):
            at = _path(port, address)
            wrong = _unusable(address)
            if wrong:
                found.append(Problem(Tag.INVALID_VALUE, at, f"cannot be {address}: {wrong}"))
            elif not is_link_local6(address):
                found += _shared(port, address, at, seen, networks)
    return found


def _path(port: Place, address: Interface) -> tuple[str, ...]:
    return (*port.path, "ip") if address == port.ip else (*port.path, "secondaryip", str(address))


def _port(port: RouterPort, ports: Mapping[str, RouterPort]) -> Iterator[Problem]:
    for vlan in port.vlan:
        if f"{port.name}.{vlan}" in ports:
            yield Problem(Tag.INVALID_VALUE, ("ports", port.name, "vlan", str(vlan)), f"is refused: there is a port {port.name}.{vlan}")
    if port.mac is not None and (Mac.parse(port.mac).is_multicast or not Mac.parse(port.mac)):
        yield Problem(Tag.INVALID_VALUE, ("ports", port.name, "mac"), f"cannot be {port.mac}: expected the MAC of one host")


def _shape(port: Place) -> Iterator[Problem]:
    at = (*port.path, "secondaryip")
    if port.ip is None and any(address.version == 4 for address in port.config.secondaryip):
        # upstream's words
        yield Problem(Tag.INVALID_VALUE, at, "is refused: You can not add a secondary ip address to a port with no ip address")
    if sum(is_link_local6(address) for address in addresses_of(port)) > 1:
        yield Problem(Tag.INVALID_VALUE, at, "holds a second link-local address: a port has one")


def _unusable(address: Interface) -> str:
    """Why no port can have an address; empty if one can."""
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        return "expected the address of one host"
    if address.version == 4:
        if int(address.ip) >> 24 in (0, 127) or int(address.ip) >> 28 == 15:
            return "expected the address of one host"
        if address.network.prefixlen < 31 and address.ip in (address.network.network_address, address.network.broadcast_address):
            return "it is the network's own or its broadcast address"
    if address.version == 6 and getattr(address.ip, "scope_id", None):
        return "a zone is not needed here"
    if address.network.prefixlen == 0:
        return "a network of length 0 is everything"
    return ""


def _shared(
    port: Place, address: Interface, at: tuple[str, ...], seen: dict[Address, str], networks: dict[Network, str]
) -> Iterator[Problem]:
    """An address twice, or a network on two ports."""
    if address.ip in seen:
        yield Problem(Tag.INVALID_VALUE, at, f"cannot be {address}: port {seen[address.ip]} has this address")
        return
    seen[address.ip] = port.name
    other = networks.setdefault(address.network, port.name)
    if other != port.name:
        yield Problem(Tag.INVALID_VALUE, at, f"cannot be {address}: network {address.network} is at port {other}")
