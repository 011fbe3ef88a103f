# SPDX-License-Identifier: Apache-2.0
"""The policy-based forwarder: packets through its data plane, rules against a plain model, what is refused."""

from __future__ import annotations

import ipaddress
import random
from typing import Any

import pytest
from cases import each
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from polycube.cubes.pbforwarder import Pbforwarder
from polycube.model import Edit, ModelError, Op
from polycube.testing.control import ControlPlane
from polycube.testing.harness import CubeUnderTest

A, B, C = "02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c"
PORTS = [{"name": f"p{number}"} for number in range(3)]


class Lab(ControlPlane[Pbforwarder]):
    """pb1 with three ports."""

    def __init__(self, made: CubeUnderTest, rules: list[dict[str, Any]]) -> None:
        super().__init__(made, Pbforwarder, {"ports": PORTS, "rules": rules}, "pb1")

    def counts(self) -> dict[int, tuple[int, int]]:
        return {one["id"]: (one["packets"], one["bytes"]) for one in self.service.state()["rules"]}


@pytest.fixture
def lab(cube: Any) -> Any:
    return lambda *rules: Lab(cube("pbforwarder", ports=3), list(rules))


def forward(number: int, port: str, **fields: Any) -> dict[str, Any]:
    return {"id": number, "action": "FORWARD", "out_port": port, **fields}


ETH = Ether(src=A, dst=B)
V4 = ETH / IP(src="10.0.0.1", dst="10.1.0.1")
V6 = ETH / IPv6(src="2001:db8::1", dst="2001:db8:1::1")
TCP4, UDP4, TCP6, UDP6 = (base / layer(sport=1000, dport=80) for base in (V4, V6) for layer in (TCP, UDP))
TAGGED = Ether(src=A, dst=B) / Dot1Q(vlan=10) / IP(src="10.0.0.1", dst="10.1.0.1") / UDP(sport=1000, dport=80)
ALL = {"tcp4": TCP4, "udp4": UDP4, "tcp6": TCP6, "udp6": UDP6, "arp": ETH / ARP(), "tagged": TAGGED, "icmp": V4 / ICMP()}

FIELDS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "nothing": ({}, set(ALL)),
    "vlan": ({"vlan": 10}, {"tagged"}),
    "range of vlans": ({"vlan": "5-20"}, {"tagged"}),
    "another vlan": ({"vlan": 11}, set()),
    "source mac": ({"src_mac": A}, set(ALL)),
    "another source mac": ({"src_mac": C}, set()),
    "destination mac": ({"dst_mac": B}, set(ALL)),
    "source address": ({"src_ip": "10.0.0.1"}, {"tcp4", "udp4", "tagged", "icmp"}),
    "another source": ({"src_ip": "10.0.0.2"}, set()),
    "source prefix": ({"src_ip": "10.0.0.0/30"}, {"tcp4", "udp4", "tagged", "icmp"}),
    "destination range": ({"dst_ip": "10.0.255.9-10.1.0.7"}, {"tcp4", "udp4", "tagged", "icmp"}),
    "range that ends before": ({"dst_ip": "10.0.255.9-10.1.0.0"}, set()),
    "ipv6 address": ({"src_ip": "2001:db8::1"}, {"tcp6", "udp6"}),
    "ipv6 prefix": ({"dst_ip": "2001:db8:1::/48"}, {"tcp6", "udp6"}),
    "tcp": ({"l4_proto": "TCP"}, {"tcp4", "tcp6"}),
    "udp": ({"l4_proto": "UDP"}, {"udp4", "udp6", "tagged"}),
    "icmp": ({"l4_proto": "ICMP"}, {"icmp"}),
    "destination port": ({"dst_port": 80}, {"tcp4", "udp4", "tcp6", "udp6", "tagged"}),
    "range of ports": ({"src_port": "1000-1001", "l4_proto": "TCP"}, {"tcp4", "tcp6"}),
    "another port": ({"dst_port": "81-65535"}, set()),
    "port it came by": ({"in_port": "p0"}, set(ALL)),
    "another port it came by": ({"in_port": "p1"}, set()),
    "all of them": (
        {
            "src_mac": A,
            "dst_mac": B,
            "src_ip": "10.0.0.0/8",
            "dst_ip": "10.1.0.1",
            "l4_proto": "UDP",
            "src_port": 1000,
            "dst_port": 80,
            "vlan": 10,
        },
        {"tagged"},
    ),
}


def test_rule_takes_the_frames_it_asks_for_and_no_others(lab: Any) -> None:
    made = lab()
    for number, (asked, expected) in enumerate(each(FIELDS)):
        made.edit(Edit(Op.REPLACE, ("rules",), [forward(number, "p2", **asked)]))
        for what, packet in ALL.items():
            result = made.send(packet)
            if what in expected:
                result.forwarded(2, packet)
            else:
                result.dropped("no_rule")
        assert made.counts()[number][0] == len(expected)


def test_lowest_number_decides_with_gaps_and_whatever_the_order_of_creation(lab: Any) -> None:
    made = lab(forward(70, "p2"), {"id": 5, "dst_port": 80}, forward(9, "p1", l4_proto="TCP"))
    made.send(TCP4).dropped("policy")
    made.send(V4 / TCP(dport=443)).forwarded(1)
    made.send(V4 / UDP(dport=53)).forwarded(2)
    made.edit(Edit(Op.DELETE, ("rules", "5")))
    made.send(TCP4).forwarded(1)


def test_slow_path_gets_the_frame_and_counts_it(lab: Any) -> None:
    made = lab({"id": 0, "action": "SLOWPATH", "l4_proto": "UDP"})
    made.send(UDP6).slowpath(1, packet=UDP6)
    made.send(TCP6).dropped("no_rule")
    assert made.counts() == {0: (1, len(UDP6))}


MALFORMED = {
    "ipv4 header cut off": bytes(TCP4)[:30],
    "tcp header cut off": bytes(TCP4)[:40],
    "tcp header too short": bytes(TCP4)[:46] + b"\x10" + bytes(TCP4)[47:],
    "length beyond the frame": bytes(TCP4)[:16] + b"\x7f" + bytes(TCP4)[17:],
    "ipv6 header cut off": bytes(TCP6)[:50],
    "ipv6 length beyond the frame": bytes(UDP6)[:18] + b"\x7f" + bytes(UDP6)[19:],
    "tag cut off": bytes(TAGGED)[:15],
}


def test_malformed_frame_is_dropped(lab: Any) -> None:
    made = lab(forward(0, "p2", src_mac=A), forward(1, "p1"))
    for frame in each(MALFORMED):
        made.send(frame).dropped("malformed")


ODD = {
    "later fragment has no ports": (ETH / IP(src="10.0.0.1", dst="10.1.0.1", frag=9, proto=6) / Raw(b"x" * 30), None),
    "options": (ETH / IP(src="10.0.0.1", dst="10.1.0.1", options=[b"\x01" * 4]) / TCP(sport=1, dport=80), 2),
    "extension header": (ETH / IPv6(src="2001:db8::1", dst="2001:db8:1::1") / IPv6ExtHdrHopByHop() / TCP(sport=1, dport=80), 2),
    "two tags": (ETH / Dot1Q(vlan=10) / Dot1Q(vlan=20) / IP() / TCP(sport=1, dport=80), 2),
}


def test_odd_frame_is_matched_by_what_it_has(lab: Any) -> None:
    made = lab(forward(0, "p2", dst_port=80))
    for packet, port in each(ODD):
        result = made.send(packet)
        if port is None:
            result.dropped("no_rule")
        else:
            result.forwarded(port)


def test_change_keeps_the_counters_of_other_rules_also_across_a_restart(lab: Any) -> None:
    made = lab(forward(0, "p1", l4_proto="TCP"), forward(5, "p2"))
    made.send(TCP4)
    made.send(UDP4)
    made.edit(Edit(Op.CREATE, ("rules", "3"), {"dst_port": 53}))
    assert {number: packets for number, (packets, _) in made.counts().items()} == {0: 1, 3: 0, 5: 1}
    made.adopt()
    assert {number: packets for number, (packets, _) in made.counts().items()} == {0: 1, 3: 0, 5: 1}
    made.edit(Edit(Op.MERGE, ("rules", "5"), {"out_port": "p0"}))
    made.send(V4 / UDP(dport=54)).forwarded(0)
    assert {number: packets for number, (packets, _) in made.counts().items()} == {0: 1, 3: 0, 5: 2}


REFUSED = {
    "no out port": ({"id": 0, "action": "FORWARD"}, "Port is mandatory to FORWARD"),
    "unknown out port": (forward(0, "p9"), "there is no such port"),
    "unknown in port": (forward(0, "p1", in_port="p9"), "there is no such port"),
    "two versions": ({"id": 0, "src_ip": "10.0.0.1", "dst_ip": "2001:db8::1"}, "are not of one IP version"),
    "icmp over ipv6": ({"id": 0, "l4_proto": "ICMP", "dst_ip": "2001:db8::1"}, "are not of one IP version"),
    "ports of icmp": ({"id": 0, "l4_proto": "ICMP", "dst_port": 1}, "ICMP has no ports"),
    "port too large": ({"id": 0, "dst_port": 65536}, "a number from 0 to 65535"),
    "ports backwards": ({"id": 0, "dst_port": "90-80"}, "or a range such as"),
    "addresses backwards": ({"id": 0, "src_ip": "10.0.0.9-10.0.0.1"}, "or a range such as"),
    "mixed addresses": ({"id": 0, "src_ip": "10.0.0.9-2001:db8::"}, "or a range such as"),
    "no address": ({"id": 0, "src_ip": "10.0.0"}, "an IPv4 or IPv6 address"),
    "vlan": ({"id": 0, "vlan": 5000}, "a number from 0 to 4095"),
    "true": ({"id": 0, "dst_port": True}, "a number from 0 to 65535"),
}


@pytest.mark.parametrize("hook", ["xdp"])
def test_rule_that_makes_no_sense_is_refused_in_one_sentence(lab: Any, hook: str) -> None:
    made = lab(forward(1, "p1"))
    for rule, sentence in each(REFUSED):
        with pytest.raises(ModelError) as caught:
            made.edit(Edit(Op.MERGE, ("rules",), [rule]))
        assert sentence in str(caught.value) and "\n" not in str(caught.value)
        made.send(TCP4).forwarded(1)


@pytest.mark.parametrize("hook", ["xdp"])
def test_port_that_a_rule_names_can_not_go(lab: Any, hook: str) -> None:
    made = lab(forward(0, "p1"))
    with pytest.raises(ModelError, match="rules/0/out_port cannot be p1"):
        made.edit(Edit(Op.DELETE, ("ports", "p1")))


def plain(rules: list[dict[str, Any]], frame: dict[str, Any]) -> int | None:
    """First-match policy by the book."""

    def holds(asked: Any, value: Any) -> bool:
        if value is None:
            return False
        if isinstance(asked, str) and (":" in asked or "." in asked):
            low, _, high = asked.partition("-")
            if high:
                one, two = ipaddress.ip_address(low), ipaddress.ip_address(high)
                return one.version == value.version and int(one) <= int(value) <= int(two)
            return value in ipaddress.ip_network(low)
        if isinstance(asked, str) and "-" in asked:
            low, high = asked.split("-")
            return int(low) <= value <= int(high)
        return bool(asked == value)

    names = ("src_ip", "dst_ip", "l4_proto", "src_port", "dst_port", "vlan")
    for rule in sorted(rules, key=lambda one: one["id"]):
        if all(holds(rule[name], frame[name]) for name in names if name in rule):
            return int(rule["id"])
    return None


def chosen(chance: random.Random, version: int, count: int) -> list[dict[str, Any]]:
    rules = []
    for number in range(count):
        rule: dict[str, Any] = forward(number, f"p{number % 3}")
        for name in ("src_ip", "dst_ip"):
            if chance.random() < 0.6:
                rule[name] = chance.choice(_addresses(chance, version))
        if chance.random() < 0.5:
            rule["l4_proto"] = chance.choice(["TCP", "UDP"])
        for name in ("src_port", "dst_port"):
            if chance.random() < 0.4:
                low = chance.randrange(8)
                rule[name] = chance.choice([low, f"{low}-{low + chance.randrange(1, 4)}"])
        if chance.random() < 0.2:
            rule["vlan"] = chance.choice([1, "1-2", 3])
        rules.append(rule)
    return rules


def _addresses(chance: random.Random, version: int) -> list[str]:
    low = chance.randrange(8)
    base = "10.0.0." if version == 4 else "2001:db8::"
    return [
        f"{base}{low}",
        f"{base}{low}-{base}{low + 3}",
        f"{base}0/{29 if version == 4 else 125}",
        "0.0.0.0/0" if version == 4 else "::/0",
    ]


@pytest.mark.parametrize("version", [4, 6])
def test_random_rules_decide_as_the_first_that_matches(lab: Any, version: int) -> None:
    chance = random.Random(version)
    rules = chosen(chance, version, 60)
    made = lab(*rules)
    base = "10.0.0." if version == 4 else "2001:db8::"
    for _ in range(80):
        source, target = (f"{base}{chance.randrange(10)}" for _ in range(2))
        ports = {"sport": chance.randrange(9), "dport": chance.randrange(9)}
        proto, vlan = chance.choice(["TCP", "UDP"]), chance.choice([None, None, 1, 2, 3])
        packet = ETH / Dot1Q(vlan=vlan) if vlan else ETH
        packet = packet / (IP if version == 4 else IPv6)(src=source, dst=target) / (TCP if proto == "TCP" else UDP)(**ports)
        frame = {"src_ip": ipaddress.ip_address(source), "dst_ip": ipaddress.ip_address(target), "l4_proto": proto, "vlan": vlan}
        expected = plain(rules, frame | {"src_port": ports["sport"], "dst_port": ports["dport"]})
        result = made.send(packet)
        if expected is None:
            result.dropped("no_rule")
        else:
            result.forwarded(expected % 3)
