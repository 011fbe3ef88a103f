# SPDX-License-Identifier: Apache-2.0
"""The firewall's data model: upstream's, and what it has not: IPv6, lists, negation, sets, more fields and actions."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from polycube.core.config import TransparentCube
from polycube.cubes.firewall import matching
from polycube.model import (
    COUNTER,
    GAUGE,
    Action,
    Choice,
    IpAddress,
    Keyed,
    Name,
    Named,
    Node,
    Ordered,
    PortNumber,
    Uint32,
    container,
    key,
    leaf,
    listing,
    state,
)
from polycube.toolkit.conntrack import Timeouts

MAX_RULES = 16384


def _text(canonical: Callable[[object], str], expected: str, example: str) -> Any:
    def parse(value: Any) -> str:
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise ValueError("not text")
        return canonical(value)

    return (
        PlainValidator(parse),
        PlainSerializer(str, return_type=str),
        WithJsonSchema({"type": "string"}),
        Named("string", expected, example),
    )


def _port(value: Any) -> int | str:
    text = matching.canonical_ports(value)
    return int(text) if text.isdecimal() else text


def _moment(value: object) -> str:
    """A moment in UTC, whole seconds."""
    when = datetime.datetime.fromisoformat(str(value))
    if when.tzinfo is None:
        raise ValueError("no time zone")
    return when.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Addresses = Annotated[
    str,
    *_text(
        matching.canonical_addresses, "addresses or prefixes such as 10.0.0.0/8,fd00::1, a set @name, or ! and any of them", "10.0.0.0/8"
    ),
]
Protocols = Annotated[str, *_text(matching.canonical_protocols, "protocols such as TCP, TCP,UDP, !ICMP or 89", "TCP")]
Flags = Annotated[str, *_text(matching.canonical_flags, "TCP flags such as SYN,!ACK", "SYN,!ACK")]
States = Annotated[str, *_text(matching.canonical_states, f"one or more of {', '.join(matching.STATES)}", "NEW")]
IcmpTypes = Annotated[str, *_text(matching.canonical_icmp, "ICMP types such as echo-request, 8, 3/1 or !5", "echo-request")]
EtherTypes = Annotated[str, *_text(matching.canonical_ethertypes, "EtherTypes such as ARP, 0x88cc or !IPV4,IPV6", "ARP")]
Vlans = Annotated[str, *_text(matching.canonical_vlans, "VLANs such as 5, 5-9,20 or !5, or NONE for untagged frames", "5")]
Fragments = Annotated[str, *_text(matching.canonical_fragments, "one or more of NONE, FIRST, LATER", "LATER")]
Rate = Annotated[str, *_text(matching.canonical_rate, "packets in a second, minute, hour or day such as 100/second", "100/second")]
SetElement = Annotated[str, *_text(matching.canonical_element, "an address, a prefix, a port or a range of ports", "10.0.0.1")]
Moment = Annotated[str, *_text(_moment, "a moment with its time zone such as 2030-01-01T00:00:00Z", "2030-01-01T00:00:00Z")]
Ports = Annotated[
    int | str,
    PlainValidator(_port),
    WithJsonSchema({"type": "string"}),
    Named("string", "ports such as 80, 80,443, 1000-2000, !22, or a set @name", "80"),
]


class Switch(Choice):
    """On or off."""

    ON = "ON"
    OFF = "OFF"


class ChainName(Choice):
    """A direction."""

    INGRESS = "INGRESS"
    EGRESS = "EGRESS"


class RuleAction(Choice):
    """What happens to packets of a rule."""

    ACCEPT = "ACCEPT"
    DROP = "DROP"
    REJECT = "REJECT"
    LOG = "LOG"


class Default(Choice):
    """What happens to packets of no rule."""

    ACCEPT = "ACCEPT"
    DROP = "DROP"
    REJECT = "REJECT"


class RejectWith(Choice):
    """How a packet is rejected."""

    AUTO = "AUTO"
    RST = "RST"
    PORT_UNREACHABLE = "PORT-UNREACHABLE"
    PROHIBITED = "PROHIBITED"


class Positioned(Node):
    """Has a place among others."""

    id: Uint32 = key("Place among the rules, from 0 on", example="0")


class Asked(Node):
    """What a rule asks of a packet; what is left out may be anything."""

    src: Addresses | None = leaf("Source addresses", default=None)
    dst: Addresses | None = leaf("Destination addresses", default=None)
    l4proto: Protocols | None = leaf("Protocols", default=None)
    sport: Ports | None = leaf("Source ports", default=None)
    dport: Ports | None = leaf("Destination ports", default=None)
    tcpflags: Flags | None = leaf("TCP flags that are set, or with ! not set", default=None)
    conntrack: States | None = leaf("Relation to a session", default=None)


class Body(Asked):
    """A rule but for its place: upstream's leaves, then others."""

    action: RuleAction | None = leaf("What happens to the packet", default=None)
    description: str | None = leaf("For the reader", default=None)
    icmptype: IcmpTypes | None = leaf("ICMP or ICMPv6 types, and codes", default=None)
    ethertype: EtherTypes | None = leaf("EtherTypes; without it a rule is about IP only", default=None)
    vlan: Vlans | None = leaf("VLANs of the outer tag", default=None)
    fragment: Fragments | None = leaf("Whether the packet is a fragment", default=None)
    limit: Rate | None = leaf("The rule matches so often only; then the next ones are tried", default=None)
    burst: Annotated[int, Field(ge=1, le=1_000_000)] | None = leaf(
        "Packets that may come at once within the limit; 5 if not said", default=None
    )
    reject_with: RejectWith | None = leaf("How REJECT answers; without it, or AUTO: TCP by RST, others as port unreachable", default=None)
    expires: Moment | None = leaf("From when on the rule is no more", default=None)

    @cached_property
    def content(self) -> tuple[Any, ...]:
        """What makes a rule what it is, wherever it stands: its leaves but for the place, in the order of `Body`."""
        return tuple([self.__dict__[name] for name in Body.model_fields])


class Rule(Body, Positioned):
    """A rule."""


class Stats(Asked, Positioned):
    """What a rule has counted; the last entry is the chain's default."""

    pkts: int | None = state("Packets", metric=COUNTER)
    bytes: int | None = state("Bytes of their frames", metric=COUNTER)
    action: RuleAction | None = leaf("What happens to the packet", default=None)
    description: str | None = leaf("For the reader", default=None)


class Timed(Body):
    """A rule as actions take it."""

    timeout: Annotated[int, Field(ge=1, le=100_000_000)] | None = leaf("Seconds for which the rule lives", default=None)


class Inserted(Timed):
    """A rule and its place."""

    id: Uint32 = leaf("Place the rule gets", default=0)


class Operation(Choice):
    """What a line of a batch does."""

    APPEND = "append"
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


class BatchLine(Timed):
    """A line of a batch."""

    operation: Operation = leaf("What is done")
    id: Uint32 | None = leaf("Place among the rules, where the operation needs one", default=None)


class Batch(Node):
    """Changes that take effect together."""

    rules: Keyed[BatchLine] = listing("Lines, carried out in order", keyless=True)


class Where(Node):
    """Where a rule stands now."""

    id: Uint32 = leaf("Place among the rules")


class Done(Node):
    """Whether it was done."""

    result: bool = leaf("True: done", default=True)


class Probe(Node):
    """A packet as one would describe it, or its bytes."""

    frame: str | None = leaf("The whole frame in hexadecimal; then nothing else is needed", default=None)
    src: str | None = leaf("Source address", default=None, example="10.0.0.1")
    dst: str | None = leaf("Destination address", default=None, example="10.0.0.2")
    l4proto: Protocols | None = leaf("Protocol", default=None)
    sport: Annotated[int, Field(ge=0, le=65535)] | None = leaf("Source port", default=None)
    dport: Annotated[int, Field(ge=0, le=65535)] | None = leaf("Destination port", default=None)
    tcpflags: Flags | None = leaf("TCP flags that are set; all others are not", default=None)
    icmptype: str | None = leaf("ICMP type, and code behind a slash", default=None, example="8/0")
    conntrack: States | None = leaf("Relation to a session, if it is not to be looked up", default=None)
    vlan: Annotated[int, Field(ge=0, le=4095)] | None = leaf("VLAN of the outer tag", default=None)
    ethertype: EtherTypes | None = leaf("EtherType, if it is not IP", default=None)


class Explained(Node):
    """Which rule decides, and why."""

    action: str = leaf("What happens to the packet")
    by: str = leaf("What decides: a rule, the default, a session")
    id: Uint32 | None = leaf("Place of the rule that decides", default=None)
    conntrack: str | None = leaf("The packet's relation to a session", default=None)
    why: tuple[str, ...] = leaf("What the packet has that the rule asks for, and what is certain only when it is sent", default=())
    before: tuple[str, ...] = leaf("The last rules before it that nearly match, and what keeps each from it", default=())


class Unreachable(Node):
    """A rule that never decides."""

    id: Uint32 = key("Place of the rule")
    reason: str | None = state("Why")


class Chain(Node):
    """The rules of a direction."""

    name: ChainName = key("Direction: INGRESS towards what the firewall stands before, EGRESS away from it", example="INGRESS")
    default: Default = leaf("What happens to IP packets of no rule", default=Default.ACCEPT)
    default_non_ip: Default = leaf("What happens to other frames of no rule", default=Default.ACCEPT, name="default-non-ip")
    stats: Keyed[Stats] = listing("Counters of the rules", read_only=True, metric=COUNTER)
    rule: Ordered[Rule] = listing("Rules; the first that matches decides")
    established: int | None = state("Packets accepted because of their session", metric=COUNTER)
    unreachable: Keyed[Unreachable] = listing("Rules that never decide", read_only=True)
    append: ClassVar = Action("Adds a rule behind the others", input=Timed, output=Where)
    insert: ClassVar = Action("Adds a rule in a place; those from there on move by one", input=Inserted, output=Where)
    delete: ClassVar = Action("Removes the first rule with this content", input=Timed, output=Done)
    batch: ClassVar = Action("Changes rules, all together or not at all", input=Batch, output=Done)
    reset_counters: ClassVar = Action("Sets the counters of all rules to 0", output=Done, name="reset-counters")
    explain: ClassVar = Action("Says which rule decides about a packet, without sending it", input=Probe, output=Explained)


class SetMember(Node):
    """An element of a set."""

    value: SetElement = key("Address, prefix, port or range of ports", example="10.0.0.1")


class Set(Node):
    """Addresses and ports that rules call by a name."""

    name: Name = key("Name of the set; rules say @name", example="blocked")
    element: Keyed[SetMember] = listing("Elements")


class SessionEntry(Node):
    """A session."""

    src: str = key("Source address of its first packet", example="10.0.0.1")
    dst: str = key("Destination address", example="10.0.0.2")
    l4proto: str = key("Protocol", example="tcp")
    sport: Uint32 = key("Source port; of an ICMP echo its identifier", example="40000")
    dport: Uint32 = key("Destination port", example="80")
    state_: str | None = state("State of the session")
    eta: int | None = state("Seconds until it is forgotten")


class Which(Node):
    """Which sessions; without a leaf, all."""

    src: IpAddress | None = leaf("Source address of the first packet", default=None)
    dst: IpAddress | None = leaf("Destination address", default=None)
    l4proto: Protocols | None = leaf("Protocols", default=None)
    sport: PortNumber | None = leaf("Source port", default=None)
    dport: PortNumber | None = leaf("Destination port", default=None)


class Flushed(Node):
    """How many there were."""

    flushed: Uint32 = leaf("Sessions that were forgotten")


class FirewallConfig(TransparentCube):
    """A stateful packet filter for IPv4, IPv6 and frames of other kinds."""

    conntrack: Switch = leaf("Whether sessions are followed", default=Switch.ON)
    accept_established: Switch = leaf("Whether packets of sessions are accepted before the rules", default=Switch.ON)
    interactive: bool = leaf("No effect: every change takes effect whole; batch joins several", default=True)
    session_table: Keyed[SessionEntry] = listing("Sessions; at most 10,000 are shown", read_only=True)
    all_sessions: ClassVar = Action("All sessions: rows of the session table in JSON, one a line", media="application/x-ndjson")
    sessions: int | None = state("Sessions at the last count", metric=GAUGE)
    sessions_failed: int | None = state("Sessions that found no room in the table", metric=COUNTER)
    log_missed: int | None = state("Packets of LOG rules that came faster than they are logged", metric=COUNTER)
    flush: ClassVar = Action("Forgets sessions", input=Which, output=Flushed)
    timeouts: Timeouts = container("Seconds after which sessions are forgotten")
    chain: Keyed[Chain] = listing("Chains of rules")
    sets: Keyed[Set] = listing("Named sets of addresses and ports")
    max_rules: Annotated[int, Field(ge=1, le=MAX_RULES)] = leaf("Rules a chain can hold", default=10_000, init_only=True)
    max_sessions: Annotated[int, Field(ge=1, le=4_000_000)] = leaf("Sessions that are followed at a time", default=65_536, init_only=True)
    flow_cache: Annotated[int, Field(ge=0, le=1_048_576)] = leaf(
        "Flows each CPU remembers the rule of (of IPv6 half as many), rounded up to a power of two; 0: none", default=32_768, init_only=True
    )

    @model_validator(mode="after")
    def _both(self) -> Self:
        """Both chains are always there."""
        missing = [Chain(name=name) for name in ChainName if name not in self.chain]
        if missing:
            self.__dict__["chain"] = self.chain.adding(*missing)
        return self
