# SPDX-License-Identifier: Apache-2.0
"""Rule sets and frames by chance, and the plain model of what classification is: the first rule that matches, one after the other."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from polycube.toolkit.classify import ANY, Result, Rule, Space, Values, match, named, ranges
from polycube.toolkit.classify.rule import ADDRESS_BITS, DIM_OF, DIMS, elements_of

Frame = Mapping[Space, int]  # one space of each dimension
Elements = Mapping[str, Mapping[Space, tuple[tuple[int, int], ...]]]


def holds(space: Space, values: Values, value: int, sets: Elements) -> bool:
    """Whether the values have this one."""
    elements = sets.get(values.set, {}).get(space, ()) if values.set else values.elements
    if space in ADDRESS_BITS:
        width = ADDRESS_BITS[space]
        listed = any(value >> width - length == first >> width - length for first, length in elements)
    else:
        listed = any(low <= value <= high for low, high in elements)
    return listed != values.inverted


def matches(rule: Rule, frame: Frame, sets: Elements) -> bool:
    """A rule, dimension by dimension."""
    asked: dict[Any, dict[Space, Values]] = {}
    for space, values in rule.match:
        asked.setdefault(DIM_OF[space], {})[space] = values
    for dim, wanted in asked.items():
        space = next(one for one in DIMS[dim] if one in frame)
        if space not in wanted or not holds(space, wanted[space], frame[space], sets):
            return False
    return True


def first(rules: Sequence[Rule], frame: Frame, sets: Elements) -> int | None:
    """Index of the first rule that matches."""
    return next((at for at, rule in enumerate(rules) if matches(rule, frame, sets)), None)


class Maker:
    """Rules and frames from few values, so that they meet; an IP version at a time."""

    def __init__(self, seed: int, version: int) -> None:
        self.chance = random.Random(seed)
        self.version = version
        self.src, self.dst = (Space.SRC4, Space.DST4) if version == 4 else (Space.SRC6, Space.DST6)
        self.icmp = Space.ICMP4 if version == 4 else Space.ICMP6
        self.icmp_proto = 1 if version == 4 else 58
        self.width = 32 if version == 4 else 128
        self.addresses = [self.chance.getrandbits(self.width) for _ in range(6)]
        self.ports = [self.chance.randrange(65536) for _ in range(8)] + [0, 65535]
        self.sets: dict[str, dict[Space, tuple[tuple[int, int], ...]]] = {}
        for name in ("one", "two"):
            nets = tuple(self._prefix() for _ in range(self.chance.randrange(5)))
            ports = ranges(*(self._range() for _ in range(self.chance.randrange(4)))).elements
            self.sets[name] = {self.src: self._few(nets), self.dst: self._few(nets), Space.SPORT: ports, Space.DPORT: ports}

    def _few(self, found: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        kind: Any = ipaddress.IPv4Network if self.width == 32 else ipaddress.IPv6Network
        return elements_of(kind(one) for one in found)

    def _prefix(self) -> tuple[int, int]:
        address = self.chance.choice(self.addresses) ^ (self.chance.getrandbits(8) if self.chance.random() < 0.3 else 0)
        length = self.chance.choice(
            [0, 1, 8, self.width // 2, self.width - 8, self.width - 1, self.width, self.chance.randrange(self.width + 1)]
        )
        return address >> self.width - length << self.width - length, length

    def _range(self) -> tuple[int, int]:
        low = self.chance.choice(self.ports)
        kind = self.chance.random()
        high = low if kind < 0.5 else self.chance.choice(self.ports) if kind < 0.8 else min(65535, low + self.chance.randrange(300))
        return min(low, high), max(low, high)

    def rule(self, key: object) -> Rule:
        wanted: dict[Space, Values] = {}
        chance = self.chance.random
        for space in (self.src, self.dst):
            if chance() < 0.5:
                listed = Values(self._few(self._prefix() for _ in range(self.chance.choice([1, 1, 3]))), chance() < 0.25)
                wanted[space] = named(self.chance.choice(["one", "two"]), inverted=chance() < 0.3) if chance() < 0.15 else listed
        for space in (Space.SPORT, Space.DPORT):
            if chance() < 0.3:
                listed = ranges(*(self._range() for _ in range(self.chance.choice([1, 1, 2, 5]))), inverted=chance() < 0.25)
                wanted[space] = named(self.chance.choice(["one", "two"])) if chance() < 0.15 else listed
        if chance() < 0.1:
            wanted[self.icmp] = (
                ranges((8 << 8, 8 << 8 | 255)) if self.version == 4 else ranges((128 << 8, 129 << 8), inverted=chance() < 0.5)
            )
        if chance() < 0.4:
            wanted[Space.PROTO] = ranges(
                *((one, one) for one in self.chance.sample([6, 17, self.icmp_proto, 47], 2)), inverted=chance() < 0.2
            )
        if chance() < 0.15:
            mask, value = self.chance.choice([(0x02, 0x02), (0x12, 0x02), (0x04, 0x04), (0x3F, 0x00)])
            wanted[Space.FLAGS] = ranges(*((flags, flags) for flags in range(256) if flags & mask == value))
        if chance() < 0.1:
            wanted[Space.VLAN] = ranges((5, 9), inverted=chance() < 0.5)
        if chance() < 0.05:
            wanted[Space.VLAN_NONE] = ANY
        return Rule(key, match(wanted), Result(action=0))

    def frame(self) -> dict[Space, int]:
        chance, proto = self.chance, self.chance.choice([6, 6, 17, 17, self.icmp_proto, 47])
        frame = {
            space: chance.choice(self.addresses) ^ (chance.getrandbits(8) if chance.random() < 0.3 else 0) for space in (self.src, self.dst)
        }
        frame[Space.PROTO] = proto
        frame[Space.FLAGS if proto == 6 else Space.FLAGS_NONE] = chance.choice([0x02, 0x12, 0x10, 0x04, 0x00]) if proto == 6 else 0
        if proto in (6, 17):
            around = chance.choice([0, 0, 1, -1])
            frame[Space.SPORT], frame[Space.DPORT] = ((chance.choice(self.ports) + around) % 65536 for _ in range(2))
        else:
            frame[Space.SPORT_NONE] = 0
            kind = chance.choice([0, 8, 128, 129])
            frame[self.icmp if proto == self.icmp_proto else Space.DPORT_NONE] = kind << 8 if proto == self.icmp_proto else 0
        tag = chance.choice([None, None, None, 5, 9, 10])
        frame[Space.VLAN_NONE if tag is None else Space.VLAN] = tag or 0
        return frame | {Space.STATE: 0, Space.IN_PORT: 0, Space.SMAC: 0, Space.DMAC: 0}


def wire(frame: Frame) -> bytes:
    """The frame in bytes. Sums are left out: nobody here looks at them."""
    version = 4 if Space.SRC4 in frame else 6
    proto = frame[Space.PROTO]
    if proto == 6:
        ports = frame[Space.SPORT].to_bytes(2, "big") + frame[Space.DPORT].to_bytes(2, "big")
        payload = ports + bytes(8) + bytes((0x50, frame[Space.FLAGS])) + bytes(6)
    elif proto == 17:
        payload = frame[Space.SPORT].to_bytes(2, "big") + frame[Space.DPORT].to_bytes(2, "big") + b"\0\x08" + bytes(2)
    elif proto == 47:
        payload = bytes(8)
    else:
        payload = frame[Space.ICMP4 if version == 4 else Space.ICMP6].to_bytes(2, "big") + bytes(6)
    if version == 4:
        head = b"\x45\0" + (20 + len(payload)).to_bytes(2, "big") + bytes(4) + bytes((64, proto)) + bytes(2)
        head += frame[Space.SRC4].to_bytes(4, "big") + frame[Space.DST4].to_bytes(4, "big")
    else:
        head = b"\x60\0\0\0" + len(payload).to_bytes(2, "big") + bytes((proto, 64))
        head += frame[Space.SRC6].to_bytes(16, "big") + frame[Space.DST6].to_bytes(16, "big")
    tag = b"\x81\0" + frame[Space.VLAN].to_bytes(2, "big") if Space.VLAN in frame else b""
    return bytes(12) + tag + (b"\x08\0" if version == 4 else b"\x86\xdd") + head + payload
