# SPDX-License-Identifier: Apache-2.0
"""Another version of the framework takes over from a killed daemon: every program of what balances, protects and watches is replaced, and
flows keep their backend, counters go on, rates and blocks hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from echo import Connection, Server
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from polycube.compiler.build import available
from polycube.testing.build import OtherBuild
from polycube.testing.daemon import Daemon
from polycube.testing.hosts import FAR, Host, Lab, eventually

VIP, DIRECT = "10.96.0.1", "10.97.0.1"
COUNT = """
MAP(frames, ARRAY, __u32, __u64, 1);

HANDLER(monitor)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&frames, &zero);

	if (count)
		__sync_fetch_and_add(count, 1);
	return pcn_pass(pkt);
}
"""
SERVERS = [f"02:00:00:00:01:{number:02x}" for number in range(4)]


@pytest.fixture
def other_framework(other: OtherBuild) -> Path:
    """A copy of the package, whose framework makes another program of every cube."""
    if not available():
        pytest.skip("no clang: no other build")
    inlined, called = "static __always_inline int drop(", "__attribute__((noinline)) static int drop("
    return other.change("compiler/unit.h", inlined, called).compile().path


@pytest.fixture
def hosts(lab: Lab) -> Iterator[list[Host]]:
    """Client and servers of the one balancer, of the other."""
    made = lab.some(4)
    made[0].run(f"ip route add {VIP} dev {FAR}")
    for address in (VIP, "10.0.0.99"):
        made[0].run(f"ip neigh replace {address} lladdr {made[1].mac} dev {FAR}")
    for number in range(3):
        made[1].run(f"ip addr add 10.0.0.{number + 10}/24 dev {FAR}")
    yield made


def balancer(daemon: Daemon, name: str, hosts: list[Host], **body: Any) -> None:
    ports = [{"name": side.lower(), "type": side, "peer": host.netdev} for side, host in zip(("FRONTEND", "BACKEND"), hosts, strict=True)]
    daemon.post(f"{name}/{name}1", {"type": "TC", "ports": ports, **body})


def spread(one: Host, two: Host) -> dict[int, str]:
    """Which server each of twenty flows goes to, by its port."""
    frames = [
        bytes(Ether(src=one.mac, dst="02:00:00:00:00:64") / IP(src="10.1.0.1", dst=DIRECT) / UDP(sport=n, dport=9)) for n in range(20)
    ]
    with two.sniff() as sniffer:
        one.send(*frames)
        seen = sniffer.expect(lambda frame: frame[30:34] == bytes((10, 97, 0, 1)), len(frames))
    return {int.from_bytes(frame[34:36], "big"): ":".join(f"{byte:02x}" for byte in frame[:6]) for frame in seen}


def counts(daemon: Daemon) -> dict[str, int]:
    """Counters of all of them."""
    return {
        "lbrp": daemon.get(f"lbrp/lbrp1/service/{VIP}/80/TCP/backend/10.0.0.10")["flows"],
        "lbdsr": sum(one["flows"] for one in daemon.get("lbdsr/lbdsr1/backend/pool")),
        "ddosmitigator": daemon.get("ddosmitigator/d1/blacklist-dst/10.0.0.99")["drop-pkts"],
        "synflood": (daemon.get("synflood/s1/handshakes") or {}).get("syn", 0),
        "packetcapture": daemon.get("packetcapture/c1/statistics")["taken"],
        "dynmon": json.loads(daemon.get("dynmon/m1/metrics/ingress-metrics/frames")["value"])[0],
    }


def answers(daemon: Daemon) -> bool:
    try:
        return daemon.rest("GET", "cubes").status == 200
    except OSError:
        return False


def watch(daemon: Daemon, netdev: str, folder: Path) -> None:
    """Everything transparent, on the client's netdev."""
    path = {"name": "count", "code": COUNT, "metric-configs": [{"name": "frames", "map-name": "frames"}]}
    for service, name, body in (
        ("ddosmitigator", "d1", {"blacklist-dst": [{"ip": "10.0.0.99"}]}),
        ("synflood", "s1", {}),
        ("packetcapture", "c1", {"capture": "INGRESS", "filter": "tcp or icmp", "dump": str(folder / "trace")}),
        ("dynmon", "m1", {"dataplane-config": {"ingress-path": path}}),
    ):
        daemon.post(f"{service}/{name}", {"type": "TC", **body})
        daemon.post("attach", {"cube": name, "port": netdev})


@pytest.mark.soak  # six programs are made anew before the daemon answers: half a minute on a busy machine
def test_flows_stay_and_counters_go_on(daemon: Daemon, hosts: list[Host], other_framework: Path, tmp_path: Path) -> None:
    client, server, source, sink = hosts
    backends = [{"ip": f"10.0.0.{number + 10}", "port": 80} for number in range(3)]
    balancer(daemon, "lbrp", [client, server], service=[{"vip": VIP, "vport": 80, "proto": "TCP", "backend": backends}])
    pool = [{"id": number, "mac": mac} for number, mac in enumerate(SERVERS[:3])]
    balancer(daemon, "lbdsr", [source, sink], frontend={"vip": DIRECT, "mac": "02:00:00:00:00:64"}, backend={"pool": pool})
    watch(daemon, client.netdev, tmp_path)
    standing = Server(server, "s1", 80)
    try:
        live = [Connection(client, VIP) for _ in range(10)]
        assert not client.reaches("10.0.0.99")
        known = spread(source, sink)
        assert len(set(known.values())) > 1
        for one in backends[1:]:
            daemon.delete(f"lbrp/lbrp1/service/{VIP}/80/TCP/backend/{one['ip']}")  # live ones stay where they are
        daemon.post("lbdsr/lbdsr1/backend/pool", [{"id": 3, "mac": SERVERS[3]}])
        eventually(lambda: counts(daemon)["synflood"] >= 10, "the handshakes to be counted")
        before, units = counts(daemon), {pin for pin in daemon.pins() if pin.startswith("units/")}
        daemon.kill()
        daemon.environment["PYTHONPATH"] = str(other_framework)
        assert all(connection.says(b"nobody is there") for connection in live)
        daemon.launch()
        eventually(lambda: answers(daemon), "the other version to answer", 180)
        replaced = {pin.split("/")[1] for pin in units - daemon.pins()}
        assert len(replaced) == 6, "programs of every cube are others"
        assert all(connection.says(b"and now?") for connection in live)
        assert spread(source, sink) == known
        assert not client.reaches("10.0.0.99")
        more = Connection(client, VIP)
        assert more.says(b"x")
        eventually(lambda: counts(daemon)["synflood"] == before["synflood"] + 1, "the last handshake to be counted")
        after = counts(daemon)
        assert (after["lbrp"], after["lbdsr"]) == (before["lbrp"] + 1, before["lbdsr"])
        assert {name for name in after if after[name] > before[name]} == {"ddosmitigator", "synflood", "packetcapture", "dynmon", "lbrp"}
        assert daemon.get("packetcapture/c1/statistics")["lost"] == 0
        assert daemon.drops("lbrp1") == {}
    finally:
        for connection in Connection.made:
            connection.close()
        Connection.made.clear()
        standing.stop()
        daemon.environment.pop("PYTHONPATH", None)
