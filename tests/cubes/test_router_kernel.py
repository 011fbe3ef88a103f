# SPDX-License-Identifier: Apache-2.0
"""The same packets by chance through the router and through the kernel's, which must do the same with them: all but what is said here.

- 240/4, 169.254/16, and as destinations 0/8, are forwarded by the kernel, and dropped by the router (martians, link-local).
- The kernel looks at its own addresses as sources in IPv4 only, the router also in IPv6.
- Errors are another matter: both are silent here about what they drop.

With addresses on VLANs instead of ports, the router must do with tagged packets what the kernel does with the same ones without tags.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from router_lab import CONFIG, HOST, MAC, Lab
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from polycube.testing.hosts import await_carrier, eventually, sh

SPACE = "kernelrouter"
COUNT = 150
Outcome = list[tuple[int, bytes]]  # port and packet, in order


def near(number: int) -> str:
    return f"kr{number}"


class KernelRouter:
    """The kernel's router in a namespace, configured as CONFIG says, with a socket at the other end of each link."""

    def __init__(self) -> None:
        sh(f"ip netns add {SPACE}")
        knobs = ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.send_redirects=0"]
        knobs += ["net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0", "net.ipv6.conf.default.accept_dad=0"]
        sh(f"ip netns exec {SPACE} sysctl -q -w {' '.join(knobs)}", f"ip -n {SPACE} link set lo up")
        for number in range(3):
            sh(f"ip link add {near(number)} type veth peer name p{number} address {MAC[number]} netns {SPACE}")
            sh(f"ip -n {SPACE} link set p{number} up", f"ip link set {near(number)} up")
            if number == 0:  # what is too large for the others has to come in
                sh(f"ip -n {SPACE} link set p0 mtu 2000", f"ip link set {near(0)} mtu 2000")
            port: Any = CONFIG["ports"][number]  # type: ignore[index]
            for address in [port["ip"], *(one["ip"] for one in port["secondaryip"])]:
                sh(f"ip -n {SPACE} address add {address} dev p{number} {'nodad' if ':' in address else ''}")
        for route in CONFIG["route"]:  # type: ignore[attr-defined]
            sh(f"ip -n {SPACE} route add {route['network']} via {route['nexthop']}")
        for one in neighbours():
            sh(f"ip -n {SPACE} neighbour replace {one['address']} lladdr {one['mac']} dev {one['interface']} nud permanent")
        await_carrier(*map(near, range(3)))
        await_carrier("p0", "p1", "p2", namespace=SPACE)
        self.sockets = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) for _ in range(3)]
        for number, one in enumerate(self.sockets):
            one.bind((near(number), 3))
            one.setblocking(False)

    def close(self) -> None:
        for one in self.sockets:
            one.close()
        sh(f"ip netns del {SPACE}")

    def outcomes(self, frames: list[bytes], mark: Any) -> dict[int, Outcome]:
        """What came out of each, known by the number in it; the last of them is forwarded."""
        cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cpus)})  # so that none overtakes another
        for frame in frames:
            self.sockets[0].send(frame)
        os.sched_setaffinity(0, cpus)
        found: dict[int, Outcome] = {}

        def last() -> bool:
            done = mark(frames[-1]) in found  # before the last look at all sockets
            for port, sock in enumerate(self.sockets):
                with suppress(BlockingIOError):
                    while True:
                        frame, (_, _, kind, *_) = sock.recvfrom(4096)
                        number = mark(frame)
                        if number is not None and kind != socket.PACKET_OUTGOING:
                            found.setdefault(number, []).append((port, trimmed(frame)))
            return done

        eventually(last, "the last packet")
        return found


def neighbours() -> list[dict[str, Any]]:
    """All that packets are sent to."""
    hosts = [(f"10.0.{n}.{h}", n) for n in range(3) for h in (2, 9)] + [(f"2001:db8:{n}::{h}", n) for n in range(3) for h in (2, 9)]
    return [{"address": address, "mac": HOST[n], "interface": f"p{n}"} for address, n in hosts]


TAG = b"\x81\x00\x00\x0a"


def tagged(frame: bytes) -> bytes:
    return frame[:12] + TAG + frame[12:]


def in_vlan(port: dict[str, Any]) -> dict[str, Any]:
    """A port whose addresses are in a VLAN."""
    return {name: port[name] for name in ("name", "mac")} | {"vlan": [{"vlan": 10, "ip": port["ip"], "secondaryip": port["secondaryip"]}]}


def trimmed(frame: bytes) -> bytes:
    """Without what is behind the packet."""
    length = int.from_bytes(frame[16:18], "big") if frame[12:14] == b"\x08\x00" else 40 + int.from_bytes(frame[18:20], "big")
    return frame[: 14 + length]


def mark4(frame: bytes) -> int | None:
    """The number of an IPv4 packet is its identification; errors about it have another protocol."""
    return int.from_bytes(frame[18:20], "big") or None if frame[12:14] == b"\x08\x00" and frame[23] in (6, 17) else None


def mark6(frame: bytes) -> int | None:
    """That of an IPv6 packet is its flow label."""
    ours = frame[12:14] == b"\x86\xdd" and frame[20] != 58
    return int.from_bytes(frame[14:18], "big") & 0xFFFFF or None if ours else None


def packet4(chance: random.Random, number: int) -> bytes:
    pick = chance.choice
    source = pick(["10.0.0.2"] * 6 + ["10.0.0.1", "10.0.1.9", "172.16.0.5", "127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"])
    target = pick(["10.0.1.2", "10.0.1.9", "10.0.2.9", "172.16.3.3", "8.8.8.8"] * 2 + ["10.0.1.255", "127.0.0.1"])
    fields: dict[str, Any] = {"ttl": pick([64, 64, 64, 2, 1, 0, 255]), "id": number, "tos": pick([0, 0xB8])}
    if chance.random() < 0.15:
        fields |= {"frag": pick([0, 50]), "flags": pick(["MF", ""]), "proto": 17}
    elif chance.random() < 0.3:
        fields |= {"flags": "DF"}
    if chance.random() < 0.1:
        fields |= {"options": [b"\x01" * pick([1, 4, 40])]}
    if chance.random() < 0.1:
        fields |= {"chksum": chance.randrange(65536)}
    if chance.random() < 0.08:
        fields |= {"len": pick([19, 20, 60, 3000])}
    if chance.random() < 0.05:
        fields |= {"version": 6}
    size = pick([10, 100, 1472, 1473, 1480]) - 40 * ("options" in fields and fields["options"] == [b"\x01" * 40])
    inner = Raw(b"x" * size) if "frag" in fields else pick([UDP(sport=1, dport=2), TCP(sport=1, dport=2)]) / Raw(b"x" * max(0, size - 12))
    eth = Ether(dst=pick([MAC[0]] * 9 + ["02:00:00:00:00:99"]), src=HOST[0])
    return bytes(eth / IP(src=source, dst=target, **fields) / inner)


def packet6(chance: random.Random, number: int) -> bytes:
    pick = chance.choice
    source = pick(["2001:db8::2"] * 6 + ["2001:db8:1::9", "::1", "::", "ff02::1", "2001:db8:ffff::1"])
    target = pick(["2001:db8:1::2", "2001:db8:1::9", "2001:db8:2::9", "2001:db8:ff::5"] * 2 + ["::1", "2001:aaaa::1", "fe80::77"])
    fields: dict[str, Any] = {"hlim": pick([64, 64, 64, 2, 1, 0, 255]), "fl": number, "tc": pick([0, 0xB8])}
    if chance.random() < 0.08:
        fields |= {"plen": pick([3000, 20])}
    inner = pick([UDP(sport=1, dport=2), TCP(sport=1, dport=2)]) / Raw(b"x" * pick([10, 100, 1440, 1452, 1460]))
    if chance.random() < 0.2:
        inner = pick([IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment(offset=30, id=number)]) / Raw(b"x" * 60)
    eth = Ether(dst=pick([MAC[0]] * 9 + ["02:00:00:00:00:99"]), src=HOST[0])
    return bytes(eth / IPv6(src=source, dst=target, **fields) / inner)


@pytest.fixture(scope="module")
def kernel(isolated: None) -> Iterator[KernelRouter]:
    made = KernelRouter()
    yield made
    made.close()


@pytest.mark.parametrize("vlan", [False, True], ids=["untagged", "tagged"])
@pytest.mark.parametrize("version", [4, 6])
def test_router_does_with_packets_by_chance_what_the_kernel_does(cube: Any, kernel: KernelRouter, version: int, vlan: bool) -> None:
    ports: Any = CONFIG["ports"]
    zone = ".10" if vlan else ""
    table = [{**one, "interface": one["interface"] + zone} for one in neighbours()]
    config = {**CONFIG, "ports": [in_vlan(port) for port in ports] if vlan else ports, "arp-table": table}
    lab = Lab(cube("router", ports=3), config=config)
    chance = random.Random(20261126 + version)
    make, mark = (packet4, mark4) if version == 4 else (packet6, mark6)
    frames = [make(chance, number) for number in range(1, COUNT)]
    plain = IP(src="10.0.0.2", dst="10.0.1.2", id=COUNT) if version == 4 else IPv6(src="2001:db8::2", dst="2001:db8:1::2", fl=COUNT)
    frames.append(bytes(Ether(dst=MAC[0], src=HOST[0]) / plain / UDP(sport=1, dport=2) / Raw(b"x" * 40)))
    expected = kernel.outcomes(frames, mark)
    lab.tick()
    for number, frame in enumerate(frames, 1):
        lab.take()
        result = lab.send(tagged(frame) if vlan else frame)
        left = [*lab.take(), *([(result.port, bytes(result.packet))] if result.port is not None else [])]  # type: ignore[arg-type]
        if vlan:
            left = [(port, sent[:12] + sent[16:]) for port, sent in left if sent[12:16] == TAG]
        out: Outcome = [(port, trimmed(sent)) for port, sent in left if mark(sent) == number]
        assert out == expected.get(number, []), f"packet {number}: {Ether(frame)!r}, {result.verdict} {result.drops}"
    assert len(expected) > COUNT // 5
