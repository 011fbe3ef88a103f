# SPDX-License-Identifier: Apache-2.0
"""Frames with bytes changed, cut and grown by chance: the data plane reads what the control plane's parser reads, and every verdict is
counted under a reason."""

from __future__ import annotations

import random

import pytest
from firewall_lab import Wall, kept
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from polycube.cubes.firewall import explain
from polycube.cubes.firewall.chains import ACTIONS
from polycube.model import ModelError
from polycube.testing.harness import Chain, Hook
from polycube.toolkit.classify import Space

E = Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:0b")
SEEDS = [
    bytes(frame)
    for frame in (
        E / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1000, dport=80, flags="S", options=[("MSS", 1460), ("WScale", 7)]),
        E / IP(src="10.0.0.1", dst="10.0.0.2", options=[b"\x07\x07\x04\x00\x00\x00\x00\x00"]) / UDP(sport=53, dport=53) / Raw(bytes(30)),
        E / IP(src="10.0.0.1", dst="10.0.0.2", flags="MF") / UDP(sport=53, dport=53) / Raw(bytes(24)),
        E / IP(src="10.0.0.1", dst="10.0.0.2", frag=9, proto=17) / Raw(bytes(40)),
        E / IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(type=3, code=3) / IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=53, dport=53),
        E / IPv6(src="fd00::1", dst="fd00::2") / TCP(sport=1000, dport=80, flags="A"),
        E / IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(sport=53, dport=53),
        E / IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrFragment(m=1) / UDP(sport=53, dport=53) / Raw(bytes(32)),
        E / IPv6(src="fd00::1", dst="fd00::2") / ICMPv6EchoRequest(),
        E / Dot1Q(vlan=7) / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1000, dport=80),
        E / Dot1Q(vlan=7) / Dot1Q(vlan=8) / IPv6(src="fd00::1", dst="fd00::2") / UDP(sport=53, dport=53),
        E / ARP(),
    )
]
RULES = [
    {"l4proto": "TCP", "dport": "0-127", "action": "ACCEPT"},
    {"l4proto": "TCP", "tcpflags": "SYN,!ACK", "action": "DROP"},
    {"src": "10.0.0.0/9", "l4proto": "UDP", "sport": "!53", "action": "DROP"},
    {"icmptype": "3", "action": "ACCEPT"},
    {"dst": "fd00::/17", "dport": 53, "action": "ACCEPT"},
    {"fragment": "LATER", "action": "DROP"},
    {"vlan": "7", "src": "!10.0.0.1", "action": "DROP"},
    {"l4proto": "128-255", "action": "DROP"},
    {"ethertype": "ARP", "action": "ACCEPT"},
    {"src": "fd00::/16", "action": "ACCEPT"},
]
PASS, DROP = {Hook.XDP: {2}, Hook.TC: {0, 0xFFFFFFFF}}, {Hook.XDP: {1}, Hook.TC: {2}}


def mutated(chance: random.Random, hook: Hook) -> bytes:
    frame = bytearray(chance.choice(SEEDS))
    for _ in range(chance.choice([1, 1, 2, 4])):
        at = chance.randrange(12, len(frame))
        frame[at] = chance.choice([0, 1, 4, 5, 6, 17, 44, 58, 59, 60, 0x45, 0x60, 0xFF, chance.randrange(256)])
    kind = chance.random()
    if kind < 0.25:
        frame = frame[: chance.randrange(14, len(frame))]
    elif kind < 0.4:
        frame += bytes(chance.randrange(40))
    return bytes(frame) if hook == Hook.XDP else bytes(frame).ljust(54, b"\0")  # a test run takes no shorter ones


def sound(frame: explain.Frame, data: bytes) -> bool:
    """Whether the transport header is whole, as the data plane wants it."""
    plain = data
    while plain[12:14] in (b"\x81\0", b"\x88\xa8") and len(data) - len(plain) < 8 and len(plain) >= 18:
        plain = plain[:12] + plain[16:]
    packet = explain.read_ip(plain)
    if packet is None:
        return plain[12:14] != b"\x08\x06" or len(plain) >= 14 + 28
    if packet.version == 4 and plain[16:18] == b"\0\0":  # a length of 0 is for what is yet to be cut into segments
        return False
    if not packet.first or packet.protocol == 59:
        return True
    head = packet.payload
    if packet.protocol == 6:
        return len(head) >= 20 and head[12] >> 4 >= 5 and (head[12] >> 4) * 4 <= len(head)
    if packet.protocol in (1, 17, 58):
        return len(head) >= 8
    return packet.protocol not in explain.PORTS or len(head) >= 4


@pytest.fixture(scope="module", params=list(Hook))
def wall(isolated, request):
    with Chain(request.param) as chain:
        firewall = chain.cube("firewall", transparent=True)
        for port in range(2):
            firewall.write_port(port, next=3, id=firewall.ids[port])
        with kept(request.param, firewall.program("ingress")):
            yield Wall(firewall, conntrack="OFF")


def run(wall: Wall, count: int, seed: int) -> None:
    chance, hook = random.Random(seed), wall.cube.stage.hook
    wall.configure(ingress=RULES, defaults={"INGRESS": "ACCEPT"}, others={"INGRESS": "DROP"}, conntrack="OFF")
    program, table = wall.cube.program("ingress"), wall.chains.table("INGRESS")
    for number in range(count):
        data = mutated(chance, hook)
        said = program.test_run(data).retval
        assert said in PASS[hook] | DROP[hook], (number, data.hex())
        try:
            frame = explain.parsed(data.hex())
        except ModelError:
            assert said in DROP[hook], (number, data.hex())
            continue
        if not sound(frame, data):
            assert said in DROP[hook], (number, data.hex())
            continue
        place, _, _ = explain.decides(table, frame, 0)
        accepted = ACTIONS[table.entries[place].rule.result.action] == "ACCEPT" if place is not None else Space.ETHERTYPE not in frame
        if said in DROP[hook] and accepted and wall.cube.drops().get("extensions"):
            continue  # more headers than are followed
        assert (said in PASS[hook]) == accepted, (number, place, data.hex())


def reasons(wall: Wall, count: int, seed: int) -> None:
    """Sessions included: what was counted is as much as was sent."""
    chance = random.Random(seed)
    wall.configure(ingress=RULES, defaults={"INGRESS": "DROP"}, conntrack="ON")
    program = wall.cube.program("ingress")
    wall.chains.reset(range(1000))
    before, passed = wall.cube.drops(), 0
    hook = wall.cube.stage.hook
    for _ in range(count):
        passed += program.test_run(mutated(chance, hook)).retval in PASS[hook]
    dropped = sum(wall.cube.drops().values()) - sum(before.values())
    assert passed + dropped == count
    decided = sum(wall.counted()) + wall.established()
    unread = sum(wall.cube.drops().get(name, 0) - before.get(name, 0) for name in ("malformed", "extensions"))
    assert decided + unread == count


def test_no_frame_is_misread(wall):
    run(wall, 6_000, 1)


def test_no_verdict_is_without_a_reason(wall):
    reasons(wall, 6_000, 2)


@pytest.mark.soak
def test_a_million_frames(wall):
    run(wall, 500_000, 3)
    reasons(wall, 500_000, 4)
