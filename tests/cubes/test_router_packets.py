# SPDX-License-Identifier: Apache-2.0
"""Packets through the router's data plane, on both hooks and in both IP versions: what is forwarded, how, and what is dropped why."""

from __future__ import annotations

import time
from typing import Any

import pytest
from cases import each
from router_lab import CONFIG, HOST, LINK_LOCAL, MAC, Lab
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6Unknown,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from polycube.cubes.router.traffic import Reason
from polycube.model import Edit, Op
from polycube.toolkit.tokenbucket import TICKS


@pytest.fixture
def lab(cube: Any) -> Lab:
    return Lab(cube("router", ports=3))


def eth(port: int = 0, dst: str | None = None) -> Ether:
    return Ether(dst=dst or MAC[port], src=HOST[port])


def v4(dst: str = "10.0.1.2", src: str = "10.0.0.2", **fields: Any) -> Any:
    return IP(src=src, dst=dst, **fields)


def v6(dst: str = "2001:db8:1::2", src: str = "2001:db8::2", **fields: Any) -> Any:
    return IPv6(src=src, dst=dst, **fields)


def mangled(packet: Any, at: int, value: int) -> bytes:
    """A frame with one byte changed behind scapy's back, the IPv4 header's checksum right again."""
    data = bytearray(bytes(packet))
    data[at] = value
    if data[12:14] == b"\x08\x00":
        data[24:26] = b"\0\0"
        length = (data[14] & 15) * 4
        words = bytes(data[14 : 14 + length])
        total = sum(int.from_bytes(words[i : i + 2], "big") for i in range(0, len(words) // 2 * 2, 2)) % 0xFFFF
        data[24:26] = (0xFFFF - total).to_bytes(2, "big")
    return bytes(data)


def hop(packet: Any, port: int = 1, mac: str | None = None) -> Any:
    """What must leave: one hop less, the MACs of the way out."""
    out = packet.copy()
    out.dst, out.src = mac or HOST[port], MAC[port]
    if IP in out:
        out[IP].ttl -= 1
        del out[IP].chksum
    else:
        out[IPv6].hlim -= 1
    return out


FORWARDED = {
    "udp over ipv4 to a host of a connected network": eth() / v4() / UDP() / Raw(b"x" * 20),
    "tcp over ipv4": eth() / v4() / TCP() / Raw(b"x" * 20),
    "ipv4 by a route": eth() / v4("172.16.5.5") / UDP(),
    "ttl 2": eth() / v4(ttl=2) / UDP(),
    "ttl 255": eth() / v4(ttl=255) / UDP(),
    "ipv4 with options": eth() / v4(options=[IPOption_RR(routers=["0.0.0.0"] * 9)]) / UDP() / Raw(b"x" * 20),
    "first fragment": eth() / v4(flags="MF", proto=17) / Raw(b"x" * 64),
    "later fragment": eth() / v4(frag=100, proto=17) / Raw(b"x" * 64),
    "unknown protocol": eth() / v4(proto=200) / Raw(b"x" * 30),
    "padded": eth() / v4(len=20, proto=17) / Raw(b"\0" * 26),
    "icmp error of others": eth() / v4() / ICMP(type=3, code=1),
    "udp over ipv6": eth() / v6() / UDP() / b"x",
    "tcp over ipv6": eth() / v6() / TCP() / b"x",
    "ipv6 by a route": eth() / v6("2001:db8:ff:7::9") / UDP(),
    "hop limit 2": eth() / v6(hlim=2) / UDP(),
    "ipv6 extension header": eth() / v6() / IPv6ExtHdrHopByHop() / UDP(),
    "ipv6 fragment": eth() / v6() / IPv6ExtHdrFragment(offset=10) / Raw(b"x" * 40),
    "ipv6 without payload": eth() / v6(nh=59),
    "mtu exactly": eth() / v4(flags="DF") / UDP() / Raw(b"x" * 1472),
    "mtu exactly, ipv6": eth() / v6() / UDP() / Raw(b"x" * 1452),
}


def test_packet_is_forwarded_with_one_hop_less_and_the_macs_of_the_way_out(lab: Lab) -> None:
    for built in each(FORWARDED):
        packet = Ether(bytes(built))
        lab.send(packet).forwarded(1, hop(packet))


def test_default_route_is_used_for_what_has_no_other(lab: Lab) -> None:
    packet = Ether(bytes(eth() / v4("8.8.8.8") / UDP()))
    lab.send(packet).forwarded(2, hop(packet, 2))


def test_packet_may_leave_by_the_port_it_came_from(lab: Lab) -> None:
    packet = Ether(bytes(eth(1) / v4("172.16.0.1", "10.0.1.9") / UDP()))
    lab.send(packet, 1).forwarded(1, hop(packet))


DROPPED = {
    "other mac": (eth(dst="02:00:00:00:00:99") / v4() / UDP(), "other_mac"),
    "ipv4 in broadcast frame": (eth(dst="ff:ff:ff:ff:ff:ff") / v4() / UDP(), "group_mac"),
    "ipv6 in multicast frame": (eth(dst="33:33:00:00:00:01") / v6() / UDP(), "group_mac"),
    "ipv4 multicast": (eth(dst="01:00:5e:00:00:05") / v4("224.0.0.5") / UDP(), "multicast"),
    "ipv4 limited broadcast": (eth(dst="ff:ff:ff:ff:ff:ff") / v4("255.255.255.255", "0.0.0.0") / UDP(), "multicast"),
    "ipv6 multicast": (eth(dst="33:33:00:00:00:05") / v6("ff02::5") / UDP(), "multicast"),
    "router solicitation": (eth(dst="33:33:00:00:00:02") / v6("ff02::2", hlim=255) / ICMPv6ND_RS(), "multicast"),
    "directed broadcast": (eth() / v4("10.0.1.255") / UDP(), "broadcast"),
    "to loopback": (eth() / v4("127.0.0.1") / UDP(), "martian_destination"),
    "to this network": (eth() / v4("0.1.2.3") / UDP(), "martian_destination"),
    "to class e": (eth() / v4("240.0.0.1") / UDP(), "martian_destination"),
    "to ::1": (eth() / v6("::1") / UDP(), "martian_destination"),
    "to ::": (eth() / v6("::") / UDP(), "martian_destination"),
    "from loopback": (eth() / v4(src="127.0.0.1") / UDP(), "martian_source"),
    "from this network": (eth() / v4(src="0.0.0.0") / UDP(), "martian_source"),
    "from multicast": (eth() / v4(src="224.0.0.1") / UDP(), "martian_source"),
    "from broadcast": (eth() / v4(src="255.255.255.255") / UDP(), "martian_source"),
    "from the router itself": (eth() / v4(src="10.0.0.1") / UDP(), "martian_source"),
    "from another port's address": (eth() / v4(src="192.168.2.1") / UDP(), "martian_source"),
    "from ::": (eth() / v6(src="::") / UDP(), "martian_source"),
    "from ::1": (eth() / v6(src="::1") / UDP(), "martian_source"),
    "from ipv6 multicast": (eth() / v6(src="ff02::1") / UDP(), "martian_source"),
    "from the router itself, ipv6": (eth() / v6(src="2001:db8:1::1") / UDP(), "martian_source"),
    "from the port's link-local": (eth() / v6(src=LINK_LOCAL[0]) / UDP(), "martian_source"),
    "ipv4 link-local source": (eth() / v4(src="169.254.1.1") / UDP(), "link_local"),
    "ipv4 link-local destination": (eth() / v4("169.254.1.1") / UDP(), "link_local"),
    "ipv6 link-local source": (eth() / v6(src="fe80::5") / UDP(), "link_local"),
    "ipv6 link-local destination": (eth() / v6("fe80::5") / UDP(), "link_local"),
    "another port's link-local": (eth() / v6(LINK_LOCAL[1]) / UDP(), "link_local"),
    "tagged": (eth() / Dot1Q(vlan=5) / v4() / UDP(), "tagged"),
    "not ip": (Ether(dst=MAC[0], src=HOST[0], type=0x88CC) / Raw(b"x" * 46), "not_ip"),
    "bad header checksum": (eth() / v4(chksum=0x1234) / UDP(), "bad_checksum"),
    "bad header checksum with options": (eth() / v4(options=[IPOption_RR(routers=["0.0.0.0"])], chksum=1) / UDP(), "bad_checksum"),
    "fragment to the router": (eth() / v4("10.0.0.1", flags="MF") / ICMP(), "local_ignored"),
    "icmp error to the router": (eth() / v4("10.0.0.1") / ICMP(type=3), "local_ignored"),
    "icmpv6 error to the router": (eth() / v6("2001:db8::1") / ICMPv6Unknown(type=1, msgbody=b"\0" * 8), "local_ignored"),
}


def test_packet_is_dropped_for_a_counted_reason(lab: Lab) -> None:
    for packet, reason in each(DROPPED):
        lab.send(packet).dropped(reason)


IPV4, IPV6 = eth() / v4() / UDP() / Raw(b"x" * 30), eth() / v6() / UDP() / Raw(b"x" * 30)
MALFORMED = {
    "cut in the ethernet header": bytes(IPV4)[:16],
    "cut in the ipv4 header": bytes(IPV4)[:33],
    "cut in the ipv6 header": bytes(IPV6)[:53],
    "ihl 4": mangled(IPV4, 14, 0x44),
    "ihl 15 beyond the packet": mangled(eth() / v4() / UDP(), 14, 0x4F),
    "ipv4 with version 6": mangled(IPV4, 14, 0x65),
    "ipv6 with version 4": mangled(IPV6, 14, 0x40),
    "total length beyond the frame": mangled(IPV4, 16, 0x01),
    "total length below the header": mangled(mangled(IPV4, 16, 0), 17, 19),
    "payload length beyond the frame": mangled(IPV6, 18, 0x01),
    "arp cut off": bytes(eth() / ARP(pdst="10.0.0.1", psrc="10.0.0.2"))[:40],
    "arp about something else": bytes(eth() / ARP(hwtype=6, pdst="10.0.0.1", psrc="10.0.0.2")),
    "nd from another link": bytes(eth() / v6("2001:db8::1", hlim=64) / ICMPv6ND_NS(tgt="2001:db8::1")),
    "echo request cut off": bytes(eth() / v4("10.0.0.1", len=24, proto=1) / Raw(b"\x08\0\0\0")),
}


def test_malformed_packet_is_dropped(lab: Lab) -> None:
    for packet in each(MALFORMED):
        lab.send(packet).dropped("malformed")


UP = {
    "ttl 1": (eth() / v4(ttl=1) / UDP(), Reason.TTL, (0, 0, 0)),
    "ttl 0": (eth() / v4(ttl=0) / UDP(), Reason.TTL, (0, 0, 0)),
    "hop limit 1": (eth() / v6(hlim=1) / UDP(), Reason.TTL, (0, 0, 0)),
    "hop limit 0": (eth() / v6(hlim=0) / UDP(), Reason.TTL, (0, 0, 0)),
    "no ipv6 route": (eth() / v6("2001:aaaa::1") / UDP(), Reason.NO_ROUTE, (0, 0, 0)),
    "unknown neighbour": (eth() / v4("10.0.1.77") / UDP(), Reason.RESOLVE, (1, 0, 0)),
    "unknown ipv6 neighbour": (eth() / v6("2001:db8:1::77") / UDP(), Reason.RESOLVE, (1, 0, 0)),
    "too large": (eth() / v4(flags="DF") / UDP() / Raw(b"x" * 1473), Reason.TOO_BIG, (1, 1500, 0)),
    "too large, ipv6": (eth() / v6() / UDP() / Raw(b"x" * 1453), Reason.TOO_BIG, (1, 1500, 0)),
    "too large, may be fragmented": (eth() / v4() / UDP() / Raw(b"x" * 1473), Reason.FRAGMENT, (1, 1500, 0)),
    "udp to the router": (eth() / v4("10.0.2.1") / UDP(), Reason.LOCAL, (0, 0, 0)),
    "tcp to the router, ipv6": (eth() / v6("2001:db8:2::1") / TCP(), Reason.LOCAL, (0, 0, 0)),
    "echo request with options": (eth() / v4("10.0.0.1", options=[IPOption_RR(routers=["0.0.0.0"])]) / ICMP(), Reason.LOCAL, (0, 0, 0)),
    "arp reply": (eth() / ARP(op=2, psrc="10.0.0.2", hwsrc=HOST[0], pdst="10.0.0.1", hwdst=MAC[0]), Reason.ARP, (0, 0, 0)),
    "advertisement": (
        eth() / v6("2001:db8::1", hlim=255) / ICMPv6ND_NA(tgt="2001:db8::2") / ICMPv6NDOptDstLLAddr(lladdr=HOST[0]),
        Reason.ND,
        (0, 0, 0),
    ),
    "duplicate address detection": (
        eth(dst="33:33:ff:00:00:01") / v6("ff02::1:ff00:1", "::", hlim=255) / ICMPv6ND_NS(tgt="2001:db8::1"),
        Reason.ND,
        (0, 0, 0),
    ),
}


def test_packet_goes_to_the_control_plane(lab: Lab) -> None:
    for packet, reason, metadata in each(UP):
        lab.cube.send(packet).slowpath(reason, 0, packet, metadata)  # type: ignore[union-attr]


LIMITED = {
    "errors": (0, eth() / v4(ttl=1) / UDP(), "ttl_exceeded"),
    "resolution": (1, eth() / v4("10.0.1.77") / UDP(), "unresolved"),
    "fragments": (3, eth() / v4() / UDP() / Raw(b"x" * 1473), "needs_fragmentation"),
    "control": (2, eth() / ARP(op=2, psrc="10.0.0.2", hwsrc=HOST[0], pdst="10.0.0.1"), "control_limit"),
}


def test_frames_for_the_control_plane_are_limited_and_then_counted(lab: Lab) -> None:
    assert lab.cube
    for number, packet, reason in each(LIMITED):
        assert lab.cube.send(packet).verdict == "slowpath"
        used_up = (time.clock_gettime_ns(time.CLOCK_MONOTONIC) + 60 * 10**9) * TICKS
        lab.cube.map("buckets")[number] = {"full": used_up}
        lab.cube.send(packet).dropped(reason)
        assert lab.cube.map("buckets")[number]["full"] == used_up


def test_echo_request_to_any_own_address_is_answered_at_once(lab: Lab) -> None:
    for target in ("10.0.0.1", "192.168.0.1", "10.0.2.1"):
        request = eth() / v4(target, ttl=7, id=9) / ICMP(id=3, seq=4) / b"payload"
        reply = Ether(dst=HOST[0], src=MAC[0]) / v4("10.0.0.2", target, ttl=64, id=9) / ICMP(type=0, id=3, seq=4) / b"payload"
        lab.send(request).forwarded(0, reply)


def test_icmpv6_echo_request_to_any_own_address_is_answered_at_once(lab: Lab) -> None:
    for target in ("2001:db8::1", "2001:db8:2::1", LINK_LOCAL[0]):
        request = eth() / v6(target, hlim=7) / ICMPv6EchoRequest(id=3, seq=4, data=b"payload")
        reply = Ether(dst=HOST[0], src=MAC[0]) / v6("2001:db8::2", target, hlim=64) / ICMPv6EchoReply(id=3, seq=4, data=b"payload")
        lab.send(request).forwarded(0, reply)


def test_arp_request_for_the_ports_address_is_answered_and_teaches_its_sender(lab: Lab) -> None:
    request = eth(dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=HOST[0], psrc="10.0.0.2", pdst="192.168.0.1")
    reply = Ether(dst=HOST[0], src=MAC[0]) / ARP(op=2, hwsrc=MAC[0], psrc="192.168.0.1", hwdst=HOST[0], pdst="10.0.0.2")
    with lab.cube.changes("neighbours4") as changes:  # type: ignore[union-attr]
        lab.send(request).forwarded(0, reply)
    (added,) = changes.added
    assert added[0] == {"interface": 0, "address": bytes([10, 0, 0, 2])}
    assert added[1]["mac"].hex(":") == HOST[0]
    packet = Ether(bytes(eth(1) / v4("10.0.0.2", "10.0.1.2") / UDP()))
    lab.send(packet, 1).forwarded(0, hop(packet, 0))


ARP_QUIET = {
    "for another host": (ARP(hwsrc=HOST[0], psrc="10.0.0.2", pdst="10.0.0.9"), "arp_ignored"),
    "for another port's address": (ARP(hwsrc=HOST[0], psrc="10.0.0.2", pdst="10.0.1.1"), "arp_ignored"),
    "from the router's own address": (ARP(hwsrc=HOST[0], psrc="10.0.0.1", pdst="10.0.0.1"), "address_conflict"),
    "gratuitous, unknown": (ARP(hwsrc=HOST[0], psrc="10.0.0.5", pdst="10.0.0.5"), "arp_ignored"),
}


def test_arp_that_is_not_for_the_router_teaches_nothing_new(lab: Lab) -> None:
    with lab.cube.changes("neighbours4") as changes:  # type: ignore[union-attr]
        for message, reason in each(ARP_QUIET):
            lab.send(eth(dst="ff:ff:ff:ff:ff:ff") / message).dropped(reason)
    assert not changes


def test_arp_from_an_address_elsewhere_is_answered_but_not_learnt(lab: Lab) -> None:
    with lab.cube.changes("neighbours4") as changes:  # type: ignore[union-attr]
        lab.send(eth() / ARP(hwsrc=HOST[0], psrc="10.0.1.9", pdst="10.0.0.1")).forwarded(0)
    assert not changes


def test_known_neighbour_with_a_new_mac_is_followed_but_a_configured_one_stays(lab: Lab) -> None:
    learn = ARP(hwsrc=HOST[0], psrc="10.0.0.2", pdst="10.0.0.1")
    lab.send(eth() / learn)
    lab.send(eth() / ARP(hwsrc="02:00:00:00:00:77", psrc="10.0.0.2", pdst="10.0.0.2"))
    neighbours = lab.cube.map("neighbours4")  # type: ignore[union-attr]
    assert neighbours[{"interface": 0, "address": bytes([10, 0, 0, 2])}]["mac"].hex(":") == "02:00:00:00:00:77"
    lab.send(eth(1) / ARP(hwsrc="02:00:00:00:00:77", psrc="10.0.1.2", pdst="10.0.1.1"), 1).forwarded(1)
    assert neighbours[{"interface": 1, "address": bytes([10, 0, 1, 2])}]["mac"].hex(":") == HOST[1]


@pytest.mark.parametrize("target", ["2001:db8::1", LINK_LOCAL[0]])
@pytest.mark.parametrize("unicast", [True, False])
def test_solicitation_for_the_ports_address_is_answered_in_place(lab: Lab, target: str, unicast: bool) -> None:
    group, mac = ("ff02::1:ff00:1", "33:33:ff:00:00:01") if target != LINK_LOCAL[0] else ("ff02::1:ff00:a0", "33:33:ff:00:00:a0")
    dst, at = (target, MAC[0]) if unicast else (group, mac)
    request = eth(dst=at) / v6(dst, "fe80::b0", hlim=255) / ICMPv6ND_NS(tgt=target) / ICMPv6NDOptSrcLLAddr(lladdr=HOST[0])
    reply = (
        Ether(dst=HOST[0], src=MAC[0])
        / v6("fe80::b0", target, hlim=255)
        / ICMPv6ND_NA(tgt=target, R=1, S=1, O=1)
        / ICMPv6NDOptDstLLAddr(lladdr=MAC[0])
    )
    with lab.cube.changes("neighbours6") as changes:  # type: ignore[union-attr]
        lab.send(request).forwarded(0, reply)
    assert [value["mac"].hex(":") for _, value in changes.added] == [HOST[0]]


def test_solicitations_that_are_not_right_or_not_ours_teach_nothing(lab: Lab) -> None:
    option = ICMPv6NDOptSrcLLAddr(lladdr=HOST[0])
    with lab.cube.changes("neighbours6") as changes:  # type: ignore[union-attr]
        lab.send(eth() / v6("2001:db8::1", hlim=255) / ICMPv6ND_NS(tgt="2001:db8::1", cksum=1) / option).dropped("malformed")
        lab.send(eth() / v6("2001:db8::1", hlim=255) / ICMPv6ND_NS(tgt="2001:db8::9") / option).dropped("arp_ignored")
        lab.send(eth() / v6("2001:db8::1", hlim=255) / ICMPv6ND_NS(tgt="2001:db8:1::1") / option).dropped("arp_ignored")
        packet = eth(dst="33:33:ff:00:00:01") / v6("ff02::1:ff00:1", "2001:db8::1", hlim=255) / ICMPv6ND_NS(tgt="2001:db8::1") / option
        lab.send(packet).dropped("address_conflict")
    assert not changes


def test_port_without_an_mtu_takes_any_length_the_frame_can_have(cube: Any) -> None:
    lab = Lab(cube("router", ports=3), mtu=0)
    packet = Ether(bytes(eth() / v4(flags="DF") / UDP() / Raw(b"x" * 1900)))
    lab.send(packet).forwarded(1, hop(packet))


def test_forwarding_marks_the_neighbour_as_used(lab: Lab) -> None:
    with lab.cube.changes("neighbours4") as changes:  # type: ignore[union-attr]
        lab.send(eth() / v4() / UDP()).forwarded(1)
    assert [value["used"] > 0 for _, value in changes.changed] == [True]


def test_port_that_the_router_does_not_have_drops(cube: Any) -> None:
    config = {**CONFIG, "ports": CONFIG["ports"][:2], "route": [], "arp-table": []}
    lab = Lab(cube("router", ports=3), config=config)
    lab.send(eth(2) / v4() / UDP(), 2).dropped("no_port")


# ---- a shadow router ----


@pytest.fixture
def shadow(cube: Any) -> Lab:
    lab = Lab(cube("router", ports=3), config={**CONFIG, "shadow": True})
    assert lab.cube is not None
    lab.cube.shadow()
    return lab


@pytest.mark.parametrize(
    "packet",
    [
        v4("10.0.1.1") / TCP(dport=80),
        v4("10.0.0.1") / ICMP(type=0),
        v4("10.0.0.1") / ICMP(type=3, code=4),
        v4("10.0.0.1", flags="MF") / UDP(),
        v4("224.0.0.5", proto=89, ttl=1),
        v4("255.255.255.255", src="0.0.0.0") / UDP(sport=68, dport=67),
        v6("2001:db8:1::1") / TCP(dport=80),
        v6(LINK_LOCAL[0], src="fe80::b0") / TCP(dport=179),
        v6("2001:db8::1") / ICMPv6EchoReply(),
        v6("ff02::5", src="fe80::b0", nh=89, hlim=1),
    ],
)
@pytest.mark.parametrize("tag", [None, 10])
def test_what_a_shadow_router_does_not_answer_is_for_its_namespace(shadow: Lab, packet: Any, tag: int | None) -> None:
    if tag:
        shadow.edit(Edit(Op.MERGE, (), {"ports": [{"name": "p0", "vlan": [{"vlan": tag, "ip": "10.9.0.1/24"}]}]}))
    frame = (eth() / Dot1Q(vlan=tag) if tag else eth()) / packet
    shadow.send(frame, 0).shadowed(0, frame)


def test_what_a_shadow_router_answers_or_forwards_is_as_ever(shadow: Lab) -> None:
    shadow.send(eth() / v4("10.0.1.1") / ICMP(id=7), 0).forwarded(0)
    shadow.send(eth() / v6("2001:db8:1::1") / ICMPv6EchoRequest(id=7), 0).forwarded(0)
    shadow.send(eth() / v4() / UDP(), 0).forwarded(1)
    shadow.send(eth() / v4("127.0.0.1") / UDP(), 0).dropped("martian_destination")
    request = Ether(src=HOST[0], dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=HOST[0], psrc="10.0.0.2", pdst="10.0.0.1")
    shadow.send(request, 0).forwarded(0)
    reply = eth() / ARP(op=2, hwsrc=HOST[0], psrc="10.0.0.2", hwdst=MAC[0], pdst="10.0.0.1")
    shadow.send(reply, 0).slowpath(Reason.ARP)
    assert shadow.handed_over == [(0, bytes(reply))]  # the namespace may have asked, too
