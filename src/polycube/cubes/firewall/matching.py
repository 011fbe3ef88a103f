# SPDX-License-Identifier: Apache-2.0
"""What users write of a rule, and what it means for the classifier. Pure.

Every text has one canonical form (`canonical_…`), so that equal rules are equal texts. A list is separated by commas, `!` in front of it
means anything else, `@name` the elements of a set. A rule that asks for ports holds for protocols with ports only, and so on: a match
never reaches into what has no such field.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from polycube.toolkit.classify import ANY, Match, Space, Values, match, named, ranges
from polycube.toolkit.classify.rule import DIM_OF, Dim, Element, elements_of

PROTOCOLS = {
    "ICMP": 1,
    "IGMP": 2,
    "IPIP": 4,
    "TCP": 6,
    "UDP": 17,
    "DCCP": 33,
    "GRE": 47,
    "ESP": 50,
    "AH": 51,
    "ICMPV6": 58,
    "OSPF": 89,
    "SCTP": 132,
    "UDPLITE": 136,
}
ETHERTYPES = {"IPV4": 0x0800, "ARP": 0x0806, "IPV6": 0x86DD, "PPPOE-DISCOVERY": 0x8863, "PPPOE": 0x8864, "LLDP": 0x88CC, "MPLS": 0x8847}
FLAGS = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ECE": 64, "CWR": 128}
STATES = ("UNTRACKED", "NEW", "ESTABLISHED", "RELATED", "INVALID")  # enum pcn_ct_label
FRAGMENTS = ("NONE", "FIRST", "LATER")  # enum pcn_fragment
ICMP_TYPES = {
    "echo-reply": (0, 129),
    "unreachable": (3, 1),
    "packet-too-big": (None, 2),
    "redirect": (5, 137),
    "echo-request": (8, 128),
    "router-solicitation": (None, 133),
    "router-advertisement": (None, 134),
    "neighbour-solicitation": (None, 135),
    "neighbour-advertisement": (None, 136),
    "time-exceeded": (11, 3),
    "parameter-problem": (12, 4),
}
_SET = re.compile(r"@[A-Za-z0-9_][A-Za-z0-9_.-]*$")
_RATE = re.compile(r"(\d+)/(second|minute|hour|day|s|m|h|d)$")
PER = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


# ---- texts ----


def _listed(text: object, item: Callable[[str], str], sets: bool = True) -> str:
    """Checks the parts of a list and puts them together again; ValueError."""
    words = str(text).strip()
    inverted, words = words.startswith("!"), words.removeprefix("!").strip()
    if sets and _SET.match(words):
        return "!" * inverted + words
    parts = [item(part.strip()) for part in words.split(",")]
    return "!" * inverted + ",".join(dict.fromkeys(parts))


def canonical_addresses(text: object) -> str:
    """`10.0.0.0/8,fd00::/8`, `!10.0.0.1`, `@name`. A single address is shown without its length."""
    return _listed(text, lambda part: network_text(ipaddress.ip_network(part, strict=False)))


def network_text(network: Network) -> str:
    """An address, or a prefix."""
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def canonical_ports(value: object) -> str:
    """`80`, `80,443,1000-2000`, `!22`, `@name`; also a number."""
    if isinstance(value, bool):
        raise ValueError
    return _listed(value, lambda part: _range_text(part, 65535))


def _range_text(text: str, most: int) -> str:
    low, high = _range(text, most)
    return str(low) if low == high else f"{low}-{high}"


def _range(text: str, most: int) -> Element:
    first, dash, last = text.partition("-")
    if not (first.isdecimal() and (not dash or last.isdecimal())):
        raise ValueError
    low, high = int(first), int(last or first)
    if low > high or high > most:
        raise ValueError
    return low, high


def _word(text: str, words: Mapping[str, int], most: int) -> str:
    """A name, or a number or range, by name if it has one."""
    if text.upper() in words:
        return text.upper()
    low, high = _range(str(int(text, 16)) if text.lower().startswith("0x") else text, most)
    if low == high:
        return next((name for name, number in words.items() if number == low), f"0x{low:04x}" if most > 255 else str(low))
    return f"{low}-{high}"


def canonical_protocols(text: object) -> str:
    """`TCP`, `TCP,UDP`, `!ICMP`, `89`, `50-51`."""
    return _listed(text, lambda part: _word(part, PROTOCOLS, 255), sets=False)


def canonical_ethertypes(text: object) -> str:
    """`ARP`, `0x88cc`, `!IPV4,IPV6`."""
    return _listed(text, lambda part: _word(part, ETHERTYPES, 65535), sets=False)


def canonical_vlans(text: object) -> str:
    """`5`, `5-9,20`, `!5`, `NONE`: untagged."""
    if str(text).upper() == "NONE":
        return "NONE"
    return _listed(text, lambda part: _range_text(part, 4094), sets=False)


def canonical_flags(text: object) -> str:
    """`SYN,!ACK`: these set, those not."""
    given: dict[str, bool] = {}
    for part in re.split(r"[,\s]+", str(text).strip()):
        name = part.removeprefix("!").upper()
        if name not in FLAGS or given.get(name, not part.startswith("!")) != (not part.startswith("!")):
            raise ValueError
        given[name] = not part.startswith("!")
    return ",".join(("" if given[name] else "!") + name for name in FLAGS if name in given)


def canonical_states(text: object) -> str:
    """`NEW`, `ESTABLISHED,RELATED`."""
    words = [part.strip().upper() for part in str(text).split(",")]
    if not set(words) <= set(STATES):
        raise ValueError
    return ",".join(state for state in STATES if state in words)


def canonical_fragments(text: object) -> str:
    """`NONE`, `FIRST,LATER`."""
    words = [part.strip().upper() for part in str(text).split(",")]
    if not set(words) <= set(FRAGMENTS):
        raise ValueError
    return ",".join(one for one in FRAGMENTS if one in words)


def canonical_icmp(text: object) -> str:
    """`echo-request`, `8`, `3/1`, `3/0-5`."""

    def item(part: str) -> str:
        kind, slash, code = part.partition("/")
        name = kind.lower() if kind.lower() in ICMP_TYPES else _range_text(kind, 255)
        return name + (f"/{_range_text(code, 255)}" if slash else "")

    return _listed(text, item, sets=False)


def canonical_rate(text: object) -> str:
    """`100/second`."""
    found = _RATE.match(str(text).strip().lower())
    if not found or not int(found[1]):
        raise ValueError
    return f"{found[1]}/{next(unit for unit in PER if unit.startswith(found[2][0]))}"


def tokens_per_second(rate: str) -> tuple[int, int]:
    """So many tokens in so many seconds."""
    count, _, unit = rate.partition("/")
    return int(count), PER[unit]


def canonical_element(text: object) -> str:
    """An element of a set: address, prefix, port or range of ports."""
    words = str(text).strip()
    if re.fullmatch(r"\d+(-\d+)?", words):
        return _range_text(words, 65535)
    return network_text(ipaddress.ip_network(words, strict=False))


# ---- meanings ----


def set_of(text: str | None) -> str | None:
    """The set a text names."""
    words = (text or "").removeprefix("!")
    return words[1:] if words.startswith("@") else None


def elements_of_set(elements: Iterable[str]) -> dict[Space, tuple[Element, ...]]:
    """What a set means in each space it can be used in."""
    networks: dict[int, list[Network]] = {4: [], 6: []}
    ports: list[Element] = []
    for one in elements:
        if re.fullmatch(r"\d+(-\d+)?", one):
            ports.append(_range(one, 65535))
        else:
            network = ipaddress.ip_network(one)
            networks[network.version].append(network)
    four, six, numbers = elements_of(networks[4]), elements_of(networks[6]), ranges(*ports).elements
    return {Space.SRC4: four, Space.DST4: four, Space.SRC6: six, Space.DST6: six, Space.SPORT: numbers, Space.DPORT: numbers}


def _split(text: str) -> tuple[bool, list[str]]:
    return text.startswith("!"), text.removeprefix("!").split(",")


def _addresses(text: str, four: Space, six: Space) -> dict[Space, Values]:
    if (name := set_of(text)) is not None:
        return {four: named(name, inverted=text.startswith("!")), six: named(name, inverted=text.startswith("!"))}
    inverted, parts = _split(text)
    networks = [ipaddress.ip_network(part) for part in parts]
    found = {}
    for space, version in ((four, 4), (six, 6)):
        elements = elements_of([network for network in networks if network.version == version])
        if elements:
            found[space] = Values(elements, inverted)
    return found


def _ports(text: str, space: Space) -> dict[Space, Values]:
    if (name := set_of(text)) is not None:
        return {space: named(name, inverted=text.startswith("!"))}
    inverted, parts = _split(text)
    return {space: ranges(*(_range(part, 65535) for part in parts), inverted=inverted)}


def numbers(text: str, words: Mapping[str, int], most: int) -> Values:
    """A list of numbers, ranges and names."""
    inverted, parts = _split(text)
    hexed = [str(int(part, 16)) if part.startswith("0x") else part for part in parts]
    return ranges(*((words[one], words[one]) if one in words else _range(one, most) for one in hexed), inverted=inverted)


def has_protocol(text: str, number: int) -> bool:
    """Whether a list of protocols has this one."""
    values = numbers(text, PROTOCOLS, 255)
    return any(low <= number <= high for low, high in values.elements) != values.inverted


def _icmp(text: str) -> dict[Space, Values]:
    inverted, parts = _split(text)
    found: dict[Space, list[Element]] = {Space.ICMP4: [], Space.ICMP6: []}
    for part in parts:
        kind, slash, code = part.partition("/")
        codes = _range(code, 255) if slash else (0, 255)
        for at, space in enumerate(found):
            types = _range(kind, 255) if kind not in ICMP_TYPES else (ICMP_TYPES[kind][at],) * 2
            if types[0] is not None:
                low, high = types[0], types[1]
                assert high is not None
                found[space] += [(one << 8 | codes[0], one << 8 | codes[1]) for one in range(low, high + 1)]
    return {space: ranges(*elements, inverted=inverted) for space, elements in found.items() if elements}


def flag_values(text: str) -> Values:
    """All bytes of flags for which it holds."""
    mask = value = 0
    for part in text.split(","):
        bit = FLAGS[part.removeprefix("!")]
        mask |= bit
        value |= 0 if part.startswith("!") else bit
    return ranges(*((one, one) for one in range(256) if one & mask == value))


def _ethertypes(text: str) -> dict[Space, Values]:
    """IP is told by the space of its addresses, the rest by their EtherTypes."""
    values = numbers(text, ETHERTYPES, 65535)

    def has(number: int) -> bool:
        return any(low <= number <= high for low, high in values.elements) != values.inverted

    found: dict[Space, Values] = {Space.ETHERTYPE: values}
    four, six = has(ETHERTYPES["IPV4"]), has(ETHERTYPES["IPV6"])
    others = values.inverted or any(one not in ((0x0800, 0x0800), (0x86DD, 0x86DD)) for one in values.elements)
    if four or six:
        found[Space.PROTO] = ANY
    for space, wanted in ((Space.SRC4, four), (Space.SRC6, six), (Space.SRC_NONE, others)):
        if wanted:
            found[space] = ANY
    return found


def match_of(rule: Any) -> Match:
    """What a rule (the leaves of model.py) asks of a frame."""
    wanted: dict[Space, Values] = {}
    if rule.ethertype is not None:
        wanted |= _ethertypes(rule.ethertype)
    else:
        wanted[Space.PROTO] = ANY  # upstream's rules are about IP
    if rule.src is not None:
        narrowed = _addresses(rule.src, Space.SRC4, Space.SRC6)
        asked = {space for space in wanted if DIM_OF[space] is Dim.SRC}
        wanted = {space: values for space, values in wanted.items() if space not in asked or space in narrowed}
        wanted |= {space: values for space, values in narrowed.items() if not asked or space in asked}
    if rule.dst is not None:
        wanted |= _addresses(rule.dst, Space.DST4, Space.DST6)
    if rule.l4proto is not None:
        wanted[Space.PROTO] = numbers(rule.l4proto, PROTOCOLS, 255)
        wanted.pop(Space.ETHERTYPE, None)
    if rule.sport is not None:
        wanted |= _ports(str(rule.sport), Space.SPORT)
    if rule.dport is not None:
        wanted |= _ports(str(rule.dport), Space.DPORT)
    if rule.icmptype is not None:
        wanted |= _icmp(rule.icmptype)
    if rule.tcpflags is not None:
        wanted[Space.FLAGS] = flag_values(rule.tcpflags)
    if rule.conntrack is not None or rule.fragment is not None:
        states = [STATES.index(one) for one in rule.conntrack.split(",")] if rule.conntrack is not None else range(16)
        fragments = [FRAGMENTS.index(one) for one in rule.fragment.split(",")] if rule.fragment is not None else range(3)
        wanted[Space.STATE] = ranges(*((part << 4 | state,) * 2 for part in fragments for state in states))
    if rule.vlan is not None:
        if rule.vlan == "NONE":
            wanted[Space.VLAN_NONE] = ANY
        else:
            wanted[Space.VLAN] = numbers(rule.vlan, {}, 4094)
    return match(wanted)
