# SPDX-License-Identifier: Apache-2.0
"""Checksums, VLAN tags and MTU: csum.h, vlan.h, mtu.h."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether

FOLDER = Path(__file__).parent / "rewriter"
E = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01")


@pytest.fixture
def rewriter(cube):
    return cube(FOLDER)


@pytest.mark.parametrize("tags", [None, Dot1Q(vlan=3), Dot1AD(vlan=3) / Dot1Q(vlan=4)])
@pytest.mark.parametrize("ttl", [255, 64, 2])
def test_ttl(rewriter, ttl, tags):
    rewriter.cfg(op="DECREMENT")
    link = E / tags if tags else E
    rewriter.send(link / IP(ttl=ttl) / UDP() / b"x").forwarded(1, link / IP(ttl=ttl - 1) / UDP() / b"x")
    rewriter.send(link / IPv6(hlim=ttl) / UDP() / b"x").forwarded(1, link / IPv6(hlim=ttl - 1) / UDP() / b"x")


@pytest.mark.parametrize("layer", [IP(ttl=1), IP(ttl=0), IPv6(hlim=1), IPv6(hlim=0)])
def test_ttl_expired(rewriter, layer):
    rewriter.cfg(op="DECREMENT")
    rewriter.send(E / layer / UDP()).dropped("expired")


def test_ttl_with_all_checksums(rewriter):
    """The sum of the changed header must be that of the new one, 0xffff and 0 included."""
    rewriter.cfg(op="DECREMENT")
    for number in range(0, 65536, 251):
        packet, expected = E / IP(id=number, ttl=9) / UDP(), E / IP(id=number, ttl=8) / UDP()
        rewriter.send(packet).forwarded(1, expected)


@pytest.mark.parametrize("payload", [TCP() / b"data", UDP() / b"data!", UDP(chksum=0) / b"data", ICMP() / b"data", UDP() / b""])
def test_ipv4_address(rewriter, payload):
    rewriter.cfg(op="ADDRESS4", value=int.from_bytes(bytes([192, 0, 2, 77]), "little"))
    packet = E / IP(src="10.0.0.1", dst="10.0.0.2") / payload
    rewriter.send(packet).forwarded(1, E / IP(src="10.0.0.1", dst="192.0.2.77") / payload)


@pytest.mark.parametrize("payload", [TCP() / b"data", UDP() / b"data!", ICMPv6EchoRequest(data=b"x")])
def test_ipv6_address(rewriter, payload):
    rewriter.cfg(op="ADDRESS6", address=bytes.fromhex("20010db8" + "00" * 11 + "77"))
    packet = E / IPv6(src="2001:db8:ff::1", dst="2001:db8::2") / payload
    rewriter.send(packet).forwarded(1, E / IPv6(src="2001:db8::77", dst="2001:db8::2") / payload)


@pytest.mark.parametrize("network", [IP(), IPv6()])
@pytest.mark.parametrize("transport", [TCP, UDP])
def test_port(rewriter, network, transport):
    rewriter.cfg(op="PORT", value=8080)
    packet = E / network / transport(sport=1234, dport=80) / b"some data"
    rewriter.send(packet).forwarded(1, E / network / transport(sport=1234, dport=8080) / b"some data")


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(old=st.integers(1, 0xFFFFFFFF), new=st.integers(1, 0xFFFFFFFF), data=st.binary(max_size=40))
def test_any_address_gives_the_sum_that_a_host_would_compute(rewriter, old, new, data):
    rewriter.cfg(op="ADDRESS4", value=int.from_bytes(new.to_bytes(4, "big"), "little"))
    a, b = (".".join(map(str, number.to_bytes(4, "big"))) for number in (old, new))
    rewriter.send(E / IP(src="10.0.0.1", dst=a) / UDP() / data).forwarded(1, E / IP(src="10.0.0.1", dst=b) / UDP() / data)


REST = IP() / UDP() / b"hello"


@pytest.mark.parametrize(
    ("proto", "before", "after"),
    [
        (0x8100, E / REST, E / Dot1Q(vlan=100, prio=2) / REST),
        (0x88A8, E / REST, E / Dot1AD(vlan=100, prio=2) / REST),
        (0x88A8, E / Dot1Q(vlan=4) / REST, E / Dot1AD(vlan=100, prio=2) / Dot1Q(vlan=4) / REST),
        (0x8100, E / Dot1Q(vlan=4) / REST, E / Dot1Q(vlan=100, prio=2) / Dot1Q(vlan=4) / REST),
    ],
)
def test_push(rewriter, proto, before, after):
    rewriter.cfg(op="PUSH", proto=proto, value=2 << 13 | 100)
    rewriter.send(before).forwarded(1, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (E / Dot1Q(vlan=100) / REST, E / REST),
        (E / Dot1AD(vlan=100) / Dot1Q(vlan=4) / REST, E / Dot1Q(vlan=4) / REST),
        (E / REST, E / REST),
    ],
)
def test_pop(rewriter, before, after):
    rewriter.cfg(op="POP")
    rewriter.send(before).forwarded(1, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (E / Dot1Q(vlan=100) / REST, E / Dot1Q(vlan=7, prio=1) / REST),
        (E / Dot1AD(vlan=100) / Dot1Q(vlan=4) / REST, E / Dot1AD(vlan=7, prio=1) / Dot1Q(vlan=4) / REST),
    ],
)
def test_set(rewriter, before, after):
    rewriter.cfg(op="SET", value=1 << 13 | 7)
    rewriter.send(before).forwarded(1, after)


def test_set_without_a_tag_fails(rewriter):
    rewriter.cfg(op="SET", value=7)
    rewriter.send(E / REST).dropped("failed")


def test_mtu(rewriter):
    packet = E / IP() / UDP() / bytes(972)  # 1000 bytes behind Ethernet
    rewriter.cfg(op="FITS", value=1000)
    rewriter.send(packet).forwarded(1, packet)
    rewriter.send(E / Dot1Q(vlan=1) / packet.payload).forwarded(1)
    rewriter.cfg(value=999)
    rewriter.send(packet).dropped("too_big")


def test_mtu_of_a_netdev(rewriter):
    packet = E / IP() / UDP() / bytes(3000)
    rewriter.cfg(op="FITS_NETDEV", value=1)
    rewriter.send(packet).forwarded(1, packet)
    rewriter.cfg(value=99999)
    rewriter.send(packet).slowpath(metadata=(0, 0, 0))
