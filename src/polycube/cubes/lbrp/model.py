# SPDX-License-Identifier: Apache-2.0
"""Configuration of lbrp: upstream's tree, IPv6 beside IPv4, and what upstream does not have (drain, affinity, health checks, sessions)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from polycube.core.config import Port
from polycube.model import (
    COUNTER,
    GAUGE,
    Action,
    Choice,
    IpAddress,
    IpPrefix,
    Keyed,
    Node,
    PortNumber,
    container,
    key,
    key_of,
    leaf,
    listing,
    state,
)
from polycube.toolkit.balancer import BalancerConfig, PortType
from polycube.toolkit.conntrack import Timeouts
from polycube.toolkit.health import Health, HealthCheck
from polycube.toolkit.maglev import BackendState, Weight


class PortMode(Choice):
    """How many frontends there are."""

    SINGLE = "SINGLE"
    MULTI = "MULTI"


class Protocol(Choice):
    """Transport of a service."""

    ICMP = "ICMP"
    TCP = "TCP"
    UDP = "UDP"
    ALL = "ALL"


class LbrpPort(Port):
    """A side of the balancer."""

    type: PortType = leaf("FRONTEND: towards clients; BACKEND: towards the backends, one", example="FRONTEND")
    ip: IpAddress | None = leaf("MULTI: address of the host behind this frontend", default=None, example="10.0.0.1")
    secondaryip: tuple[IpAddress, ...] = leaf("MULTI: further addresses of that host, such as its IPv6 one", default=())


class SrcIpRewrite(Node):
    """Lets clients and backends share a subnet: backends see clients by addresses of another range."""

    ip_range: IpPrefix | None = leaf("Addresses of clients that are rewritten", default=None, example="10.0.0.0/24")
    new_ip_range: IpPrefix | None = leaf("What they become, of the same size", default=None, name="new_ip_range", example="10.0.1.0/24")


class Backend(Node):
    """Where packets of the service go."""

    name: str | None = leaf("Name, for people", default=None)
    ip: IpAddress = key("Address of the backend", example="10.0.0.11")
    port: PortNumber = leaf("Port of the backend", example="8080")
    weight: Weight | None = leaf("Share of the new flows beside the others, 1 if unset; 0: as DRAIN", default=None, example="1")
    health: Health | None = state("What the last checks say")
    flows: int | None = state("Flows that it was chosen for since it was added", metric=COUNTER)
    state: BackendState = leaf("DRAIN: keeps the flows it has and gets no new ones", default=BackendState.ACTIVE)


class Service(Node):
    """What clients ask for."""

    name: str | None = leaf("Name, for people", default=None)
    vip: IpAddress = key("Virtual address", example="10.96.0.1")
    vport: PortNumber = key("Virtual port; 0 with ICMP", example="80")
    proto: Protocol = key("Protocol; ALL makes three services: TCP, UDP, and ICMP with vport 0", example="TCP")
    affinity: Annotated[int, Field(ge=0, le=10_000_000)] = leaf(
        "Seconds for which a client is sent to the backend it had last; 0: each flow for itself", default=0
    )
    health_check: HealthCheck = container("How backends are checked")
    backend: Keyed[Backend] = listing("Backends", metric=GAUGE)


class SessionEntry(Node):
    """A balanced flow."""

    client: IpAddress = key("Address of the client")
    cport: PortNumber = key("Port of the client; of an echo: its identifier")
    vip: IpAddress = key("Virtual address")
    vport: PortNumber = key("Virtual port")
    proto: str = key("Protocol")
    backend: IpAddress | None = leaf("Backend", default=None)
    port: PortNumber | None = leaf("Port of the backend", default=None)
    state: str | None = leaf("State of the connection", default=None)
    eta: int | None = leaf("Seconds until it is forgotten if no packet comes", default=None)


class Removed(Node):
    """How many there were."""

    removed: int = leaf("Sessions that were removed", default=0)


class Sessions(Node):
    """Balanced flows."""

    live: int | None = state("Sessions, as of the last seconds", metric=GAUGE)
    failures: int | None = state("Flows that found no room in the table", metric=COUNTER)
    affinity_failures: int | None = state("Clients whose backend found no room to be remembered", metric=COUNTER)
    timeout: Timeouts = container("When a session is forgotten")
    entry: Keyed[SessionEntry] = listing("Sessions", read_only=True)
    flush: ClassVar = Action("Forgets all sessions: connections break, unless their packets fall to the same backend again", output=Removed)


class LbrpConfig(BalancerConfig):
    """A load balancer that answers pass through again."""

    ports: Keyed[LbrpPort] = listing("Sides of the balancer")
    port_mode: PortMode = leaf(
        "SINGLE: one frontend; MULTI: many, each with the address of its host", default=PortMode.SINGLE, name="port_mode"
    )
    src_ip_rewrite: SrcIpRewrite = container("Other addresses for clients")
    service: Keyed[Service] = listing("Services", metric=GAUGE)
    session: Sessions = container("Balanced flows")
    session_table_size: Annotated[int, Field(ge=1, le=16_000_000)] = leaf("Flows that fit", default=65536, init_only=True)

    @model_validator(mode="after")
    def _three_for_all(self) -> Self:
        """A service for ALL is three, as upstream has it; those that are there stay as they are."""
        whole = [one for one in self.service.values() if one.proto is Protocol.ALL]
        if whole:
            several = self.service.without(*map(key_of, whole))
            for one in whole:
                for proto in (Protocol.TCP, Protocol.UDP, Protocol.ICMP):
                    made = one.model_copy(update={"proto": proto, "vport": 0 if proto is Protocol.ICMP else one.vport})
                    several = several if key_of(made) in several else several.adding(made)
            self.__dict__["service"] = several
        return self
