# SPDX-License-Identifier: Apache-2.0
"""Any process may die: traffic goes on, nothing is forgotten, and what nobody owns is removed."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scenes import bridge, chain, clear, everything, transparent

from polycube.bpf import Map, MapType
from polycube.testing.build import OtherBuild
from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host, Lab, eventually, sh

FDB = "include/polycube/fdb.h"  # the library's, which is the bridge's
UUID = "11111111-2222-3333-4444-555555555555"


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> list[Host]:
    return lab.some(3)


@pytest.fixture(autouse=True)
def clean(daemon: Daemon) -> Iterator[None]:
    if not daemon.running:
        daemon.start()
    yield
    if not daemon.running:
        daemon.start()
    clear(daemon)


def scene(daemon: Daemon, hosts: list[Host], type: str = "TC") -> None:
    """Two bridges, transparent cubes on a port and on a netdev, configured and learned stations."""
    chain(daemon, hosts[:2], hosts[2:], type)
    for name in ("th1", "th2"):
        transparent(daemon, name, type)
    daemon.post("attach", {"cube": "th1", "port": "br1:p1"})
    daemon.post("attach", {"cube": "th2", "port": hosts[2].netdev})
    daemon.post("simplebridge/br1/fdb/entry/02:00:00:00:00:99", {"port": "p2"})
    assert hosts[0].ping(hosts[2], count=3).received == 3


def stations(daemon: Daemon, cube: str) -> set[tuple[str, str]]:
    return {(entry["address"], entry["port"]) for entry in daemon.get(f"simplebridge/{cube}/fdb/entry")}


@pytest.mark.parametrize("type", ["TC", "XDP_DRV"])
def test_a_killed_daemon_loses_no_packet_no_station_and_no_setting(daemon: Daemon, hosts: list[Host], type: str) -> None:
    scene(daemon, hosts, type)
    before, known, pins = everything(daemon), stations(daemon, "br1"), daemon.pins()
    with hosts[0].pinging(hosts[2]) as pinging:
        pinging.answers()
        daemon.kill()
        pinging.answers()
        daemon.start()
        pinging.answers()
        daemon.restart()
        pinging.answers()
    assert pinging.result.lost == 0
    assert everything(daemon) == before
    assert known <= stations(daemon, "br1") and (hosts[2].mac, "link") in known
    assert daemon.pins() == pins


@pytest.mark.parametrize("victim", ["simplebridge", "fork server", "compiler"])
def test_any_other_process_may_be_killed_too(daemon: Daemon, hosts: list[Host], victim: str, cache: Path) -> None:
    bridge(daemon, "br1", hosts[:2])
    assert hosts[0].ping(hosts[1]).received == 2
    before = everything(daemon)
    if victim == "compiler":
        daemon.stop()
        shutil.rmtree(cache)  # so that there is one
        daemon.start()
    with hosts[0].pinging(hosts[1]) as pinging:
        pinging.answers()
        os.kill(eventually(lambda: daemon.processes().get(victim[:11], 0), victim), signal.SIGKILL)
        pinging.answers()
        assert everything(daemon) == before
        bridge(daemon, "br2", hosts[2:])
        transparent(daemon, "th")
        daemon.post("attach", {"cube": "th", "port": "br1:p1"})
        pinging.answers()
    assert pinging.result.lost == 0


def test_what_nobody_owns_is_removed_at_the_start(daemon: Daemon, hosts: list[Host]) -> None:
    scene(daemon, hosts)
    before = daemon.pins()
    daemon.kill()
    root = daemon.bpffs
    for folder in (f"cubes/{UUID}", f"units/{UUID}/tc-0123456789ab", f"units/{UUID}/xdp-empty"):
        (root / folder).mkdir(parents=True)
    with Map.create(MapType.ARRAY, 4, 4, 1, name="junk") as junk:
        junk.pin(root / "cubes" / UUID / "fdb")
        junk.pin(root / "units" / UUID / "tc-0123456789ab" / "ports")  # half made: maps, but no programs
        own = next(path for path in (root / "units").iterdir() if path.name != UUID)
        (own / "tc-ffffffffffff").mkdir()
        junk.pin(own / "tc-ffffffffffff" / "ports")
    daemon.start()
    assert daemon.pins() == before
    assert hosts[0].ping(hosts[2]).received == 2


def test_links_of_netdevs_deleted_meanwhile_are_removed(daemon: Daemon, hosts: list[Host]) -> None:
    sh("ip link add spare type veth peer name spare1", "ip link set spare up", "ip link set spare1 up")
    bridge(daemon, "br1", hosts[:2])
    daemon.post("simplebridge/br1/ports/p3", {"peer": "spare"})
    pins = daemon.pins()
    daemon.kill()
    sh("ip link del spare")
    daemon.start()
    assert len(pins - daemon.pins()) == 1 and daemon.pins() <= pins
    assert daemon.get("simplebridge/br1/ports/p3")["status"] == "DOWN"
    assert daemon.get("simplebridge/br1/ports/p3")["peer"] == "spare"


@pytest.mark.parametrize("type", ["TC", "XDP_DRV"])
def test_a_reboot_restores_everything_and_takes_late_netdevs_when_they_come(daemon: Daemon, hosts: list[Host], type: str) -> None:
    scene(daemon, hosts, type)
    before = everything(daemon)
    daemon.stop()
    daemon.wipe()
    for host in hosts:
        host.delete()
    for host in hosts[:2]:
        host.wire()
    daemon.start()
    assert hosts[0].ping(hosts[1]).received == 2
    port = daemon.get("simplebridge/br2/ports/p1")
    assert port["status"] == "DOWN" and port["reason"] == f"netdev {hosts[2].netdev} is not there"
    hosts[2].wire()
    eventually(lambda: hosts[0].reaches(hosts[2]), "traffic through the late netdev")
    assert hosts[0].ping(hosts[2], count=3).received == 3
    after = everything(daemon)
    assert after == before
    daemon.patch("th2/ingress-action", "DROP")
    assert hosts[0].ping(hosts[2], count=1, wait=0.1).received == 0


def test_a_damaged_store_is_refused_in_one_sentence_and_not_touched(daemons: Callable[..., Daemon], daemon: Daemon) -> None:
    daemon.post("simplebridge/br1")
    daemon.stop()
    original = daemon.store.read_bytes()
    damaged = {
        "empty": b"",
        "cut": original[: len(original) // 2],
        "text": b"cubes:\n  - br1\n",
        "flipped": original[:100] + bytes(255 - byte for byte in original[100:3000]) + original[3000:],
    }
    for damage, content in damaged.items():
        other = daemons()
        other.folder.mkdir(parents=True)
        other.store.write_bytes(content)
        sentence = other.refuses()
        assert str(other.store) in sentence and "it was left untouched" in sentence and "Traceback" not in sentence, damage
        assert other.store.read_bytes() == content, damage


# ---- upgrades ----


@pytest.mark.parametrize("type", ["TC", "XDP_SKB"])
def test_an_upgrade_swaps_programs_and_keeps_entries(daemon: Daemon, hosts: list[Host], other: OtherBuild, type: str) -> None:
    """The new data plane drops what the old one flooded: frames to 01:80:c2:00:00:1f."""
    scene(daemon, hosts, type)
    before, known = everything(daemon), stations(daemon, "br1")
    units = {pin for pin in daemon.pins() if pin.startswith("units/")}
    other.change(FDB, "bpf_htons(0xfff0)", "bpf_htons(0xffe0)").compile("simplebridge")
    daemon.environment["PYTHONPATH"] = str(other.path)
    try:
        with hosts[0].pinging(hosts[2]) as pinging:
            pinging.answers()
            daemon.crash()
            pinging.answers()
        assert pinging.result.lost == 0
        assert everything(daemon) == before and known <= stations(daemon, "br1")
        replaced = units - daemon.pins()
        assert len({pin.split("/")[1] for pin in replaced}) == 2  # of both bridges, not of the transparent cubes
    finally:
        del daemon.environment["PYTHONPATH"]
        daemon.crash()


def test_stations_come_over_into_a_table_of_another_layout(daemon: Daemon, hosts: list[Host], other: OtherBuild) -> None:
    scene(daemon, hosts)
    other.change(FDB, "	__u16 port;\n	__u16 flags;", "	__u16 port;\n	__u32 room;\n	__u16 flags;").compile("simplebridge")
    daemon.environment["PYTHONPATH"] = str(other.path)
    assert hosts[0].ping(hosts[2], count=3).received == 3
    known = stations(daemon, "br1")
    try:
        daemon.crash()
        assert stations(daemon, "br1") >= known
        assert hosts[0].ping(hosts[2], count=3).received == 3
        assert ("02:00:00:00:00:99", "p2") in stations(daemon, "br1")  # a configured one
    finally:
        del daemon.environment["PYTHONPATH"]
        daemon.crash()
