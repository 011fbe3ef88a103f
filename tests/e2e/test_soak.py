# SPDX-License-Identifier: Apache-2.0
"""No frame is lost, doubled or reordered on a path while everything around it, and the daemon itself, comes and goes.

50,000 frames a second cross two bridges, or a bridge and a router. Meanwhile other ports are connected and disconnected, cubes come and
go, transparent cubes that pass everything are attached to other ports and to the path itself, the bridges' code is replaced by another
build, and the daemon is killed. A short run is part of the normal tests; `make soak` (marker `soak`) does 200 kills and 500 changes.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scenes import bridge, chain, transparent

from polycube.compiler import build
from polycube.testing.build import OtherBuild
from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host, Lab, eventually
from polycube.testing.traffic import Headers, Report, Traffic

RATE = 50_000
ROUTER = "02:00:00:00:09:fe"
SHORT = (2, 24)  # kills, changes
LONG = (200, 500)
Change = tuple[str, Callable[[Daemon], object]]


@pytest.fixture
def hosts(isolated: None) -> Iterator[list[Host]]:
    with Lab() as lab:
        yield lab.some(4)


@pytest.fixture(scope="session")
def other_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a copy of the package lies whose bridge is another program: one more drop reason. For PYTHONPATH."""
    if not build.available():
        pytest.skip("no clang: no other build of the bridge")
    source = "cubes/simplebridge/simplebridge.bpf.c"
    other = OtherBuild(tmp_path_factory.mktemp("other"))
    other.change(source, "DROPS(SAME_PORT, LINK_LOCAL);", "DROPS(SAME_PORT, LINK_LOCAL, ODD);")
    same_port = "\tif (station->port == pkt->in_port)"
    other.change(source, same_port, f"\tif (station->flags & 0x8000)\n\t\treturn pcn_drop(pkt, ODD);\n{same_port}")
    return other.compile("simplebridge").path


def changes(type: str, far: str) -> Iterator[Change]:
    """Changes for ever. Each is a name and what it does; one takes back what the one before it did. `far`: the path's second cube."""

    def post(path: str, **body: object) -> Callable[[Daemon], object]:
        return lambda daemon: daemon.post(path, {key.replace("_", "-"): value for key, value in body.items()})

    def delete(path: str) -> Callable[[Daemon], object]:
        return lambda daemon: daemon.delete(path)

    pairs: list[tuple[str, Callable[[Daemon], object], Callable[[Daemon], object]]] = [
        ("port of another host", post("simplebridge/br1/ports/p3", peer="v3"), delete("simplebridge/br1/ports/p3")),
        ("port that leads nowhere", post("simplebridge/br1/ports/idle"), delete("simplebridge/br1/ports/idle")),
        ("another bridge", post("simplebridge/br3", type=type, ports=[{"name": "up"}]), delete("simplebridge/br3")),
        ("peer of another port", post("connect", peer1="br1:p2", peer2="v4"), post("disconnect", peer1="br1:p2", peer2="v4")),
    ]
    places = ("br1:p1", f"{far}:p1", "br1:link", f"{far}:link", "br1:p2", "v1", "v2", "v4")
    for cube, place in zip(itertools.cycle(("t1", "t2")), places, strict=False):
        pairs.append((f"{cube} on {place}", post("attach", cube=cube, port=place), post("detach", cube=cube, port=place)))
    for name, there, back in itertools.cycle(pairs):
        yield f"+ {name}", there
        yield f"- {name}", back


class Soak:
    """A path under traffic, and a protocol of what was done when."""

    def __init__(self, daemon: Daemon, hosts: list[Host], type: str, routed: bool = False) -> None:
        self.daemon, self.hosts, self.type, self.routed = daemon, hosts, type, routed
        self.done: list[tuple[float, float, str]] = []

    def __enter__(self) -> Soak:
        one, two, *_ = self.hosts
        there = back = Headers()
        if self.routed:
            there, back = self._route()
        else:
            chain(self.daemon, [one], [two], self.type)
        self.daemon.post("simplebridge/br1/ports/p2", {})
        for name in ("t1", "t2"):
            transparent(self.daemon, name, self.type, ingress_action="PASS", egress_action="PASS")
        eventually(lambda: one.reaches(there.destination or two), "a path")
        self.there, self.back = Traffic(one, two, there), Traffic(two, one, back)
        self.there.start(RATE)
        self.back.start(RATE // 50)  # so that both stations stay known
        return self

    def _route(self) -> tuple[Headers, Headers]:
        """A router instead of the second bridge, and the second host in another network."""
        one, two, *_ = self.hosts
        bridge(self.daemon, "br1", [one], self.type)
        self.daemon.post("simplebridge/br1/ports/link", {})
        ports = [
            {"name": "link", "ip": "10.0.0.254/24", "mac": ROUTER},
            {"name": "p1", "ip": "10.0.9.254/24", "mac": ROUTER, "peer": two.netdev},
        ]
        self.daemon.post("router/r1", {"type": self.type, "ports": ports})
        self.daemon.post("connect", {"peer1": "br1:link", "peer2": "r1:link"})
        one.run("ip route add 10.0.9.0/24 via 10.0.0.254")
        two.run("ip addr flush dev e0")
        two.run("ip addr add 10.0.9.2/24 dev e0")
        two.run("ip route add default via 10.0.9.254")
        return (
            Headers(source=one.ipv4, destination="10.0.9.2", destination_mac=ROUTER),
            Headers(source="10.0.9.2", destination=one.ipv4, destination_mac=ROUTER),
        )

    def __exit__(self, *_: object) -> None:
        self.there.close()
        self.back.close()

    def do(self, name: str, act: Callable[[Daemon], object]) -> None:
        begin = time.monotonic()
        act(self.daemon)
        self.done.append((begin, time.monotonic(), name))

    def check(self) -> Report:
        """What arrived; says what was being done when frames were lost."""
        back, there = self.back.stop(), self.there.stop()
        for name, report in (("there", there), ("back", back)):
            during = [
                f"{gap.count} at {gap.sent_at:.3f}: {what} ({end - begin:.3f} s)"
                for gap in report.gaps[:20]
                for begin, end, what in self.done
                if begin - 0.05 <= gap.sent_at <= end + 0.05
            ]
            assert report.clean, f"{name}: {report}\n" + "\n".join(during)
        return there


@pytest.fixture(params=["TC", "XDP_DRV"])
def type(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def reconfigure(daemon: Daemon, hosts: list[Host], type: str, count: int, routed: bool) -> None:
    with Soak(daemon, hosts, type, routed) as soak:
        for name, act in itertools.islice(changes(type, "r1" if routed else "br2"), count):
            soak.do(name, act)
        print(soak.check(), f"during {count} changes")


def kill(daemon: Daemon, hosts: list[Host], type: str, count: int, other_build: Path) -> None:
    """Every second life runs the other build, so that all of the bridges' programs are replaced under traffic."""
    with Soak(daemon, hosts, type) as soak:
        for number in range(count):
            soak.do("kill", lambda daemon: daemon.kill())
            before = os.listdir("/sys/fs/bpf/polycube/units")
            daemon.environment = {"PYTHONPATH": str(other_build)} if number % 2 == 0 else {}
            units = units_of(daemon)
            soak.do("start", lambda daemon: daemon.start())
            assert os.listdir("/sys/fs/bpf/polycube/units") == before
            assert units != units_of(daemon), "the programs are the same"
        print(soak.check(), f"during {count} kills")


def units_of(daemon: Daemon) -> set[str]:
    """Pinned units by cube and build."""
    return {pin for pin in daemon.pins() if pin.startswith("units/") and pin.count("/") == 2}


@pytest.mark.parametrize("routed", [False, True], ids=["bridged", "routed"])
def test_changes_lose_nothing(daemons, hosts, type, routed):
    with daemons() as daemon:
        reconfigure(daemon, hosts, type, SHORT[1], routed)


def test_kills_and_other_code_lose_nothing(daemons, hosts, type, other_build):
    with daemons() as daemon:
        kill(daemon, hosts, type, SHORT[0], other_build)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("routed", [False, True], ids=["bridged", "routed"])
def test_500_changes_lose_nothing(daemons, hosts, type, routed):
    with daemons() as daemon:
        reconfigure(daemon, hosts, type, LONG[1], routed)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_200_kills_lose_nothing(daemons, hosts, type, other_build):
    with daemons() as daemon:
        kill(daemon, hosts, type, LONG[0], other_build)
