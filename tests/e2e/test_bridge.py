# SPDX-License-Identifier: Apache-2.0
"""The bridge with real hosts: beside the Linux bridge, VLANs over trunks, listeners, and TCP while everything dies."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from scenes import mac

from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host, Lab, eventually, sh

GROUP, OTHER = "239.1.2.3", "239.1.2.4"


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> list[Host]:
    return lab.some(6)


@pytest.fixture(autouse=True)
def clean(daemon: Daemon) -> Iterator[None]:
    yield
    if not daemon.running:
        daemon.start()
    for service in ("bridge", "simplebridge"):
        for cube in daemon.get(service):
            daemon.delete(f"{service}/{cube['name']}")


def make(daemon: Daemon, name: str, type: str, ports: dict[str, dict[str, object]], **more: object) -> None:
    body = {key.replace("_", "-"): value for key, value in more.items()}
    daemon.post(f"bridge/{name}", {"type": type, **body, "ports": [{"name": port, **data} for port, data in ports.items()]})


def access(host: Host, vlan: int = 1) -> dict[str, object]:
    return {"peer": host.netdev, "access": {"vlanid": vlan}}


def trunk(*vlans: int, peer: str = "") -> dict[str, object]:
    return {"peer": peer, "mode": "trunk", "trunk": {"native-vlan-enabled": False, "allowed": [{"vlanid": vlan} for vlan in vlans]}}


# ---- beside Linux ----

SOURCES = [*(f"02:00:00:00:05:{number:02x}" for number in range(5)), "01:00:5e:00:00:01", "00:00:00:00:00:00"]
BPDU = "01:80:c2:00:00:00"
TARGETS = [
    *SOURCES[:6],
    "ff:ff:ff:ff:ff:ff",
    "33:33:00:00:00:01",
    "01:00:5e:01:02:03",
    *(f"01:80:c2:00:00:{last:02x}" for last in (0, 2, 3, 14, 16)),
]


@pytest.mark.parametrize("type", ["TC", "XDP_DRV"])
@pytest.mark.parametrize("service", ["bridge", "simplebridge"])
def test_the_same_frames_take_the_same_ways_as_in_linux(daemon: Daemon, hosts: list[Host], service: str, type: str) -> None:
    """The cube has the first three hosts, a Linux bridge the others. No difference but those of docs/cubes, which are avoided here: tags,
    which Linux carries along as long as it filters no VLANs; of simplebridge, sources that nobody can have, and BPDUs."""
    sources, targets = (SOURCES, TARGETS) if service == "bridge" else (SOURCES[:5], [one for one in TARGETS if one != BPDU])
    more = {"access": {"vlanid": 1}} if service == "bridge" else {}
    ports = [{"name": f"p{number}", "peer": host.netdev, **more} for number, host in enumerate(hosts[:3])]
    daemon.post(f"{service}/br", {"type": type, "ports": ports})
    sh("ip link add lb type bridge stp_state 0 mcast_snooping 0", *(f"ip link set {host.netdev} master lb" for host in hosts[3:]))
    sh("ip link set lb up")
    try:
        dice = random.Random(5)
        seen: list[Counter[bytes]] = []
        sniffers = [host.sniff() for host in hosts]
        eventually(lambda: all(port["status"] == "UP" for port in daemon.get("br/ports")), "ports up")
        for number in range(300):
            at, size = dice.randrange(3), dice.choice([60, 64, 200, 1514])
            head = mac(dice.choice(targets)) + mac(dice.choice(sources)) + dice.choice([b"\x88\xb5", b"\x90\x00", b"\x00\x20"])
            frame = (head + b"frame" + number.to_bytes(2, "big")).ljust(size, b"\0")
            hosts[at].send(frame)
            hosts[at + 3].send(frame)
        for host in (hosts[0], hosts[3]):
            host.send((mac("ff:ff:ff:ff:ff:ff") + mac(SOURCES[0]) + b"\x88\xb5framelast").ljust(60, b"\0"))
        for sniffer in (*sniffers[1:3], *sniffers[4:]):
            sniffer.expect(lambda frame: b"framelast" in frame)
        eventually(lambda: _same(sniffers) or None, "the same frames everywhere")
        seen = [Counter(sniffer.matching(lambda frame: b"frame" in frame)) for sniffer in sniffers]
        assert seen[:3] == seen[3:] and sum(map(len, seen)) > 100
    finally:
        for sniffer in sniffers:
            sniffer.close()
        sh("ip link del lb")


def _same(sniffers: list) -> bool:  # type: ignore[type-arg]
    counts = [len(sniffer.matching(lambda frame: b"frame" in frame)) for sniffer in sniffers]
    return counts[:3] == counts[3:]


# ---- VLANs ----


@pytest.mark.parametrize("type", ["TC", "XDP_DRV", "XDP_SKB"])
def test_hosts_reach_those_of_their_vlan_over_a_trunk(daemon: Daemon, hosts: list[Host], type: str) -> None:
    make(daemon, "br1", type, {"a": access(hosts[0], 10), "b": access(hosts[1], 20), "up": trunk(10, 20)})
    make(daemon, "br2", type, {"a": access(hosts[2], 10), "b": access(hosts[3], 20), "up": trunk(10, 20)})
    daemon.post("connect", {"peer1": "br1:up", "peer2": "br2:up"})
    for one, other in ((0, 2), (1, 3)):
        assert hosts[one].ping(hosts[other], count=5).received == 5
        assert hosts[one].ping(hosts[other].ipv6, count=5).received == 5
    assert hosts[0].ping(hosts[3], count=2, wait=0.2).received == 0
    stations = {(entry["vlan"], entry["mac"], entry["port"]) for entry in daemon.get("bridge/br1/fdb/entry")}
    assert stations >= {(10, hosts[0].mac, "a"), (10, hosts[2].mac, "up"), (20, hosts[3].mac, "up")}
    daemon.patch("bridge/br2/ports/b", {"access": {"vlanid": 10}})
    assert hosts[0].ping(hosts[3], count=2).received == 2


def test_tags_on_the_wire(daemon: Daemon, hosts: list[Host]) -> None:
    make(daemon, "br", "TC", {"a": access(hosts[0], 10), "t": trunk(10, 20, peer=hosts[1].netdev)})
    payload = b"\x88\xb5in VLAN 10".ljust(60, b"\0")
    head = mac("ff:ff:ff:ff:ff:ff")
    with hosts[1].sniff() as out:
        hosts[0].send(head + mac(hosts[0].mac) + payload)
        assert out.expect(lambda frame: b"in VLAN 10" in frame)[0][12:16] == b"\x81\x00\x00\x0a"
    with hosts[0].sniff() as back:
        hosts[1].send(head + mac(hosts[1].mac) + struct.pack("!HH", 0x8100, 20) + payload.replace(b"10", b"20"))
        hosts[1].send(head + mac(hosts[1].mac) + struct.pack("!HH", 0x8100, 10) + payload)
        assert back.expect(lambda frame: b"in VLAN 10" in frame)[0][12:14] == b"\x88\xb5"
        assert not back.matching(lambda frame: b"in VLAN 20" in frame)


# ---- TCP, whatever dies ----


class Stream:
    """A TCP connection that sends numbers and has them echoed; `sum` of what came back must be right."""

    def __init__(self, client: Host, server: Host) -> None:
        def listen() -> socket.socket:
            made = socket.create_server((server.ipv4, 7777))
            made.settimeout(20)
            return made

        self._server = server.call(listen)
        self._echo = threading.Thread(target=self._run, daemon=True)
        self._echo.start()
        self._client = client.call(lambda: socket.create_connection((server.ipv4, 7777), timeout=20))
        self._sent = 0

    def _run(self) -> None:
        peer, _ = self._server.accept()
        with peer:
            while data := peer.recv(65536):
                peer.sendall(data)

    def goes_on(self) -> None:
        """64 kB there and back, in order."""
        block = b"".join((self._sent + number).to_bytes(4, "big") for number in range(16384))
        self._sent += 16384
        threading.Thread(target=self._client.sendall, args=(block,), daemon=True).start()
        back = b""
        while len(back) < len(block):
            part = self._client.recv(65536)
            assert part, "the connection was closed"
            back += part
        assert back == block

    def close(self) -> None:
        self._client.close()
        self._echo.join(10)
        self._server.close()


@pytest.mark.parametrize("type", ["TC", "XDP_DRV"])
def test_a_tcp_connection_lives_through_a_killed_daemon(daemon: Daemon, hosts: list[Host], type: str) -> None:
    times = {"hello-time": 10, "max-message-age": 40, "forward-delay": 30}  # a silent bridge blocks after two hellos
    stp = [{"vlan": vlan, **times} for vlan in (10, 20)]
    more = {"stp_enabled": True, "stp": stp, "snooping": {"enabled": True}}
    make(daemon, "br1", type, {"a": access(hosts[0], 10) | {"edge": True}, "up": trunk(10, 20)}, **more)
    make(daemon, "br2", type, {"a": access(hosts[2], 10) | {"edge": True}, "up": trunk(10, 20)}, **more)
    daemon.post("connect", {"peer1": "br1:up", "peer2": "br2:up"})
    eventually(lambda: hosts[0].reaches(hosts[2]), "the tree")
    stream = Stream(hosts[0], hosts[2])
    try:
        stream.goes_on()
        before = daemon.get("bridge/br1")
        daemon.kill()
        stream.goes_on()
        daemon.start()
        stream.goes_on()
        daemon.post("bridge/br1/ports/up/trunk/allowed/30")  # a change elsewhere
        stream.goes_on()
        after = daemon.get("bridge/br1")
        assert [port["stp"][0]["state"] for port in after["ports"]] == [port["stp"][0]["state"] for port in before["ports"]]
    finally:
        stream.close()


# ---- listeners ----


def test_a_group_goes_to_its_listeners_only(daemon: Daemon, hosts: list[Host]) -> None:
    make(daemon, "br", "TC", {f"p{number}": access(host) for number, host in enumerate(hosts[:4])}, snooping={"enabled": True})
    hosts[3].send(_query(hosts[3]))
    eventually(lambda: [one["port"] for one in daemon.get("bridge/br/snooping/router")] == ["p3"], "a router")
    listener = hosts[1].call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender = hosts[0].call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with listener, sender, hosts[1].sniff() as there, hosts[2].sniff() as elsewhere, hosts[3].sniff() as router:
        wanted = socket.inet_aton(GROUP) + socket.inet_aton(hosts[1].ipv4)
        listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, wanted)
        eventually(lambda: ("p1", GROUP) in _groups(daemon), "a listener")
        router.expect(lambda frame: frame[23:24] == b"\x02" and socket.inet_aton(GROUP) in frame)  # its report
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(hosts[0].ipv4))
        for group in (GROUP, OTHER):
            sender.sendto(b"stream to " + group.encode(), (group, 5000))
        there.expect(lambda frame: b"stream to " + GROUP.encode() in frame)
        router.expect(lambda frame: b"stream to " + OTHER.encode() in frame)
        router.expect(lambda frame: b"stream to " + GROUP.encode() in frame)
        assert not elsewhere.matching(lambda frame: b"stream to" in frame)
        assert not there.matching(lambda frame: b"stream to " + OTHER.encode() in frame)
        listener.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, wanted)
        eventually(lambda: ("p1", GROUP) not in _groups(daemon), "nobody")


def _groups(daemon: Daemon) -> set[tuple[str, str]]:
    answer = daemon.rest("GET", "bridge/br/snooping/group")
    return {(one["port"], one["group"]) for one in answer.data} if answer.ok else set()


def _query(host: Host) -> bytes:
    """A general IGMPv2 query."""
    igmp = struct.pack("!BBH4s", 0x11, 100, 0xEE9B, bytes(4))
    head = struct.pack("!BBHHHBB", 0x46, 0xC0, 32, 0, 0, 1, 2)
    ip = head + b"\0\0" + socket.inet_aton(host.ipv4) + socket.inet_aton("224.0.0.1") + b"\x94\x04\0\0"
    total = sum(struct.unpack(f"!{len(ip) // 2}H", ip))
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return mac("01:00:5e:00:00:01") + mac(host.mac) + b"\x08\x00" + ip[:10] + total.to_bytes(2, "big") + ip[12:] + igmp
