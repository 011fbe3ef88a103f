# SPDX-License-Identifier: Apache-2.0
"""Services that protect servers, in front of real ones: synflood sees handshakes and floods."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scenes import bridge, clear

from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host, Lab, eventually

PORT = 8080


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> list[Host]:
    return lab.some(2)


@pytest.fixture(autouse=True)
def clean(daemon: Daemon) -> Iterator[None]:
    yield
    if not daemon.running:
        daemon.start()
    clear(daemon)


@pytest.fixture(params=["TC", "XDP_DRV"])
def type(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def listening(host: Host) -> Iterator[socket.socket]:
    """A server that accepts when it is asked to."""

    def make() -> socket.socket:
        sock = socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True, backlog=512)
        sock.settimeout(5)
        return sock

    with host.call(make) as server:
        yield server


def connect(client: Host, address: str) -> socket.socket:
    return client.call(lambda: socket.create_connection((address, PORT), timeout=5))


def protect(daemon: Daemon, hosts: list[Host], service: str, type: str, **body: Any) -> None:
    """A bridge between the hosts, and the cube `guard` at the second one's port."""
    bridge(daemon, "br1", hosts, type)
    daemon.post(f"{service}/guard", {"type": type, **body})
    daemon.post("attach", {"cube": "guard", "port": "br1:p2"})
    eventually(lambda: hosts[0].reaches(hosts[1]))


def syns(hosts: list[Host], count: int, source: str = "10.0.0.") -> list[bytes]:
    """SYNs of clients that will not go on."""
    link = Ether(src=hosts[0].mac, dst=hosts[1].mac)
    if ":" in source:
        return [bytes(link / IPv6(src=f"{source}{n + 1000:x}", dst=hosts[1].ipv6) / TCP(sport=1024 + n, dport=PORT)) for n in range(count)]
    return [bytes(link / IP(src=f"{source}{n % 200 + 50}", dst=hosts[1].ipv4) / TCP(sport=1024 + n, dport=PORT)) for n in range(count)]


def test_handshakes_and_floods_are_told_apart(daemon: Daemon, hosts: list[Host], type: str) -> None:
    addresses = [{"ip": hosts[1].ipv4}, {"ip": hosts[1].ipv6}]
    protect(daemon, hosts, "synflood", type, thresholds={"syn-rate": 0, "half-open": 50}, hold=1, address=addresses)

    def seen(address: str) -> dict[str, Any]:
        data: dict[str, Any] = daemon.get(f"synflood/guard/address/{address}")
        return data

    with listening(hosts[1]) as server:
        for address in (hosts[1].ipv4, hosts[1].ipv6):
            eventually(lambda address=address: "syn-rate" in seen(address).get("handshakes", {}))
            for _ in range(5):
                with connect(hosts[0], address) as client, server.accept()[0] as accepted:
                    client.sendall(b"x" * 1000)
                    assert accepted.recv(1000)
            eventually(lambda address=address: seen(address)["handshakes"]["established"] == 5)
            handshakes = seen(address)["handshakes"]
            assert (handshakes["syn"], handshakes["syn-ack"], handshakes["half-open"], handshakes["failed"]) == (5, 5, 0, 0)
            assert seen(address)["alarm"]["active"] is False
        since = len(daemon.log())
        hosts[0].send(*syns(hosts, 100))
        eventually(lambda: seen(hosts[1].ipv4)["alarm"]["active"])
        daemon.logged("alarm raised", since)
        flooded = seen(hosts[1].ipv4)
        assert flooded["alarm"]["reason"] == "half-open" and 50 < flooded["handshakes"]["half-open"] <= 100
        assert seen(hosts[1].ipv6)["alarm"]["active"] is False
        assert daemon.get("synflood/guard/alarm")["active"] is True
        hosts[0].send(*(_reset(frame) for frame in syns(hosts, 100)))
        eventually(lambda: not seen(hosts[1].ipv4)["alarm"]["active"])
        assert seen(hosts[1].ipv4)["handshakes"]["rst"] >= 100


def _reset(frame: bytes) -> bytes:
    packet = Ether(frame)
    packet[TCP].flags, packet[TCP].chksum = "R", None
    return bytes(packet)


def test_counting_goes_on_without_the_daemon(daemon: Daemon, hosts: list[Host], type: str) -> None:
    protect(daemon, hosts, "synflood", type, address=[{"ip": hosts[1].ipv4}])
    with listening(hosts[1]) as server, connect(hosts[0], hosts[1].ipv4) as client, server.accept()[0] as accepted:
        daemon.kill()
        client.sendall(b"still here")
        assert accepted.recv(100) == b"still here"
        with connect(hosts[0], hosts[1].ipv4), server.accept()[0]:
            pass
        hosts[0].send(*syns(hosts, 7))
        daemon.start()
        client.sendall(b"and here")
        assert accepted.recv(100) == b"and here"
        shown = eventually(lambda: daemon.get("synflood/guard/address/" + hosts[1].ipv4).get("handshakes"))
        assert (shown["syn"], shown["established"]) == (9, 2)


def test_upstreams_statistics(daemon: Daemon, hosts: list[Host], type: str) -> None:
    """A port that nobody listens at answers with RST, which is a failed attempt."""
    protect(daemon, hosts, "synflood", type)
    before = daemon.get("synflood/guard/stats") or {"tcpattemptfails": "0", "tcpoutrsts": "0"}
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            connect(hosts[0], hosts[1].ipv4)
    eventually(lambda: int(daemon.get("synflood/guard/stats")["tcpattemptfails"]) - int(before["tcpattemptfails"]) == 3)
    hosts[0].ping(hosts[1], count=20)
    bad = bytearray(syns(hosts, 1)[0])
    bad[14] = 0x43  # IP header of 12 bytes
    hosts[0].send(bytes(bad))
    eventually(lambda: daemon.get("synflood/guard/unseen")["malformed"] == 1)
    stats = daemon.get("synflood/guard/stats")
    assert all(0.5 < float(stats[name]) <= 2 for name in ("deliverratio", "responseratio"))
    assert stats["lastupdate"] > 1_700_000_000_000
