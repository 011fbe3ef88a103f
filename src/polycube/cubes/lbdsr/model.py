# SPDX-License-Identifier: Apache-2.0
"""Configuration of lbdsr: upstream's (one VIP with a pool of MACs), and services beside it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Annotated

from pydantic import Field

from polycube.core.config import Port
from polycube.model import (
    COUNTER,
    Choice,
    IpAddress,
    Ipv4Address,
    Ipv6Address,
    Keyed,
    MacAddress,
    Node,
    PortNumber,
    Uint32,
    container,
    key,
    leaf,
    listing,
    state,
)
from polycube.toolkit.balancer import BalancerConfig, PortType
from polycube.toolkit.health import Health, HealthCheck
from polycube.toolkit.maglev import BackendState, Weight


class Protocol(Choice):
    """Transport of a service."""

    TCP = "TCP"
    UDP = "UDP"
    ALL = "ALL"


class Encapsulation(Choice):
    """How packets get to a backend."""

    L2 = "L2"
    IPIP = "IPIP"
    GUE = "GUE"


class LbdsrPort(Port):
    """A side of the balancer."""

    type: PortType = leaf("FRONTEND: towards the clients, one; BACKEND: towards the servers, one", example="FRONTEND")


class PoolEntry(Node):
    """A server."""

    id: Uint32 = key("Number of the server", example="1")
    mac: MacAddress | None = leaf("MAC of the server, or of its router; L2 needs it", default=None, example="02:00:00:00:00:01")
    ip: IpAddress | None = leaf("Address of the server; encapsulation and health checks need it", default=None, example="10.0.0.1")
    weight: Weight = leaf("Share of the new flows beside the others; 0: as DRAIN", default=1)
    health: Health | None = state("What the last checks say")
    flows: int | None = state("Flows that it was chosen for since it was added", metric=COUNTER)
    state: BackendState = leaf("DRAIN: keeps the flows it has and gets no new ones", default=BackendState.ACTIVE)


class Frontend(Node):
    """What clients see."""

    vip: IpAddress | None = leaf("Virtual address; traffic of all ports and protocols is for the pool", default=None, example="10.0.0.100")
    mac: MacAddress | None = leaf("MAC of virtual addresses; by default that of the frontend port's netdev", default=None)


class Pool(Node):
    """The servers of the frontend's VIP."""

    pool: Keyed[PoolEntry] = listing("Servers")
    encapsulation: Encapsulation = leaf("How packets get to these servers", default=Encapsulation.L2)
    health_check: HealthCheck = container("How these servers are checked")


class Service(Node):
    """One more service."""

    vip: IpAddress = key("Virtual address", example="10.0.0.101")
    vport: PortNumber = key("Port; 0: all", example="80")
    proto: Protocol = key("Protocol; ALL: all, only with port 0", example="TCP")
    encapsulation: Encapsulation = leaf("How packets get to these servers", default=Encapsulation.L2)
    health_check: HealthCheck = container("How these servers are checked")
    backend: Keyed[PoolEntry] = listing("Servers")


class Outer(Node):
    """Outer headers of encapsulated packets."""

    source: Ipv4Address = leaf("IPv4 source; with IPIP the last 16 bits are made from the flow", default=IPv4Address("172.16.0.0"))
    source6: Ipv6Address = leaf("IPv6 source; with IPIP the last 32 bits are made from the flow", default=IPv6Address("100::"))
    gateway: MacAddress | None = leaf("MAC of the router for servers that have none configured", default=None)
    gue_port: PortNumber = leaf("UDP port that servers take GUE at", default=6080)


class LbdsrConfig(BalancerConfig):
    """A load balancer whose servers answer past it."""

    ports: Keyed[LbdsrPort] = listing("The two sides")
    algorithm: str | None = leaf("Kept for upstream's configurations; the algorithm is Maglev", default=None)
    frontend: Frontend = container("What clients see")
    backend: Pool = container("The servers of the frontend's VIP")
    service: Keyed[Service] = listing("Further services")
    outer: Outer = container("Outer headers of encapsulated packets")
    flow_table_size: Annotated[int, Field(ge=0, le=10_000_000)] = leaf(
        "Flows whose server is remembered while tables change; 0: none, the table alone decides", default=65536, init_only=True
    )
    answered: int | None = state("Answers to packets too large for the way to a server, since the control plane began", metric=COUNTER)
