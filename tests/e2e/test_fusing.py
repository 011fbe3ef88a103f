# SPDX-License-Identifier: Apache-2.0
"""Chains are fused in the background, give way to every change, and survive the daemon and the compiler."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from scenes import bridge, chain, transparent

from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host, Lab, eventually
from polycube.testing.traffic import Traffic

RATE = 50_000
SHORT, LONG = 8, 500  # cycles


@pytest.fixture
def hosts(isolated: None) -> Iterator[list[Host]]:
    with Lab() as lab:
        yield lab.some(3)


@pytest.fixture(params=["TC", "XDP_DRV"])
def type(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def fused(daemon: Daemon) -> dict[str, Any]:
    """Fused units by the first of their entries."""
    return {one["entries"][0].split()[0]: one for one in daemon.get("units") if one["kind"] == "fused"}


def settled(daemon: Daemon, *cubes: set[str], seconds: float = 15) -> dict[str, Any]:
    """Waits until just these sets of cubes are fused."""
    wanted = sorted(map(sorted, cubes))

    def look() -> dict[str, Any]:
        found = fused(daemon)
        return found if sorted(sorted(unit["cubes"]) for unit in found.values()) == wanted else {}

    return eventually(look, f"units of {wanted}", seconds)


def pinned(daemon: Daemon) -> set[str]:
    return {pin for pin in daemon.pins(fused=True) if pin.startswith("fused/")}


def test_a_chain_is_fused_and_gives_way(daemons, hosts, type):
    one, two, three = hosts
    with daemons() as daemon:
        chain(daemon, [one], [two], type)
        before = settled(daemon, {"br1", "br2"}, {"br1", "br2"})
        eventually(lambda: one.reaches(two), "a path")
        received = daemon.counter("br2", "link", "rx_packets")
        assert one.ping(two, count=1).received
        assert daemon.counter("br2", "link", "rx_packets") > received
        daemon.post("simplebridge/br2/ports/p2", {"peer": three.netdev})
        assert one.ping(three, count=1).received and one.ping(two, count=1).received
        eventually(lambda: {v["name"] for v in fused(daemon).values()}.isdisjoint({v["name"] for v in before.values()}), "other units")
        found = settled(daemon, {"br1", "br2"}, {"br1", "br2"})
        assert sorted(len(unit["entries"]) for unit in found.values()) == [1, 2], "netdevs of one bridge share a unit"
        assert one.ping(three, count=1).received and three.ping(two, count=1).received
        daemon.delete("simplebridge/br2")
        assert not one.reaches(two)
        settled(daemon, {"br1"})


def test_transparent_cubes_and_what_they_drop(daemons, hosts, type):
    one, two, _ = hosts
    with daemons() as daemon:
        chain(daemon, [one], [two], type)
        for name, place in (("t1", "br1:link"), ("t2", one.netdev)):
            transparent(daemon, name, type, ingress_action="PASS", egress_action="PASS")
            daemon.post("attach", {"cube": name, "port": place})
        eventually(lambda: {"br1", "br2", "t1", "t2"} in [set(unit["cubes"]) for unit in fused(daemon).values()], "a unit of all")
        assert eventually(lambda: one.reaches(two), "a path")
        daemon.patch("transparenthelloworld/t1", {"egress-action": "DROP"})
        assert not one.reaches(two), "a change counts at once, fused or not"
        dropped = daemon.drops("t1")["policy"]
        eventually(lambda: {"br1", "br2", "t1", "t2"} in [set(unit["cubes"]) for unit in fused(daemon).values()], "a unit of all")
        assert not one.reaches(two)
        assert daemon.drops("t1")["policy"] > dropped, "counted by the fused unit, too"


def test_it_is_switched_off_and_on_for_a_cube_and_for_all(daemons, hosts):
    with daemons() as daemon:
        chain(daemon, hosts[:1], hosts[1:2])
        settled(daemon, {"br1", "br2"}, {"br1", "br2"})
        daemon.ctl("fusing br1 set enabled=false")
        assert not fused(daemon), "at once"
        assert daemon.get("fusing/br1") == {"name": "br1", "enabled": False}
        settled(daemon, {"br2"})
        reasons = {unit["name"]: unit["fused"] for unit in daemon.get("units")}
        assert reasons["br1:tc"] == "no: fusing is off for this cube" and reasons["br2:tc"] == "yes"
        daemon.crash()
        assert daemon.get("fusing/br1/enabled") is False, "kept"
        daemon.patch("fusing/br1", {"enabled": True})
        settled(daemon, {"br1", "br2"}, {"br1", "br2"})
        daemon.patch("fusing/enabled", False)
        assert not pinned(daemon)
        assert {unit["fused"] for unit in daemon.get("units")} == {"no: fusing is off"}
        daemon.ctl("fusing set enabled=true")
        settled(daemon, {"br1", "br2"}, {"br1", "br2"})
        code = daemon.ctl(f"units show {fused(daemon)[hosts[0].netdev]['name']} code").out
        assert "map pcn_counters" in code and "counter->rx_packets++; @ unit.h:" in code and "simplebridge.bpf.c:" in code
        answer = daemon.rest("PATCH", "fusing", {"enabled": "perhaps"})
        assert (answer.status, "has to be true or false" in answer.text) == (400, True)
        assert daemon.rest("GET", "units/nope").status == 404


def test_what_stands_is_adopted_and_a_reboot_builds_nothing(daemons, hosts):
    one, two, _ = hosts
    with daemons() as daemon:
        chain(daemon, [one], [two], "XDP_DRV")
        before = settled(daemon, {"br1", "br2"}, {"br1", "br2"})
        for restart in (daemon.restart, daemon.crash):
            restart()
            found = fused(daemon)
            assert {entry: unit["programs"] for entry, unit in found.items()} == {entry: unit["programs"] for entry, unit in before.items()}
        daemon.stop()
        daemon.wipe()
        daemon.start()
        found = settled(daemon, {"br1", "br2"}, {"br1", "br2"})
        assert all(unit["cached"] for unit in found.values())
        eventually(lambda: one.reaches(two), "a path")
        daemon.arguments = ["--no-fuse"]
        daemon.crash()
        assert not pinned(daemon)
        assert one.ping(two, count=1).received


def test_a_damaged_cache_is_built_anew(daemons, hosts, tmp_path):
    with daemons(cache=tmp_path / "own") as daemon:
        chain(daemon, hosts[:1], hosts[1:2])
        settled(daemon, {"br1", "br2"}, {"br1", "br2"})
        daemon.stop()
        daemon.wipe()
        for path in (tmp_path / "own").glob("*.bpf.o"):
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 0xFF
            path.write_bytes(data)
        (tmp_path / "own" / "refused.json").write_text("{ damaged")
        daemon.start()
        found = settled(daemon, {"br1", "br2"}, {"br1", "br2"})
        assert not any(unit["cached"] for unit in found.values())


def compilers(daemon: Daemon) -> list[int]:
    """Processes of the background compiler: those that give way to others."""
    found = []
    for pid in daemon.descendants():
        with suppress(OSError):
            if b"polycube.compiler.process" in Path(f"/proc/{pid}/cmdline").read_bytes() and os.getpriority(os.PRIO_PROCESS, pid) == 19:
                found.append(pid)
    return found


def test_the_compiler_is_killed_at_work(daemons, hosts, tmp_path):
    one, two, _ = hosts
    with daemons(cache=tmp_path / "own") as daemon:
        chain(daemon, [one], [two])
        killed = set()
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline and len(killed) < 2:
            for pid in compilers(daemon):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
            time.sleep(0.01)
        assert killed
        eventually(lambda: one.reaches(two), "a path")
        daemon.logged("not fused unit='simplebridge + simplebridge'")
        settled(daemon, {"br1", "br2"}, {"br1", "br2"}, seconds=30)
        assert one.ping(two, count=1).received


def test_a_storm_of_changes_is_no_storm_of_builds(daemons, hosts, tmp_path):
    one, two, _ = hosts
    with daemons(cache=tmp_path / "own", arguments=["--loglevel=debug"]) as daemon:
        chain(daemon, [one], [two])
        settled(daemon, {"br1", "br2"}, {"br1", "br2"})
        for number in range(40):
            daemon.post(f"simplebridge/br1/ports/more{number}", {})
            time.sleep(0.05)
        builds = daemon.log().count("[debug] fused")
        assert builds <= 8, f"{builds} for 40 changes"
        settled(daemon, {"br1", "br2"}, {"br1", "br2"})
        assert one.ping(two, count=1).received


def cycles(daemon: Daemon, hosts: list[Host], type: str, count: int) -> None:
    """Fused and back under traffic, by the switch and by changes of the path."""
    one, two, _ = hosts
    chain(daemon, [one], [two], type)
    transparent(daemon, "t1", type, ingress_action="PASS", egress_action="PASS")
    eventually(lambda: one.reaches(two), "a path")
    path = {"br1", "br2"}
    with Traffic(one, two) as there, Traffic(two, one) as back:
        settled(daemon, path, path)
        there.start(RATE)
        back.start(RATE // 50)
        for number in range(count):
            if number % 2:
                daemon.post("attach", {"cube": "t1", "port": "br1:link"})
                eventually(lambda: any("t1" in unit["cubes"] for unit in fused(daemon).values()), "a unit with the cube", 60)
                daemon.post("detach", {"cube": "t1", "port": "br1:link"})
            else:
                daemon.patch("fusing", {"enabled": False})
                assert not fused(daemon)
                daemon.patch("fusing", {"enabled": True})
            settled(daemon, path, path, seconds=60)
        reports = {"there": there.stop(), "back": back.stop()}
    for name, report in reports.items():
        assert report.clean, f"{name}: {report}"
    print(reports["there"], f"in {count} cycles")


def test_fusing_and_back_loses_nothing(daemons, hosts, type):
    with daemons() as daemon:
        cycles(daemon, hosts, type, SHORT)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_500_cycles_lose_nothing(daemons, hosts, type):
    with daemons() as daemon:
        cycles(daemon, hosts, type, LONG)


def test_a_netdev_that_goes_takes_its_entry_along(daemons, hosts):
    one, two, three = hosts
    with daemons() as daemon:
        bridge(daemon, "br1", [one, two, three])
        settled(daemon, {"br1"})
        eventually(lambda: one.reaches(two), "a path")
        three.run("ip link del e0")
        eventually(lambda: len(fused(daemon).get(one.netdev, {"entries": []})["entries"]) == 2, "a unit of the others")
        assert one.ping(two, count=1).received
