# SPDX-License-Identifier: Apache-2.0
"""Configuration of ddosmitigator: upstream's lists, which take prefixes, time-outs and IPv6 here, and what it has beyond.

The key of a list is a prefix; one of a single address is written without its length, as upstream writes addresses.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, ClassVar

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema

from polycube.core.config import TransparentCube
from polycube.model import (
    COUNTER,
    GAUGE,
    Action,
    Choice,
    IpAddress,
    Keyed,
    Metric,
    Named,
    Node,
    Uint32,
    Uint64,
    container,
    key,
    leaf,
    listing,
    state,
)
from polycube.toolkit.tokenbucket import MAX_RATE

DEFAULT_SIZE = 65536


class Block(ipaddress.IPv4Network):
    """An IPv4 prefix whose text is that of the address if it is a single one."""

    def __str__(self) -> str:
        return str(self.network_address) if self.prefixlen == 32 else super().__str__()


class Block6(ipaddress.IPv6Network):
    """The same of IPv6."""

    def __str__(self) -> str:
        return str(self.network_address) if self.prefixlen == 128 else super().__str__()


def block(value: Any) -> Block | Block6:
    """A prefix, or an address, from its text."""
    if isinstance(value, Block | Block6):
        return value
    if not isinstance(value, str) or "%" in value:
        raise ValueError("not text of an address")
    return Block6(value, strict=False) if ":" in value else Block(value, strict=False)


AnyBlock = Annotated[
    Block | Block6,
    PlainValidator(block),
    PlainSerializer(str, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "ip-prefix"}),
    Named("ip-prefix-or-address", "an IPv4 or IPv6 address or prefix such as 10.0.0.1 or 10.0.0.0/24", "10.0.0.1"),
]
Rate = Annotated[int, Field(ge=0, le=MAX_RATE)]


class Side(Choice):
    """Whose address a prefix is compared with."""

    SRC = "SRC"
    DST = "DST"


class Blacklisted(Node):
    """A prefix whose packets are dropped."""

    ip: AnyBlock = key("Address or prefix", example="10.0.0.1")
    timeout: Uint32 = leaf("Seconds after which the entry is removed; 0: never", default=0)
    expires_in: int | None = state("Seconds that are left to it")
    drop_pkts: int | None = state("Packets that were dropped", metric=COUNTER)


class Trusted(Node):
    """A prefix of sources that pass whatever else is known of them."""

    ip: AnyBlock = key("Address or prefix", example="192.0.2.0/24")


class Scope(Choice):
    """Who has a rate."""

    SHARED = "SHARED"
    EACH = "EACH"


class RateLimit(Node):
    """A rate of a prefix."""

    ip: AnyBlock = key("Address or prefix", example="0.0.0.0/0")
    scope: Scope = leaf("SHARED: the prefix as a whole has the rate; EACH: every address in it", default=Scope.SHARED)
    packets: Rate = leaf("Packets a second; 0: any number", default=0)
    packets_burst: Annotated[int, Field(ge=1, le=10**9)] = leaf("Packets at once", default=1000)
    bytes: Rate = leaf("Bytes a second, of whole frames; 0: any number", default=0)
    bytes_burst: Annotated[int, Field(ge=1, le=10**12)] = leaf("Bytes at once", default=1_000_000)
    drop_pkts: int | None = state("Packets that were dropped", metric=COUNTER)


class Unit(Choice):
    """What is counted."""

    PACKETS = "PACKETS"
    BYTES = "BYTES"


class Blocked(Node):
    """A source that was found to send too much."""

    ip: AnyBlock = key("Source, or the prefix that it is counted by")
    rate: int | None = state("Units it had sent in the second in which it was found")
    seconds: int | None = state("Seconds since then")
    expires_in: int | None = state("Seconds until it may send again")
    drop_pkts: int | None = state("Packets that were dropped")


class Unblock(Node):
    """Whom to unblock."""

    ip: IpAddress | None = leaf("A source; none: all of them", default=None)


class Unblocked(Node):
    """How many there were."""

    unblocked: int = leaf("Sources that may send again", default=0)


class Detection(Node):
    """Detection of heavy hitters."""

    threshold: Uint64 = leaf("Units a second from which on a source is blocked; 0: nobody is", default=0)
    unit: Unit = leaf("What is counted", default=Unit.PACKETS)
    block_time: Annotated[int, Field(ge=1, le=30 * 86400)] = leaf("Seconds for which a source is blocked", default=60)
    prefix_length_ipv4: Annotated[int, Field(ge=8, le=32)] = leaf(
        "Sources that share so many bits are counted, and blocked, as one", default=32
    )
    prefix_length_ipv6: Annotated[int, Field(ge=16, le=128)] = leaf(
        "Sources that share so many bits are counted, and blocked, as one", default=64
    )
    number: int | None = state("Sources that are blocked now", metric=GAUGE)
    found: int | None = state("Sources that were blocked since the control plane was started", metric=COUNTER)
    blocked: Keyed[Blocked] = listing("Sources that are blocked now; of very many the 1,000 with the most packets", read_only=True)
    unblock: ClassVar = Action("Lets sources send again", input=Unblock, output=Unblocked)


class Load(Node):
    """Prefixes to be loaded."""

    list: Side = leaf("Which blacklist", default=Side.SRC)
    entries: str = leaf("Addresses and prefixes, one a line or separated by spaces or commas; from # to the end of a line is ignored")
    timeout: Uint32 = leaf("Seconds after which they are removed; 0: never", default=0)
    replace: bool = leaf("Whether prefixes of the list that were loaded before, and are not among these, are removed", default=False)


class Loaded(Node):
    """What became of it."""

    added: int = leaf("Prefixes that were not there", default=0)
    kept: int = leaf("Prefixes that were loaded before: with a new time-out and the old counter", default=0)
    removed: int = leaf("Prefixes that were replaced", default=0)
    configured: int = leaf("Prefixes that were left alone, since the configuration says what happens to them", default=0)


class Unload(Node):
    """Prefixes to be removed."""

    list: Side = leaf("Which blacklist", default=Side.SRC)
    entries: str | None = leaf("As for load; none: all that were loaded", default=None)


class Unloaded(Node):
    """What became of it."""

    removed: int = leaf("Prefixes that were removed", default=0)


class Find(Node):
    """An address to be looked for."""

    list: Side = leaf("Which blacklist", default=Side.SRC)
    ip: IpAddress = leaf("The address")


class Found(Node):
    """What happens to its packets, by its longest prefix."""

    ip: str | None = leaf("The prefix; none: there is none", default=None)
    verdict: str = leaf("BLOCK, TRUST, LIMIT or NONE", default="NONE")
    loaded: bool = leaf("Whether the prefix was loaded", default=False)
    drop_pkts: int = leaf("Packets of the prefix that were dropped", default=0)
    expires_in: int | None = leaf("Seconds that are left to it", default=None)


class Feed(Node):
    """Blacklists that are loaded by the thousand. They are no configuration: they outlive the daemon, but not the machine."""

    sources: int | None = state("Prefixes of sources", metric=GAUGE)
    destinations: int | None = state("Prefixes of destinations", metric=GAUGE)
    load: ClassVar = Action("Adds prefixes to a blacklist", input=Load, output=Loaded)
    unload: ClassVar = Action("Removes prefixes that were loaded", input=Unload, output=Unloaded)
    find: ClassVar = Action("Tells what happens to packets of an address, by its prefixes", input=Find, output=Found)


class Stats(Node):
    """Dropped packets."""

    pps: int | None = state("Packets dropped in the last second")
    pkts: int | None = state("Packets dropped", metric=Metric("counter", "ddos_stats_pkts_packets"))
    bytes: int | None = state("Bytes dropped, of whole frames", metric=COUNTER)
    src_pkts: int | None = state("Packets dropped by their source", metric=COUNTER)
    dst_pkts: int | None = state("Packets dropped by their destination", metric=COUNTER)
    rate_pkts: int | None = state("Packets dropped beyond a rate", metric=COUNTER)
    heavy_pkts: int | None = state("Packets dropped of heavy hitters", metric=COUNTER)
    shared_pkts: int | None = state("Packets of addresses without room for a rate of their own, which share one", metric=COUNTER)
    unblocked_pkts: int | None = state(
        "Packets of heavy hitters without room to be blocked, which are cut to the threshold", metric=COUNTER
    )


class DdosmitigatorConfig(TransparentCube):
    """Drops packets of sources and destinations that are blacklisted, send too fast, or too much."""

    stats: Stats = container("Statistics", read_only=True)
    blacklist_src: Keyed[Blacklisted] = listing("Sources to drop", metric=Metric("gauge", "ddos_blacklist_src_addresses"))
    blacklist_dst: Keyed[Blacklisted] = listing("Destinations to drop", metric=Metric("gauge", "ddos_blacklist_dst_addresses"))
    trusted: Keyed[Trusted] = listing("Sources that always pass")
    ratelimit_src: Keyed[RateLimit] = listing("Rates of sources")
    ratelimit_dst: Keyed[RateLimit] = listing("Rates of destinations")
    detection: Detection = container("Detection of heavy hitters")
    feed: Feed = container("Blacklists that are loaded")
    blacklist_size: Annotated[int, Field(ge=1024, le=16_777_216)] = leaf(
        "Prefixes that there is room for, in each of four tables: sources and destinations, IPv4 and IPv6",
        default=DEFAULT_SIZE,
        init_only=True,
    )
    ratelimit_size: Annotated[int, Field(ge=1024, le=16_777_216)] = leaf(
        "Addresses at a time that have a rate of their own", default=DEFAULT_SIZE, init_only=True
    )
