# SPDX-License-Identifier: Apache-2.0
"""Rules as the data plane has them: entries of its tables, from a configuration. Pure.

What is not one rule's own affair is checked here: two rules for the same addresses, families that differ, prefixes that don't fit.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

from polycube.cubes.nat.model import ForwardingEntry, NatConfig, PrefixEntry, Protocol, entries
from polycube.model import PolycubeError
from polycube.net.addr import Address, Network
from polycube.toolkit.address import mapped
from polycube.toolkit.lpm import rule_key

SNAT, MASQUERADE, DNAT, FORWARDING, MAPPING = range(5)  # enum nat_rule
SOURCE, DESTINATION = range(2)  # enum nat_end
_NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.ALL: 0}
_LONGEST = 64  # of a prefix that is translated


class Duplicate(PolycubeError):
    """Two rules say something of the same addresses."""

    def __init__(self, cube: str, kind: str, one: int, other: int, what: str) -> None:
        super().__init__(f"Cannot insert duplicate mapping: {kind} rules {one} and {other} of {cube} are both for {what}")


class Unlike(PolycubeError):
    """The two sides of a rule don't fit each other."""

    def __init__(self, cube: str, kind: str, id: int, why: str) -> None:
        super().__init__(f"{kind} rule {id} of {cube}: {why}")


Entries = dict[tuple[Any, ...], tuple[dict[str, Any], dict[str, Any]]]  # identity -> key and value of the map


def sources(cube: str, config: NatConfig) -> Entries:
    """Entries of `sources`."""
    found: Entries = {}
    ids: dict[Any, int] = {}
    for rule in entries(config.rule.snat):
        _same_family(cube, "snat", rule.id, rule.internal_net, rule.external_ip)
        _once(cube, "snat", ids, rule.internal_net, rule.id)
        found[(rule.internal_net,)] = (rule_key(rule.internal_net), {"external": mapped(rule.external_ip)})
    return found


def forwards(cube: str, config: NatConfig) -> Entries:
    """Entries of `forwards`."""
    found: Entries = {}
    ids: dict[Any, int] = {}
    for rule in entries(config.rule.dnat):
        _same_family(cube, "dnat", rule.id, rule.external_ip, rule.internal_ip)
        _once(cube, "dnat", ids, rule.external_ip, rule.id)
        whole = {"address": mapped(rule.external_ip)}
        found[(rule.external_ip, 0, 0)] = (whole, {"internal": mapped(rule.internal_ip), "rule": DNAT})
    ids = {}
    for forward in entries(config.rule.port_forwarding):
        _same_family(cube, "port-forwarding", forward.id, forward.external_ip, forward.internal_ip)
        _once(cube, "port-forwarding", ids, _outside(forward), forward.id)
        number = _NUMBERS[forward.proto]
        key: dict[str, Any] = {"address": mapped(forward.external_ip), "port": socket.htons(forward.external_port), "proto": number}
        value: dict[str, Any] = {"internal": mapped(forward.internal_ip), "port": socket.htons(forward.internal_port), "rule": FORWARDING}
        found[(forward.external_ip, forward.external_port, number)] = (key, value)
    return found


def translations(cube: str, config: NatConfig) -> Entries:
    """Entries of `translations`."""
    found: Entries = {}
    for rule in entries(config.rule.prefix_translation):
        _check_prefixes(cube, rule, entries(config.rule.prefix_translation))
        inner, outer = rule.internal_prefix, rule.external_prefix
        for end, one, other in ((SOURCE, inner, outer), (DESTINATION, outer, inner)):
            found[(end, one)] = (rule_key(one, end), _translation(one, other))
    return found


def adjustment(old: ipaddress.IPv6Network, new: ipaddress.IPv6Network) -> int:
    """What must be added to a word of an address whose prefix is changed for its sum to stay (RFC 6296, 3.1), in one's complement."""
    return (_sum(old) + 0xFFFF - _sum(new)) % 0xFFFF


def _sum(prefix: ipaddress.IPv6Network) -> int:
    packed = prefix.network_address.packed
    return sum(int.from_bytes(packed[i : i + 2], "big") for i in range(0, 16, 2)) % 0xFFFF


def _translation(old: ipaddress.IPv6Network, new: ipaddress.IPv6Network) -> dict[str, Any]:
    return {"prefix": new.network_address.packed, "length": new.prefixlen, "adjustment": socket.htons(adjustment(old, new))}


def _outside(rule: ForwardingEntry) -> str:
    return f"{rule.external_ip} port {rule.external_port} {rule.proto.value}"


def _once(cube: str, kind: str, ids: dict[Any, int], what: Any, id: int) -> None:
    if what in ids:
        raise Duplicate(cube, kind, ids[what], id, str(what))
    ids[what] = id


def _same_family(cube: str, kind: str, id: int, one: Network | Address, other: Network | Address) -> None:
    if one.version != other.version:
        raise Unlike(cube, kind, id, f"{one} is IPv{one.version} and {other} is IPv{other.version}")


def _check_prefixes(cube: str, rule: PrefixEntry, all: Iterable[PrefixEntry]) -> None:
    inner, outer = rule.internal_prefix, rule.external_prefix
    if inner.prefixlen != outer.prefixlen:
        raise Unlike(cube, "prefix-translation", rule.id, f"{inner} and {outer} differ in length")
    if inner.prefixlen > _LONGEST:
        raise Unlike(cube, "prefix-translation", rule.id, f"{inner} is longer than {_LONGEST} bits: there is no room to keep sums")
    for other in all:
        for one, its in ((inner, other.internal_prefix), (outer, other.external_prefix)):
            if other.id != rule.id and one == its:
                raise Duplicate(cube, "prefix-translation", other.id, rule.id, str(one))
