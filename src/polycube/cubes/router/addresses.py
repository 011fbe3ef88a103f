# SPDX-License-Identifier: Apache-2.0
"""Addresses of the ports: which there are, which may not be. No I/O.

Invariants, kept for every configuration: an address belongs to one port, and so does a network; networks of different length may lie in
one another, the longer one wins. A port has one IPv6 link-local address: the configured one, else that made from its MAC (RFC 4291,
appendix A).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping

from polycube.cubes.router.model import RouterPort
from polycube.model import Problem, Tag
from polycube.net.addr import Address, Interface, Mac, Network, link_local, parse_interface

FILTER_BITS = 1024


def addresses_of(port: RouterPort) -> Iterator[Interface]:
    """The configured addresses, the primary one first."""
    if port.ip is not None:
        yield port.ip
    yield from port.secondaryip


def routed(port: RouterPort) -> tuple[Interface, ...]:
    """The addresses that make routes: all but link-local ones."""
    return tuple(address for address in addresses_of(port) if not is_link_local6(address))


def link_local_of(port: RouterPort, mac: Mac) -> ipaddress.IPv6Address:
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
    found: list[Problem] = []
    seen: dict[Address, str] = {}
    networks: dict[Network, str] = {}
    for port in ports.values():
        found += _shape(port)
        for address in addresses_of(port):
            at = _path(port, address)
            wrong = _unusable(address)
            if wrong:
                found.append(Problem(Tag.INVALID_VALUE, at, f"cannot be {address}: {wrong}"))
            elif not is_link_local6(address):
                found += _shared(port, address, at, seen, networks)
    return found


def _path(port: RouterPort, address: Interface) -> tuple[str, ...]:
    return ("ports", port.name, "ip") if address == port.ip else ("ports", port.name, "secondaryip", str(address))


def _shape(port: RouterPort) -> Iterator[Problem]:
    at = ("ports", port.name, "secondaryip")
    if port.ip is None and any(address.version == 4 for address in port.secondaryip):
        # upstream's words
        yield Problem(Tag.INVALID_VALUE, at, "is refused: You can not add a secondary ip address to a port with no ip address")
    if sum(is_link_local6(address) for address in addresses_of(port)) > 1:
        yield Problem(Tag.INVALID_VALUE, at, "holds a second link-local address: a port has one")
    if port.mac is not None and (Mac.parse(port.mac).is_multicast or not Mac.parse(port.mac)):
        yield Problem(Tag.INVALID_VALUE, ("ports", port.name, "mac"), f"cannot be {port.mac}: expected the MAC of one host")


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
    port: RouterPort, address: Interface, at: tuple[str, ...], seen: dict[Address, str], networks: dict[Network, str]
) -> Iterator[Problem]:
    """An address twice, or a network on two ports."""
    if address.ip in seen:
        yield Problem(Tag.INVALID_VALUE, at, f"cannot be {address}: port {seen[address.ip]} has this address")
        return
    seen[address.ip] = port.name
    other = networks.setdefault(address.network, port.name)
    if other != port.name:
        yield Problem(Tag.INVALID_VALUE, at, f"cannot be {address}: network {address.network} is at port {other}")
