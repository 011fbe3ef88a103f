# SPDX-License-Identifier: Apache-2.0
"""Hashes of flows: hash.h."""

import random
from collections import Counter
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

FOLDER = Path(__file__).parent / "hasher"
E = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01")
SYMMETRIC, ADDRESSES, SOURCE = 1, 2, 4
WORD, MASK = 0x9E3779B97F4A7C15, 2**64 - 1
A4, B4 = {"src": "10.0.0.1", "dst": "10.9.8.7"}, {"src": "10.9.8.7", "dst": "10.0.0.1"}
A6, B6 = {"src": "fd00::1:2", "dst": "2001:db8::7"}, {"src": "2001:db8::7", "dst": "fd00::1:2"}


@pytest.fixture
def hasher(cube):
    return cube(FOLDER)


def hash_of(hasher, packet):
    return hasher.send(packet).slowpath().events[0].metadata[0]


def words(seed, *taken):
    """The definition, by a second hand."""
    for word in taken:
        seed = (seed ^ word) * WORD & MASK
        seed ^= seed >> 32
    seed = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9 & MASK
    seed = (seed ^ seed >> 27) * 0x94D049BB133111EB & MASK
    return (seed ^ seed >> 31) >> 32


def number(data):
    return int.from_bytes(data, "little")


def test_it_is_what_it_says(hasher):
    hasher.cfg(seed=0xDEADBEEF)
    packet = IP(bytes(IP(**A4) / TCP(sport=1000, dport=80)))
    raw = bytes(packet)
    ports = number(raw[20:22]) << 16 | number(raw[22:24])
    expected = words(0xDEADBEEF << 8 | 4, number(raw[12:16]) << 32 | number(raw[16:20]), ports << 8 | 6)
    assert hash_of(hasher, E / packet) == expected
    raw = bytes(IPv6(**A6) / UDP(sport=1000, dport=80))
    quads = [number(raw[at : at + 4]) << 32 | number(raw[at + 4 : at + 8]) for at in range(8, 40, 8)]
    expected = words(0xDEADBEEF << 8 | 6, *quads, (number(raw[40:42]) << 16 | number(raw[42:44])) << 8 | 17)
    assert hash_of(hasher, E / IPv6(raw)) == expected


@pytest.mark.parametrize("ip, there, back", [(IP, A4, B4), (IPv6, A6, B6)])
def test_directions(hasher, ip, there, back):
    for transport in (TCP, UDP):
        forth = E / ip(**there) / transport(sport=1234, dport=80)
        reply = E / ip(**back) / transport(sport=80, dport=1234)
        other = E / ip(**back) / transport(sport=1234, dport=80)
        hasher.cfg(flags=0)
        assert hash_of(hasher, forth) != hash_of(hasher, reply)
        hasher.cfg(flags=SYMMETRIC)
        assert hash_of(hasher, forth) == hash_of(hasher, reply) != hash_of(hasher, other)


def test_echoes_are_told_apart_by_their_identifier(hasher):
    hasher.cfg(flags=SYMMETRIC)
    for ip, there, back, request, reply in (
        (IP, A4, B4, lambda id: ICMP(type=8, id=id), lambda id: ICMP(type=0, id=id)),
        (IPv6, A6, B6, lambda id: ICMPv6EchoRequest(id=id), lambda id: ICMPv6EchoReply(id=id)),
    ):
        asked = hash_of(hasher, E / ip(**there) / request(7))
        assert asked == hash_of(hasher, E / ip(**back) / reply(7)) != hash_of(hasher, E / ip(**there) / request(8))


@pytest.mark.parametrize("flags, same", [(ADDRESSES, (True, False)), (SOURCE, (True, True)), (0, (False, False))])
@pytest.mark.parametrize("ip, there, target", [(IP, A4, "10.0.0.9"), (IPv6, A6, "fd00::9")])
def test_what_counts(hasher, flags, same, ip, there, target):
    hasher.cfg(flags=flags)
    first = hash_of(hasher, E / ip(**there) / TCP(sport=1, dport=2))
    other_port = hash_of(hasher, E / ip(**there) / TCP(sport=3, dport=2))
    other_target = hash_of(hasher, E / ip(src=there["src"], dst=target) / TCP(sport=1, dport=2))
    assert (first == other_port, first == other_target) == same
    other_source = hash_of(hasher, E / ip(src=target, dst=there["dst"]) / TCP(sport=1, dport=2))
    assert first != other_source


def test_the_seed_changes_everything(hasher):
    hashes = set()
    for seed in range(20):
        hasher.cfg(seed=seed)
        hashes |= {hash_of(hasher, E / IP(**A4) / UDP()), hash_of(hasher, E / IPv6(**A6) / UDP())}
    assert len(hashes) == 40


def test_all_fragments_of_a_datagram_go_one_way(hasher):
    v4 = [IP(**A4, flags="MF") / UDP(sport=9, dport=8) / bytes(16)]
    v4 += [IP(**A4, frag=at, proto=17) / bytes(24) for at in (3, 6)]
    v6 = [IPv6(**A6) / IPv6ExtHdrFragment(m=1, nh=17) / UDP(sport=9, dport=8) / bytes(16)]
    v6 += [IPv6(**A6) / IPv6ExtHdrFragment(offset=at, nh=17) / Raw(bytes(24)) for at in (3, 6)]
    for fragments in (v4, v6):
        assert len({hash_of(hasher, E / fragment) for fragment in fragments}) == 1


def test_tags_and_what_is_no_flow(hasher):
    plain = E / IP(**A4) / UDP()
    tagged = E / Dot1Q(vlan=5) / IP(**A4) / UDP()
    assert hash_of(hasher, plain) == hash_of(hasher, tagged)
    errors = [E / IP(**A4) / ICMP(type=3, code=1, unused=number) / bytes(30) for number in (1, 2)]
    errors6 = [E / IPv6(**A6) / ICMPv6DestUnreach(length=number) / bytes(50) for number in (1, 2)]
    assert hash_of(hasher, errors[0]) == hash_of(hasher, errors[1])
    assert hash_of(hasher, errors6[0]) == hash_of(hasher, errors6[1])
    other = Ether(dst="02:00:00:00:00:03", src="02:00:00:00:00:01", type=0x88B5) / bytes(46)
    same = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01", type=0x88B5) / bytes(46)
    assert hash_of(hasher, other) != hash_of(hasher, same)


@pytest.mark.parametrize("flags", [0, SYMMETRIC])
def test_flows_that_differ_little_spread_evenly(hasher, flags):
    """Chi squared over 100 ways of 1,000 flows whose ports count up: 99 degrees of freedom, 1 in a million is beyond 181."""
    hasher.cfg(flags=flags, seed=random.Random(1).getrandbits(32))
    ways = Counter()
    for port in range(1000):
        packet = E / IP(**A4) / UDP(sport=port, dport=80) if port % 2 else E / IPv6(**A6) / UDP(sport=port, dport=80)
        ways[hasher.send(packet).events[0].metadata[1]] += 1
    assert set(ways) <= set(range(100))
    assert sum((ways[way] - 10) ** 2 / 10 for way in range(100)) < 181
