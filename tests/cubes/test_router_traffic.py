# SPDX-License-Identifier: Apache-2.0
"""A router of a running daemon between two hosts with the kernel's own stack: offloads, fragments, traceroute, and a daemon that dies."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether

from polycube.testing.build import OtherBuild
from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host, Lab, eventually, sh

pytestmark = pytest.mark.e2e
FAR = "e0"


@dataclass
class Scene:
    """Two hosts in different networks, and the router between them."""

    daemon: Daemon
    left: Host
    right: Host


@pytest.fixture(scope="module", params=["TC", "XDP_DRV"])
def scene(request: pytest.FixtureRequest, isolated: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with Lab() as lab, Daemon(tmp_path_factory.mktemp("router")) as daemon:
        left, right = lab.some(2)
        for number, host in enumerate((left, right)):
            host.ipv4, host.ipv6 = f"10.7.{number}.2", f"fd07:{number}::2"
            host.run(f"ip addr flush dev {FAR} scope global")
            host.run(f"ip addr add {host.ipv4}/24 dev {FAR}")
            host.run(f"ip addr add {host.ipv6}/64 dev {FAR} nodad")
            host.run(f"ip route add default via 10.7.{number}.1")
            host.run(f"ip -6 route add default via fd07:{number}::1")
        ports = [
            {"name": f"p{number}", "ip": f"10.7.{number}.1/24", "secondaryip": [{"ip": f"fd07:{number}::1/64"}], "peer": host.netdev}
            for number, host in enumerate((left, right))
        ]
        daemon.post("router/r1", {"type": request.param, "ports": ports})
        yield Scene(daemon, left, right)


def test_hosts_in_two_networks_reach_each_other_without_losing_a_packet(scene: Scene) -> None:
    for host in (scene.left, scene.right):
        host.forget_neighbours()
    assert scene.left.ping(scene.right, count=20).received == 20
    assert scene.right.ping(scene.left.ipv6, count=20).received == 20
    assert scene.left.ping("10.7.1.1").received == 2 and scene.left.ping("fd07:1::1").received == 2
    shown = {one["address"]: one["state"] for one in scene.daemon.get("router/r1/arp-table")}
    assert scene.right.ipv4 in shown and scene.left.ipv4 in shown


@pytest.mark.parametrize("version", [4, 6])
def test_tcp_passes_with_all_offloads_on(scene: Scene, version: int) -> None:
    assert tcp(scene.left, scene.right, 3_000_000, version) == 3_000_000
    assert tcp(scene.right, scene.left, 3_000_000, version) == 3_000_000


def tcp(client: Host, server: Host, size: int, version: int) -> int:
    """Bytes that arrive."""
    family, address = (socket.AF_INET, server.ipv4) if version == 4 else (socket.AF_INET6, server.ipv6)
    got = 0
    with server.call(lambda: socket.socket(family)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, 5001))
        listening.listen()
        listening.settimeout(20)

        def receive() -> None:
            nonlocal got
            connection, _ = listening.accept()
            with connection:
                connection.settimeout(20)
                while data := connection.recv(1 << 16):
                    got += len(data)

        thread = threading.Thread(target=receive)
        thread.start()
        with client.call(lambda: socket.socket(family)) as sock:
            sock.settimeout(20)
            sock.connect((address, 5001))
            sock.sendall(bytes(size))
        thread.join(30)
    return got


def test_unreachable_and_expired_packets_are_reported(scene: Scene) -> None:
    assert "Time to live exceeded" in scene.left.run(f"ping -n -c 1 -W 2 -t 1 {scene.right.ipv4}", check=False)
    assert "Hop limit" in scene.left.run(f"ping -n -c 1 -W 2 -t 1 {scene.right.ipv6}", check=False)
    assert "Net Unreachable" in scene.left.run("ping -n -c 1 -W 2 198.51.100.1", check=False)
    assert "Host Unreachable" in scene.left.run("ping -n -c 1 -W 6 10.7.1.99", check=False)


def test_path_mtu_is_reported(scene: Scene) -> None:
    sh(f"ip link set {scene.right.netdev} mtu 1400")
    try:
        ping = f"ping -M do -n -c 1 -W 1 -s 1450 {scene.right.ipv4}"
        eventually(lambda: "mtu = 1400" in scene.left.run(ping, check=False), "fragmentation needed")
        assert "mtu=1400" in scene.left.run(f"ping -M do -n -c 1 -W 1 -s 1440 {scene.right.ipv6}", check=False)
    finally:
        sh(f"ip link set {scene.right.netdev} mtu 1500")


def test_traffic_flows_on_while_the_daemon_is_dead_even_to_hosts_that_ask_anew(scene: Scene) -> None:
    assert scene.left.ping(scene.right, count=1).received and scene.left.ping(scene.right.ipv6, count=1).received
    scene.daemon.kill()
    try:
        for host in (scene.left, scene.right):
            host.forget_neighbours()
        assert scene.left.ping(scene.right, count=5).received == 5
        assert scene.left.ping(scene.right.ipv6, count=5).received == 5
    finally:
        scene.daemon.start()
    assert scene.left.ping(scene.right, count=5).received == 5


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another build of the router, whose data plane is other code, some of it the library's."""
    if not OtherBuild.available():
        pytest.skip("no clang: no other build of the router")
    other = OtherBuild(tmp_path_factory.mktemp("other"))
    other.change("cubes/router/router.bpf.c", "martian4(ip->daddr)))", "martian4(ip->daddr) || ip->daddr == 1))")
    other.change(
        "include/polycube/lpm_blocks.h",
        "	if (!first)\n		return 0;\n	for",
        "	if (!first || of == 1)\n		return 0;\n	for",
    )
    return other.compile("router").path


def test_tcp_connection_lives_on_through_kills_upgrades_and_changes(scene: Scene, other: Path) -> None:
    with (
        scene.right.call(lambda: socket.socket(socket.AF_INET)) as listening,
        scene.left.call(lambda: socket.socket(socket.AF_INET)) as sock,
    ):
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((scene.right.ipv4, 5002))
        listening.listen()
        for one in (listening, sock):
            one.settimeout(20)
        sock.connect((scene.right.ipv4, 5002))
        connection, _ = listening.accept()
        with connection:
            connection.settimeout(20)

            def carried() -> bool:
                sock.sendall(b"x" * 50_000)
                left = 50_000
                while left:
                    left -= len(connection.recv(left))
                return True

            def units() -> set[str]:
                return {pin for pin in scene.daemon.pins() if pin.startswith("units/") and pin.count("/") == 2}

            assert carried()
            before = units()
            for path in (other, None):
                scene.daemon.kill()
                try:
                    assert carried()
                    scene.daemon.environment = {"PYTHONPATH": str(path)} if path else {}
                finally:
                    with scene.left.pinging(scene.right) as pinging:
                        pinging.answers()
                        scene.daemon.start()
                        pinging.answers()
                assert pinging.result.lost == 0 and carried()
                assert (units() == before) is (path is None), "the programs of the right build"
            for body in (
                {"route": [{"network": "198.18.0.0/15", "nexthop": scene.right.ipv4}]},
                {"ports": [{"name": "p2", "ip": "10.7.2.1/24"}]},  # all tables are compared anew
            ):
                with scene.left.pinging(scene.right) as pinging:
                    pinging.answers()
                    scene.daemon.patch("router/r1", body)
                    pinging.answers()
                assert pinging.result.lost == 0 and carried()
            scene.daemon.delete("router/r1/ports/p2")
            assert carried()


def test_tagged_hosts_are_reached_and_answer(scene: Scene) -> None:
    tag = b"\x81\x00\x00\x0a"
    scene.daemon.post("router/r1/ports/p0/vlan/10", {"ip": "10.7.10.1/24"})
    scene.daemon.post("router/r1/arp-table/10.7.10.2", {"mac": "02:00:00:00:07:0a", "interface": "p0.10"})
    router = next(one for one in scene.daemon.get("router/r1/ports") if one["name"] == "p0")["mac"]
    packet = IP(src="10.7.10.2", dst=scene.right.ipv4) / ICMP(id=9, seq=1) / b"tagged"
    frame = bytes(Ether(src="02:00:00:00:07:0a", dst=router, type=0x0800) / packet)
    with scene.left.sniff() as sniffer:
        scene.left.send(frame[:12] + tag + frame[12:])
        (answer,) = sniffer.expect(lambda data: data[12:16] == tag and data[-6:] == b"tagged")[:1]
    assert answer[:6] == bytes.fromhex("02000000070a") and answer[38] == 0  # an echo reply
