# SPDX-License-Identifier: Apache-2.0
"""The slow path behind the real data plane: resolution, ICMP errors, answers, and what a daemon that is away means."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from router_lab import HOST, LINK_LOCAL, MAC, Lab
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, IPOption_RR
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from polycube.cubes.router.traffic import Reason
from polycube.testing.harness import Hook
from polycube.testing.packets import assert_equal
from polycube.toolkit import arp, frame, icmp, nd
from polycube.toolkit.limit import Bucket

BROADCAST = "ff:ff:ff:ff:ff:ff"


@pytest.fixture
def lab(cube: Any) -> Lab:
    lab = Lab(cube("router", ports=3))
    lab.tick()
    lab.take()
    return lab


def v4(dst: str = "10.0.1.77", src: str = "10.0.0.2", **fields: Any) -> Any:
    return Ether(dst=MAC[0], src=HOST[0]) / IP(src=src, dst=dst, **fields)


def v6(dst: str = "2001:db8:1::77", src: str = "2001:db8::2", **fields: Any) -> Any:
    return Ether(dst=MAC[0], src=HOST[0]) / IPv6(src=src, dst=dst, **fields)


def only(lab: Lab, port: int) -> Any:
    """The one frame that the control plane sent, out of this port."""
    ((out, data),) = lab.take()
    assert out == port
    return Ether(data)


def padded(packet: Any) -> bytes:
    return bytes(packet).ljust(60, b"\0")


def arp_reply(address: str, mac: str, port: int = 1) -> Any:
    return Ether(dst=MAC[port], src=mac) / ARP(op=2, hwsrc=mac, psrc=address, hwdst=MAC[port], pdst=f"10.0.{port}.1")


def advertisement(address: str, mac: str, port: int = 1) -> Any:
    target = f"2001:db8:{port}::1"
    return (
        Ether(dst=MAC[port], src=mac)
        / IPv6(src=address, dst=target, hlim=255)
        / ICMPv6ND_NA(tgt=address, R=0, S=1, O=1)
        / ICMPv6NDOptDstLLAddr(lladdr=mac)
    )


def test_unknown_neighbour_is_asked_for_and_its_packets_follow_the_answer(lab: Lab) -> None:
    packets = [v4(id=number, ttl=9) / UDP() / Raw(b"x" * 30) for number in range(1, 8)]
    for packet in packets:
        lab.send(packet)
    request = Ether(dst=BROADCAST, src=MAC[1]) / ARP(hwsrc=MAC[1], psrc="10.0.1.1", pdst="10.0.1.77")
    ((port, asked),) = lab.take()
    assert port == 1
    assert_equal(asked, padded(request))
    lab.send(arp_reply("10.0.1.77", HOST[1]), 1)
    sent = lab.take()
    assert [Ether(data)[IP].id for _, data in sent] == [3, 4, 5, 6, 7]
    expected = Ether(dst=HOST[1], src=MAC[1]) / IP(src="10.0.0.2", dst="10.0.1.77", id=3, ttl=8) / UDP() / Raw(b"x" * 30)
    assert_equal(sent[0][1], expected)
    lab.send(v4() / UDP()).forwarded(1)


def test_unknown_ipv6_neighbour_is_solicited_and_its_packets_follow_the_answer(lab: Lab) -> None:
    lab.send(v6(hlim=9) / UDP() / Raw(b"x" * 30))
    expected = (
        Ether(dst="33:33:ff:00:00:77", src=MAC[1])
        / IPv6(src="2001:db8:1::1", dst="ff02::1:ff00:77", hlim=255)
        / ICMPv6ND_NS(tgt="2001:db8:1::77")
        / ICMPv6NDOptSrcLLAddr(lladdr=MAC[1])
    )
    ((_, asked),) = lab.take()
    assert_equal(asked, expected)
    lab.send(advertisement("2001:db8:1::77", HOST[1]), 1)
    out = only(lab, 1)
    assert (out.dst, out[IPv6].hlim, out[IPv6].dst) == (HOST[1], 8, "2001:db8:1::77")
    lab.send(v6() / UDP()).forwarded(1)


def test_neighbour_that_does_not_answer_is_reported_to_the_senders(lab: Lab) -> None:
    lab.send(v4() / UDP(dport=7))
    lab.send(v6() / UDP(dport=7))
    lab.send(Ether(dst=MAC[0], src=HOST[0]) / ARP(hwsrc=HOST[0], psrc="10.0.0.2", pdst="10.0.0.1"))
    for _ in range(2):
        lab.tick()
    assert len(lab.take()) == 6
    lab.tick()
    answers = [Ether(data) for _, data in lab.take()]
    old = next(one for one in answers if ICMP in one)
    assert (old[ICMP].type, old[ICMP].code, old[IP].src, old[IP].dst, old.dst) == (3, 1, "10.0.0.1", "10.0.0.2", HOST[0])


def test_entry_in_use_is_refreshed_without_a_packet_lost_or_delayed(lab: Lab) -> None:
    lab.send(v4() / UDP())
    lab.send(arp_reply("10.0.1.77", HOST[1]), 1)
    lab.take()
    asked = 0
    for second in range(120):
        neighbours = lab.cube.map("neighbours4")  # type: ignore[union-attr]
        key = {"interface": 1, "address": bytes([10, 0, 1, 77])}
        neighbours[key] = neighbours[key] | {"used": second + 1}  # the data plane's clock is not ours to turn
        lab.tick()
        for port, data in lab.take():
            assert port == 1 and Ether(data).dst == HOST[1] and Ether(data)[ARP].pdst == "10.0.1.77"
            asked += 1
            lab.send(arp_reply("10.0.1.77", HOST[1]), 1)
        lab.cube.send(v4() / UDP()).forwarded(1)  # type: ignore[union-attr]
    assert 3 <= asked <= 5


def test_entries_stay_usable_while_the_control_plane_is_away_and_are_adopted_after(lab: Lab) -> None:
    lab.send(v4() / UDP())
    lab.send(arp_reply("10.0.1.77", HOST[1]), 1)
    again = Lab(lab.cube)
    lab.cube.send(v4() / UDP()).forwarded(1)  # type: ignore[union-attr]
    again.tick()
    assert any(one["address"] == "10.0.1.77" for one in again.router.state()["arp-table"])


ERRORS4 = {
    "time exceeded": (v4("10.0.1.2", ttl=1) / UDP(), 11, 0, "10.0.0.1"),
    "fragmentation needed": (v4("10.0.1.2", flags="DF") / UDP() / Raw(b"x" * 1500), 3, 4, "10.0.0.1"),
    "port unreachable": (v4("10.0.2.1") / UDP(dport=9), 3, 3, "10.0.2.1"),
    "port unreachable, tcp": (v4("10.0.0.1") / TCP(dport=9), 3, 3, "10.0.0.1"),
    "protocol unreachable": (v4("10.0.0.1", proto=200) / Raw(b"x" * 8), 3, 2, "10.0.0.1"),
}


@pytest.mark.parametrize("name", ERRORS4)
def test_icmp_error_quotes_the_packet_and_comes_from_the_right_address(lab: Lab, name: str) -> None:
    packet, kind, code, source = ERRORS4[name]
    lab.send(Ether(dst=MAC[0], src=HOST[0]) / ARP(hwsrc=HOST[0], psrc="10.0.0.2", pdst="10.0.0.1"))
    lab.send(packet)
    out = only(lab, 0)
    assert (out.dst, out.src) == (HOST[0], MAC[0])
    assert (out[IP].src, out[IP].dst, out[IP].tos) == (source, "10.0.0.2", 0xC0)
    assert (out[ICMP].type, out[ICMP].code) == (kind, code)
    assert len(out[IP]) <= 576 and out[IPerror].dst == packet[IP].dst
    assert bytes(out[ICMP])[8:28] == bytes(packet[IP])[:20]
    if code == 4:
        assert out[ICMP].nexthopmtu == 1500
    assert frame.checksum(bytes(out[IP])[20 : out[IP].len]) == 0 == frame.checksum(bytes(out[IP])[:20])


ERRORS6 = {
    "time exceeded": (v6("2001:db8:1::2", hlim=1) / UDP(), ICMPv6TimeExceeded, 0, "2001:db8::1"),
    "too big": (v6("2001:db8:1::2") / UDP() / Raw(b"x" * 1500), ICMPv6PacketTooBig, 0, "2001:db8::1"),
    "no route": (v6("2001:aaaa::1") / UDP(), ICMPv6DestUnreach, 0, "2001:db8::1"),
    "port unreachable": (v6("2001:db8:2::1") / UDP(dport=9), ICMPv6DestUnreach, 4, "2001:db8:2::1"),
    "port unreachable behind an extension header": (
        v6("2001:db8::1") / IPv6ExtHdrHopByHop() / UDP(dport=9),
        ICMPv6DestUnreach,
        4,
        "2001:db8::1",
    ),
    "protocol unreachable": (v6("2001:db8::1", nh=200) / Raw(b"x" * 8), ICMPv6ParamProblem, 1, "2001:db8::1"),
}


@pytest.mark.parametrize("name", ERRORS6)
def test_icmpv6_error_quotes_the_packet_and_comes_from_the_right_address(lab: Lab, name: str) -> None:
    packet, kind, code, source = ERRORS6[name]
    lab.send(
        Ether(dst=MAC[0], src=HOST[0])
        / IPv6(src="2001:db8::2", dst="2001:db8::1", hlim=255)
        / ICMPv6ND_NS(tgt="2001:db8::1")
        / ICMPv6NDOptSrcLLAddr(lladdr=HOST[0])
    )
    lab.send(packet)
    out = only(lab, 0)
    assert (out.dst, out.src, out[IPv6].src, out[IPv6].dst) == (HOST[0], MAC[0], source, "2001:db8::2")
    assert out[kind].code == code and len(out[IPv6]) <= 1280
    if kind is ICMPv6PacketTooBig:
        assert out[kind].mtu == 1500
    if kind is ICMPv6ParamProblem:
        assert out[kind].ptr == 6
    body = bytes(out[IPv6])[40 : 40 + out[IPv6].plen]
    assert body[8:48] == bytes(packet[IPv6])[:40]
    packet_read = frame.read_ip(bytes(out))
    assert packet_read and frame.pseudo_sum(packet_read.source, packet_read.target, 58, body) == 0


SILENT = {
    "about an icmp error": v4("10.0.1.2", ttl=1) / ICMP(type=3) / Raw(b"x" * 28),
    "about a later fragment": v4("10.0.1.2", ttl=1, frag=10, proto=17) / Raw(b"x" * 40),
    "about an icmpv6 error": v6("2001:db8:1::2", hlim=1) / ICMPv6DestUnreach() / Raw(b"x" * 40),
}


@pytest.mark.parametrize("name", SILENT)
def test_no_error_is_sent(lab: Lab, name: str) -> None:
    lab.send(SILENT[name])
    assert lab.take() == []


def test_errors_are_limited_for_each_port(lab: Lab) -> None:
    for _ in range(200):
        lab.up(bytes(v4("10.0.1.2", ttl=1) / UDP()), 0, Reason.TTL)
    sent = [data for _, data in lab.take() if ICMP in Ether(data)]
    lab.time += 1
    lab.up(bytes(v4("10.0.1.2", ttl=1) / UDP()), 0, Reason.TTL)
    assert len(sent) <= 50


def test_error_whose_way_back_is_not_known_waits_for_it(lab: Lab) -> None:
    lab.send(v4("10.0.1.2", src="10.0.0.44", ttl=1) / UDP())
    assert only(lab, 0)[ARP].pdst == "10.0.0.44"
    reply = Ether(dst=MAC[0], src=HOST[0]) / ARP(op=2, hwsrc=HOST[0], psrc="10.0.0.44", hwdst=MAC[0], pdst="10.0.0.1")
    lab.send(reply)
    assert only(lab, 0)[ICMP].type == 11


def test_error_to_a_sender_without_a_route_goes_back_where_it_came_from(lab: Lab) -> None:
    lab.send(v6("2001:db8:1::2", src="2001:cccc::9", hlim=1) / UDP())
    out = only(lab, 0)
    assert out.dst == HOST[0] and out[IPv6].dst == "2001:cccc::9"


def test_echo_request_with_options_is_answered_without_them(lab: Lab) -> None:
    lab.send(Ether(dst=MAC[0], src=HOST[0]) / ARP(hwsrc=HOST[0], psrc="10.0.0.2", pdst="10.0.0.1"))
    lab.send(v4("10.0.2.1", options=[IPOption_RR(routers=["0.0.0.0"])]) / ICMP(id=5, seq=6) / b"data")
    out = only(lab, 0)
    assert (out[IP].src, out[IP].ihl, out[ICMP].type, out[ICMP].id, out[ICMP].seq) == ("10.0.2.1", 5, 0, 5, 6)


def test_duplicate_address_detection_is_answered_to_all_nodes(lab: Lab) -> None:
    ask = Ether(dst="33:33:ff:00:00:01", src=HOST[0]) / IPv6(src="::", dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt="2001:db8::1")
    lab.send(ask)
    out = only(lab, 0)
    assert (out.dst, out[IPv6].dst, out[ICMPv6ND_NA].S, out[ICMPv6ND_NA].O) == ("33:33:00:00:00:01", "ff02::1", 0, 1)


def test_solicitation_without_a_mac_is_answered_to_the_frames_sender(lab: Lab) -> None:
    lab.send(Ether(dst=MAC[0], src=HOST[0]) / IPv6(src="2001:db8::2", dst="2001:db8::1", hlim=255) / ICMPv6ND_NS(tgt="2001:db8::1"))
    out = only(lab, 0)
    assert (out.dst, out[ICMPv6ND_NA].tgt, out[ICMPv6ND_NA].S) == (HOST[0], "2001:db8::1", 1)


def test_somebody_with_an_own_address_is_logged(lab: Lab) -> None:
    lab.up(bytes(Ether(dst=MAC[0], src=HOST[0]) / ARP(op=2, hwsrc=HOST[0], psrc="10.0.0.1", pdst="10.0.0.9")), 0, Reason.ARP)
    assert lab.log.lines == [f"{HOST[0]} claims 10.0.0.1, an address of port p0"]


def test_announcements_are_right(lab: Lab) -> None:
    again = Lab(lab.cube)
    again.tick()
    sent = [data for port, data in again.take() if port == 0]
    assert_equal(sent[0], padded(Ether(dst=BROADCAST, src=MAC[0]) / ARP(hwsrc=MAC[0], psrc="10.0.0.1", pdst="10.0.0.1")))
    expected = (
        Ether(dst="33:33:00:00:00:01", src=MAC[0])
        / IPv6(src=LINK_LOCAL[0], dst="ff02::1", hlim=255)
        / ICMPv6ND_NA(tgt=LINK_LOCAL[0], R=1, S=0, O=1)
        / ICMPv6NDOptDstLLAddr(lladdr=MAC[0])
    )
    assert_equal(sent[2], expected)


def test_segments_count_for_the_mtu_where_the_kernel_will_still_cut(cube: Any, hook: Hook) -> None:
    if hook is not Hook.TC:
        pytest.skip("XDP sees frames as they are on the wire")
    lab = Lab(cube("router", ports=3))
    assert lab.cube
    lab.cube.send(v4("10.0.1.2") / UDP())
    packet = bytes(v4("10.0.1.2", flags="DF") / TCP() / Raw(b"x" * 2800))
    packet6 = bytes(v6("2001:db8:1::2") / TCP() / Raw(b"x" * 2800))
    for size, data, fits in ((1460, packet, True), (1461, packet, False), (1440, packet6, True), (1441, packet6, False)):
        assert (lab.cube.send(data, gso_size=size).verdict == "forwarded") is fits


@given(st.binary(max_size=120), st.sampled_from([b"", b"\x08\x00", b"\x08\x06", b"\x86\xdd"]))
@settings(max_examples=300, deadline=None)
def test_readers_take_any_bytes(data: bytes, kind: bytes) -> None:
    whole = (bytes(12) + kind + data).ljust(14, b"\0")
    for versions in (whole, whole[:14] + b"\x45" + whole[15:], whole[:14] + b"\x60" + whole[15:]):
        arp.read(versions)
        nd.read(versions)
        packet = frame.read_ip(versions)
        if packet is not None:
            icmp.may_answer(packet)
            icmp.echo_reply(packet)
            frame.forwarded(packet.data)


@given(st.lists(st.floats(0, 3), max_size=300))
def test_bucket_never_gives_more_than_rate_and_burst(waits: list[float]) -> None:
    bucket, now, given_out = Bucket(10, 5), 0.0, 0
    for wait in waits:
        now += wait / 10
        given_out += bucket.take(now)
    assert given_out <= 5 + 10 * now + 1e-6
