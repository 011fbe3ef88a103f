# SPDX-License-Identifier: Apache-2.0
"""What a rule asks of a frame.

A frame has a value in one space of each dimension (enum pcn_space of classify.h): its source, for one, is an IPv4 address, an IPv6 address
or none. A rule names values in some spaces. A dimension of which it names no space is open: any frame will do. One of which it names some
is closed to frames whose value is in another.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

MAC_BITS = 64  # of a MAC: 48, filled up with zeros


class Dim(IntEnum):
    """enum pcn_dim."""

    SRC = 0
    DST = 1
    SPORT = 2
    DPORT = 3
    PROTO = 4
    FLAGS = 5
    STATE = 6
    VLAN = 7
    IN_PORT = 8
    SMAC = 9
    DMAC = 10


class Space(IntEnum):
    """enum pcn_space."""

    SRC_NONE = 0
    SRC4 = 1
    SRC6 = 2
    DST_NONE = 3
    DST4 = 4
    DST6 = 5
    SPORT_NONE = 6
    SPORT = 7
    DPORT_NONE = 8
    DPORT = 9
    ICMP4 = 10
    ICMP6 = 11
    ETHERTYPE = 12
    PROTO = 13
    FLAGS_NONE = 14
    FLAGS = 15
    STATE = 16
    VLAN_NONE = 17
    VLAN = 18
    IN_PORT = 19
    SMAC = 20
    DMAC = 21


DIMS: Mapping[Dim, tuple[Space, ...]] = {
    Dim.SRC: (Space.SRC_NONE, Space.SRC4, Space.SRC6),
    Dim.DST: (Space.DST_NONE, Space.DST4, Space.DST6),
    Dim.SPORT: (Space.SPORT_NONE, Space.SPORT),
    Dim.DPORT: (Space.DPORT_NONE, Space.DPORT, Space.ICMP4, Space.ICMP6),
    Dim.PROTO: (Space.ETHERTYPE, Space.PROTO),
    Dim.FLAGS: (Space.FLAGS_NONE, Space.FLAGS),
    Dim.STATE: (Space.STATE,),
    Dim.VLAN: (Space.VLAN_NONE, Space.VLAN),
    Dim.IN_PORT: (Space.IN_PORT,),
    Dim.SMAC: (Space.SMAC,),
    Dim.DMAC: (Space.DMAC,),
}
DIM_OF: Mapping[Space, Dim] = {space: dim for dim, spaces in DIMS.items() for space in spaces}
# Bits of the values that are looked up by prefix, and of those looked up by range
ADDRESS_BITS: Mapping[Space, int] = {
    Space.SRC4: 32,
    Space.DST4: 32,
    Space.SRC6: 128,
    Space.DST6: 128,
    Space.SMAC: MAC_BITS,
    Space.DMAC: MAC_BITS,
}
NUMBER_BITS: Mapping[Space, int] = {
    Space.SPORT: 16,
    Space.DPORT: 16,
    Space.ICMP4: 16,
    Space.ICMP6: 16,
    Space.ETHERTYPE: 16,
    Space.PROTO: 8,
    Space.FLAGS: 8,
    Space.STATE: 8,
    Space.VLAN: 16,
    Space.IN_PORT: 16,
}

Element = tuple[int, int]  # a range, both ends included; of addresses: value and length of a prefix


@dataclass(frozen=True, slots=True)
class Values:
    """Values of one space: those listed, or (`inverted`) all others; or those of a named set."""

    elements: tuple[Element, ...] = ()
    inverted: bool = False
    set: str = ""


ANY = Values(inverted=True)  # any value of the space, so that only the space matters
Match = tuple[tuple[Space, Values], ...]


class Result(NamedTuple):
    """What a rule means to the data plane: struct pcn_rule without its counter."""

    action: int = 0
    flags: int = 0
    data: int = 0
    expires: int = 0
    limit: int = 0


NOTHING = Result()


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. Rules of equal keys are one and the same: it keeps its counter when others around it come and go."""

    key: Hashable
    match: Match
    result: Result = NOTHING


def match(spaces: Mapping[Space, Values]) -> Match:
    """What a rule asks, in canonical order."""
    return tuple(sorted(spaces.items()))


def ranges(*elements: Element, inverted: bool = False) -> Values:
    """Numbers: ranges with both ends, in any order; they may overlap."""
    merged: list[Element] = []
    for low, high in sorted(elements):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return Values(tuple(merged), inverted)


def prefixes(*networks: str | ipaddress.IPv4Network | ipaddress.IPv6Network, inverted: bool = False) -> Values:
    """Addresses of one IP version."""
    return Values(elements_of(ipaddress.ip_network(one) if isinstance(one, str) else one for one in networks), inverted)


def elements_of(networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> tuple[Element, ...]:
    """Networks as elements, those inside of others left out."""
    found: list[Element] = []
    last = -1
    for value, length, end in sorted((int(one.network_address), one.prefixlen, int(one.broadcast_address)) for one in networks):
        if end > last:
            found.append((value, length))
            last = end
    return tuple(found)


def named(name: str, *, inverted: bool = False) -> Values:
    """The elements of a set, whatever they will be."""
    return Values(inverted=inverted, set=name)
