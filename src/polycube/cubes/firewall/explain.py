# SPDX-License-Identifier: Apache-2.0
"""Which rule decides a packet, and which rules never decide any. Pure: by the same tables as the data plane's.

A rule is shadowed when an earlier one that decides holds for every packet it holds for. Candidates come from the bit vectors: the rules
that match one packet of the rule; each is then compared value by value. Rules that only several earlier ones together cover are not found.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any

from polycube.cubes.firewall import matching
from polycube.cubes.firewall.chains import ACTIONS, LIMITED
from polycube.cubes.firewall.model import Probe, RuleAction
from polycube.model import Tag, problem
from polycube.toolkit.classify import ANY, Entry, Space, Table, Values
from polycube.toolkit.classify.rule import ADDRESS_BITS, DIM_OF, DIMS, NUMBER_BITS, Dim, Element
from polycube.toolkit.frame import ethertype as ethertype_of
from polycube.toolkit.frame import read_ip

Frame = dict[Space, int]  # the value in each dimension, by its space
PORTS = {matching.PROTOCOLS[name] for name in ("TCP", "UDP", "SCTP", "DCCP", "UDPLITE")}
WORDS = {
    Dim.SRC: "source",
    Dim.DST: "destination",
    Dim.SPORT: "source port",
    Dim.DPORT: "destination port",
    Dim.PROTO: "protocol",
    Dim.FLAGS: "TCP flags",
    Dim.STATE: "relation to a session",
    Dim.VLAN: "VLAN",
}


def refuse(name: str, value: object, expected: str) -> Exception:
    return problem(Tag.INVALID_VALUE, ("explain", name), f"cannot be {value!r}: expected {expected}")


# ---- packets ----


def described(probe: Probe) -> Frame:
    """A packet from its description, but for the relation to a session."""
    found: Frame = {}
    addresses = {}
    for name, text in (("src", probe.src), ("dst", probe.dst)):
        if text is not None:
            try:
                addresses[name] = ipaddress.ip_address(text)
            except ValueError:
                raise refuse(name, text, "an address") from None
    versions = {one.version for one in addresses.values()}
    if len(versions) > 1:
        raise refuse("dst", probe.dst, f"an IPv{addresses['src'].version} address, as src is")
    if probe.ethertype is not None and probe.ethertype not in ("IPV4", "IPV6"):
        number = matching.numbers(probe.ethertype, matching.ETHERTYPES, 65535)
        found |= {Space.SRC_NONE: 0, Space.DST_NONE: 0, Space.ETHERTYPE: number.elements[0][0] if number.elements else 0}
        return _tagged(found | {Space.SPORT_NONE: 0, Space.DPORT_NONE: 0, Space.FLAGS_NONE: 0}, probe.vlan)
    version = versions.pop() if versions else 6 if probe.ethertype == "IPV6" else 4
    any_address = ipaddress.ip_address("0.0.0.0" if version == 4 else "::")
    found[Space.SRC4 if version == 4 else Space.SRC6] = int(addresses.get("src", any_address))
    found[Space.DST4 if version == 4 else Space.DST6] = int(addresses.get("dst", any_address))
    if probe.l4proto is not None:
        proto = matching.numbers(probe.l4proto, matching.PROTOCOLS, 255).elements[0][0]
    else:
        proto = 6 if probe.tcpflags else (1 if version == 4 else 58) if probe.icmptype else 6
    flags = matching.flag_values(probe.tcpflags).elements[0][0] if probe.tcpflags else 2
    icmp = probe.icmptype or "8"
    kind, _, code = (str(8 if version == 4 else 128) if probe.icmptype is None else icmp).partition("/")
    if kind in matching.ICMP_TYPES:
        kind = str(matching.ICMP_TYPES[kind][version == 6])
    if not kind.isdecimal() or (code and not code.isdecimal()):
        raise refuse("icmptype", icmp, "a type, and a code behind a slash")
    ports = (probe.sport or 0, probe.dport or 0)
    return _tagged(found | _transport(version, proto, ports, flags, int(kind) << 8 | int(code or 0)), probe.vlan)


def _transport(version: int, proto: int, ports: tuple[int, int], flags: int, icmp: int) -> Frame:
    found: Frame = {Space.PROTO: proto}
    if proto in PORTS:
        found |= {Space.SPORT: ports[0], Space.DPORT: ports[1]}
    else:
        found[Space.SPORT_NONE] = 0
        own = proto == (1 if version == 4 else 58)
        found |= {(Space.ICMP4 if version == 4 else Space.ICMP6) if own else Space.DPORT_NONE: icmp}
    found[Space.FLAGS if proto == 6 else Space.FLAGS_NONE] = flags
    return found


def _tagged(frame: Frame, vlan: int | None) -> Frame:
    return frame | {
        Space.VLAN_NONE if vlan is None else Space.VLAN: vlan or 0,
        Space.STATE: 0,
        Space.IN_PORT: 0,
        Space.SMAC: 0,
        Space.DMAC: 0,
    }


def parsed(text: str) -> Frame:
    """A packet from the bytes of its frame."""
    try:
        data = bytes.fromhex(text)
    except ValueError:
        raise refuse("frame", text[:40], "bytes in hexadecimal") from None
    vlan, tags = None, 0
    while tags < 2 and len(data) >= 18 and ethertype_of(data) in (0x8100, 0x88A8):
        vlan = int.from_bytes(data[14:16], "big") & 0xFFF if vlan is None else vlan
        data, tags = data[:12] + data[16:], tags + 1
    packet = read_ip(data)
    if len(data) < 14 or (packet is None and ethertype_of(data) in (0x0800, 0x86DD)):
        raise refuse("frame", text[:40], "a whole frame")
    if packet is None:
        found: Frame = {Space.SRC_NONE: 0, Space.DST_NONE: 0, Space.ETHERTYPE: ethertype_of(data)}
        return _tagged(found | {Space.SPORT_NONE: 0, Space.DPORT_NONE: 0, Space.FLAGS_NONE: 0}, vlan)
    four = packet.version == 4
    found = {Space.SRC4 if four else Space.SRC6: int(packet.source), Space.DST4 if four else Space.DST6: int(packet.target)}
    payload = packet.payload
    if not packet.first or len(payload) < 4:
        found |= {Space.PROTO: packet.protocol, Space.SPORT_NONE: 0, Space.DPORT_NONE: 0, Space.FLAGS_NONE: 0}
    else:
        ports = (int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:4], "big"))
        flags = payload[13] if len(payload) > 13 else 0
        found |= _transport(packet.version, packet.protocol, ports, flags, ports[0])
    frame = _tagged(found, vlan)
    frame[Space.STATE] = (0 if packet.whole else 1 if packet.first else 2) << 4
    return frame


# ---- verdicts ----


def shown(space: Space, value: int) -> str:
    """A value for the reader."""
    if space in (Space.SRC4, Space.DST4):
        return str(ipaddress.IPv4Address(value))
    if space in (Space.SRC6, Space.DST6):
        return str(ipaddress.IPv6Address(value))
    if space is Space.PROTO:
        return next((name for name, number in matching.PROTOCOLS.items() if number == value), str(value))
    if space is Space.ETHERTYPE:
        return next((name for name, number in matching.ETHERTYPES.items() if number == value), f"0x{value:04x}")
    if space is Space.FLAGS:
        return ",".join(name for name, bit in matching.FLAGS.items() if value & bit) or "none"
    if space is Space.STATE:
        fragment = matching.FRAGMENTS[value >> 4]
        return matching.STATES[value & 15] + (f", fragment {fragment}" if value >> 4 else "")
    if space in (Space.ICMP4, Space.ICMP6):
        return f"ICMP {value >> 8}/{value & 255}"
    return "none" if space.name.endswith("NONE") else str(value)


def of_frame(frame: Frame, dim: Dim) -> Space:
    return next(space for space in DIMS[dim] if space in frame)


def has(table: Table, space: Space, values: Values, value: int) -> bool:
    """Whether a value is among those a rule asks for."""
    elements = table.elements(space, values)
    if space in ADDRESS_BITS:
        width = ADDRESS_BITS[space]
        listed = any(value >> width - length == first >> width - length for first, length in elements)
    else:
        listed = any(low <= value <= high for low, high in elements)
    return listed != values.inverted


def differs(table: Table, entry: Entry, frame: Frame) -> Dim | None:
    """The first dimension in which a rule does not match."""
    asked = dict(entry.rule.match)
    for dim in {DIM_OF[space]: None for space in asked}:
        space = of_frame(frame, dim)
        if space not in asked or not has(table, space, asked[space], frame[space]):
            return dim
    return None


def decides(table: Table, frame: Frame, now: int) -> tuple[int | None, list[int], list[int]]:
    """Place of the rule that decides, of those that log on the way, and of those with a limit, which may or may not let it through."""
    logs, limits = [], []
    for entry in table.matching(frame):
        result, place = entry.rule.result, bisect_left(table.entries, entry.slot, key=attrgetter("slot"))
        if result.expires and result.expires <= now:
            continue
        if result.flags & LIMITED:
            limits.append(place)
        if ACTIONS[result.action] is RuleAction.LOG:
            logs.append(place)
            continue
        return place, logs, limits
    return None, logs, limits


def reasons(table: Table, entry: Entry, frame: Frame) -> list[str]:
    """What of a packet a rule asks for."""
    found = []
    for dim in {DIM_OF[space]: None for space, values in entry.rule.match if values != ANY}:
        space = of_frame(frame, dim)
        found.append(f"{WORDS.get(dim, dim.name)} {shown(space, frame[space])}")
    return found or ["it asks for nothing"]


def near(table: Table, frame: Frame, until: int | None, most: int = 3) -> list[str]:
    """The last rules before a place that fail in one dimension only."""
    found: list[str] = []
    end = len(table.entries) if until is None else until
    for at in range(end - 1, max(-1, end - 200), -1):
        entry = table.entries[at]
        wrong = differs(table, entry, frame)
        if wrong is None or len(found) == most:
            continue
        space = of_frame(frame, wrong)
        left = {one: values for one, values in entry.rule.match if DIM_OF[one] is not wrong}
        if all(
            of_frame(frame, DIM_OF[one]) in left
            and has(table, of_frame(frame, DIM_OF[one]), left[of_frame(frame, DIM_OF[one])], frame[of_frame(frame, DIM_OF[one])])
            for one in left
        ):
            found.append(f"rule {at}: {WORDS.get(wrong, wrong.name)} {shown(space, frame[space])} is not what it asks for")
    return found


# ---- rules that never decide ----


def unreachable(table: Table) -> dict[int, str]:
    """Place of each rule that never decides, and why."""
    found: dict[int, str] = {}
    places = {entry.slot: at for at, entry in enumerate(table.entries)}
    final = 0
    for at, entry in enumerate(table.entries):
        sample = _sample(table, entry)
        if sample is None:
            found[at] = "nothing can match it: " + _contradiction(table, entry)
        else:
            vector = table.matches(sample) & final & ((1 << entry.slot) - 1)
            while vector:
                low = vector & -vector
                other = table.by_slot[low.bit_length() - 1]
                if covers(table, other, entry):
                    found[at] = f"rule {places[other.slot]} matches all that it does"
                    break
                vector ^= low
        result = entry.rule.result
        if ACTIONS[result.action] is not RuleAction.LOG and not result.flags & LIMITED and not result.expires:
            final |= 1 << entry.slot
    return found


def _sample(table: Table, entry: Entry) -> Frame | None:
    """Some packet a rule matches; None: there is none."""
    asked: dict[Dim, dict[Space, Values]] = {}
    for space, values in entry.rule.match:
        asked.setdefault(DIM_OF[space], {})[space] = values
    frame: Frame = {}
    for dim, spaces in DIMS.items():
        wanted = asked.get(dim)
        if wanted is None:
            frame[spaces[0]] = 0
            continue
        some = next(((space, value) for space, values in wanted.items() if (value := _some(table, space, values)) is not None), None)
        if some is None:
            return None
        frame[some[0]] = some[1]
    return None if _impossible(asked) else frame


def _impossible(asked: Mapping[Dim, Mapping[Space, Values]]) -> bool:
    """Addresses of different IP versions, ports of a protocol that has none."""
    src, dst = asked.get(Dim.SRC), asked.get(Dim.DST)
    if src and dst:
        pairs = ((Space.SRC4, Space.DST4), (Space.SRC6, Space.DST6), (Space.SRC_NONE, Space.DST_NONE))
        if not any(one in src and two in dst for one, two in pairs):
            return True
    proto = asked.get(Dim.PROTO, {}).get(Space.PROTO)
    if proto is None or proto.inverted or not proto.elements:
        return False
    numbers = {number for low, high in proto.elements for number in range(low, high + 1)}
    ports = Space.SPORT in asked.get(Dim.SPORT, {}) or Space.DPORT in asked.get(Dim.DPORT, {})
    if ports and not numbers & PORTS:
        return True
    if {Space.ICMP4, Space.ICMP6} & set(asked.get(Dim.DPORT, {})) and not numbers & {1, 58}:
        return True
    return Dim.FLAGS in asked and 6 not in numbers


def _some(table: Table, space: Space, values: Values) -> int | None:
    """A value among those asked for."""
    elements = table.elements(space, values)
    if not values.inverted:
        return elements[0][0] if elements else None
    if space in ADDRESS_BITS:
        top = 1 << ADDRESS_BITS[space]
        ends = [0, *(first + (1 << ADDRESS_BITS[space] - length) for first, length in elements)]
    else:
        top = 1 << NUMBER_BITS.get(space, 1)
        ends = [0, *(high + 1 for _, high in elements)]
    return next((value for value in ends if value < top and has(table, space, values, value)), None)


def _contradiction(table: Table, entry: Entry) -> str:
    empty = [values.set for space, values in entry.rule.match if values.set and not values.inverted and not table.elements(space, values)]
    return f"the set {empty[0]} has no such elements" if empty else "what it asks for excludes each other"


def covers(table: Table, wide: Entry, narrow: Entry) -> bool:
    """Whether one rule matches everything another does."""
    theirs: dict[Dim, dict[Space, Values]] = {}
    for space, values in narrow.rule.match:
        theirs.setdefault(DIM_OF[space], {})[space] = values
    asked: dict[Dim, dict[Space, Values]] = {}
    for space, values in wide.rule.match:
        asked.setdefault(DIM_OF[space], {})[space] = values
    for dim, spaces in asked.items():
        of = theirs.get(dim)
        for space in DIMS[dim] if of is None else of:
            values = ANY if of is None else of[space]
            if space not in spaces or not _inside(table, space, values, spaces[space]):
                return False
    return True


def _inside(table: Table, space: Space, inner: Values, outer: Values) -> bool:
    """Whether all of one are among the other."""
    if outer == ANY or inner == outer:
        return True
    ours, theirs = list(_ranges(table, space, inner)), list(_ranges(table, space, outer))
    return all(any(low >= start and high <= end for start, end in theirs) for low, high in ours)


def _ranges(table: Table, space: Space, values: Values) -> Iterator[Element]:
    """Values as ranges that do not touch, ascending."""
    width = ADDRESS_BITS.get(space) or NUMBER_BITS.get(space, 1)
    listed: list[Element] = []
    for first, second in sorted(table.elements(space, values)):
        low, high = (first, first + (1 << width - second) - 1) if space in ADDRESS_BITS else (first, second)
        if listed and low <= listed[-1][1] + 1:
            listed[-1] = (listed[-1][0], max(listed[-1][1], high))
        else:
            listed.append((low, high))
    if not values.inverted:
        yield from listed
        return
    at = 0
    for low, high in listed:
        if at < low:
            yield at, low - 1
        at = high + 1
    if at < 1 << width:
        yield at, (1 << width) - 1


def matched(frame: Mapping[Space, Any]) -> str:
    """A packet in a few words."""
    return ", ".join(
        f"{WORDS[dim]} {shown(space, frame[space])}" for dim in WORDS for space in DIMS[dim] if space in frame and "NONE" not in space.name
    )
