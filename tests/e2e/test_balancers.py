# SPDX-License-Identifier: Apache-2.0
"""Load balancers with real TCP: backends that are drained and that die, daemons killed under live connections, hairpin, direct return."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator, Sequence

import pytest
from echo import Connection, Server
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scenes import clear

from polycube.core.slowpath import folded_sum
from polycube.net import ethtool
from polycube.net.raw import Checksum, PacketSocket
from polycube.testing.daemon import Daemon
from polycube.testing.hosts import FAR, Host, Lab, Sniffer, await_carrier, eventually, sh

VIP4, VIP6 = "10.96.0.1", "fd96::1"


def names(client: Host, vip: str, count: int = 25) -> set[str]:
    """Who answers new connections: one of two is missed once in ten million runs."""
    found = set()
    for _ in range(count):
        connection = Connection(client, vip)
        found.add(connection.server)
    return found


def readdress(host: Host, *addresses: str, via: Sequence[str] = ()) -> None:
    host.run(f"ip addr flush dev {FAR} scope global")
    for address in addresses:
        host.run(f"ip addr add {address} dev {FAR}" + (" nodad" if ":" in address else ""))
    for gateway in via:
        host.run(f"ip route replace default via {gateway} dev {FAR} onlink")


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> list[Host]:
    made = [lab.host(f"b{number}") for number in range(4)]
    readdress(made[0], "10.0.1.1/24", "fd01::1/64", via=["10.0.1.254", "fd01::fe"])
    for number, host in enumerate(made[1:], 1):
        readdress(host, f"10.0.2.{number}/24", f"fd02::{number}/64", via=["10.0.2.254", "fd02::fe"])
    return made


@pytest.fixture(scope="module")
def servers(hosts: list[Host]) -> Iterator[list[Server]]:
    made = [Server(host, f"s{number}") for number, host in enumerate(hosts[1:], 1)]
    yield made
    for server in made:
        server.stop()


@pytest.fixture(autouse=True)
def clean(daemon: Daemon) -> Iterator[None]:
    yield
    for connection in Connection.made:
        connection.close()
    Connection.made.clear()
    if not daemon.running:
        daemon.start()
    clear(daemon)


def backends(version: int, numbers: Sequence[int], port: int = 8080) -> list[dict[str, object]]:
    return [{"ip": f"10.0.2.{number}" if version == 4 else f"fd02::{number}", "port": port} for number in numbers]


def scene(daemon: Daemon, hosts: list[Host], type: str) -> None:
    """Client, balancer, router, bridge, servers."""
    bridged = [{"name": f"p{number}", "peer": host.netdev} for number, host in enumerate(hosts[1:], 1)]
    daemon.post("simplebridge/br1", {"type": type, "ports": [*bridged, {"name": "up"}]})
    lan = {"name": "lan", "ip": "10.0.1.254/24", "secondaryip": [{"ip": "fd01::fe/64"}]}
    net = {"name": "net", "ip": "10.0.2.254/24", "secondaryip": [{"ip": "fd02::fe/64"}]}
    daemon.post("router/r1", {"type": type, "ports": [lan, net]})
    ports = [{"name": "front", "type": "FRONTEND", "peer": hosts[0].netdev}, {"name": "back", "type": "BACKEND"}]
    services = [{"vip": vip, "vport": 80, "proto": "TCP", "backend": backends(v, (1, 2, 3))} for v, vip in ((4, VIP4), (6, VIP6))]
    daemon.post("lbrp/lb1", {"type": type, "ports": ports, "service": services})
    daemon.post("connect", {"peer1": "br1:up", "peer2": "r1:net"})
    daemon.post("connect", {"peer1": "lb1:back", "peer2": "r1:lan"})


def backend(version: int, number: int) -> str:
    vip, ip = (VIP4, f"10.0.2.{number}") if version == 4 else (VIP6, f"fd02::{number}")
    return f"lbrp/lb1/service/{vip}/80/TCP/backend/{ip}"


@pytest.mark.parametrize("type", ["XDP_DRV"])
def test_live_connections_outlive_drain_removal_and_daemon(daemon: Daemon, hosts: list[Host], servers: list[Server], type: str) -> None:
    scene(daemon, hosts, type)
    before = daemon.drops("lb1")  # of what came before it had two sides
    live = [Connection(hosts[0], vip) for vip in (VIP4, VIP6) for _ in range(20)]
    assert {connection.server for connection in live} == {"s1", "s2", "s3"}
    for version, vip in ((4, VIP4), (6, VIP6)):
        daemon.patch(backend(version, 1), {"state": "DRAIN"})
        daemon.delete(backend(version, 2))
        assert names(hosts[0], vip) == {"s3"}
    assert all(connection.says(b"still there?") for connection in live)
    flows = daemon.get(backend(4, 3))["flows"]
    daemon.kill()
    assert all(connection.says(b"x" * 20_000) for connection in live)
    assert names(hosts[0], VIP4, 3) == names(hosts[0], VIP6, 3) == {"s3"}
    daemon.start()
    assert all(connection.says(b"and now?") for connection in live)
    assert daemon.get(backend(4, 3))["flows"] == flows + 3
    daemon.patch(backend(4, 1), {"state": "ACTIVE"})
    assert names(hosts[0], VIP4, 24) == {"s1", "s3"}
    assert daemon.drops("lb1") == before


def health(daemon: Daemon, version: int, number: int) -> Callable[[], bool]:
    return lambda: daemon.get(backend(version, number))["health"] == "UP"


@pytest.mark.parametrize(("type", "version", "asking"), [("TC", 4, "TCP"), ("XDP_DRV", 6, "ICMP")])
def test_a_dying_backend_is_found_out_and_its_clients_are_told(
    daemon: Daemon, hosts: list[Host], servers: list[Server], type: str, version: int, asking: str
) -> None:
    """By checks that come from behind the balancer's port: the test's own namespace has no way to the servers."""
    scene(daemon, hosts, type)
    vip = VIP4 if version == 4 else VIP6
    daemon.patch("lbrp/lb1/probe", {"ip": "10.0.1.250/24", "gateway": "10.0.1.254", "ipv6": "fd01::250/64", "gateway6": "fd01::fe"})
    check = {"type": asking, "interval": 100, "timeout": 500, "fall": 2, "rise": 1}
    daemon.patch(f"lbrp/lb1/service/{vip}/80/TCP", {"health-check": check})
    for number in (1, 2, 3):
        eventually(health(daemon, version, number), f"server {number} to be up", 15)
    live = [Connection(hosts[0], vip) for _ in range(40)]
    assert {connection.server for connection in live} == {"s1", "s2", "s3"}
    hosts[2].run(f"ip link set {FAR} down")
    try:
        eventually(lambda: not health(daemon, version, 2)(), "server 2 to be down", 15)
        daemon.logged(f"backend {'10.0.2.2' if version == 4 else 'fd02::2'} of {vip} 80 TCP is DOWN")
        assert names(hosts[0], vip) == {"s1", "s3"}
        for connection in live:
            if connection.server != "s2":
                assert connection.says(b"we are fine")
            else:
                with pytest.raises(ConnectionResetError):
                    connection.says(b"hello?")
        daemon.crash()
        assert names(hosts[0], vip) == {"s1", "s3"}, "a new control plane takes no dead backend for a living one"
    finally:
        hosts[2].run(f"ip link set {FAR} up")
        readdress(hosts[2], "10.0.2.2/24", "fd02::2/64", via=["10.0.2.254", "fd02::fe"])
    eventually(health(daemon, version, 2), "server 2 to be up again", 15)
    assert "s2" in names(hosts[0], vip, 30)


@pytest.mark.parametrize("type", ["XDP_DRV"])
def test_pods_reach_each_other_and_themselves_by_a_vip(daemon: Daemon, hosts: list[Host], servers: list[Server], type: str) -> None:
    """MULTI, as a Kubernetes node has it: pods before a balancer before a router. The only backend is the client itself."""
    numbers = (1, 2)
    ports = []
    for n in numbers:  # pods have no neighbours but their router
        readdress(hosts[n], f"10.0.2.{n}/32", f"fd02::{n}/128", via=["10.0.2.254", "fd02::fe"])
        ports.append({"name": f"pod{n}", "type": "FRONTEND", "ip": f"10.0.2.{n}", "secondaryip": [f"fd02::{n}"], "peer": hosts[n].netdev})
    services = [{"vip": vip, "vport": 80, "proto": "TCP", "backend": backends(v, [1])} for v, vip in ((4, VIP4), (6, VIP6))]
    body = {"type": type, "port_mode": "MULTI", "ports": [*ports, {"name": "back", "type": "BACKEND"}], "service": services}
    net = {"name": "net", "ip": "10.0.2.254/24", "secondaryip": [{"ip": "fd02::fe/64"}]}
    daemon.post("router/r1", {"type": type, "ports": [net]})
    daemon.post("lbrp/ilb0", body)
    daemon.post("connect", {"peer1": "ilb0:back", "peer2": "r1:net"})
    for vip in (VIP4, VIP6):
        for number in numbers:
            connection = Connection(hosts[number], vip)
            assert connection.server == "s1" and connection.says(b"x" * 5000)
    for n in numbers:
        readdress(hosts[n], f"10.0.2.{n}/24", f"fd02::{n}/64", via=["10.0.2.254", "fd02::fe"])


@pytest.mark.parametrize("type", ["TC", "XDP_SKB"])
def test_direct_return(daemon: Daemon, hosts: list[Host], type: str) -> None:
    """Client, servers and both sides of the balancer on one bridge; a server is taken out and the daemon killed under connections."""
    client, *rest = hosts
    vips = ("10.0.3.100", "fd03::100")
    for number, host in enumerate(hosts):
        readdress(host, f"10.0.3.{number + 1}/24", f"fd03::{number + 1}/64")
    for host in rest:
        host.run("sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2")
        host.run(f"ip addr add {vips[0]}/32 dev lo")
        host.run(f"ip addr add {vips[1]}/128 dev lo nodad")
    made = [Server(host, f"d{number}", 80) for number, host in enumerate(rest, 1)]
    try:
        bridged = [{"name": f"p{number}", "peer": host.netdev} for number, host in enumerate(hosts)]
        daemon.post("simplebridge/br1", {"type": type, "ports": [*bridged, {"name": "front"}, {"name": "back"}]})
        pool = [{"id": number, "mac": host.mac, "ip": f"10.0.3.{number + 1}"} for number, host in enumerate(rest, 1)]
        six = {"vip": vips[1], "vport": 80, "proto": "TCP", "backend": pool}
        ports = [{"name": "front", "type": "FRONTEND"}, {"name": "back", "type": "BACKEND"}]
        frontend = {"vip": vips[0], "mac": "02:00:00:00:00:64"}
        body = {"type": type, "ports": ports, "frontend": frontend, "backend": {"pool": pool}, "service": [six]}
        daemon.post("lbdsr/lb1", body)
        for side in ("front", "back"):
            daemon.post("connect", {"peer1": f"br1:{side}", "peer2": f"lb1:{side}"})
        live = [Connection(client, vip) for vip in vips for _ in range(20)]
        assert {connection.server for connection in live} == {"d1", "d2", "d3"}
        daemon.delete("lbdsr/lb1/backend/pool/1")
        assert names(client, vips[0]) == {"d2", "d3"}
        daemon.crash()
        kept = [connection for connection in live if connection.server != "d1"]
        assert all(connection.says(b"x" * 5000) for connection in kept)
        assert names(client, vips[0]) == {"d2", "d3"}
        daemon.patch("lbdsr/lb1/probe", {"ip": "10.0.3.250/24"})
        daemon.patch("lbdsr/lb1/backend", {"health-check": {"type": "HTTP", "port": 80, "interval": 100, "fall": 1}})
        eventually(lambda: daemon.get("lbdsr/lb1/backend/pool/2")["health"] == "DOWN", "a server that speaks no HTTP to be down", 15)
    finally:
        for server in made:
            server.stop()
        for host in rest:
            host.run("ip addr flush dev lo scope global")
        readdress(client, "10.0.1.1/24", "fd01::1/64", via=["10.0.1.254", "fd01::fe"])
        for number, host in enumerate(rest, 1):
            readdress(host, f"10.0.2.{number}/24", f"fd02::{number}/64", via=["10.0.2.254", "fd02::fe"])


@pytest.fixture
def wire(isolated: None) -> Iterator[Sniffer]:
    """What leaves by netdev x0, which can't cut and sum by itself: so the kernel does before."""
    sh("ip link add x0 type veth peer name x1", "ip link set x0 up", "ip link set x1 up")
    await_carrier("x0", "x1")
    ethtool.set_features("x0", {name: False for name in ("tx-tcp-segmentation", "tx-generic-segmentation", "tx-checksum-ip-generic")})
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(3))
    sock.bind(("x1", 3))
    with Sniffer(sock) as sniffer:
        yield sniffer
    sh("ip link del x0")


@pytest.mark.parametrize("kind", ["IPIP", "GUE"])
def test_what_the_kernel_has_to_cut_is_cut_inside_the_outer_packets(daemon: Daemon, hosts: list[Host], wire: Sniffer, kind: str) -> None:
    """TC: a frame of five segments, its checksum unfinished, becomes packets in packets, each with all its sums right."""
    client = hosts[0]
    service = {"vip": "10.0.3.100", "vport": 80, "proto": "TCP", "encapsulation": kind}
    service["backend"] = [{"id": 1, "ip": "192.0.2.1", "mac": "02:00:00:00:00:fe"}]
    ports = [{"name": "p0", "type": "FRONTEND", "peer": client.netdev}, {"name": "p1", "type": "BACKEND", "peer": "x0"}]
    daemon.post("lbdsr/lb1", {"ports": ports, "frontend": {"mac": "02:00:00:00:00:64"}, "service": [service]})
    packet = Ether(src=client.mac, dst="02:00:00:00:00:64") / IP(src="10.1.2.3", dst="10.0.3.100", flags="DF")
    packet /= TCP(sport=1000, dport=80, flags="A", seq=1) / bytes(5 * 1000)
    raw = bytearray(bytes(packet))
    pseudo = b"".join(socket.inet_aton(text) for text in ("10.1.2.3", "10.0.3.100")) + struct.pack(">HH", 6, len(raw) - 34)
    raw[50:52] = folded_sum(pseudo).to_bytes(2, "big")
    with client.call(lambda: PacketSocket(FAR, vnet_hdr=True)) as sender:
        assert sender.send(bytes(raw), checksum=Checksum(34, 16, segment=1000, header=54))
    outer = 28 if kind == "GUE" else 20
    payload = 1000 - outer  # of a segment: the kernel makes them smaller by what is put around them
    count = -(-5000 // payload)
    found = [IP(frame[14:]) for frame in wire.expect(lambda frame: frame[30:34] == bytes([192, 0, 2, 1]), count)]
    assert all(len(one) == one.len <= 1040 for one in found)
    inner = [bytes(one)[outer:] for one in found]
    assert [IP(one)[TCP].seq for one in inner] == [1 + payload * number for number in range(count)]
    assert sum(len(one) - 40 for one in inner) == 5000
    for one in inner:
        again = IP(one)
        del again.chksum, again[TCP].chksum
        assert bytes(again) == one
