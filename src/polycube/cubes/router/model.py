# SPDX-License-Identifier: Apache-2.0
"""The router's data model: upstream's, with IPv6 beside IPv4.

Two leaves take more than addresses. The next hop of a route may be a word: `blackhole`, `unreachable` and `prohibit` lead nowhere; `local`
is shown with the routes that come from the ports' addresses, and may not be configured. The address of a neighbour may carry a zone
(`fe80::1%port1`, RFC 4007): link-local addresses are unique within a port only; `10.0.0.1/32`, as upstream's type allows, is the address.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from polycube.core.config import Port, StandardCube
from polycube.model import (
    COUNTER,
    Choice,
    IpInterface,
    IpPrefix,
    Keyed,
    MacAddress,
    Metric,
    Name,
    Named,
    Node,
    Uint32,
    VlanId,
    host_address,
    key,
    leaf,
    listing,
    state,
)

LOCAL = "local"
BLACKHOLE, UNREACHABLE, PROHIBIT = NOWHERE = ("blackhole", "unreachable", "prohibit")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

DEFAULT_ROUTES = 10_000
DEFAULT_NEIGHBOURS = 4096


def _next_hop(value: Any) -> Address | str:
    if value == LOCAL or value in NOWHERE:
        return str(value)
    return _address(value)


def _neighbour(value: Any) -> Address:
    if isinstance(value, str):
        address, slash, length = value.partition("/")
        if slash and length != ("128" if ":" in address else "32"):
            raise ValueError("not a host's address")
        value = address
    return _address(value)


def _address(value: Any) -> Address:
    if not isinstance(value, str | ipaddress.IPv4Address | ipaddress.IPv6Address):
        raise ValueError("not text of an address")
    return host_address(value) if isinstance(value, str) else value


def _type(parse: Any, name: str, expected: str, example: str) -> Any:
    return (
        PlainValidator(parse),
        PlainSerializer(str, return_type=str, when_used="json"),
        WithJsonSchema({"type": "string", "format": name}),
        Named(name, expected, example),
    )


NextHop = Annotated[
    ipaddress.IPv4Address | ipaddress.IPv6Address | str,
    *_type(_next_hop, "next-hop", "an IPv4 or IPv6 address such as 10.0.0.1, blackhole, unreachable or prohibit", "10.0.0.1"),
]
NeighbourAddress = Annotated[
    ipaddress.IPv4Address | ipaddress.IPv6Address,
    *_type(_neighbour, "ip-address", "an IPv4 or IPv6 address such as 10.0.0.1", "10.0.0.1"),
]


class NeighbourState(Choice):
    """What is known of a neighbour (RFC 4861, 7.3.2); DELAY has no place here, since one second decides."""

    INCOMPLETE = "incomplete"
    REACHABLE = "reachable"
    STALE = "stale"
    PROBE = "probe"
    PERMANENT = "permanent"


class Urpf(Choice):
    """Which sources may send (RFC 3704)."""

    NONE = "none"
    LOOSE = "loose"
    STRICT = "strict"


class SecondaryIp(Node):
    """One more address of a port."""

    ip: IpInterface = key("Additional address and prefix length", example="10.0.2.254/24")


class Vlan(Node):
    """A VLAN of a port: an interface of its own, called `<port>.<vlan>`."""

    vlan: VlanId = key("Tag of its frames", example="10")
    ip: IpInterface | None = leaf("Primary address and prefix length", default=None, example="10.0.10.254/24")
    secondaryip: Keyed[SecondaryIp] = listing("Additional addresses")
    urpf: Urpf = leaf("Sources that are let in: all, those with a route, or those whose route leads here", default=Urpf.NONE)


class RouterPort(Port):
    """A port of the router: an interface of its own network, or networks."""

    ip: IpInterface | None = leaf(
        "Primary address and prefix length", default=None, example="10.0.1.254/24", metric=Metric("gauge", "router_ip_ports")
    )
    secondaryip: Keyed[SecondaryIp] = listing("Additional addresses", metric=Metric("gauge", "router_secondaryip_ports"))
    urpf: Urpf = leaf("Sources that are let in: all, those with a route, or those whose route leads here", default=Urpf.NONE)
    vlan: Keyed[Vlan] = listing("VLANs of the port")
    mac: MacAddress | None = leaf("MAC of the port", default=None, example="02:00:00:00:00:01")
    link_local: str | None = state("IPv6 link-local address, configured or made from the MAC")


class Route(Node):
    """A way to a network."""

    network: IpPrefix = key("Destination network", example="0.0.0.0/0")
    nexthop: NextHop = key(
        "Router that packets are handed to; blackhole, unreachable or prohibit; 'local' where the network is the router's own",
        example="10.0.1.1",
    )
    interface: Name | None = leaf("Port, or VLAN of one, that the next hop is reached by", default=None, init_only=True, example="port1")
    pathcost: Uint32 = leaf("Cost: of several routes to a network those with the lowest are used, each by a part of the flows", default=1)
    active: bool | None = state("Whether the route is in use: one of the best of its network, and its next hop reachable")


class Neighbour(Node):
    """Who has an address on a port: by ARP (IPv4) or Neighbour Discovery (IPv6)."""

    address: NeighbourAddress = key("Address of the neighbour", example="10.0.1.1")
    mac: MacAddress = leaf("MAC of the neighbour", example="02:00:00:00:00:02")
    interface: Name = leaf("Port, or VLAN of one, the neighbour is at", example="port1")
    age: Uint32 | None = state("Seconds since it was last confirmed")
    state: NeighbourState | None = state("permanent: configured; else what is known of it")


class RouterConfig(StandardCube):
    """An IPv4 and IPv6 router."""

    ports: Keyed[RouterPort] = listing("Ports of the router", metric=Metric("gauge", "router_ports"))
    route: Keyed[Route] = listing("Routes", metric=Metric("gauge", "router_route_routes"))
    arp_table: Keyed[Neighbour] = listing("Neighbours: configured and learnt", metric=Metric("gauge", "router_arp_table_entries"))
    route_table_size: Uint32 = leaf("Routes that may be configured, for each IP version", default=DEFAULT_ROUTES, init_only=True)
    arp_failures: int | None = state("Neighbours that found no room in the table", metric=COUNTER)
    arp_table_size: Uint32 = leaf("Neighbours that are kept, for each IP version", default=DEFAULT_NEIGHBOURS, init_only=True)
