# SPDX-License-Identifier: Apache-2.0
"""nat's data model: upstream's, with IPv6 beside IPv4, prefix translation, time-outs, and how ports are mapped."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from polycube.core.config import TransparentCube
from polycube.model import (
    COUNTER,
    GAUGE,
    Action,
    Choice,
    IpAddress,
    IpPrefix,
    Ipv6Prefix,
    Keyed,
    Named,
    Node,
    PortNumber,
    Uint32,
    container,
    key,
    leaf,
    listing,
    state,
)
from polycube.toolkit.conntrack import Timeouts

DEFAULT_SESSIONS = 262_144


class Protocol(Choice):
    """Of a port forwarding."""

    TCP = "tcp"
    UDP = "udp"
    ALL = "all"


class Behaviour(Choice):
    """Of mapping and filtering, in the words of RFC 4787."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"


class OriginatingRule(Choice):
    """By which kind of rule a session came to be."""

    SNAT = "snat"
    MASQUERADE = "masquerade"
    DNAT = "dnat"
    PORTFORWARDING = "portforwarding"
    MAPPING = "mapping"


ExternalPort = Annotated[int, Field(ge=1, le=65535), Named("port-number", "a port number from 1 to 65535", "8080")]


class Appended(Node):
    """Where a rule was put."""

    id: Uint32 = leaf("Number of the new rule")


class Done(Node):
    """Whether it was done."""

    result: bool = leaf("True: it is so now", default=True)


class SnatRule(Node):
    """What hosts of a network are outside."""

    internal_net: IpPrefix = leaf("Network whose hosts are translated", example="10.0.1.0/24")
    external_ip: IpAddress = leaf("Their address outside", example="192.0.2.1")


class SnatEntry(SnatRule):
    """A numbered source rule. The longest prefix wins, whatever the numbers."""

    id: Uint32 = key("Number of the rule", example="0")


class Snat(Node):
    """Source translation."""

    entry: Keyed[SnatEntry] = listing("Source rules", metric=GAUGE)
    append: ClassVar = Action("Adds a rule behind the last one", input=SnatRule, output=Appended)


class Masquerade(Node):
    """Source translation to the address of the port or network interface that the cube stands before."""

    enabled: bool = leaf("Whether all that no source rule translates is masqueraded", default=False)
    address: str | None = state("IPv4 address that is used: that of the port or network interface")
    address6: str | None = state("IPv6 address that is used")
    enable: ClassVar = Action("Masquerades from now on", output=Done)
    disable: ClassVar = Action("Opens no more masqueraded sessions", output=Done)


class DnatRule(Node):
    """Which inside host an external address stands for."""

    external_ip: IpAddress = leaf("Address outside", example="192.0.2.2")
    internal_ip: IpAddress = leaf("Host inside", example="10.0.1.2")


class DnatEntry(DnatRule):
    """A numbered destination rule."""

    id: Uint32 = key("Number of the rule", example="0")


class Dnat(Node):
    """Destination translation of whole addresses; ports stay."""

    entry: Keyed[DnatEntry] = listing("Destination rules", metric=GAUGE)
    append: ClassVar = Action("Adds a rule behind the last one", input=DnatRule, output=Appended)


class ForwardingRule(Node):
    """Which inside host and port an external port stands for."""

    external_ip: IpAddress = leaf("Address outside", example="192.0.2.1")
    external_port: ExternalPort = leaf("Port outside", example="8080")
    proto: Protocol = leaf("Protocol; all: TCP and UDP", default=Protocol.ALL)
    internal_ip: IpAddress = leaf("Host inside", example="10.0.1.2")
    internal_port: ExternalPort = leaf("Port inside", example="80")


class ForwardingEntry(ForwardingRule):
    """A numbered port forwarding."""

    id: Uint32 = key("Number of the rule", example="0")


class PortForwarding(Node):
    """Destination translation of single ports. It goes before that of whole addresses."""

    entry: Keyed[ForwardingEntry] = listing("Port forwardings", metric=GAUGE)
    append: ClassVar = Action("Adds a rule behind the last one", input=ForwardingRule, output=Appended)


class PrefixEntry(Node):
    """An IPv6 network that is another one outside, address by address (NPTv6, RFC 6296)."""

    id: Uint32 = key("Number of the rule", example="0")
    internal_prefix: Ipv6Prefix = leaf("Prefix inside, up to 64 bits", example="fd00:1::/48")
    external_prefix: Ipv6Prefix = leaf("Prefix outside, of the same length", example="2001:db8:1::/48")


class PrefixTranslation(Node):
    """Translation of IPv6 prefixes, without state. It goes before all other rules."""

    entry: Keyed[PrefixEntry] = listing("Pairs of prefixes", metric=GAUGE)


class Rules(Node):
    """What is translated, and to what. A change concerns new sessions only."""

    snat: Snat = container("Source translation")
    masquerade: Masquerade = container("Source translation to the own address")
    dnat: Dnat = container("Destination translation")
    port_forwarding: PortForwarding = container("Destination translation of ports")
    prefix_translation: PrefixTranslation = container("Translation of IPv6 prefixes")


class NattingEntry(Node):
    """A session, by its ends inside."""

    internal_src: IpAddress = key("Source of the packet that opened it, as it is inside", example="10.0.1.1")
    internal_dst: IpAddress = key("Destination of the packet that opened it, as it is inside", example="8.8.8.8")
    internal_sport: PortNumber = key("Source port; of an echo, the identifier", example="40000")
    internal_dport: PortNumber = key("Destination port", example="53")
    proto: str = key("Protocol: tcp, udp, icmp, icmpv6, else its number", example="udp")
    originating_rule: OriginatingRule | None = state("Kind of the rule by which it came to be")
    external_ip: str | None = state("What the inside host's address is outside")
    external_port: int | None = state("What its port is outside")
    eta: int | None = state("Seconds without a packet after which it is forgotten")
    state: str | None = state("State of the connection")  # last: from here on the name is the leaf's


class Statistics(Node):
    """Figures of the session table."""

    sessions: int | None = state("Sessions, as of the last sweep", metric=GAUGE)
    tcp_established: int | None = state("Established TCP connections among them", metric=GAUGE)
    mappings: int | None = state("Endpoint-independent mappings", metric=GAUGE)
    failures: int | None = state("Sessions that found no room", metric=COUNTER)
    hairpins: int | None = state("Packets between inside hosts that turned round here", metric=COUNTER)


class FlushInput(Node):
    """Which sessions; without a leaf, all."""

    internal_ip: IpAddress | None = leaf("Only those of this inside host", default=None)
    external_ip: IpAddress | None = leaf("Only those of this external address", default=None)


class Flushed(Node):
    """How many sessions were forgotten."""

    flushed: int = leaf("Sessions that were forgotten")


class NatConfig(TransparentCube):
    """Network address translation before a router's port or a network interface."""

    rule: Rules = container("Rules")
    mapping: Behaviour = leaf(
        "Whether a host's port is the same outside for all destinations", default=Behaviour.ADDRESS_AND_PORT_DEPENDENT
    )
    filtering: Behaviour = leaf(
        "Who may send to a mapped port: anybody, or only whom was sent to", default=Behaviour.ADDRESS_AND_PORT_DEPENDENT
    )
    first_port: ExternalPort = leaf("First of the external ports that are given to sessions", default=1024)
    last_port: ExternalPort = leaf("Last of them", default=65535)
    max_sessions: Annotated[int, Field(ge=1, le=4_000_000)] = leaf("Sessions that there may be", default=DEFAULT_SESSIONS, init_only=True)
    timeouts: Timeouts = container("Time-outs of sessions")
    natting_table: Keyed[NattingEntry] = listing("Sessions; at most 10,000 are shown")
    sessions: ClassVar = Action("All sessions: rows of the natting table in JSON, one a line", media="application/x-ndjson")
    statistics: Statistics = container("Figures of the session table", read_only=True)
    flush: ClassVar = Action("Forgets sessions, so that the rules as they are now apply to them", input=FlushInput, output=Flushed)


def entries(rule: Any) -> list[Any]:
    """The rules of a list, by their numbers."""
    return [rule.entry[number] for number in sorted(rule.entry)]
