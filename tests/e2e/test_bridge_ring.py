# SPDX-License-Identifier: Apache-2.0
"""A ring of the bridge cube and two Linux bridges that speak 802.1D: one tree, whatever is cut or dies, and never a loop.

A stream of broadcasts runs all the time: in a loop they would come twice, and then for ever.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host, Lab, eventually, sh
from polycube.testing.traffic import Headers, Place, Traffic

LINUX = {"lb1": "p1", "lb2": "p2"}  # bridge -> port of the cube that leads to it
PORTS = ("p1-lb1", "p2-lb2", "ring1", "ring2")  # of the Linux bridges
CONVERGENCE = 30
FORWARDING = {"h": "forwarding", "p1": "forwarding", "p2": "forwarding"}


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> Iterator[list[Host]]:
    """The first behind the cube, the second behind lb2. lb1 is the root; the way between lb1 and lb2 is a long one."""
    hosts = lab.some(2, ipv6=False)
    timers = "forward_delay 200 hello_time 100 max_age 600"
    for number, (name, port) in enumerate(LINUX.items()):
        sh(f"ip link add {name} type bridge stp_state 1 {timers} mcast_snooping 0 priority {number * 0x9000}")
        sh(f"ip link add to-{name} type veth peer name {port}-{name}", f"ip link set {port}-{name} master {name}")
        sh(*(f"ip link set {one} up" for one in (name, f"to-{name}", f"{port}-{name}")))
    sh("ip link add ring1 type veth peer name ring2", "ip link set ring1 master lb1", "ip link set ring2 master lb2")
    sh(f"ip link set {hosts[1].netdev} master lb2", "bridge link set dev ring2 cost 200", "ip link set ring1 up", "ip link set ring2 up")
    yield hosts
    sh(*(f"ip link del {name}" for name in ("ring1", "to-lb1", "to-lb2", "lb1", "lb2")))


@contextmanager
def ring(daemon: Daemon, hosts: list[Host], type: str, version: str) -> Iterator[None]:
    ports = [{"name": "h", "peer": hosts[0].netdev, "edge": True}, *({"name": p, "peer": f"to-{name}"} for name, p in LINUX.items())]
    stp = {"vlan": 1, "version": version, "forward-delay": 4, "hello-time": 1, "max-message-age": 6}
    daemon.post("bridge/br", {"type": type, "stp-enabled": True, "stp": [stp], "ports": ports})
    try:
        eventually(lambda: states(daemon) == FORWARDING, "a tree", CONVERGENCE)
        eventually(lambda: linux("ring2") == "blocking" and hosts[0].reaches(hosts[1]), "one way", CONVERGENCE)
        yield
    finally:
        if not daemon.running:
            daemon.start()
        daemon.delete("bridge/br")


@contextmanager
def no_loop(hosts: list[Host]) -> Iterator[None]:
    headers = Headers(destination_mac="ff:ff:ff:ff:ff:ff", source=hosts[0].ipv4, destination=hosts[1].ipv4)
    with Traffic(Place(hosts[0].name), Place(hosts[1].name), headers) as traffic:
        traffic.start(1000, seconds=300)
        yield
        report = traffic.stop()
    assert report.received and not report.duplicated, report


def states(daemon: Daemon) -> dict[str, str]:
    return {port["name"]: port["stp"][0]["state"] for port in daemon.get("bridge/br/ports") if "stp" in port}


def linux(netdev: str) -> str:
    return str(json.loads(sh(f"bridge -j link show dev {netdev}"))[0]["state"])


def way(daemon: Daemon, hosts: list[Host]) -> None:
    try:
        eventually(lambda: hosts[0].reaches(hosts[1]), "a way to the other host", CONVERGENCE)
    except AssertionError as error:
        seen = [states(daemon), daemon.drops("br")] if daemon.running else []
        raise AssertionError(f"{error}; {seen} {[(port, linux(port)) for port in PORTS]}") from error


def settled(daemon: Daemon) -> bool:
    """Whether all ports forward but the one that the tree closes."""
    return states(daemon) == FORWARDING and [linux(port) for port in PORTS] == ["forwarding"] * 3 + ["blocking"]


def kill_worker(daemon: Daemon) -> None:
    before = daemon.processes()["bridge"]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: daemon.processes().get("bridge", before) != before and states(daemon) == FORWARDING, "another worker, the same tree")


def test_a_killed_worker_is_not_missed_and_a_dead_daemon_makes_room(daemon: Daemon, hosts: list[Host]) -> None:
    with ring(daemon, hosts, "TC", "rstp"), no_loop(hosts):
        assert daemon.get("bridge/br/stp/1")["root-port"] == "p1"
        with hosts[0].pinging(hosts[1]) as pinging:
            pinging.answers()
            kill_worker(daemon)
            pinging.answers()
        assert pinging.result.lost == 0 and linux("ring2") == "blocking"
        daemon.kill()
        eventually(lambda: linux("ring2") == "forwarding", "the others to take another way", CONVERGENCE)
        way(daemon, hosts)


@pytest.mark.soak
@pytest.mark.parametrize(("type", "version"), [("TC", "rstp"), ("TC", "stp"), ("XDP_DRV", "rstp"), ("XDP_DRV", "stp")])
def test_whatever_is_cut_and_whoever_dies(daemon: Daemon, hosts: list[Host], type: str, version: str) -> None:
    with ring(daemon, hosts, type, version), no_loop(hosts):
        for link in ("p2-lb2", "p1-lb1", "ring1"):
            sh(f"ip link set {link} down")
            eventually(lambda: not settled(daemon), "the cut to be noticed", CONVERGENCE)
            way(daemon, hosts)
            sh(f"ip link set {link} up")
            eventually(lambda: settled(daemon), "the shorter way", CONVERGENCE)
            way(daemon, hosts)
        daemon.kill()
        eventually(lambda: linux("ring2") == "forwarding", "the others to take another way", CONVERGENCE)
        way(daemon, hosts)
        daemon.start()
        eventually(lambda: linux("ring2") == "blocking", "the bridge to be back", CONVERGENCE)
        way(daemon, hosts)
        assert daemon.drops("br")["silent"] > 0
