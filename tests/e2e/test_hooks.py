# SPDX-License-Identifier: Apache-2.0
"""Bridges between hosts, alone and in a chain, on each hook: all protocols pass, tags stay, floods reach each port just once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from scenes import BROADCAST, bridge, chain, clear, frame

from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host, Lab, eventually

VARIANTS = {"TC": "TC", "TC-clsact": "TC", "XDP_SKB": "XDP_SKB", "XDP_DRV": "XDP_DRV"}


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def type(variant: str) -> str:
    return VARIANTS[variant]


@pytest.fixture(scope="module")
def lab(variant: str, isolated: None) -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def daemon(variant: str, isolated: None, tmp_path_factory: pytest.TempPathFactory, cache: object) -> Iterator[Daemon]:
    arguments = ["--no-tcx"] if variant.endswith("clsact") else []
    with Daemon(tmp_path_factory.mktemp("daemon"), cache=cache, arguments=arguments) as running:  # type: ignore[arg-type]
        yield running


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> list[Host]:
    return lab.some(4)


@pytest.fixture(scope="module")
def quiet(lab: Lab, hosts: list[Host]) -> list[Host]:
    """Hosts that send nothing by themselves: counters can be told in advance."""
    return lab.some(4, ipv6=False)


@pytest.fixture(autouse=True)
def clean(daemon: Daemon) -> Iterator[None]:
    yield
    clear(daemon)


@pytest.mark.parametrize("links", [1, 2], ids=["one-bridge", "two-bridges"])
def test_hosts_reach_each_other_by_ipv4_ipv6_udp_and_tcp(daemon: Daemon, hosts: list[Host], type: str, links: int) -> None:
    left, right = hosts[0], hosts[2]
    if links == 1:
        bridge(daemon, "br1", hosts[:3], type)
    else:
        chain(daemon, hosts[:2], hosts[2:], type)
    for host in hosts:
        host.forget_neighbours()
    assert left.ping(right, count=5).received == 5
    assert right.ping(left.ipv6, count=5).received == 5
    assert left.ping(right, count=2, size=1400).received == 2
    assert udp(left, right, b"x" * 900) == b"x" * 900
    assert tcp(left, right, 300_000) == 300_000
    assert tcp(right, left, 300_000, ipv6=True) == 300_000


def udp(client: Host, server: Host, data: bytes) -> bytes:
    """What comes back from an echo."""
    with server.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as listening:
        listening.bind((server.ipv4, 7))
        with client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
            sock.settimeout(20)
            listening.settimeout(20)
            sock.sendto(data, (server.ipv4, 7))
            received, address = listening.recvfrom(4096)
            listening.sendto(received, address)
            return sock.recv(4096)


def tcp(client: Host, server: Host, size: int, ipv6: bool = False) -> int:
    """How many bytes the server gets."""
    family, address = (socket.AF_INET6, server.ipv6) if ipv6 else (socket.AF_INET, server.ipv4)
    got = []
    with server.call(lambda: socket.socket(family)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, 5001))
        listening.listen(1)
        listening.settimeout(20)

        def serve() -> None:
            with listening.accept()[0] as connection:
                connection.settimeout(20)
                while part := connection.recv(1 << 16):
                    got.append(len(part))
                connection.send(b"!")

        server_thread = threading.Thread(target=serve, daemon=True)
        server_thread.start()
        with client.call(lambda: socket.socket(family)) as sock:
            sock.settimeout(20)
            sock.connect((address, 5001))
            sock.sendall(bytes(size))
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b"!"
        server_thread.join(20)
    return sum(got)


def test_tagged_frames_keep_their_tags(daemon: Daemon, hosts: list[Host], type: str) -> None:
    chain(daemon, hosts[:2], hosts[2:], type)
    assert hosts[0].ping(hosts[3], count=1).received  # known to both bridges
    with hosts[1].sniff() as second, hosts[2].sniff() as third, hosts[3].sniff() as fourth:
        flooded = frame(hosts[0], BROADCAST, b"flooded", vlan=(3 << 13) | 100)
        unicast = frame(hosts[0], hosts[3], b"unicast", vlan=200)
        double = frame(hosts[0], hosts[3], bytes.fromhex("00c8") + b"double", vlan=300)  # sent as it is; inner bytes do not matter
        hosts[0].send(flooded, unicast, double)
        for sniffer in (second, third, fourth):
            assert sniffer.expect(b"flooded") == [flooded]
        assert fourth.expect(b"unicast") == [unicast]
        assert fourth.expect(b"double") == [double]
        assert second.matching(b"unicast") == third.matching(b"unicast") == []


PORTS = [("br1", "p1"), ("br1", "p2"), ("br1", "p3"), ("br1", "link"), ("br2", "p1"), ("br2", "link")]
COUNT = 20


def counters(daemon: Daemon, name: str) -> dict[tuple[str, str], int]:
    return {port: daemon.counter(*port, name) for port in PORTS}


@pytest.mark.parametrize("sender", [0, 3], ids=["from-the-netdevs", "from-the-link"])
def test_a_flood_reaches_every_other_port_once_and_never_comes_back(daemon: Daemon, quiet: list[Host], type: str, sender: int) -> None:
    """br1 has three netdevs and a link to br2, which has one: netdevs and cubes mixed."""
    chain(daemon, quiet[:3], quiet[3:], type)
    sniffers = [host.sniff() for host in quiet]
    quiet[sender].send(*(frame(quiet[sender], BROADCAST, b"flood %03d from %d" % (number, sender)) for number in range(COUNT)))
    receiving = {("br1", "p1"), ("br2", "link")} if sender == 0 else {("br2", "p1"), ("br1", "link")}
    expected = {port: 0 if port in receiving else COUNT for port in PORTS}
    eventually(lambda: counters(daemon, "tx_packets") == expected)
    assert counters(daemon, "rx_packets") == {port: COUNT - number for port, number in expected.items()}
    for index, sniffer in sorted(enumerate(sniffers), key=lambda one: one[0] == sender):
        frames = sniffer.expect(b"from %d" % sender, 0 if index == sender else COUNT)
        assert len(frames) == len(set(frames)) == (0 if index == sender else COUNT), f"{quiet[index]} got {len(frames)}"
        sniffer.close()
    assert daemon.drops("br1") == daemon.drops("br2") == {}


def test_a_full_chain_of_cubes_floods_to_all_hosts(daemon: Daemon, quiet: list[Host], type: str) -> None:
    """A hub without netdevs between four bridges: a flood goes through internal devices only."""
    for number, host in enumerate(quiet, 1):
        bridge(daemon, f"leaf{number}", [host], type)
        daemon.post(f"simplebridge/leaf{number}/ports/up", {})
    daemon.post("simplebridge/hub", {"type": type, "ports": [{"name": f"p{number}"} for number in range(1, 5)]})
    for number in range(1, 5):
        daemon.post("connect", {"peer1": f"hub:p{number}", "peer2": f"leaf{number}:up"})
    sniffers = [host.sniff() for host in quiet]
    quiet[1].send(*(frame(quiet[1], BROADCAST, b"hub %03d" % number) for number in range(COUNT)))
    for index in (0, 2, 3):
        assert len(sniffers[index].expect(b"hub ", COUNT)) == COUNT
        assert daemon.counter("hub", f"p{index + 1}", "tx_packets") == COUNT
    assert sniffers[1].matching(b"hub ") == []
    assert daemon.counter("hub", "p2", "tx_packets") == 0
    for sniffer in sniffers:
        sniffer.close()


def test_hosts_can_tell_whom_a_frame_is_for(daemon: Daemon, quiet: list[Host], type: str) -> None:
    """A frame for somebody else must not look like one for the host that gets a copy: it might route it."""
    bridge(daemon, "br1", quiet[:3], type)
    for host in quiet[:3]:  # so that the port that comes last in a flood is one of the receivers, whoever sends
        others = [one for one in quiet[:3] if one is not host]
        for target, expected in (("02:99:00:00:00:01", socket.PACKET_OTHERHOST), (BROADCAST, socket.PACKET_BROADCAST)):
            assert kinds(host, others, target) == [expected] * 2
    for host, target in ((quiet[0], quiet[2]), (quiet[2], quiet[1])):
        assert kinds(host, [target], target.mac) == [socket.PACKET_HOST]


def kinds(sender: Host, receivers: list[Host], target: str) -> list[int]:
    """What each receiver's kernel takes a frame from the sender for."""
    socks = [one.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5))) for one in receivers]
    try:
        sender.send(frame(sender, target, b"kind"))
        found = []
        for sock in socks:
            sock.settimeout(20)
            found.append(int(sock.recvfrom(2048)[1][2]))
        return found
    finally:
        for sock in socks:
            sock.close()
