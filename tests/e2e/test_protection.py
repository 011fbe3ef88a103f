# SPDX-License-Identifier: Apache-2.0
"""Services that protect servers, in front of real ones: synflood sees handshakes and floods, ddosmitigator stops what it is told to."""

from __future__ import annotations

import socket
import threading
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
        sock.settimeout(20)
        return sock

    with host.call(make) as server:
        yield server


def connect(client: Host, address: str) -> socket.socket:
    return client.call(lambda: socket.create_connection((address, PORT), timeout=20))


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


@pytest.mark.parametrize("type", ["XDP_DRV"])
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


@pytest.mark.parametrize("type", ["XDP_DRV"])
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


# ---- ddosmitigator ----


def mitigate(daemon: Daemon, hosts: list[Host], type: str, **body: Any) -> None:
    """A bridge between the hosts, and the cube `guard` where the first one's packets come in."""
    bridge(daemon, "br1", hosts, type)
    eventually(lambda: hosts[0].reaches(hosts[1]))
    daemon.post("ddosmitigator/guard", {"type": type, **body})
    daemon.post("attach", {"cube": "guard", "port": hosts[0].netdev})


def shown(daemon: Daemon, path: str) -> Any:
    return daemon.get(f"ddosmitigator/guard/{path}")


def test_blacklisted_hosts_are_stopped_also_while_the_daemon_is_dead(daemon: Daemon, hosts: list[Host], type: str) -> None:
    mitigate(daemon, hosts, type)
    one, two = hosts
    with two.pinging(one) as pinging:
        pinging.answers()
        for address, target in ((one.ipv4, two.ipv4), (one.ipv6, two.ipv6)):
            assert one.ping(target, count=2).received == 2
            daemon.post(f"ddosmitigator/guard/blacklist-dst/{target}", {})
            assert one.ping(target, count=3, wait=0.1).received == 0
            assert shown(daemon, f"blacklist-dst/{target}")["drop-pkts"] >= 3
            daemon.delete(f"ddosmitigator/guard/blacklist-dst/{target}")
            daemon.post(f"ddosmitigator/guard/blacklist-src/{address}", {})
            assert one.ping(target, count=3, wait=0.1).received == 0
            daemon.delete(f"ddosmitigator/guard/blacklist-src/{address}")
        daemon.post("ddosmitigator/guard/blacklist-src", [{"ip": "10.0.0.0/8"}, {"ip": "fd00::/8"}])
        assert not one.reaches(two)
        before = shown(daemon, "blacklist-src")
        daemon.kill()
        assert one.ping(two, count=5, wait=0.1).received == 0 and one.ping(two.ipv6, count=5, wait=0.1).received == 0
        daemon.start()
        after = shown(daemon, "blacklist-src")
        assert [new["drop-pkts"] - old["drop-pkts"] >= 5 for old, new in zip(before, after, strict=True)] == [True, True]
        daemon.delete("ddosmitigator/guard/blacklist-src")
        pinging.answers()
    assert one.ping(two, count=2).received == 2


@pytest.mark.parametrize("type", ["XDP_DRV"])
def test_entries_with_a_time_out_go_by_themselves(daemon: Daemon, hosts: list[Host], type: str) -> None:
    mitigate(daemon, hosts, type)
    for timeout in (60, 1):
        daemon.rest("PUT", f"ddosmitigator/guard/blacklist-src/{hosts[0].ipv4}", {"timeout": timeout})
        daemon.post("ddosmitigator/guard/feed/load", {"entries": f"{hosts[0].ipv6}, 192.0.2.0/24", "timeout": timeout})
        if timeout == 60:
            assert shown(daemon, "feed")["sources"] == 2
            assert not hosts[0].reaches(hosts[1]) and not hosts[0].reaches(hosts[1].ipv6)
    eventually(lambda: hosts[0].reaches(hosts[1]) and hosts[0].reaches(hosts[1].ipv6))
    eventually(lambda: not daemon.get("ddosmitigator/guard").get("blacklist-src") and shown(daemon, "feed")["sources"] == 0)


@pytest.mark.parametrize("type", ["TC"])
def test_long_lists_are_loaded_replaced_and_outlive_the_daemon(daemon: Daemon, hosts: list[Host], type: str) -> None:
    mitigate(daemon, hosts, type)
    many = [f"{number >> 8 & 255}.{number & 255}.7.{number >> 16}" for number in range(1 << 8, (1 << 16) + (1 << 15), 3)]
    text = "\n".join(["# a list", *many, f"{hosts[0].ipv4}/32 # somebody we know", "2001:db8::/32"])
    assert daemon.post("ddosmitigator/guard/feed/load", {"entries": text}) == {
        "added": len(many) + 2,
        "kept": 0,
        "removed": 0,
        "configured": 0,
    }
    assert not hosts[0].reaches(hosts[1]) and hosts[0].ping(hosts[1].ipv6, count=1).received
    found = daemon.post("ddosmitigator/guard/feed/find", {"ip": hosts[0].ipv4})
    assert (found["ip"], found["verdict"], found["loaded"]) == (hosts[0].ipv4, "BLOCK", True) and found["drop-pkts"] > 0
    daemon.crash()
    assert not hosts[0].reaches(hosts[1])
    assert eventually(lambda: shown(daemon, "feed").get("sources")) == len(many) + 2, "none at all until they are counted again"
    again = daemon.post("ddosmitigator/guard/feed/load", {"entries": "\n".join([*many[:100], "2001:db8::/32"]), "replace": True})
    assert again == {"added": 0, "kept": 101, "removed": len(many) - 99, "configured": 0}
    assert hosts[0].ping(hosts[1], count=1).received
    for entries, expected in (
        ("1.2.3.4 1.2.3.4.5", "Entry 2 for guard is '1.2.3.4.5'"),
        ("::/0", "'::/0'"),
        ("10.0.0.0/33", "'10.0.0.0/33'"),
    ):
        refused = daemon.rest("POST", "ddosmitigator/guard/feed/load", {"entries": entries})
        assert refused.status == 400 and expected in refused.text
    assert shown(daemon, "feed")["sources"] == 101
    assert daemon.post("ddosmitigator/guard/feed/unload", {}) == {"removed": 101}


def test_a_list_that_does_not_fit_changes_nothing(daemon: Daemon, hosts: list[Host]) -> None:
    mitigate(daemon, hosts, "TC", **{"blacklist-size": 1024, "blacklist-src": [{"ip": "192.0.2.1"}]})
    refused = daemon.rest("POST", "ddosmitigator/guard/feed/load", {"entries": " ".join(f"10.1.{n >> 8}.{n & 255}" for n in range(1024))})
    assert refused.status == 409 and "room for 1023 more of 1024" in refused.text
    assert shown(daemon, "feed")["sources"] == 0
    assert daemon.post("ddosmitigator/guard/feed/load", {"entries": "192.0.2.1 192.0.2.2"})["configured"] == 1


def test_a_flood_is_found_blocked_and_forgotten(daemon: Daemon, hosts: list[Host], type: str) -> None:
    mitigate(daemon, hosts, type, detection={"threshold": 2000, "block-time": 3600})
    one, two = hosts
    flood = bytes(Ether(src=one.mac, dst=two.mac) / IP(src=one.ipv4, dst=two.ipv4) / TCP(dport=PORT))
    with two.pinging("10.0.0.2") as quiet:  # itself: the host is well
        since = len(daemon.log())
        one.send(*syns(hosts, 200, "10.0.9.") * 20)  # 4,000 packets, but 20 of each source
        assert shown(daemon, "detection")["number"] == 0
        eventually(lambda: one.send(*[flood] * 12_000) or shown(daemon, "stats").get("heavy-pkts", 0) > 1000)
        (blocked,) = shown(daemon, "detection")["blocked"]
        daemon.logged("source blocked", since)
        assert blocked["ip"] == one.ipv4 and blocked["rate"] > 2000
        assert one.ping(two.ipv6, count=1).received
        unblock = {"ip": one.ipv4}  # in the second of the flood it is blocked again by its next packet
        eventually(lambda: daemon.post("ddosmitigator/guard/detection/unblock", unblock) and one.reaches(two), "to be unblocked")
        daemon.patch("ddosmitigator/guard/detection", {"block-time": 1})
        heavy = shown(daemon, "stats")["heavy-pkts"]
        eventually(lambda: one.send(*[flood] * 12_000) or shown(daemon, "stats")["heavy-pkts"] > heavy)
        eventually(lambda: one.reaches(two), "end of the block")
        quiet.answers(5)
    eventually(lambda: shown(daemon, "detection")["number"] == 0)


@pytest.mark.parametrize("type", ["XDP_DRV"])
def test_rates_hold_and_others_do_not_feel_them(daemon: Daemon, hosts: list[Host], type: str) -> None:
    limits = [{"ip": hosts[0].ipv4, "packets": 1, "packets-burst": 10}]
    mitigate(daemon, hosts, type, **{"ratelimit-src": limits})
    pings = hosts[0].ping(hosts[1], count=100, interval=0.002, wait=1.0)
    assert 10 <= pings.received < 100
    assert shown(daemon, f"ratelimit-src/{hosts[0].ipv4}")["drop-pkts"] == 100 - pings.received
    assert hosts[0].ping(hosts[1].ipv6, count=100, interval=0.002).received == 100
    daemon.patch(f"ddosmitigator/guard/ratelimit-src/{hosts[0].ipv4}", {"packets": 1_000_000, "packets-burst": 1000})
    assert hosts[0].ping(hosts[1], count=100, interval=0.002).received == 100


def test_both_services_in_a_row_let_connections_pass(daemon: Daemon, hosts: list[Host], type: str) -> None:
    mitigate(
        daemon,
        hosts,
        type,
        **{
            "ratelimit-src": [{"ip": "0.0.0.0/0", "scope": "EACH", "packets": 1_000_000, "packets-burst": 100_000}],
            "detection": {"threshold": 10**6},
        },
    )
    daemon.post("synflood/watch", {"type": type})
    daemon.post("attach", {"cube": "watch", "port": hosts[0].netdev})
    with listening(hosts[1]) as server, connect(hosts[0], hosts[1].ipv4) as client, server.accept()[0] as accepted:
        accepted.settimeout(20)
        sent = bytes(3_000_000)
        done = threading.Thread(target=lambda: (client.sendall(sent), client.shutdown(socket.SHUT_WR)))
        done.start()
        got = 0
        while part := accepted.recv(1 << 20):
            got += len(part)
        done.join()
    assert got == len(sent)
    assert daemon.get("synflood/watch/handshakes")["established"] >= 0
    assert shown(daemon, "stats")["pkts"] == 0
