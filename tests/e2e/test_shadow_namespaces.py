# SPDX-License-Identifier: Apache-2.0
"""Shadow cubes: a router and its namespace are alike, whoever changes them; real programs run there; span shows all traffic."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scenes import clear

from polycube.net import netns
from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host, Lab, eventually, sh, sniff

TYPES = ("TC", "XDP_SKB", "XDP_DRV")
NAMESPACE = "pcn-r1"
P1 = {"name": "p1", "peer": "v1", "ip": "10.0.0.254/24", "secondaryip": [{"ip": "fd00::ff/64"}]}
P2 = {"name": "p2", "peer": "v2", "ip": "10.1.0.254/24"}


@pytest.fixture(scope="module")
def daemon(isolated: None, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Daemon]:
    """Without fused units, which would keep a compiler busy between two deaths."""
    with Daemon(tmp_path_factory.mktemp("daemon"), cache=cache, arguments=["--no-fuse"]) as running:
        yield running


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> list[Host]:
    """One in the network of p1, one in that of p2; each knows the way to the other."""
    near, far = lab.some(2)
    far.run("ip addr flush dev e0")
    far.run("ip addr add 10.1.0.2/24 dev e0")
    far.ipv4 = "10.1.0.2"
    near.run("ip route add 10.1.0.0/24 via 10.0.0.254")
    far.run("ip route add 10.0.0.0/24 via 10.1.0.254")
    return [near, far]


@pytest.fixture(autouse=True)
def clean(daemon: Daemon, hosts: list[Host]) -> Iterator[None]:
    yield
    clear(daemon)


def router(daemon: Daemon, type: str = "TC", **config: Any) -> None:
    daemon.post("router/r1", {"type": type, "shadow": True, "ports": [P1, P2], **config})
    eventually(lambda: "10.1.0.254" in ip("addr") and "10.0.0.254" in ip("addr"), "addresses in the namespace")


def ip(arguments: str) -> str:
    return sh(f"ip -n {NAMESPACE} {arguments}")


def answers(address: str) -> int:
    """How many of two echo requests from the namespace are answered."""
    received = re.search(r"(\d+) received", sh(f"ip netns exec {NAMESPACE} ping -n -c 2 -i 0.01 -W 10 {address}"))
    return int(received[1]) if received else 0


def port(daemon: Daemon, name: str = "p1") -> dict[str, Any]:
    found: dict[str, Any] = daemon.get(f"router/r1/ports/{name}")
    return found


def routes(daemon: Daemon) -> set[tuple[str, str, int]]:
    return {(one["network"], one["nexthop"], one.get("pathcost", 0)) for one in daemon.get("router/r1/route") if one["nexthop"] != "local"}


def addresses(daemon: Daemon, name: str = "p1") -> list[str]:
    found = port(daemon, name)
    return [found.get("ip", ""), *(one["ip"] for one in found.get("secondaryip", ()))]


def standing() -> tuple[str, int, int]:
    """What the namespace consists of."""
    return ip("link"), os.stat(f"/run/netns/{NAMESPACE}").st_ino, sh("ip -br link").count("pcn")


@pytest.mark.parametrize("type", TYPES)
def test_programs_in_the_namespace_talk_to_hosts(daemon: Daemon, hosts: list[Host], type: str) -> None:
    near, far = hosts
    router(daemon, type)
    assert answers(near.ipv4) == 2
    assert answers(near.ipv6) == 2
    assert near.ping("10.0.0.254").received == 2  # answered by the data plane, as ever
    assert serve(lambda address: fetch(far, address), "10.0.0.254") == 100_000
    assert serve(lambda address: fetch(near, address), "fd00::ff") == 100_000


def serve(client: Callable[[str], int], address: str) -> int:
    """What a client gets of 100,000 bytes from a server in the namespace."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with netns.run_in(NAMESPACE, lambda: socket.socket(family)) as listening:
        listening.bind((address, 8000))
        listening.listen(1)
        listening.settimeout(20)

        def answer() -> None:
            with listening.accept()[0] as connection:
                connection.sendall(bytes(100_000))

        serving = threading.Thread(target=answer, daemon=True)
        serving.start()
        got = client(address)
        serving.join(20)
        return got


def fetch(host: Host, address: str) -> int:
    with host.call(lambda: socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)) as sock:
        sock.settimeout(20)
        sock.connect((address, 8000))
        return sum(iter(lambda: len(sock.recv(1 << 16)), 0))


def test_what_ip_changes_in_the_namespace_changes_the_router(daemon: Daemon, hosts: list[Host]) -> None:
    router(daemon)
    ip("addr add 10.2.0.1/24 dev p1")
    ip("addr add fd02::1/64 dev p1")
    ip("route add 10.9.0.0/16 via 10.2.0.9")
    ip("route add fd09::/48 via fd02::9 metric 7")
    ip("route add unreachable 10.8.0.0/16")
    ip("neigh add 10.2.0.9 lladdr 02:00:00:00:00:99 dev p1")
    eventually(lambda: addresses(daemon) == ["10.0.0.254/24", "fd00::ff/64", "10.2.0.1/24", "fd02::1/64"], "addresses of the port")
    wanted = {("10.9.0.0/16", "10.2.0.9", 1), ("fd09::/48", "fd02::9", 7), ("10.8.0.0/16", "unreachable", 1)}
    eventually(lambda: routes(daemon) == wanted, "routes")
    eventually(lambda: any(one.get("mac") == "02:00:00:00:00:99" for one in daemon.get("router/r1/arp-table")), "the neighbour")

    ip("route del 10.9.0.0/16")
    ip("route del unreachable 10.8.0.0/16")
    ip("neigh del 10.2.0.9 dev p1")
    ip("addr del 10.0.0.254/24 dev p1")  # the primary one: the next takes its place
    ip("link set p1 address 02:00:00:00:00:aa")
    eventually(lambda: addresses(daemon) == ["10.2.0.1/24", "fd00::ff/64", "fd02::1/64"], "addresses of the port")
    eventually(lambda: routes(daemon) == {("fd09::/48", "fd02::9", 7)}, "routes")
    eventually(lambda: port(daemon)["mac"] == "02:00:00:00:00:aa", "the MAC of the port")
    assert not [one for one in daemon.get("router/r1/arp-table") if one["state"] == "permanent"]
    eventually(lambda: "fe80::ff:fe00:aa/64" in ip("addr show dev p1"), "the link-local address that follows from the MAC")
    assert port(daemon)["link-local"] == "fe80::ff:fe00:aa"


def test_what_is_configured_appears_in_the_namespace(daemon: Daemon, hosts: list[Host]) -> None:
    router(daemon, route=[{"network": "10.9.0.0/16", "nexthop": "10.0.0.9", "pathcost": 3}])
    eventually(lambda: "10.9.0.0/16 via 10.0.0.9 dev p1" in ip("route"), "the route")
    daemon.post("router/r1/route/fd09::%2F48/fd00::9", {})
    daemon.post("router/r1/route/0.0.0.0%2F0/blackhole", {})
    daemon.post("router/r1/arp-table/10.0.0.9", {"mac": "02:00:00:00:00:99", "interface": "p1"})
    daemon.patch("router/r1/ports/p2", {"ip": "10.1.0.253/24", "mac": "02:00:00:00:00:bb"})
    daemon.post("router/r1/ports/p3", {"ip": "10.3.0.1/24"})
    eventually(lambda: "fd09::/48 via fd00::9 dev p1" in ip("-6 route"), "the IPv6 route")
    eventually(lambda: "blackhole default" in ip("route"), "the default route")
    eventually(lambda: "02:00:00:00:00:99 PERMANENT" in ip("neigh show dev p1"), "the neighbour")
    eventually(lambda: "10.1.0.253/24" in ip("addr show dev p2") and "10.1.0.254" not in ip("addr show dev p2"), "the other address")
    eventually(lambda: "02:00:00:00:00:bb" in ip("link show dev p2"), "the MAC")
    eventually(lambda: "10.3.0.1/24" in ip("addr show dev p3"), "the address of the new port")
    assert "NO-CARRIER" in ip("link show dev p3")  # it has no peer
    sh("ip link set v2 mtu 1400")
    eventually(lambda: "mtu 1400" in ip("link show dev p2"), "the MTU of the port's netdev")
    sh("ip link set v2 mtu 1500")
    daemon.delete("router/r1/route/10.9.0.0%2F16/10.0.0.9")
    daemon.delete("router/r1/ports/p3")
    eventually(lambda: "10.9.0.0" not in ip("route"), "the end of the route")
    assert "p3" not in ip("link")


def test_what_the_router_refuses_is_taken_back(daemon: Daemon, hosts: list[Host]) -> None:
    router(daemon)
    before = len(daemon.log())
    ip("addr add 10.1.0.7/24 dev p1")  # the network of p2
    assert "network 10.1.0.0/24 is at port" in daemon.logged("what was changed in the namespace is taken back", before)
    eventually(lambda: "10.1.0.7" not in ip("addr"), "the end of the address")
    assert addresses(daemon) == ["10.0.0.254/24", "fd00::ff/64"]


def test_changes_that_are_too_many_to_be_heard_of_are_found(daemon: Daemon, hosts: list[Host]) -> None:
    router(daemon)
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        noise = [
            f"route {word} 10.{number // 256}.{number % 256}.0/24 via 10.0.0.9"
            for number in range(12_000, 20_000)
            for word in ("add", "del")
        ]
        changes = "\n".join([*noise, "addr add 10.2.0.1/24 dev p1", "route add 10.9.0.0/16 via 10.2.0.9", *noise])
        subprocess.run(["ip", "-n", NAMESPACE, "-batch", "-"], input=changes, text=True, check=True)
        sockets = netns.run_in(NAMESPACE, lambda: Path("/proc/thread-self/net/netlink").read_text()).splitlines()
        assert any(int(line.split()[sockets[0].split().index("Drops")]) for line in sockets[1:])
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    eventually(lambda: addresses(daemon) == ["10.0.0.254/24", "fd00::ff/64", "10.2.0.1/24"], "the address")
    eventually(lambda: routes(daemon) == {("10.9.0.0/16", "10.2.0.9", 1)}, "the route, and no other one")


def test_a_port_that_is_set_down_in_the_namespace_is_down(daemon: Daemon, hosts: list[Host]) -> None:
    near, far = hosts
    router(daemon)
    assert near.ping(far).received == 2
    ip("link set p2 down")
    eventually(lambda: port(daemon, "p2").get("reason") == f"p2 is set down in the namespace {NAMESPACE}", "the port to be down")
    assert near.ping(far, count=1, wait=0.2).received == far.ping(near, count=1, wait=0.2).received == 0
    ip("link set p2 up")
    eventually(lambda: port(daemon, "p2")["status"] == "UP", "the port to be up")
    eventually(lambda: near.reaches(far), "the way through it")
    assert addresses(daemon, "p2") == ["10.1.0.254/24"]


def test_a_killed_daemon_finds_the_namespace_and_what_was_done_meanwhile(daemon: Daemon, hosts: list[Host]) -> None:
    near, _ = hosts
    router(daemon)
    assert answers(near.ipv4) == 2  # the namespace knows the neighbour; an answer to it comes by way of the control plane
    before = standing()
    with near.pinging("10.0.0.254") as pinging:
        pinging.answers()
        daemon.kill()
        assert answers(near.ipv4) == 2
        ip("addr add 10.2.0.1/24 dev p1")
        ip("route add 10.9.0.0/16 via 10.2.0.9")
        ip("addr del 10.1.0.254/24 dev p2")  # which the store knows better
        ip("link set p2 down")
        daemon.start()
        assert port(daemon, "p2")["status"] == "DOWN"
        ip("link set p2 up")
        pinging.answers()
    assert pinging.result.lost == 0
    eventually(lambda: standing() == before, "the same namespace, with the same netdevs")
    eventually(lambda: addresses(daemon) == ["10.0.0.254/24", "fd00::ff/64", "10.2.0.1/24"], "the address")
    eventually(lambda: routes(daemon) == {("10.9.0.0/16", "10.2.0.9", 1)}, "the route")
    eventually(lambda: "10.1.0.254/24" in ip("addr show dev p2"), "the address of p2")


def test_what_a_killed_daemon_leaves_of_a_cube_that_nobody_wants_is_removed(daemon: Daemon, hosts: list[Host]) -> None:
    router(daemon)
    daemon.kill()
    for path in daemon.folder.glob(f"{daemon.store.name}*"):
        path.unlink()
    daemon.start()
    assert NAMESPACE not in netns.names()
    assert not [name for _, name in socket.if_nameindex() if name.endswith("s") and name.startswith("pcn")]


def test_what_can_not_be_is_refused_and_leaves_nothing(daemon: Daemon, hosts: list[Host]) -> None:
    netns.create("pcn-r2").close()
    try:
        refused = daemon.ctl("router add r2 shadow=true", check=False)
        assert refused.status and "the network namespace pcn-r2 is somebody else's; remove it (`ip netns del pcn-r2`)" in refused.err
        assert "r2" not in str(daemon.get("cubes")) and sh("ip -n pcn-r2 -br link").count("\n") == 1
    finally:
        netns.delete("pcn-r2")
    router(daemon)
    for line, words in (("r1 set shadow=false", "can only be set at creation"), ("simplebridge add r3 span=true", "no-shadow services")):
        answer = daemon.ctl(line, check=False)
        assert answer.status and words in answer.err
    daemon.delete("router/r1")
    assert NAMESPACE not in netns.names()


@pytest.mark.parametrize("type", TYPES)
def test_span_shows_both_directions_of_all_traffic_and_the_namespace_answers_none_of_it(
    daemon: Daemon, lab: Lab, hosts: list[Host], type: str
) -> None:
    left, right = bridged(lab)
    ports = [{"name": "p1", "peer": left.netdev}, {"name": "p2", "peer": right.netdev}]
    daemon.post("simplebridge/r1", {"type": type, "shadow": True, "ports": ports})
    ip(f"link set p1 address {right.mac}")  # somebody who would answer in the other one's place
    ip(f"addr add {right.ipv4}/24 dev p1")
    with sniff(NAMESPACE, "p1") as sniffer:
        assert left.ping(right).received == 2
        daemon.patch("simplebridge/r1", {"span": True})
        assert not sniffer.matching(request)
    with sniff(NAMESPACE, "p1") as first, sniff(NAMESPACE, "p2") as second, left.sniff() as back:
        assert left.ping(right, count=3, size=700).received == 3
        for sniffer in (first, second):
            assert len(sniffer.expect(request, 3)) == len(sniffer.expect(reply, 3)) == 3
        assert len(back.matching(reply)) == 3
    daemon.patch("simplebridge/r1", {"span": False})
    with sniff(NAMESPACE, "p1") as sniffer:
        assert left.ping(right).received == 2
        assert not sniffer.matching(request)


def bridged(lab: Lab) -> list[Host]:
    """Two more hosts, in one network."""
    return lab.hosts[2:] or lab.some(2)


def request(frame: bytes) -> bool:
    return frame[12:14] == b"\x08\0" and frame[34:36] == b"\x08\0"


def reply(frame: bytes) -> bool:
    return frame[12:14] == b"\x08\0" and frame[34:36] == b"\0\0"
