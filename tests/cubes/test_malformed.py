# SPDX-License-Identifier: Apache-2.0
"""Malformed frames through what translates, forwards, balances, protects and watches: each service against what a reader of its own makes
of the frame, and no frame is dropped without a reason that is counted. (The firewall has rules to be checked as well:
test_firewall_malformed.py.)"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from balancer_lab import Lab
from ddosmitigator_lab import Mitigator
from malformed_lab import Subject, is_ip, soak
from nat_lab import EXTERNAL, configure

from polycube.cubes.dynmon import Dynmon
from polycube.cubes.dynmon.model import DynmonConfig
from polycube.cubes.lbdsr import Lbdsr
from polycube.cubes.lbrp import Lbrp
from polycube.cubes.packetcapture import Packetcapture
from polycube.cubes.packetcapture.cbpf import run as filtered
from polycube.cubes.packetcapture.filter import code
from polycube.cubes.packetcapture.libpcap import compile_filter
from polycube.cubes.pbforwarder import Pbforwarder
from polycube.cubes.synflood.watch import summed, totals
from polycube.model import load
from polycube.testing import malformed
from polycube.testing.control import ControlPlane
from polycube.testing.harness import Chain, Hook
from polycube.toolkit.frame import IPV4, IPV6, Packet, checksum, ethertype

VIPS = {version: malformed.HOSTS[version][1] for version in (4, 6)}
WEB, DNS = (80).to_bytes(2, "big"), (53).to_bytes(2, "big")
SERVED = {4: {6: WEB, 17: DNS, 1: b"\x08"}, 6: {6: WEB, 17: DNS, 58: b"\x80"}}  # ports; types of ICMP
OWN = bytes.fromhex("0200000000c1")  # MAC of the balancers' second port
SIDES = [{"name": "p0", "type": "FRONTEND"}, {"name": "p1", "type": "BACKEND"}]


def header(frame: bytes) -> tuple[str, str] | None:
    """Source and destination, of which no more is asked than that a header stands there."""
    plain = malformed.untagged(frame)
    kind, ip = ethertype(plain), plain[14:]
    if kind == IPV4 and len(ip) >= 20 and ip[0] >> 4 == 4 and ip[0] & 15 >= 5:
        return str(ipaddress.ip_address(ip[12:16])), str(ipaddress.ip_address(ip[16:20]))
    if kind == IPV6 and len(ip) >= 40 and ip[0] >> 4 == 6:
        return str(ipaddress.ip_address(ip[8:24])), str(ipaddress.ip_address(ip[24:40]))
    return None


# ---- lbrp ----


def residue(packet: Packet) -> tuple[int, int | None]:
    """What is wrong with the sums of the IPv4 header and of the transport: translation leaves that as it is (RFC 1624)."""
    own = checksum(packet.data[: packet.transport]) % 0xFFFF if packet.version == 4 else 0
    at = {1: 2, 6: 16, 17: 6, 58: 2}.get(packet.protocol)
    if at is None or not packet.first or (packet.protocol == 17 and not any(packet.payload[6:8])):
        return own, None
    pseudo = b"" if packet.protocol == 1 else packet.source.packed + packet.target.packed
    return own, (checksum(pseudo) + checksum(packet.payload)) % 0xFFFF


def lbrp(chain: Chain) -> Subject:
    backend = {4: "192.0.2.9", 6: "2001:db8::9"}  # whom chance makes no client: such a one is shown the VIP
    kinds = (("TCP", 80), ("UDP", 53), ("ICMP", 0))
    services = [
        {"vip": VIPS[version], "vport": port, "proto": proto, "backend": [{"ip": backend[version], "port": port and 8080}]}
        for version in (4, 6)
        for proto, port in kinds
    ]
    lab = Lab(chain.cube("lbrp"), Lbrp, {"ports": SIDES, "service": services})

    def right(frame: bytes, passed: bool, left: bytes) -> bool:
        packet = malformed.packet_in(frame)
        if packet is None or not malformed.sound(frame):
            return not passed if is_ip(frame) else not passed or left == frame
        virtual = str(packet.target) == VIPS[packet.version]
        asked = packet.payload[2:4] if packet.protocol in (6, 17) else packet.payload[:1]
        served = virtual and packet.first and asked == SERVED[packet.version].get(packet.protocol)
        if not passed:  # UDP always can; TCP may have flags that no host sends, an error be about nothing
            return packet.protocol in (1, 58) or (virtual and (packet.protocol != 17 or not packet.first))
        if left == frame:
            return not served
        after = malformed.packet_in(left)
        if after is None or not virtual:
            return False
        same = len(left) == len(frame) and left[:14] == frame[:14] and str(after.target) == backend[packet.version]
        return same and after.source == packet.source and residue(after) == residue(packet)

    return Subject(lab.cube, right)


# ---- lbdsr ----


def lbdsr(chain: Chain) -> Subject:
    server = {"id": 1, "mac": "02:00:00:00:01:01", "ip": "192.0.2.1"}
    encapsulated = {"vip": VIPS[6], "vport": 0, "proto": "ALL", "encapsulation": "IPIP", "backend": [server]}
    frontend = {"vip": VIPS[4], "mac": malformed.MACS[1]}
    lab = Lab(chain.cube("lbdsr"), Lbdsr, {"ports": SIDES, "frontend": frontend, "backend": {"pool": [server]}, "service": [encapsulated]})
    macs = bytes.fromhex("020000000101") + OWN

    def right(frame: bytes, passed: bool, left: bytes) -> bool:
        packet = malformed.packet_in(frame)
        if packet is None or not malformed.sound(frame) or str(packet.target) != VIPS[packet.version]:
            return not passed
        if not passed:  # flags that no host sends, fragments alone, ICMP that is no echo; tagged where there is to be a header
            tagged = packet.version == 6 and frame[12:14] != b"\x86\xdd"
            return tagged or not packet.whole or packet.protocol in (1, 6, 58)
        if packet.version == 4:
            return left == macs + frame[12:]
        return left[:12] == macs and left[12:14] == b"\x08\0" and left[34:] == frame[14:]

    return Subject(lab.cube, right)


# ---- ddosmitigator, synflood ----


def ddosmitigator(chain: Chain) -> Subject:
    made = Mitigator(chain.hook)
    made.configure(blacklist_src=["fd00::/16", "128.0.0.0/1"], blacklist_dst=["10.0.0.128/25", "fd80::/9"])
    blocked = (("128.0.0.0/1", "fd00::/16"), ("10.0.0.128/25", "fd80::/9"))
    networks = [[ipaddress.ip_network(one) for one in side] for side in blocked]

    def right(frame: bytes, passed: bool, left: bytes) -> bool:
        ends = header(frame)
        if ends is None:
            return passed != (is_ip(frame) or (ethertype(malformed.untagged(frame)) in (0x8100, 0x88A8) and not malformed.sound(frame)))
        hit = any(ipaddress.ip_address(end) in network for end, side in zip(ends, networks, strict=True) for network in side)
        return passed != hit and (not passed or left == frame)

    return Subject(made.cube, right, also=[made])


def synflood(chain: Chain) -> Subject:
    cube = chain.cube("synflood", transparent=True)
    cube.cfg(timeout=63, any_address=0, seed=7)
    seen = {"received": 0, "delivered": 0, "syn": 0, "syn_ack": 0, "rst": 0, "ack": 0}

    def right(frame: bytes, passed: bool, left: bytes) -> bool:
        packet = malformed.packet_in(frame)
        seen["received"] += is_ip(frame)
        if packet is not None and malformed.sound(frame):
            seen["delivered"] += 1
            if packet.protocol == 6 and packet.first:
                flags = packet.payload[13]
                name = "rst" if flags & 4 else ("", "syn", "ack", "syn_ack")[(flags >> 1 & 1) | (flags >> 3 & 2)]
                if name:
                    seen[name] += 1
        return passed and left == frame

    def sums(count: int) -> None:
        found = totals(cube.map("totals").percpu(0)) | summed(cube.map("traffic").percpu(0))
        assert {name: found[name] for name in seen} == seen
        assert found["malformed"] == seen["received"] - seen["delivered"]

    return Subject(cube, right, sums)


# ---- nat, pbforwarder ----


def of_the_link(packet: Packet) -> bool:
    """What nat leaves alone: no address that is routed, groups, neighbours and listeners (RFC 4861, 2710, 3810, 4286, 4890)."""
    local = packet.target.is_multicast or packet.source.is_unspecified
    if packet.version == 4:
        return local or packet.target.packed[0] >= 240
    kind = packet.payload[0] if packet.protocol == 58 and packet.first else 0
    return local or packet.source.is_link_local or 130 <= kind <= 137 or kind in (141, 142, 143, 151, 152, 153)


def nat(chain: Chain) -> Subject:
    cube = chain.cube("nat", transparent=True)
    configure(cube, masquerade=EXTERNAL.values())
    known: set[tuple[Any, Any]] = set()  # who has sent to whom

    def right(frame: bytes, passed: bool, left: bytes) -> bool:
        packet = malformed.packet_in(frame)
        if packet is None or not malformed.sound(frame):
            return passed != (is_ip(frame) or not malformed.sound(frame)) and (not passed or left == frame)
        if not passed:  # UDP can, unless it comes against a session; others may be in the middle of nothing, or find no port of their own
            return packet.protocol != 17 or not packet.first or (packet.target, packet.source) in known
        known.add((packet.source, packet.target))
        if left == frame:
            return of_the_link(packet)
        after = malformed.packet_in(left)
        same = len(left) == len(frame) and left[:14] == frame[:14]
        return (
            same
            and after is not None
            and (str(after.source), after.target) == (EXTERNAL[packet.version], packet.target)
            and (residue(after) == residue(packet))
        )

    return Subject(cube, right, direction="egress")


def pbforwarder(chain: Chain) -> Subject:
    rules = [
        {"id": 0, "l4_proto": "TCP", "dst_port": "0-127", "action": "FORWARD", "out_port": "p1"},
        {"id": 1, "src_ip": "10.0.0.0/9", "l4_proto": "UDP", "action": "DROP"},
        {"id": 2, "dst_ip": "fd00::/17", "action": "FORWARD", "out_port": "p1"},
        {"id": 3, "vlan": 7, "action": "FORWARD", "out_port": "p1"},
    ]
    networks = ipaddress.ip_network("10.0.0.0/9"), ipaddress.ip_network("fd00::/17")
    made = ControlPlane(chain.cube("pbforwarder"), Pbforwarder, {"ports": [{"name": f"p{at}"} for at in range(2)], "rules": rules}, "pb1")

    def right(frame: bytes, passed: bool, left: bytes) -> bool:
        packet = malformed.packet_in(frame)
        if not malformed.sound(frame):
            return not passed
        tag = int.from_bytes(frame[14:16], "big") & 0xFFF if frame[12:14] in (b"\x81\0", b"\x88\xa8") else None
        wanted = tag == 7
        if packet is not None:
            if packet.protocol == 6 and packet.first and int.from_bytes(packet.payload[2:4], "big") < 128:
                wanted = True
            elif packet.protocol == 17 and packet.source in networks[0]:
                wanted = False
            elif packet.target in networks[1]:
                wanted = True
        return passed == wanted and (not passed or left == frame)

    return Subject(made.cube, right)


# ---- packetcapture, dynmon ----

EXPRESSION = "tcp[tcpflags] & tcp-syn != 0 or (vlan and ip6) or udp port 53 or icmp6"


def packetcapture(chain: Chain) -> Subject:
    cube = chain.cube(replace(Packetcapture.function(), code=(code(EXPRESSION),)), transparent=True)
    cube.cfg(directions=3, snaplen=64)
    program, wanted = compile_filter(EXPRESSION), [0]

    def right(frame: bytes, passed: bool, left: bytes) -> bool:
        wanted[0] += filtered(program, frame) > 0
        return passed and left == frame

    def sums(count: int) -> None:
        counts = cube.map("counts").percpu(0)
        assert sum(one["taken"] for one in counts) == wanted[0]
        assert len(cube.records("frames")) + sum(one["lost"] for one in counts) == wanted[0]

    return Subject(cube, right, sums)


CODE = """
#include <polycube/parse.h>

HANDLER(monitor)
{
	int reason = pcn_parse(ctx, pkt);

	if (reason)
		return pcn_drop(pkt, reason);
	return pkt->l4_proto == IPPROTO_UDP && pkt->l4 ? pcn_drop(pkt, PCN_DROP_POLICY) : pcn_pass(pkt);
}
"""


def dynmon(chain: Chain) -> Subject:
    body = {"name": "mon1", "dataplane-config": {"ingress-path": {"name": "test", "code": CODE}}}
    cube = chain.cube(Dynmon.function_of(load(DynmonConfig, body)), transparent=True)

    def right(frame: bytes, passed: bool, left: bytes) -> bool:
        packet = malformed.packet_in(frame)
        if is_ip(frame) and (packet is None or not malformed.sound(frame)):
            return not passed
        taken = packet is not None and packet.protocol == 17 and packet.first
        return passed != taken if packet is not None else passed == malformed.sound(frame)

    return Subject(cube, right)


SERVICES = [nat, pbforwarder, lbrp, lbdsr, ddosmitigator, synflood, packetcapture, dynmon]


@pytest.mark.parametrize("service", SERVICES, ids=lambda one: one.__name__)
@pytest.mark.parametrize("hook", list(Hook), ids=str)
def test_no_frame_is_misread_and_no_verdict_without_a_reason(isolated: None, hook: Hook, service: Callable[[Chain], Subject]) -> None:
    soak(hook, service, 1, 2_000)


@pytest.mark.soak
@pytest.mark.parametrize("service", SERVICES, ids=lambda one: one.__name__)
@pytest.mark.parametrize("hook", list(Hook), ids=str)
def test_half_a_million_frames(isolated: None, hook: Hook, service: Callable[[Chain], Subject]) -> None:
    soak(hook, service, 2, 500_000)
