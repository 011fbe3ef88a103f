# SPDX-License-Identifier: Apache-2.0
"""TCP connections live through a daemon that is killed, one that is stopped, and programs of another version: through nat, whose sessions
are worth nothing without their ports, a firewall that knows its connections, and pbforwarder with rules that change.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from scenes import Talk, serving

from polycube.compiler.cache import ObjectCache
from polycube.compiler.function import Function, Hook
from polycube.compiler.process import Compiler
from polycube.testing.build import OtherBuild
from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host, Lab

TRANSPARENT = {"firewall", "nat"}
OTHERS = {"src_ip": "192.0.2.0/24", "action": "DROP"}


def routed(daemon: Daemon, hosts: list[Host], type: str) -> None:
    """A router between two hosts."""
    ports = []
    for at, host in enumerate(hosts):
        host.ipv4 = f"10.20.{at}.2"
        host.run("ip addr flush dev e0 scope global")
        host.run(f"ip addr add {host.ipv4}/24 dev e0")
        ports.append({"name": f"p{at}", "ip": f"10.20.{at}.1/24", "peer": host.netdev})
    hosts[0].run("ip route add default via 10.20.0.1")
    daemon.post("router/r", {"type": type, "ports": ports})


def translated(daemon: Daemon, hosts: list[Host], type: str) -> None:
    """The same, with a nat that masquerades the first, to which a firewall lets nothing but answers through."""
    routed(daemon, hosts, type)
    daemon.post("nat/n", {"type": type, "rule": {"masquerade": {"enabled": True}}})
    daemon.post("attach", {"cube": "n", "port": "r:p1"})
    answers = {"name": "EGRESS", "default": "DROP", "rule": [{"id": 0, "conntrack": "ESTABLISHED", "action": "ACCEPT"}]}
    daemon.post("firewall/fw", {"type": type, "chain": [answers]})
    daemon.post("attach", {"cube": "fw", "port": "r:p0"})


def forwarded(daemon: Daemon, hosts: list[Host], type: str) -> None:
    """A policy-based forwarder between two hosts that lets nothing through to port 5002."""
    rules = [
        {"id": 0, **OTHERS},
        {"id": 1, "l4_proto": "TCP", "dst_port": 5002, "action": "DROP"},
        {"id": 2, "in_port": "p0", "action": "FORWARD", "out_port": "p1"},
        {"id": 3, "in_port": "p1", "action": "FORWARD", "out_port": "p0"},
    ]
    ports = [{"name": f"p{at}", "peer": host.netdev} for at, host in enumerate(hosts)]
    daemon.post("pbforwarder/pbf", {"type": type, "ports": ports, "rules": rules})


def external(daemon: Daemon) -> tuple[str, int]:
    """What the connection through nat is outside."""
    (row,) = [row for row in daemon.get("nat/n/natting-table") if row["proto"] == "tcp" and row["state"] == "ESTABLISHED"]
    return row["external-ip"], row["external-port"]


def neighbours(daemon: Daemon) -> set[tuple[str, str]]:
    """Whom the router has learnt."""
    return {(one["address"], one["mac"]) for one in daemon.get("router/r/arp-table")}


def emit(package: Path, cache: Path, **services: str) -> None:
    """Compiles new programs for these types of cubes, which may take longer than a daemon's start is waited for."""
    with Compiler(ObjectCache(cache)) as compiler:
        for name, type in services.items():
            function = Function(name, package / "cubes" / name, transparent=name in TRANSPARENT)
            compiler.emit_sync(function, Hook(type.partition("_")[0].lower()))


def units(daemon: Daemon) -> set[str]:
    return {pin for pin in daemon.pins() if pin.startswith("units/")}


@pytest.mark.parametrize(("nat", "forwarder"), [("TC", "XDP_DRV"), pytest.param("XDP_DRV", "TC", marks=pytest.mark.soak)])
def test_connections_live_through_deaths_and_upgrades(
    daemons: Callable[..., Daemon], lab: Lab, other: OtherBuild, nat: str, forwarder: str
) -> None:
    pairs, daemon = [lab.some(2), lab.some(2)], daemons(arguments=["--no-fuse"]).start()
    translated(daemon, pairs[0], nat)
    forwarded(daemon, pairs[1], forwarder)
    with ExitStack() as stack:
        for _, server in pairs:
            stack.enter_context(serving(server, server.ipv4))
        talks = [stack.enter_context(closing(Talk(client, server.ipv4))) for client, server in pairs]

        def all_go_on() -> None:
            for talk in talks:
                assert talk.ask(b"x" * 20_000) == b"x" * 20_000

        all_go_on()
        outside, before = external(daemon), units(daemon)
        other.change("include/polycube/parse.h", "PCN_MAX_EXTENSIONS 8", "PCN_MAX_EXTENSIONS 7").compile("firewall", "nat", "pbforwarder")
        emit(other.package, daemon.cache, firewall=nat, nat=nat, pbforwarder=forwarder)
        daemon.environment["PYTHONPATH"] = str(other.path)
        try:
            daemon.kill()
            all_go_on()
            daemon.start()
            all_go_on()
            assert len({pin.split("/")[1] for pin in before - units(daemon)}) == 3, "all three have new programs"
            daemon.delete("pbforwarder/pbf/rules/0")
            daemon.post("pbforwarder/pbf/rules/9", OTHERS)
            all_go_on()
        finally:
            del daemon.environment["PYTHONPATH"]
            daemon.restart()
        all_go_on()
        assert units(daemon) == before and external(daemon) == outside
        with pytest.raises(OSError):
            Talk(pairs[1][0], pairs[1][1].ipv4, 5002, wait=0.2)


@pytest.mark.parametrize("type", ["TC", pytest.param("XDP_DRV", marks=pytest.mark.soak)])
def test_no_packet_is_lost_when_tables_have_another_layout(daemons: Callable[..., Daemon], lab: Lab, other: OtherBuild, type: str) -> None:
    """Routes are written to new tables, and neighbours come over into them, before the programs that look there get a packet."""
    hosts, daemon = lab.some(2), daemons().start()
    routed(daemon, hosts, type)
    far = "198.51.100.7"
    hosts[1].run(f"ip addr add {far}/32 dev lo")
    hosts[1].run("ip route add default via 10.20.1.1")
    networks = [f"198.51.{n >> 8}.{n & 255}/32" for n in range(100 << 8, 104 << 8)]
    daemon.patch("router/r", {"route": [{"network": network, "nexthop": hosts[1].ipv4} for network in networks]})
    for struct in ("route4", "route6", "neighbour"):
        other.change("cubes/router/router.h", f"struct router_{struct} {{\n", f"struct router_{struct} {{\n\t__u64 since;\n")
    other.compile("router")
    emit(other.package, daemon.cache, router=type)
    with hosts[0].pinging(far) as pinging:
        pinging.answers()
        for path in (str(other.path), ""):  # there, and back again
            before, learnt = units(daemon), neighbours(daemon)
            daemon.kill()
            daemon.environment["PYTHONPATH"] = path
            daemon.start()
            pinging.answers()
            assert len({pin.split("/")[1] for pin in before - units(daemon)}) == 1, "the router has new programs"
            assert learnt and neighbours(daemon) >= learnt
    assert pinging.result.sent > 200 and pinging.result.lost == 0, pinging.result
