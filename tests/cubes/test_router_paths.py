# SPDX-License-Identifier: Apache-2.0
"""VLANs, several next hops, routes that lead nowhere, sources that are checked, packets that are cut: through data and control plane."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from cases import each
from router_lab import CONFIG, HOST, MAC, Lab
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

from polycube.model import Edit, Op

PORTS = [
    {**CONFIG["ports"][0], "vlan": [{"vlan": 10, "ip": "10.10.0.1/24", "secondaryip": [{"ip": "2001:db8:10::1/64"}]}, {"vlan": 30}]},  # type: ignore[index]
    {**CONFIG["ports"][1], "vlan": [{"vlan": 20, "ip": "10.20.0.1/24", "secondaryip": [{"ip": "2001:db8:20::1/64"}]}]},  # type: ignore[index]
    CONFIG["ports"][2],  # type: ignore[index]
]
PEERS = {"p0.10": ("10.10.0.2", "2001:db8:10::2"), "p1.20": ("10.20.0.2", "2001:db8:20::2")}
NEIGHBOURS = [
    {"address": address, "mac": HOST[int(name[1])], "interface": name} for name, addresses in PEERS.items() for address in addresses
]
SOURCES = [{"address": address, "mac": HOST[0], "interface": "p0"} for address in ("10.0.0.2", "2001:db8::2")]
VLANS = {**CONFIG, "ports": PORTS, "arp-table": [*CONFIG["arp-table"], *NEIGHBOURS, *SOURCES]}  # type: ignore[misc]


@pytest.fixture
def lab(cube: Any) -> Lab:
    return Lab(cube("router", ports=3), config=VLANS)


def eth(port: int = 0, vlan: int = 0, dst: str | None = None) -> Any:
    frame = Ether(dst=dst or MAC[port], src=HOST[port])
    return frame / Dot1Q(vlan=vlan) if vlan else frame


def ip(dst: str, src: str, **fields: Any) -> Any:
    return (IPv6 if ":" in dst else IP)(dst=dst, src=src, **fields)


def hopped(packet: Any, port: int, vlan: int = 0) -> Any:
    """What must leave by a port."""
    inner = packet[IPv6 if IPv6 in packet else IP].copy()
    if IP in packet:
        inner.ttl -= 1
        del inner.chksum
    else:
        inner.hlim -= 1
    frame = Ether(dst=HOST[port], src=MAC[port])
    return (frame / Dot1Q(vlan=vlan) if vlan else frame) / inner


# ---- VLANs ----

WAYS: dict[str, tuple[Any, ...]] = {
    "tagged to tagged": (0, 10, 1, 20, ("10.20.0.2", "10.10.0.2"), ("2001:db8:20::2", "2001:db8:10::2")),
    "tagged to untagged": (0, 10, 1, 0, ("10.0.1.2", "10.10.0.2"), ("2001:db8:1::2", "2001:db8:10::2")),
    "untagged to tagged": (0, 0, 1, 20, ("10.20.0.2", "10.0.0.2"), ("2001:db8:20::2", "2001:db8::2")),
    "one vlan of a port to another": (0, 10, 0, 10, ("10.10.0.2", "10.10.0.9"), ("2001:db8:10::2", "2001:db8:10::9")),
}


@pytest.mark.parametrize("version", [4, 6])
def test_tags_come_off_and_on(lab: Lab, version: int) -> None:
    for port, vlan, out, out_vlan, *addresses in each(WAYS):
        packet = eth(port, vlan) / ip(*addresses[version // 6]) / UDP() / Raw(b"x" * 30)
        lab.send(packet, port).forwarded(out, hopped(Ether(bytes(packet)), out, out_vlan))


def test_priority_tag_is_none(lab: Lab) -> None:
    packet = eth() / Dot1Q(vlan=0, prio=5) / ip("10.0.1.2", "10.0.0.2") / UDP()
    lab.send(packet).forwarded(1, hopped(Ether(bytes(packet)), 1))


TAGGED = {
    "vlan that the port does not have": (eth(0, 11) / ip("10.0.1.2", "10.0.0.2") / UDP(), "tagged"),
    "vlan of another port": (eth(0, 20) / ip("10.0.1.2", "10.0.0.2") / UDP(), "tagged"),
    "two tags": (eth(0, 10) / Dot1Q(vlan=20) / ip("10.0.1.2", "10.0.0.2") / UDP(), "tagged"),
    "provider tag": (eth() / Dot1AD(vlan=10) / ip("10.0.1.2", "10.0.0.2") / UDP(), "tagged"),
    "another mac": (eth(0, 10, dst="02:00:00:00:00:99") / ip("10.0.1.2", "10.10.0.2") / UDP(), "other_mac"),
    "cut off behind the tag": (bytes(eth(0, 10) / ip("10.0.1.2", "10.10.0.2") / UDP())[:30], "malformed"),
    "martian behind the tag": (eth(0, 10) / ip("10.0.1.2", "127.0.0.1") / UDP(), "martian_source"),
}


def test_tagged_frame_is_dropped_for_a_counted_reason(lab: Lab) -> None:
    for packet, reason in each(TAGGED):
        lab.send(packet).dropped(reason)


def test_router_answers_in_the_vlan_it_was_asked_in(lab: Lab) -> None:
    arp = eth(0, 10, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=HOST[0], psrc="10.10.0.5", pdst="10.10.0.1")
    reply = Ether(dst=HOST[0], src=MAC[0]) / Dot1Q(vlan=10) / ARP(op=2, hwsrc=MAC[0], psrc="10.10.0.1", hwdst=HOST[0], pdst="10.10.0.5")
    with lab.cube.changes("neighbours4") as changes:  # type: ignore[union-attr]
        lab.send(arp).forwarded(0, reply)
    assert [key["interface"] for key, _ in changes.added] == [10 << 16]
    echo = eth(0, 10) / ip("10.10.0.1", "10.10.0.5", id=1) / ICMP(id=3) / b"payload"
    back = Ether(dst=HOST[0], src=MAC[0]) / Dot1Q(vlan=10) / ip("10.10.0.5", "10.10.0.1", id=1, ttl=64) / ICMP(type=0, id=3) / b"payload"
    lab.send(echo).forwarded(0, back)
    echo6 = eth(0, 10) / ip("2001:db8:10::1", "2001:db8:10::5") / ICMPv6EchoRequest(id=3)
    back6 = Ether(dst=HOST[0], src=MAC[0]) / Dot1Q(vlan=10) / ip("2001:db8:10::5", "2001:db8:10::1", hlim=64) / ICMPv6EchoReply(id=3)
    lab.send(echo6).forwarded(0, back6)
    lab.send(eth(0, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=HOST[0], psrc="10.0.0.5", pdst="10.10.0.1")).dropped("arp_ignored")


def test_neighbours_in_a_vlan_are_asked_for_and_errors_reported_there(lab: Lab) -> None:
    lab.tick()
    lab.take()
    packet = eth(0, 10) / ip("10.20.0.77", "10.10.0.2") / UDP() / Raw(b"wait")
    lab.send(packet).slowpath()
    ((port, asked),) = lab.take()
    assert port == 1 and Ether(asked)[Dot1Q].vlan == 20 and Ether(asked)[ARP].pdst == "10.20.0.77"
    answer = eth(1, 20) / ARP(op=2, hwsrc="02:00:00:00:00:77", psrc="10.20.0.77", hwdst=MAC[1], pdst="10.20.0.1")
    lab.send(answer, 1).slowpath()
    ((port, sent),) = lab.take()
    assert port == 1 and Ether(sent)[Dot1Q].vlan == 20 and Ether(sent)[IP].ttl == 63 and Ether(sent).dst == "02:00:00:00:00:77"
    lab.send(packet).forwarded(1)
    lab.send(eth(0, 10) / ip("10.20.0.2", "10.10.0.2", ttl=1) / UDP()).slowpath()
    ((port, error),) = lab.take()
    assert port == 0 and Ether(error)[Dot1Q].vlan == 10 and Ether(error)[IP].src == "10.10.0.1" and Ether(error)[ICMP].type == 11


def test_vlan_that_goes_takes_its_interface_routes_and_neighbours_along(lab: Lab) -> None:
    lab.edit(Edit(Op.DELETE, ("arp-table",)), Edit(Op.DELETE, ("ports", "p0", "vlan", "10")))
    lab.send(eth(0, 10) / ip("10.0.1.2", "10.10.0.2") / UDP()).dropped("tagged")
    assert lab.router.maps["subinterfaces"].get(10 << 16) is None and lab.router.maps["subinterfaces"].get(30 << 16) is not None
    assert all(key["interface"] != 10 << 16 for key, _ in lab.router.maps["neighbours4"].items())


# ---- several next hops ----

HOPS = {4: ["10.0.1.2", "10.0.2.2"], 6: ["2001:db8:1::2", "2001:db8:2::2"]}
NETWORK = {4: "20.0.0.0/8", 6: "2001:db8:2000::/36"}
TARGET = {4: "20.1.2.3", 6: "2001:db8:2000::3"}
SOURCE = {4: "10.0.0.2", 6: "2001:db8::2"}


def several(lab: Lab, version: int) -> None:
    lab.edit(Edit(Op.MERGE, ("arp-table",), [{"address": HOPS[6][1], "mac": HOST[2], "interface": "p2"}]))
    lab.edit(Edit(Op.MERGE, ("route",), [{"network": NETWORK[version], "nexthop": hop} for hop in HOPS[version]]))


def flow(version: int, number: int, **fields: Any) -> Any:
    return eth() / ip(TARGET[version], SOURCE[version], **fields) / UDP(sport=1000 + number, dport=53)


@pytest.mark.parametrize("version", [4, 6])
def test_flows_are_spread_over_the_next_hops_and_each_keeps_to_its_own(lab: Lab, version: int) -> None:
    several(lab, version)
    first = [lab.send(flow(version, number)).port for number in range(40)]
    assert set(first) == {1, 2} and min(Counter(first).values()) >= 8
    assert [lab.send(flow(version, number)).port for number in range(40)] == first
    packet = Ether(bytes(flow(version, 7)))
    lab.send(packet).forwarded(first[7], hopped(packet, first[7]))  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [4, 6])
def test_flows_of_other_next_hops_stay_when_one_comes_or_goes(lab: Lab, version: int) -> None:
    several(lab, version)
    before = [lab.send(flow(version, number)).port for number in range(30)]
    third = {4: ("10.0.0.2", "2001:db8::2")[0], 6: "2001:db8::9"}[version]
    lab.edit(Edit(Op.MERGE, ("arp-table",), [{"address": third, "mac": HOST[0], "interface": "p0"}]))
    lab.edit(Edit(Op.CREATE, ("route", NETWORK[version], third), {}))
    after = [lab.send(flow(version, number)).port for number in range(30)]
    assert {new for old, new in zip(before, after, strict=True) if new != old} == {0}
    lab.edit(Edit(Op.DELETE, ("route", NETWORK[version], third)))
    assert [lab.send(flow(version, number)).port for number in range(30)] == before
    lab.edit(Edit(Op.DELETE, ("route", NETWORK[version], HOPS[version][0])))
    assert {lab.send(flow(version, number)).port for number in range(30)} == {2}
    assert list(lab.router.maps["groups"].items()) == []


@pytest.mark.parametrize("version", [4, 6])
def test_fragments_of_a_datagram_take_one_way(lab: Lab, version: int) -> None:
    several(lab, version)
    head = eth() / ip(TARGET[version], SOURCE[version])
    for number in range(6):
        ports = []
        for offset, more in ((0, 1), (100, 0)):
            if version == 4:
                data = eth() / ip(TARGET[4], SOURCE[4], frag=offset, flags=more, proto=17) / Raw(bytes([0, number]) * 40)
            else:
                data = head / IPv6ExtHdrFragment(offset=offset, m=more, nh=17) / Raw(bytes([0, number]) * 40)
            ports.append(lab.send(data).port)
        assert ports[0] == ports[1]


def test_routes_with_the_same_next_hops_share_a_group_that_goes_with_the_last(lab: Lab) -> None:
    for network in ("21.0.0.0/8", "22.0.0.0/8"):
        lab.edit(Edit(Op.MERGE, ("route",), [{"network": network, "nexthop": hop} for hop in HOPS[4]]))
    assert len(list(lab.router.maps["groups"].items())) == 1
    lab.edit(Edit(Op.MERGE, ("route",), [{"network": "21.0.0.0/8", "nexthop": "10.0.0.2"}]))
    assert len(list(lab.router.maps["groups"].items())) == 2
    lab.edit(Edit(Op.DELETE, ("route",)))
    assert list(lab.router.maps["groups"].items()) == []


def test_unknown_next_hop_of_several_is_the_one_that_is_asked_for(lab: Lab) -> None:
    hops = ["10.0.1.77", "10.0.1.78"]
    lab.edit(Edit(Op.MERGE, ("route",), [{"network": NETWORK[4], "nexthop": hop} for hop in hops]))
    asked = set()
    for number in range(20):
        lab.send(flow(4, number)).slowpath()
        asked |= {Ether(frame)[ARP].pdst for _, frame in lab.take()}
    assert asked == set(hops)


# ---- routes that lead nowhere ----

NOWHERE = {"blackhole": None, "unreachable": ((3, 1), (1, 0)), "prohibit": ((3, 13), (1, 1))}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("word", NOWHERE)
def test_route_that_leads_nowhere_says_so_or_not(lab: Lab, word: str, version: int) -> None:
    lab.edit(Edit(Op.CREATE, ("route", NETWORK[version], word), {}))
    lab.tick()
    lab.take()
    result = lab.send(flow(version, 1))
    codes = NOWHERE[word]
    if codes is None:
        result.dropped("blackhole")
        assert lab.take() == []
        return
    ((port, frame),) = lab.take()
    error = Ether(frame)[ICMP] if version == 4 else Ether(frame)[ICMPv6DestUnreach]
    assert port == 0 and (error.type, error.code) == codes[version // 6]


def test_longer_prefix_leads_out_of_a_blackhole(lab: Lab) -> None:
    lab.edit(
        Edit(Op.MERGE, ("route",), [{"network": NETWORK[4], "nexthop": "blackhole"}, {"network": "20.1.0.0/16", "nexthop": "10.0.1.2"}])
    )
    lab.send(flow(4, 1)).forwarded(1)
    lab.send(eth() / ip("20.2.0.1", SOURCE[4]) / UDP()).dropped("blackhole")


# ---- sources ----

BACK = {  # source, in strict mode, in loose mode
    "of the port's network": ("10.0.0.9", "2001:db8::9", True, True),
    "of another port's network": ("10.0.1.9", "2001:db8:1::9", False, True),
    "by a route elsewhere": ("172.16.0.9", "2001:db8:ff::9", False, True),
    "in a blackhole": ("30.0.0.9", "2001:db8:3000::9", False, False),
    "without a route": ("40.0.0.9", "2001:ffff::9", False, False),
    "by several next hops, one of them here": ("20.0.0.9", "2001:db8:2000::9", True, True),
}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("mode", ["strict", "loose", "none"])
def test_sources_are_checked_as_the_port_says(lab: Lab, mode: str, version: int) -> None:
    own, other = {4: ("10.0.0.2", "10.0.1.2"), 6: ("2001:db8::2", "2001:db8:1::2")}[version]
    lab.edit(Edit(Op.DELETE, ("route", "0.0.0.0/0", "10.0.2.2")))
    lab.edit(
        Edit(Op.MERGE, ("ports", "p0", "urpf"), mode),
        Edit(Op.MERGE, ("route",), [{"network": NETWORK[version], "nexthop": hop} for hop in (own, other)]),
        Edit(Op.MERGE, ("route",), [{"network": {4: "30.0.0.0/8", 6: "2001:db8:3000::/36"}[version], "nexthop": "blackhole"}]),
    )
    for name, (source4, source6, *allowed) in BACK.items():
        packet = eth() / ip(other, {4: source4, 6: source6}[version]) / UDP()
        if mode == "none" or allowed[mode == "loose"]:
            assert lab.send(packet).port == 1, name
        else:
            lab.send(packet).dropped("reverse_path")


def test_link_local_source_is_on_the_link_in_strict_mode(lab: Lab) -> None:
    lab.edit(Edit(Op.MERGE, ("ports", "p0", "urpf"), "strict"))
    lab.send(eth() / ip("2001:db8::1", "fe80::b0") / ICMPv6EchoRequest()).forwarded(0)


# ---- pieces ----


def test_packet_that_may_be_cut_leaves_in_pieces(cube: Any) -> None:
    lab = Lab(cube("router", ports=3), config=VLANS, mtu=600)
    lab.tick()
    lab.take()
    packet = eth() / ip("10.0.1.2", "10.0.0.2", id=5, ttl=9) / UDP() / Raw(bytes(range(250)) * 5)
    lab.send(packet).slowpath()
    sent = lab.take()
    pieces = [Ether(frame) for _, frame in sent]
    assert {port for port, _ in sent} == {1} and {one.dst for one in pieces} == {HOST[1]}
    assert all(len(one[IP]) <= 600 and one[IP].ttl == 8 for one in pieces)
    assert b"".join(bytes(one[IP].payload)[: one[IP].len - 20] for one in pieces) == bytes(packet[IP].payload)


def test_tcp_packet_that_must_not_be_cut_is_answered_with_the_mtu(cube: Any) -> None:
    lab = Lab(cube("router", ports=3), config=VLANS, mtu=600)
    lab.tick()
    lab.take()
    lab.send(eth() / ip("10.0.1.2", "10.0.0.2", flags="DF") / TCP() / Raw(b"x" * 700)).slowpath()
    ((port, frame),) = lab.take()
    error = Ether(frame)[ICMP]
    assert port == 0 and (error.type, error.code, error.nexthopmtu) == (3, 4, 600)


# ---- pressure ----


def test_neighbours_without_room_are_counted_and_known_ones_stay(cube: Any) -> None:
    lab = Lab(cube("router", ports=3, sizes={"neighbours4": 3}))
    for number in range(4):
        lab.send(eth(dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=HOST[0], psrc=f"10.0.0.{20 + number}", pdst="10.0.0.1")).forwarded(0)
    assert lab.router.state()["arp-failures"] == 3
    lab.send(eth() / ip("10.0.1.2", "10.0.0.2") / UDP()).forwarded(1)
    lab.send(eth(1) / ip("10.0.0.20", "10.0.1.2") / UDP(), 1).forwarded(0)
