# SPDX-License-Identifier: Apache-2.0
"""A firewall as one would write it down: rules one after the other, looked at with Python's own means; and rules and packets by chance.

It shares nothing with the product's engine but the words of the rules.
"""

from __future__ import annotations

import ipaddress
import random
from dataclasses import dataclass
from functools import cache
from typing import Any

network = cache(ipaddress.ip_network)
NUMBERS = {"TCP": 6, "UDP": 17, "ICMP": 1, "ICMPV6": 58, "GRE": 47}
BITS = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ECE": 64, "CWR": 128}


@dataclass(frozen=True)
class Packet:
    """What rules look at."""

    src: Any
    dst: Any
    proto: int
    sport: int = 0
    dport: int = 0
    flags: int = 0
    icmp: tuple[int, int] = (0, 0)

    def frame(self) -> bytes:
        """On the wire; sums are left out."""
        if self.proto == 6:
            body = self.sport.to_bytes(2, "big") + self.dport.to_bytes(2, "big") + bytes(8) + bytes((0x50, self.flags)) + bytes(6)
        elif self.proto == 17:
            body = self.sport.to_bytes(2, "big") + self.dport.to_bytes(2, "big") + b"\0\x08\0\0"
        elif self.proto in (1, 58):
            body = bytes(self.icmp) + bytes(6)
        else:
            body = bytes(8)
        if self.src.version == 4:
            head = b"\x45\0" + (20 + len(body)).to_bytes(2, "big") + bytes(4) + bytes((64, self.proto)) + bytes(2)
            return bytes(12) + b"\x08\0" + head + self.src.packed + self.dst.packed + body
        head = b"\x60\0\0\0" + len(body).to_bytes(2, "big") + bytes((self.proto, 64))
        return bytes(12) + b"\x86\xdd" + head + self.src.packed + self.dst.packed + body


def listed(text: str, sets: dict[str, list[str]], holds: Any) -> bool:
    """A list with all its trimmings."""
    inverted, words = text.startswith("!"), text.removeprefix("!")
    parts = sets[words[1:]] if words.startswith("@") else words.split(",")
    return any(map(holds, parts)) != inverted


def inside(address: Any, net: Any) -> bool:
    """`address in net`, which takes its time."""
    return (
        address.version == net.version
        and int(address) >> net.max_prefixlen - net.prefixlen == int(net.network_address) >> net.max_prefixlen - net.prefixlen
    )


def address_holds(text: str, address: Any, sets: dict[str, list[str]]) -> bool:
    words = text.removeprefix("!")
    if not words.startswith("@"):  # a list without an address of this version is about the other one
        versions = {network(part).version for part in words.split(",")}
        if address.version not in versions:
            return False

    def one(part: str) -> bool:
        return ("." in part or ":" in part) and inside(address, network(part))

    return listed(text, sets, one)


def port_holds(text: str, port: int, sets: dict[str, list[str]]) -> bool:
    def one(part: str) -> bool:
        if "." in part or ":" in part:
            return False
        low, _, high = part.partition("-")
        return int(low) <= port <= int(high or low)

    return listed(text, sets, one)


def rule_holds(rule: dict[str, Any], packet: Packet, sets: dict[str, list[str]]) -> bool:
    """One rule."""
    ports = packet.proto in (6, 17)
    for name, address in (("src", packet.src), ("dst", packet.dst)):
        if name in rule and not address_holds(rule[name], address, sets):
            return False
    if "l4proto" in rule and not listed(rule["l4proto"], {}, lambda part: NUMBERS.get(part, part) in (packet.proto, str(packet.proto))):
        return False
    for name, port in (("sport", packet.sport), ("dport", packet.dport)):
        if name in rule and not (ports and port_holds(str(rule[name]), port, sets)):
            return False
    if "tcpflags" in rule:
        wanted = [(BITS[part.removeprefix("!")], not part.startswith("!")) for part in rule["tcpflags"].split(",")]
        if packet.proto != 6 or any(bool(packet.flags & bit) != on for bit, on in wanted):
            return False
    if "icmptype" in rule:
        own = 1 if packet.src.version == 4 else 58
        if packet.proto != own or not listed(rule["icmptype"], {}, lambda part: int(part) == packet.icmp[0]):
            return False
    return True


def decide(rules: list[dict[str, Any]], packet: Packet, sets: dict[str, list[str]], default: str) -> tuple[str, int | None]:
    """The action, and the rule it is by."""
    for at, rule in enumerate(rules):
        if rule_holds(rule, packet, sets):
            return rule["action"], at
    return default, None


class Maker:
    """By chance, from few values, so that rules and packets meet."""

    def __init__(self, seed: int, version: int) -> None:
        self.chance = random.Random(seed)
        self.kind: Any = ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network
        self.address: Any = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
        self.width = 32 if version == 4 else 128
        self.icmp = 1 if version == 4 else 58
        self.bases = [self.chance.getrandbits(self.width) for _ in range(5)]
        self.ports = [self.chance.randrange(1, 65535) for _ in range(6)] + [0, 65535]
        self.sets = {"one": self._set(), "two": self._set()}

    def _near(self) -> Any:
        return self.address(
            self.chance.choice(self.bases) ^ self.chance.choice([0, 0, self.chance.getrandbits(6), self.chance.getrandbits(12)])
        )

    def _network(self) -> str:
        length = self.chance.choice([0, 8, self.width // 2, self.width - 8, self.width - 3, self.width, self.width])
        return str(self.kind((int(self._near()) >> self.width - length << self.width - length, length)))

    def _range(self) -> str:
        one, other = self.chance.choice(self.ports), self.chance.choice(self.ports)
        return str(one) if one == other or self.chance.random() < 0.6 else f"{min(one, other)}-{max(one, other)}"

    def _set(self) -> list[str]:
        return list({self._network() for _ in range(self.chance.randrange(4))}) + list(
            {self._range() for _ in range(self.chance.randrange(3))}
        )

    def _list(self, item: Any) -> str:
        parts = {item() for _ in range(self.chance.choice([1, 1, 1, 3]))}
        return self.chance.choice(["", "", "", "!"]) + ",".join(sorted(parts))

    def rule(self) -> dict[str, Any]:
        chance, rule = self.chance.random, {"action": self.chance.choice(["ACCEPT", "DROP"])}
        for name in ("src", "dst"):
            if chance() < 0.45:
                rule[name] = self._list(self._network) if chance() < 0.85 else self.chance.choice(["@one", "@two", "!@one"])
        for name in ("sport", "dport"):
            if chance() < 0.3:
                rule[name] = self._list(self._range) if chance() < 0.85 else self.chance.choice(["@one", "@two", "!@two"])
        if chance() < 0.4:
            rule["l4proto"] = self._list(lambda: self.chance.choice(["TCP", "UDP", "ICMP", "ICMPV6", "GRE"]))
        if chance() < 0.12:
            rule["tcpflags"] = self.chance.choice(["SYN", "SYN,!ACK", "RST", "!SYN,ACK", "!FIN,!RST"])
        if chance() < 0.12 and not rule.keys() & {"sport", "dport"}:
            rule["icmptype"] = self._list(lambda: self.chance.choice(["0", "8", "128", "129", "3"]))
        return rule

    def packet(self) -> Packet:
        proto = self.chance.choice([6, 6, 17, 17, self.icmp, 47, 59 - self.icmp])
        near = self.chance.choice([0, 0, 0, 1, -1])
        sport, dport = ((self.chance.choice(self.ports) + near) % 65536 for _ in range(2))
        icmp = (self.chance.choice([0, 8, 128, 129, 3]), self.chance.randrange(3))
        return Packet(self._near(), self._near(), proto, sport, dport, self.chance.choice([2, 18, 16, 4, 17, 0]), icmp)
