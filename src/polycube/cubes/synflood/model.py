# SPDX-License-Identifier: Apache-2.0
"""Configuration and state of synflood: upstream's statistics, and what the data plane counts."""

from typing import Annotated

from pydantic import Field

from polycube.core.config import TransparentCube
from polycube.model import COUNTER, GAUGE, IpAddress, Keyed, Node, Uint32, container, key, leaf, listing, state


class Thresholds(Node):
    """What is too much. 0: never."""

    syn_rate: Uint32 = leaf("SYN a second", default=1000)
    rst_rate: Uint32 = leaf("RST a second, received", default=0)
    half_open: Uint32 = leaf("Connections that are half open at a time", default=1000)


class OwnThresholds(Node):
    """What is too much for an address; what is not set is as for all."""

    syn_rate: Uint32 | None = leaf("SYN a second", default=None)
    rst_rate: Uint32 | None = leaf("RST a second, received", default=None)
    half_open: Uint32 | None = leaf("Connections that are half open at a time", default=None)


class Handshakes(Node):
    """What was counted, and how much of it in the last second."""

    syn: int | None = state("SYN segments", metric=COUNTER)
    syn_ack: int | None = state("SYN+ACK segments of servers", metric=COUNTER)
    ack: int | None = state("ACK segments without SYN and RST", metric=COUNTER)
    rst: int | None = state("RST segments received", metric=COUNTER)
    rst_sent: int | None = state("RST segments sent", metric=COUNTER)
    opened: int | None = state("Connections that were half open at some time", metric=COUNTER)
    established: int | None = state("Connections that were completed", metric=COUNTER)
    failed: int | None = state("Connections that were reset, or timed out, before they were complete")
    syn_rate: int | None = state("SYN a second", metric=GAUGE)
    syn_ack_rate: int | None = state("SYN+ACK a second", metric=GAUGE)
    ack_rate: int | None = state("ACK a second", metric=GAUGE)
    rst_rate: int | None = state("RST a second, received", metric=GAUGE)
    half_open: int | None = state("Connections that are half open now, an estimate", metric=GAUGE)


class Alarm(Node):
    """Whether a threshold is exceeded."""

    active: bool | None = state("Whether there is an alarm", metric=GAUGE)
    reason: str | None = state("What is exceeded")
    seconds: int | None = state("Seconds since it began, or since the last one ended")
    raised: int | None = state("Alarms since the control plane was started", metric=COUNTER)


class Address(Node):
    """An address that is protected."""

    ip: IpAddress = key("Address of a server", example="10.0.0.1")
    thresholds: OwnThresholds = container("What is too much for it")
    handshakes: Handshakes = container("Counted", read_only=True)
    alarm: Alarm = container("Alarm", read_only=True)


class Stats(Node):
    """Upstream's statistics, of what passes the cube instead of what the host's TCP counts."""

    tcpattemptfails: str | None = state("Connections that were reset, or timed out, before they were complete (RFC 4022: tcpAttemptFails)")
    tcpoutrsts: str | None = state("RST segments on their way out (RFC 4022: tcpOutRsts)")
    deliverratio: str | None = state("Well-formed IP packets on their way in, by all of them plus one")
    responseratio: str | None = state("IP packets on their way out, by those on their way in plus one")
    lastupdate: int | None = state("When these were computed: milliseconds since 1970")


class Unseen(Node):
    """What was not looked into."""

    malformed: int | None = state("Packets with headers that are cut off or inconsistent, in both directions", metric=COUNTER)
    untracked: int | None = state("SYN segments of connections that the table had no place for", metric=COUNTER)


class SynfloodConfig(TransparentCube):
    """Watches TCP handshakes, and raises alarms."""

    stats: Stats = container("Statistics of upstream", read_only=True)
    timeout: Annotated[int, Field(ge=1, le=120)] = leaf("Seconds after which a half-open connection counts no longer", default=63)
    thresholds: Thresholds = container("What is too much: for all traffic, and for each address that says nothing else")
    hold: Annotated[int, Field(ge=1, le=3600)] = leaf("Seconds that everything must be below its threshold for an alarm to end", default=10)
    handshakes: Handshakes = container("Counted, of all traffic", read_only=True)
    alarm: Alarm = container("Alarm, of all traffic", read_only=True)
    unseen: Unseen = container("What was not looked into", read_only=True)
    address: Keyed[Address] = listing("Protected addresses: each is counted by itself", metric=GAUGE)
