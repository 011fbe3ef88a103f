# SPDX-License-Identifier: Apache-2.0
"""The firewall's data plane: packet in, verdict and counters out, in both hooks and IP versions."""

from __future__ import annotations

import time

import pytest
from firewall_lab import Wall, firewall  # noqa: F401
from scapy.layers.inet import GRE, ICMP, IP, TCP, UDP, IPerror
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6ND_NS, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from polycube.cubes.firewall.chains import NOT_LOGGED

E = Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:0b")
A4, B4, A6, B6 = "10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"
DROP, ACCEPT = {"action": "DROP"}, {"action": "ACCEPT"}
VERSIONS = pytest.mark.parametrize("version", [4, 6])


def ip(version, src=1, dst=2, **fields):
    return (
        IP(src=f"10.0.0.{src}", dst=f"10.0.0.{dst}", **fields) if version == 4 else IPv6(src=f"fd00::{src}", dst=f"fd00::{dst}", **fields)
    )


def net(version, text):
    return f"10.0.0.{text}" if version == 4 else f"fd00::{text}"


def echo(version, **fields):
    return ICMP(type=8, **fields) if version == 4 else ICMPv6EchoRequest(**fields)


@pytest.fixture
def wall(firewall):  # noqa: F811
    return lambda **config: Wall(firewall, **{"conntrack": "OFF", **config})


TCP80 = TCP(sport=1234, dport=80, flags="S")
UDP53 = UDP(sport=1234, dport=53)

# What a rule asks, what it holds for, what it does not hold for. `ip` stands for an address of the version.
TABLE = {
    "source": ({"src": "1"}, [(1, UDP53)], [(3, UDP53)]),
    "not a source": ({"src": "!1"}, [(3, UDP53)], [(1, UDP53)]),
    "protocol": ({"l4proto": "TCP"}, [(1, TCP80)], [(1, UDP53), (1, "echo")]),
    "protocols": ({"l4proto": "UDP,GRE"}, [(1, UDP53), (1, GRE())], [(1, TCP80)]),
    "not a protocol": ({"l4proto": "!TCP"}, [(1, UDP53), (1, "echo")], [(1, TCP80)]),
    "range of protocols": ({"l4proto": "40-50"}, [(1, GRE())], [(1, TCP80)]),
    "destination port": ({"dport": 80}, [(1, TCP80), (1, UDP(sport=1, dport=80))], [(1, UDP53), (1, "echo"), (1, GRE())]),
    "ports": ({"dport": "22,79-81"}, [(1, TCP80)], [(1, UDP53), (1, TCP(dport=82))]),
    "not a port": ({"dport": "!80"}, [(1, UDP53)], [(1, TCP80), (1, "echo"), (1, GRE())]),
    "source port": ({"sport": "1000-2000"}, [(1, TCP80)], [(1, TCP(sport=2001, dport=80))]),
    "flags": ({"tcpflags": "SYN,!ACK"}, [(1, TCP80)], [(1, TCP(flags="SA")), (1, TCP(flags="A")), (1, UDP53)]),
    "several": ({"l4proto": "TCP", "dport": 80, "src": "1"}, [(1, TCP80)], [(3, TCP80), (1, UDP(dport=80))]),
    "echo requests": ({"icmptype": "echo-request"}, [(1, "echo")], [(1, UDP53), (1, TCP80)]),
    "no fragment": ({"fragment": "NONE"}, [(1, UDP53)], []),
}


@VERSIONS
@pytest.mark.parametrize("name", TABLE)
def test_a_rule_holds_for_what_it_asks_and_nothing_else(wall, version, name):
    asked, yes, no = TABLE[name]
    rule = {key: net(version, value.removeprefix("!")) if key in ("src", "dst") else value for key, value in asked.items()}
    if str(asked.get("src", "")).startswith("!"):
        rule["src"] = "!" + rule["src"]
    made = wall(ingress=[{**rule, **DROP}], egress=[{**rule, **DROP}])
    for direction in ("ingress", "egress"):
        for source, payload in yes:
            packet = E / ip(version, source) / (echo(version) if payload == "echo" else payload)
            made.cube.send(packet, direction=direction).dropped("rule")
        for source, payload in no:
            packet = E / ip(version, source) / (echo(version) if payload == "echo" else payload)
            made.cube.send(packet, direction=direction).forwarded(packet=packet)
    assert made.counted("INGRESS") == made.counted("EGRESS") == [len(yes), len(no)]


@VERSIONS
def test_the_first_rule_decides(wall, version):
    made = wall(
        ingress=[{"dport": 80, **ACCEPT}, {"l4proto": "TCP", **DROP}, {"src": net(version, 1), **ACCEPT}], defaults={"INGRESS": "DROP"}
    )
    made.cube.send(E / ip(version) / TCP80).forwarded()
    made.cube.send(E / ip(version) / TCP(dport=81)).dropped("rule")
    made.cube.send(E / ip(version) / UDP53).forwarded()
    made.cube.send(E / ip(version, 3) / UDP53).dropped("default")
    assert made.counted() == [1, 1, 1, 1]


def test_rules_of_one_ip_version_are_not_for_the_other(wall):
    made = wall(ingress=[{"src": "0.0.0.0/0", **DROP}], egress=[{"src": "::/0", **DROP}])
    made.cube.send(E / ip(4) / UDP53).dropped("rule")
    made.cube.send(E / ip(6) / UDP53).forwarded()
    made.cube.send(E / ip(4) / UDP53, direction="egress").forwarded()
    made.cube.send(E / ip(6) / UDP53, direction="egress").dropped("rule")


def test_what_is_not_ip_passes_but_by_a_rule_or_default_of_its_own(wall):
    arp, lldp = E / ARP(), Ether(dst="01:80:c2:00:00:0e", type=0x88CC) / bytes(46)
    made = wall(ingress=[DROP], defaults={"INGRESS": "DROP"})
    made.cube.send(arp).forwarded(packet=arp)
    made.configure(ingress=[{"ethertype": "ARP", **DROP}], conntrack="OFF")
    made.cube.send(arp).dropped("rule")
    made.cube.send(lldp).forwarded()
    made.cube.send(E / ip(4) / UDP53).forwarded()
    made.configure(ingress=[{"ethertype": "ARP", **ACCEPT}], others={"INGRESS": "DROP"}, conntrack="OFF")
    made.cube.send(arp).forwarded()
    made.cube.send(lldp).dropped("default")
    made.configure(ingress=[{"ethertype": "!IPV4,ARP", **DROP}], conntrack="OFF")
    made.cube.send(E / ip(4) / UDP53).forwarded()
    made.cube.send(E / ip(6) / UDP53).dropped("rule")
    made.cube.send(lldp).dropped("rule")


@VERSIONS
def test_vlans(wall, version):
    made = wall(ingress=[{"vlan": "5-9", **DROP}])
    made.cube.send(E / Dot1Q(vlan=7) / ip(version) / UDP53).dropped("rule")
    made.cube.send(E / Dot1Q(vlan=10) / ip(version) / UDP53).forwarded()
    made.cube.send(E / ip(version) / UDP53).forwarded()
    made.configure(ingress=[{"vlan": "NONE", **DROP}], conntrack="OFF")
    made.cube.send(E / ip(version) / UDP53).dropped("rule")
    made.cube.send(E / Dot1Q(vlan=7) / ip(version) / UDP53).forwarded()


@VERSIONS
def test_fragments(wall, version):
    head = {"flags": "MF"} if version == 4 else {}
    first = (
        E / ip(version, **head) / (UDP(sport=1, dport=80) if version == 4 else IPv6ExtHdrFragment(m=1) / UDP(sport=1, dport=80)) / bytes(64)
    )
    later = (
        E
        / (IP(src=A4, dst=B4, frag=8, proto=17) if version == 4 else IPv6(src=A6, dst=B6) / IPv6ExtHdrFragment(offset=8, nh=17))
        / bytes(64)
    )
    made = wall(ingress=[{"dport": 80, **DROP}])
    made.cube.send(first).dropped("rule")
    made.cube.send(later).forwarded()  # has no ports
    made.configure(ingress=[{"fragment": "LATER", **DROP}], conntrack="OFF")
    made.cube.send(first).forwarded()
    made.cube.send(later).dropped("rule")


@VERSIONS
def test_sets_are_edited_in_place(wall, version):
    rules = [{"src": "@bad", **DROP}, {"dport": "@web", **DROP}]
    made = wall(ingress=rules, sets=[{"name": "bad", "element": []}, {"name": "web", "element": [{"value": "80"}]}])
    made.cube.send(E / ip(version) / UDP53).forwarded()
    made.cube.send(E / ip(version) / TCP80).dropped("rule")
    counters = [entry.counter for entry in made.chains.table("INGRESS").entries]
    elements = [{"value": net(version, 1)}, {"value": "10.9.0.0/16"}, {"value": "fd09::/16"}]
    made.configure(ingress=rules, sets=[{"name": "bad", "element": elements}, {"name": "web", "element": []}], conntrack="OFF")
    made.cube.send(E / ip(version) / UDP53).dropped("rule")
    made.cube.send(E / ip(version, 3) / TCP80).forwarded()
    assert [entry.counter for entry in made.chains.table("INGRESS").entries] == counters
    assert made.counted() == [1, 1, 2]


@VERSIONS
def test_a_limit_lets_its_burst_through_and_then_the_next_rule_decides(wall, version):
    made = wall(ingress=[{"l4proto": "UDP", "limit": "1/minute", "burst": 3, **ACCEPT}, DROP])
    for _ in range(3):
        made.cube.send(E / ip(version) / UDP53).forwarded()
    for _ in range(2):
        made.cube.send(E / ip(version) / UDP53).dropped("rule")
    assert made.counted() == [3, 2, 0]


@VERSIONS
def test_a_rule_is_no_more_after_its_time(wall, version):
    now = time.time()
    moments = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + after)) for after in (-5, 3600)]
    made = wall(ingress=[{"l4proto": "UDP", "expires": moments[0], **DROP}, {"dport": 80, "expires": moments[1], **DROP}])
    made.cube.send(E / ip(version) / UDP53).forwarded()
    made.cube.send(E / ip(version) / TCP80).dropped("rule")


@VERSIONS
def test_log_rules_log_and_go_on(wall, version):
    made = wall(ingress=[{"l4proto": "UDP", "action": "LOG"}, {"dport": 53, **DROP}])
    made.cube.records("logs")  # of those before
    made.cube.send(E / ip(version) / UDP53).dropped("rule")
    made.cube.send(E / ip(version) / TCP80).forwarded()
    assert made.counted() == [1, 1, 1]
    assert [line[12 : 12 + 14] for line in made.cube.records("logs")] == [bytes(E / ip(version))[:14]]


def test_lines_that_find_no_room_are_counted(wall):
    made = wall(ingress=[{"action": "LOG"}, DROP])
    made.chains.reset([NOT_LOGGED])
    made.cube.records("logs")
    made.cube.program("ingress").test_run(bytes(E / ip(4) / UDP53).ljust(60, b"\0"), repeat=1000)
    missed = made.chains.counts()[NOT_LOGGED][0]
    assert made.counted()[:2] == [1000, 1000] and missed > 0
    assert len(made.cube.records("logs")) + missed == 1000


@VERSIONS
def test_what_is_rejected_goes_up_to_be_answered(wall, version):
    made = wall(ingress=[{"dport": 80, "action": "REJECT"}])
    packet = E / ip(version) / TCP80
    made.cube.send(packet).slowpath(packet=packet)
    made.maps["rejects"][0] = {"rate": {"price": 1 << 60, "burst": 1}}
    made.cube.send(packet).dropped("reject_rate")


@VERSIONS
def test_a_connection_is_followed(wall, version):
    made = wall(conntrack="ON", ingress=[{"dport": 80, "conntrack": "NEW", **ACCEPT}], defaults={"INGRESS": "DROP", "EGRESS": "DROP"})
    up, down = ip(version), ip(version, 2, 1)
    made.cube.send(E / up / TCP(sport=1234, dport=80, flags="A", seq=5, ack=6)).dropped("default")
    made.cube.send(E / up / TCP(sport=1234, dport=80, flags="S", seq=100)).forwarded()
    made.cube.send(E / down / TCP(sport=80, dport=1234, flags="SA", seq=300, ack=101), direction="egress").forwarded()
    made.cube.send(E / up / TCP(sport=1234, dport=80, flags="A", seq=101, ack=301)).forwarded()
    made.cube.send(E / down / TCP(sport=80, dport=1235, flags="A", seq=301, ack=101), direction="egress").dropped("default")
    made.cube.send(E / up / TCP(sport=1234, dport=80, flags="A", seq=900_000_000, ack=301)).dropped("default")  # out of the window
    assert made.established("INGRESS") == 1 and made.established("EGRESS") == 1
    assert len(list(made.cube.map("sessions").items())) == 1


@VERSIONS
def test_labels(wall, version):
    def rules(label):
        return {"ingress": [{"conntrack": label, **DROP}], "accept-established": "OFF", "conntrack": "ON"}

    up, down = ip(version), ip(version, 2, 1)
    made = wall(**rules("INVALID"))
    made.cube.send(E / up / TCP(sport=1, dport=2, flags="A")).dropped("rule")
    made.configure(**rules("NEW"))
    made.cube.send(E / up / UDP53).dropped("rule")
    made.cube.send(E / up / UDP53, direction="egress").forwarded()
    made.cube.send(E / down / UDP(sport=53, dport=1234)).forwarded()  # an answer
    made.configure(**rules("ESTABLISHED"))
    made.cube.send(E / down / UDP(sport=53, dport=1234)).dropped("rule")
    made.configure(**rules("RELATED"))
    quoted = up / UDP53
    error = ICMP(type=3, code=3) / IPerror(bytes(quoted)) if version == 4 else ICMPv6DestUnreach() / Raw(bytes(quoted))
    made.cube.send(E / down / error).dropped("rule")
    made.cube.send(E / down / (ICMP(type=0) if version == 4 else ICMPv6EchoReply(id=9))).forwarded()  # INVALID, not RELATED


@VERSIONS
def test_sessions_are_for_what_was_accepted(wall, version):
    made = wall(conntrack="ON", ingress=[DROP])
    made.cube.send(E / ip(version) / UDP53).dropped("rule")
    assert len(list(made.cube.map("sessions").items())) == 0


def test_a_full_session_table_stops_nobody_who_is_in_it(cube):
    small = cube("firewall", transparent=True, sizes={"sessions": 2})
    made = Wall(small, conntrack="ON", ingress=[{"conntrack": "NEW", **ACCEPT}], defaults={"INGRESS": "DROP"})
    for port in range(10):
        made.cube.send(E / ip(4) / UDP(sport=port, dport=53)).forwarded()
    made.cube.send(E / ip(4, 2, 1) / UDP(sport=53, dport=0), direction="egress").forwarded()
    made.cube.send(E / ip(4) / UDP(sport=0, dport=53)).forwarded()
    assert made.established("INGRESS") == 1
    assert sum(made.cube.map("ct_failures").percpu(0)) == 10 - len(made.cube.map("sessions")) > 0


def test_neighbour_discovery_is_untracked(wall):
    made = wall(conntrack="ON", ingress=[{"conntrack": "UNTRACKED", **ACCEPT}], defaults={"INGRESS": "DROP"})
    made.cube.send(E / IPv6(src=A6, dst="ff02::1:ff00:2", hlim=255) / ICMPv6ND_NS(tgt=B6)).forwarded()
    made.cube.send(E / ip(6) / UDP53).dropped("default")


@pytest.mark.parametrize(
    "frame",
    [
        bytes(12) + b"\x08\x00",
        bytes(12) + b"\x08\x00\x45" + bytes(10),
        bytes(E / IP(ihl=4, src=A4, dst=B4) / UDP53),
        bytes(E / IP(src=A4, dst=B4, len=1000) / UDP53),
        bytes(E / IP(src=A4, dst=B4, proto=6) / bytes(10)),
        bytes(E / IPv6(src=A6, dst=B6, plen=200) / UDP53),
        bytes(E / IPv6(src=A6, dst=B6, nh=6) / bytes(8)),
    ],
)
def test_what_is_malformed_is_dropped_as_such(wall, frame):
    wall(conntrack="ON").cube.send(frame).dropped("malformed")


@VERSIONS
def test_a_change_takes_effect_whole_and_counters_stay(wall, version):
    rules = [{"sport": port, **ACCEPT} for port in range(1000, 1300)]
    made = wall(ingress=rules)
    made.cube.send(E / ip(version) / UDP(sport=1299, dport=1)).forwarded()
    made.configure(ingress=[{"sport": 1299, "dport": 2, **DROP}, *rules[100:], DROP], conntrack="OFF")
    assert made.counted()[-3:] == [1, 0, 0]
    made.cube.send(E / ip(version) / UDP(sport=1299, dport=2)).dropped("rule")
    made.cube.send(E / ip(version) / UDP(sport=1299, dport=1)).forwarded()
    made.cube.send(E / ip(version) / UDP(sport=1000, dport=1)).dropped("rule")
    assert made.counted()[0] == 1 and made.counted()[-3:] == [2, 1, 0]
