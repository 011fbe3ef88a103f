# SPDX-License-Identifier: Apache-2.0
"""Frames of some forty segments, as TCP hands them to its netdev, through everything that switches and routes on TC: they arrive whole,
still to be cut, with what is behind their headers untouched."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scenes import mac

from polycube.core.slowpath import folded_sum
from polycube.testing.daemon import Daemon
from polycube.testing.hosts import FAR, Host, Lab, eventually

SOL_PACKET, PACKET_VNET_HDR, NEEDS_CSUM = 263, 15, 1
VNET = struct.Struct("<BBHHHH")  # struct virtio_net_hdr
KIND = {4: 1, 6: 4}  # VIRTIO_NET_HDR_GSO_TCPV4, _TCPV6
SIZE, SEGMENT = 50_000, 1200
PAYLOAD = b"".join(number.to_bytes(4, "big") for number in range(SIZE // 4))


def ports(hosts: list[Host], **more: object) -> list[dict[str, object]]:
    return [{"name": f"p{number}", "peer": host.netdev, **more} for number, host in enumerate(hosts)]


def simplebridge(daemon: Daemon, hosts: list[Host]) -> None:
    daemon.post("simplebridge/s", {"ports": ports(hosts)})


def simpleforwarder(daemon: Daemon, hosts: list[Host]) -> None:
    actions = [{"inport": f"p{number}", "action": "FORWARD", "outport": f"p{1 - number}"} for number in range(2)]
    daemon.post("simpleforwarder/s", {"ports": ports(hosts), "actions": actions})


def pbforwarder(daemon: Daemon, hosts: list[Host]) -> None:
    rules = [{"id": number, "in_port": f"p{number}", "action": "FORWARD", "out_port": f"p{1 - number}"} for number in range(2)]
    daemon.post("pbforwarder/s", {"ports": ports(hosts), "rules": rules})


def bridge(daemon: Daemon, hosts: list[Host]) -> None:
    """Two, joined by a trunk: tags come on and off."""
    for name, host in zip("st", hosts, strict=True):
        trunk = {"name": "up", "mode": "trunk", "trunk": {"native-vlan-enabled": False, "allowed": [{"vlanid": 10}]}}
        daemon.post(f"bridge/{name}", {"ports": [*ports([host], access={"vlanid": 10}), trunk]})
    daemon.post("connect", {"peer1": "s:up", "peer2": "t:up"})


def router(daemon: Daemon, hosts: list[Host]) -> None:
    made = ports(hosts)
    for number, (port, host) in enumerate(zip(made, hosts, strict=True)):
        host.ipv4, host.ipv6 = f"10.7.{number}.2", f"fd07:{number}::2"
        host.run(f"ip addr flush dev {FAR} scope global")
        host.run(f"ip addr add {host.ipv4}/24 dev {FAR}")
        host.run(f"ip addr add {host.ipv6}/64 dev {FAR} nodad")
        host.run(f"ip route add default via 10.7.{number}.1")
        host.run(f"ip -6 route add default via fd07:{number}::1")
        port |= {"ip": f"10.7.{number}.1/24", "secondaryip": [{"ip": f"fd07:{number}::1/64"}]}
    daemon.post("router/s", {"ports": made})


@pytest.fixture(params=[simplebridge, simpleforwarder, pbforwarder, bridge, router], ids=lambda one: str(one.__name__))
def hosts(request: pytest.FixtureRequest, daemon: Daemon, lab: Lab) -> Iterator[list[Host]]:
    """Two that one of these joins."""
    build: Callable[[Daemon, list[Host]], None] = request.param
    found = lab.some(4)[2:] if build is router else lab.some(2)
    build(daemon, found)
    yield found
    for service, cubes in daemon.get("cubes").items():
        for cube in cubes:
            daemon.delete(f"{service}/{cube['name']}")


def raw(host: Host) -> socket.socket:
    """Sees and sends frames with the header that says what is left to be done to them."""

    def opened() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        sock.bind((FAR, 3))
        sock.settimeout(30)
        return sock

    return host.call(opened)


@pytest.mark.parametrize("version", [4, 6])
def test_frames_of_many_segments_arrive_whole(daemon: Daemon, hosts: list[Host], version: int) -> None:
    source, target = ((host.ipv4, host.ipv6)[version // 6] for host in hosts)
    eventually(lambda: hosts[0].reaches(target), "an answer")
    first = next(one for one in daemon.get("s/ports") if one["name"] == "p0")  # of a router, the next hop
    ends = {"src": hosts[0].mac, "dst": first.get("mac") or hosts[1].mac}
    headers = bytes(Ether(**ends) / (IPv6 if version == 6 else IP)(src=source, dst=target) / TCP(sport=5, dport=6, flags="A") / PAYLOAD)
    frame, start = bytearray(headers), 34 if version == 4 else 54
    addresses = frame[26:34] if version == 4 else frame[22:54]
    pseudo = bytes(addresses) + (6).to_bytes(4, "big") + (20 + SIZE).to_bytes(4, "big")
    frame[start + 16 : start + 18] = folded_sum(pseudo).to_bytes(2, "big")
    with raw(hosts[0]) as sender, raw(hosts[1]) as receiver:
        sender.send(VNET.pack(NEEDS_CSUM, KIND[version], start + 20, SEGMENT, start, 16) + frame)
        while True:
            data = receiver.recv(1 << 17)
            if len(data) > SIZE:
                break
    flags, kind, _, size, _, _ = VNET.unpack_from(data)
    assert (flags & NEEDS_CSUM, kind, size) == (NEEDS_CSUM, KIND[version], SEGMENT)
    got = data[VNET.size :]
    assert got[:6] == mac(hosts[1].mac) and len(got) == len(frame) and got[start:] == frame[start:]
