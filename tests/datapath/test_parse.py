# SPDX-License-Identifier: Apache-2.0
"""The parser of parse.h, the same in both hooks."""

from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether

from polycube.testing.harness import Hook

FOLDER = Path(__file__).parent / "parser"
E = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01")
FRAGMENTS = {0: "none", 1: "first", 2: "later"}


def parsed(cube, packet):
    """(proto, l3, l4, l4_proto, fragment, vlans)"""
    result = cube(FOLDER).send(packet).slowpath(packet=packet)
    event = result.events[0]
    a, b, c = event.metadata
    vlans = [c & 0xFFFF, c >> 16][: event.reason]
    proto = int.from_bytes((a & 0xFFFF).to_bytes(2, "little"), "big")
    return proto, a >> 16, b & 0xFFFF, b >> 16 & 0xFF, FRAGMENTS[b >> 24], vlans


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (E / IP() / TCP(), (0x800, 14, 34, 6, "none", [])),
        (E / IP() / UDP(), (0x800, 14, 34, 17, "none", [])),
        (E / IP() / ICMP(), (0x800, 14, 34, 1, "none", [])),
        (E / IP(options=[IPOption_RR()]) / UDP(), (0x800, 14, 38, 17, "none", [])),
        (E / IP(proto=47) / bytes(2), (0x800, 14, 34, 47, "none", [])),
        (E / IP(flags="MF") / UDP() / bytes(8), (0x800, 14, 34, 17, "first", [])),
        (E / IP(flags="MF", frag=1, proto=17) / bytes(8), (0x800, 14, 0, 17, "later", [])),
        (E / IP(frag=100, proto=6) / bytes(1), (0x800, 14, 0, 6, "later", [])),
        (E / ARP(), (0x806, 14, 0, 0, "none", [])),
        (E / Dot1Q(vlan=5, prio=7) / IP() / UDP(), (0x800, 18, 38, 17, "none", [0xE005])),
        (E / Dot1AD(vlan=5) / Dot1Q(vlan=6) / IPv6() / UDP(), (0x86DD, 22, 62, 17, "none", [5, 6])),
        (E / Dot1Q(vlan=5) / Dot1Q(vlan=6) / Dot1Q(vlan=7) / IP(), (0x8100, 22, 0, 0, "none", [5, 6])),
        (Ether(dst=E.dst, src=E.src, type=0x88CC) / bytes(46), (0x88CC, 14, 0, 0, "none", [])),
        (E / IPv6() / TCP(), (0x86DD, 14, 54, 6, "none", [])),
        (E / IPv6() / ICMPv6EchoRequest(), (0x86DD, 14, 54, 58, "none", [])),
        (E / IPv6(nh=59), (0x86DD, 14, 0, 59, "none", [])),
        (E / IPv6() / IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting() / UDP(), (0x86DD, 14, 70, 17, "none", [])),
        (E / IPv6() / IPv6ExtHdrFragment(m=1) / UDP() / bytes(8), (0x86DD, 14, 62, 17, "first", [])),
        (E / IPv6() / IPv6ExtHdrFragment(offset=2, nh=17) / bytes(8), (0x86DD, 14, 0, 17, "later", [])),
        (E / IPv6(nh=51) / (bytes([6, 4]) + bytes(22) + bytes(TCP())), (0x86DD, 14, 78, 6, "none", [])),
    ],
)
def test_offsets(cube, packet, expected):
    seen = parsed(cube, packet)
    if seen[1] != expected[1]:  # TC: a tag in the metadata is not in the bytes
        assert seen[1] == expected[1] - 4
        assert seen[5]
        seen = (seen[0], seen[1] + 4, seen[2] + 4 if seen[2] else 0, *seen[3:])
    assert seen == expected


def chain_of(count):
    packet = E / IPv6()
    for _ in range(count):
        packet /= IPv6ExtHdrDestOpt()
    return packet / UDP()


def test_eight_extension_headers_are_followed(cube):
    assert parsed(cube, chain_of(8))[2:4] == (54 + 8 * 8, 17)


def test_nine_are_not(cube):
    cube(FOLDER).send(chain_of(9)).dropped("extensions")


def ip(**fields):
    return E / IP(**fields) / UDP() / bytes(20)


@pytest.mark.parametrize(
    "packet",
    [
        bytes(E / IP())[:30],
        ip(version=5),
        ip(ihl=4),
        ip(len=19),
        ip(len=49),
        bytes(E / IP(len=28, proto=17))[:34] + bytes(4),
        bytes(E / IP(proto=17, len=24)) + bytes(4),
        bytes(E / IP(proto=6, len=36)) + bytes(16),
        bytes(E / IP(len=27, proto=17) / UDP()) + bytes(26),  # the header ends in the padding
        bytes(E / IP(len=39) / TCP()) + bytes(6),
        bytes(E / IPv6(plen=7) / ICMPv6EchoRequest()) + bytes(6),
        E / IP() / TCP(dataofs=4),
        E / IP() / TCP(dataofs=8),
        bytes(E / ARP())[:40],
        bytes(E / IPv6(plen=100) / UDP()),
        bytes(E / IPv6())[:50],
        bytes(E / IPv6(nh=44, plen=0)) + bytes(E / IPv6ExtHdrFragment(offset=2))[14:] + bytes(8),  # a fragment header in the padding
        E / IPv6(nh=0, plen=0),
        bytes(E / Dot1Q(vlan=1))[:16] + b"\0",
        bytes(E / IPv6() / ICMPv6EchoRequest())[:-4],
    ],
)
def test_malformed(cube, packet):
    cube(FOLDER).send(packet).dropped("malformed")


def test_a_packet_longer_than_its_length_field_can_say(cube, hook):
    if hook is not Hook.TC:
        pytest.skip("XDP sees frames as they are on the wire")
    parser = cube(FOLDER)
    for size, dropped in ((0, 1), (1400, 0)):
        assert len(parser.send(E / IP(len=0) / TCP() / bytes(2000), gso_size=size).drops) == dropped
