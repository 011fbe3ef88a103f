# SPDX-License-Identifier: Apache-2.0
"""Good frames of all kinds and malformed ones through what switches and routes: bridges and the simple forwarder carry them as they are,
but for tags; the router forwards what has a right IP header, and looks no further."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

import pytest
from bridge_lab import key, set_up, trunk
from malformed_lab import Subject, check, soak
from router_lab import Lab

from polycube.testing import malformed
from polycube.testing.harness import Chain, Hook
from polycube.toolkit.frame import checksum

OUT, HOP = bytes.fromhex("0200000000a1"), bytes.fromhex("0200000000b1")  # MACs of the router's way out, and of the next hop there
MTU = 1500


def untouched(frame: bytes, passed: bool, left: bytes) -> bool:
    return passed and left == frame


def simplebridge(chain: Chain) -> Subject:
    cube = chain.cube("simplebridge", ports=2)
    cube.cfg(aging_time=300)
    cube.map("fdb")[{"address": bytes.fromhex(malformed.MACS[1].replace(":", ""))}] = {"port": 1, "flags": 1}
    return Subject(cube, untouched)


def simpleforwarder(chain: Chain) -> Subject:
    cube = chain.cube("simpleforwarder", ports=2)
    cube.map("actions")[0] = {"verb": cube.enum("simpleforwarder_verb")["FORWARD"], "port": 1}
    return Subject(cube, untouched)


def bridge(chain: Chain) -> Subject:
    """Two trunks of VLAN 7 whose native VLAN is 1."""
    cube = chain.cube("bridge", ports=2)
    set_up(cube, trunk(7, native=1), trunk(7, native=1))
    for vlan in (1, 7):
        cube.map("fdb")[key(malformed.MACS[1], vlan)] = {"port": 1, "flags": 1}

    def right(frame: bytes, passed: bool, left: bytes) -> bool:
        if frame[12:14] != b"\x81\0":
            return untouched(frame, passed, left)
        vlan = int.from_bytes(frame[14:16], "big") & 0xFFF
        if len(frame) < 18 or vlan not in (0, 1, 7):
            return not passed
        return passed and left == (frame if vlan == 7 else frame[:12] + frame[16:])

    return Subject(cube, right)


# ---- router ----


def may_be_routed(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    local = address.is_multicast or address.is_loopback or address.is_unspecified or address.is_link_local
    return not local and (address.version == 6 or (address.packed[0] != 0 and address.packed[0] < 240))


def routed(packet: bytes) -> bytes | None:
    """The IP packet with one hop less, without what is behind it; None: it is not forwarded."""
    if packet[0] >> 4 == 4 and len(packet) >= 20:
        header, length = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big")
        right = 20 <= header <= length <= len(packet) and checksum(packet[:header]) in (0, 0xFFFF)
        hops, ends, total = packet[8], (packet[12:16], packet[16:20]), length
    elif packet[0] >> 4 == 6 and len(packet) >= 40:
        total = 40 + int.from_bytes(packet[4:6], "big")
        right, hops, ends = total <= len(packet), packet[7], (packet[8:24], packet[24:40])
    else:
        return None
    if not right or hops < 2 or not all(may_be_routed(ipaddress.ip_address(one)) for one in ends) or total > MTU:
        return None
    if packet[0] >> 4 == 6:
        return packet[:7] + bytes([hops - 1]) + packet[8:total]
    sum = checksum(packet[:8] + bytes([hops - 1]) + packet[9:10] + b"\0\0" + packet[12:header])
    return packet[:8] + bytes([hops - 1]) + packet[9:10] + sum.to_bytes(2, "big") + packet[12:total]


def router(chain: Chain) -> Subject:
    """All that is not its own leaves by its second port."""
    networks = {"0.0.0.0/0": "198.51.100.2", "::/0": "2001:db8:9::2"}
    config = {
        "ports": [
            {"name": "p0", "mac": malformed.MACS[1], "ip": "192.0.2.1/24", "secondaryip": [{"ip": "2001:db8:8::1/64"}]},
            {"name": "p1", "mac": OUT.hex(":"), "ip": "198.51.100.1/24", "secondaryip": [{"ip": "2001:db8:9::1/64"}]},
        ],
        "route": [{"network": network, "nexthop": hop} for network, hop in networks.items()],
        "arp-table": [{"address": hop, "mac": HOP.hex(":"), "interface": "p1"} for hop in networks.values()],
    }
    lab = Lab(chain.cube("router", ports=3), config={"name": "r1", **config})
    assert lab.cube

    def right(frame: bytes, passed: bool, left: bytes) -> bool:
        plain = frame
        if frame[12:14] == b"\x81\0" and len(frame) >= 18 and not int.from_bytes(frame[14:16], "big") & 0xFFF:
            plain = frame[:12] + frame[16:]  # a priority
        kind, packet = plain[12:14], plain[14:]
        version = {b"\x08\0": 4, b"\x86\xdd": 6}.get(kind)
        wanted = routed(packet) if packet and packet[0] >> 4 == version else None
        if wanted is None:
            return not passed
        return passed and left == HOP + OUT + kind + wanted + packet[len(wanted) :]

    return Subject(lab.cube, right)


SERVICES = [simplebridge, simpleforwarder, bridge, router]
each = pytest.mark.parametrize("service", SERVICES, ids=lambda one: one.__name__)
hooks = pytest.mark.parametrize("hook", list(Hook), ids=str)


@each
@hooks
def test_good_frames_are_carried_whatever_is_in_them(isolated: None, hook: Hook, service: Callable[[Chain], Subject]) -> None:
    check(hook, service, good(least=54 if hook == Hook.TC else 0))


def good(least: int) -> list[bytes]:
    """Options, fragments, extension headers, tags, ARP; and as large as they come."""
    frames: list[Any] = [frame.ljust(least, b"\0") for frame in malformed.good()]
    return [*frames, *(frame.ljust(1514, b"x") for frame in malformed.good())]


@each
@hooks
def test_malformed_frames_are_not_misread(isolated: None, hook: Hook, service: Callable[[Chain], Subject]) -> None:
    soak(hook, service, 3, 2_000)


@pytest.mark.soak
@each
@hooks
def test_half_a_million_malformed_frames(isolated: None, hook: Hook, service: Callable[[Chain], Subject]) -> None:
    soak(hook, service, 4, 500_000)
