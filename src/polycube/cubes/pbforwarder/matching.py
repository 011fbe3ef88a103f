# SPDX-License-Identifier: Apache-2.0
"""From the rules of the model to those of the classifier. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from polycube.cubes.pbforwarder.model import PbforwarderConfig, Protocol, Rule, Verb, networks, numbers
from polycube.model import Problem, Tag, suggest
from polycube.net.addr import Mac
from polycube.toolkit import classify
from polycube.toolkit.classify import Result, Space, Values

PROTOCOLS = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132, Protocol.ICMP: 1, Protocol.ICMPV6: 58}
WITH_PORTS = {Protocol.TCP, Protocol.UDP, Protocol.SCTP}
_MAC_BITS, _MAC_FILL = 48, 16  # of a MAC; the classifier's has 64


def match_of(rule: Rule, ports: Mapping[str, int]) -> classify.Match:
    """What a rule asks. `ports`: numbers by name."""
    asked: dict[Space, Values] = {}
    for space4, space6, text in ((Space.SRC4, Space.SRC6, rule.src_ip), (Space.DST4, Space.DST6, rule.dst_ip)):
        if text is not None:
            found = networks(text)
            asked[space4 if found[0].version == 4 else space6] = classify.prefixes(*found)
    for space, value in ((Space.SPORT, rule.src_port), (Space.DPORT, rule.dst_port), (Space.VLAN, rule.vlan)):
        if value is not None:
            asked[space] = classify.ranges(numbers(value))
    for space, mac in ((Space.SMAC, rule.src_mac), (Space.DMAC, rule.dst_mac)):
        if mac is not None:
            asked[space] = Values(((Mac.parse(mac).value << _MAC_FILL, _MAC_BITS),))
    if rule.l4_proto is not None:
        number = PROTOCOLS[rule.l4_proto]
        asked[Space.PROTO] = classify.ranges((number, number))
    if rule.in_port is not None:
        asked[Space.IN_PORT] = classify.ranges((ports[rule.in_port], ports[rule.in_port]))
    return classify.match(asked)


def rules_of(config: PbforwarderConfig, ports: Mapping[str, int]) -> Iterator[classify.Rule]:
    """In the order of their numbers. A rule that asks for something else under the same number is another one."""
    for rule in sorted(config.rules.values(), key=lambda rule: rule.id):
        result = Result(list(Verb).index(rule.action), data=ports[rule.out_port] if rule.out_port is not None else 0)
        asked = match_of(rule, ports)
        yield classify.Rule((rule.id, asked), asked, result)


def objections(rule: Rule, config: PbforwarderConfig) -> Iterable[Problem]:
    """Why a rule makes no sense."""
    at = ("rules", str(rule.id))
    if rule.action is Verb.FORWARD and rule.out_port is None:
        yield Problem(Tag.INVALID_VALUE, at, "is refused: Port is mandatory to FORWARD")  # upstream's words
    for name, port in (("in_port", rule.in_port), ("out_port", rule.out_port)):
        if port is not None and port not in config.ports:
            yield Problem(Tag.INVALID_VALUE, (*at, name), f"cannot be {port}: there is no such port{suggest(port, config.ports)}")
    versions = {found[0].version for text in (rule.src_ip, rule.dst_ip) if text is not None for found in [networks(text)]}
    if rule.l4_proto in (Protocol.ICMP, Protocol.ICMPV6):
        versions.add(4 if rule.l4_proto is Protocol.ICMP else 6)
    if len(versions) > 1:
        yield Problem(Tag.INVALID_VALUE, at, "is refused: source, destination and protocol are not of one IP version, so it never matches")
    if rule.l4_proto not in (None, *WITH_PORTS) and (rule.src_port is not None or rule.dst_port is not None):
        yield Problem(Tag.INVALID_VALUE, at, f"is refused: {rule.l4_proto} has no ports, so it never matches")
