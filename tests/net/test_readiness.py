# SPDX-License-Identifier: Apache-2.0
"""Two hosts in namespaces, their veths joined by an XDP program that redirects each into the other."""

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from netlab import sh

from polycube.net import ethtool, genl, netns, readiness
from polycube.net.netdev import Netdev
from polycube.net.readiness import NotReady, Preparation
from polycube.net.rtnl import Rtnl

Make = Callable[[], netns.Namespace]


def netdev(name: str) -> Netdev:
    with Rtnl() as rtnl:
        return next(dev for dev in rtnl.links() if dev.name == name)


@dataclass
class Hosts:
    left: netns.Namespace
    right: netns.Namespace

    def ping(self) -> bool:
        command = [
            "ip",
            "netns",
            "exec",
            Path(self.left.path).name,
            "ping",
            "-c",
            "2",
            "-i",
            "0.2",
            "-W",
            "1",
            "10.0.0.2",
        ]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def tcp(self, size: int = 300_000, wait: float = 20) -> bool:
        """Send a stream from left to right and see that it arrives."""
        got = bytearray()

        def serve() -> None:
            with suppress(TimeoutError):
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(wait)
                    while len(got) < size and (data := connection.recv(65536)):
                        got.extend(data)

        with netns.run_in(self.right, lambda: socket.create_server(("10.0.0.2", 0))) as server:
            server.settimeout(wait)
            thread = threading.Thread(target=serve)
            thread.start()
            with netns.run_in(self.left, socket.socket) as client, suppress(TimeoutError):
                client.settimeout(wait)
                client.connect(server.getsockname())
                client.sendall(bytes(size))
                thread.join()
            thread.join()
        return len(got) == size

    def offloads(self) -> list[ethtool.Offloads]:
        return [netns.run_in(there, lambda: ethtool.get("eth")) for there in (self.left, self.right)]


@pytest.fixture
def hosts(namespace: Make, program: Callable[[int], Path]) -> Iterator[Hosts]:
    made = Hosts(namespace(), namespace())
    try:
        for near, there, address in (("rva", made.left, 1), ("rvb", made.right, 2)):
            name = Path(there.path).name
            sh(
                f"ip link add {near} type veth peer name eth netns {name}",
                f"ip link set {near} up",
                f"ip -n {name} addr add 10.0.0.{address}/24 dev eth",
                f"ip -n {name} link set eth up",
            )
        for near, other in (("rva", "rvb"), ("rvb", "rva")):
            sh(f"ip link set dev {near} xdpdrv obj {program(socket.if_nametoindex(other))} sec xdp")
        yield made
    finally:
        for near in ("rva", "rvb"):
            subprocess.run(["ip", "link", "del", near], capture_output=True, check=False)


def prepared(name: str) -> Preparation:
    done = readiness.prepare(netdev(name))
    assert isinstance(done, Preparation), done
    return done


def test_frames_vanish_without_gro_at_the_other_end(hosts: Hosts) -> None:
    assert not hosts.ping()
    for there in (hosts.left, hosts.right):
        netns.run_in(there, lambda: ethtool.set("eth", gro=True))
    assert hosts.ping()


def test_tcp_needs_finished_checksums(hosts: Hosts) -> None:
    for there in (hosts.left, hosts.right):
        netns.run_in(there, lambda: ethtool.set("eth", gro=True))
    assert not hosts.tcp(wait=1)


def test_after_preparation_tcp_works_and_all_can_be_put_back(hosts: Hosts) -> None:
    before = hosts.offloads()
    done = [prepared("rva"), prepared("rvb")]
    assert hosts.tcp() and hosts.ping()
    assert all(not o.tx_checksum and not o.tso and not o.txvlan and o.gro for o in hosts.offloads())
    for preparation in done:
        read = Preparation.from_json(json.loads(json.dumps(preparation.to_json())))
        assert read == preparation
        assert {setting.feature for setting in readiness.restore(read)} == set(readiness.NEEDED)
        assert readiness.restore(read) == []
    assert hosts.offloads() == before
    sh("ip link set dev rva xdpdrv off", "ip link set dev rvb xdpdrv off")
    assert all(offloads.tso for offloads in hosts.offloads())


def test_a_plan_changes_nothing_and_a_second_one_has_nothing_to_do(hosts: Hosts) -> None:
    before = hosts.offloads()
    planned = readiness.plan(netdev("rva"))
    assert isinstance(planned, Preparation) and hosts.offloads() == before
    assert {(setting.feature, setting.old, setting.new) for setting in planned.settings} == {
        (feature, not value, value) for feature, value in readiness.NEEDED.items()
    }
    assert planned.peer is not None and (planned.peer.netns, planned.peer.ifname) == (hosts.left.inode, "eth")
    assert readiness.apply(planned) == planned
    again = readiness.plan(netdev("rva"))
    assert isinstance(again, Preparation) and again.settings == ()


def test_what_somebody_changed_since_is_not_put_back(hosts: Hosts) -> None:
    done = prepared("rva")
    netns.run_in(hosts.left, lambda: ethtool.set("eth", gro=False))
    assert ethtool.GRO not in {setting.feature for setting in readiness.restore(done)}


def test_an_end_prepared_while_down_is_prepared_again_when_it_is_up(hosts: Hosts) -> None:
    done = []
    for there, name in ((hosts.left, "rva"), (hosts.right, "rvb")):
        sh(f"ip -n {Path(there.path).name} link set eth down")
        done.append(prepared(name))
        assert done[-1].notes == (f"the other end of {name}, eth, is down: set it up",)
        assert not readiness.is_ready(done[-1])
        sh(f"ip -n {Path(there.path).name} link set eth up")
        assert not readiness.is_ready(done[-1])
    assert not hosts.ping()
    for preparation in done:
        assert readiness.apply(preparation) == preparation
        assert readiness.is_ready(preparation)
    assert hosts.ping()


def test_a_prepared_end_may_go_down_and_up(hosts: Hosts) -> None:
    done = [prepared("rva"), prepared("rvb")]
    for there in (hosts.left, hosts.right):
        sh(f"ip -n {Path(there.path).name} link set eth down", f"ip -n {Path(there.path).name} link set eth up")
    assert all(readiness.is_ready(preparation) for preparation in done)
    assert hosts.ping()


def test_napi_and_the_redirect_mark_follow_gro(veth: tuple[str, str]) -> None:
    here, there = socket.if_nametoindex("tva"), socket.if_nametoindex("tvb")
    if genl.napi_count(there) is None or genl.is_redirect_target(here) is None:
        pytest.skip("the kernel does not tell about NAPI or redirect targets")

    def state() -> tuple[int | None, bool | None]:
        return genl.napi_count(there), genl.is_redirect_target(here)

    assert state() == (0, False)
    ethtool.set("tvb", gro=True)
    assert state() == (1, True)
    sh("ip link set tvb down")
    assert state() == (0, True)
    sh("ip link set tvb up")
    assert state() == (1, True)
    ethtool.set("tvb", gro=False)
    assert state() == (0, False)
    sh("ip link set tvb down")
    ethtool.set("tvb", gro=True)
    sh("ip link set tvb up")
    assert state() == (1, False)


def test_an_end_that_moved_is_followed(hosts: Hosts, namespace: Make) -> None:
    done = prepared("rva")
    third = namespace()
    sh(f"ip -n {Path(hosts.left.path).name} link set eth netns {Path(third.path).name}")
    assert len(readiness.restore(done)) == len(readiness.NEEDED)
    assert netns.run_in(third, lambda: ethtool.get("eth")).tx_checksum


def test_restoring_what_is_gone_does_nothing(hosts: Hosts) -> None:
    done = prepared("rva")
    sh("ip link del rva")
    assert readiness.restore(done) == []
    assert isinstance(readiness.apply(done), NotReady)


def test_both_ends_in_one_namespace_are_prepared_too(veth: tuple[str, str]) -> None:
    done = prepared("tva")
    assert done.peer is not None and done.peer.ifname == "tvb"
    assert ethtool.get("tvb").gro and not ethtool.get("tvb").tx_checksum
    assert ethtool.get("tva").tx_checksum


def test_an_unreachable_other_end_is_said_to_be_one(veth: tuple[str, str]) -> None:
    with netns.create("tlost") as lost:
        sh("ip link set tvb netns tlost")
        netns.delete("tlost")
        with netns.run_in(lost, socket.socket):
            lost.close()
            refused = readiness.prepare(netdev("tva"))
            assert isinstance(refused, NotReady)
            assert str(refused).startswith("the other end of tva is in a network namespace that has neither a name")
            assert "give it a name" in refused.reason


def test_other_netdevs_need_nothing_but_large_frames_are_remarked() -> None:
    assert readiness.prepare(netdev("lo")) == Preparation("lo", 1)
    nic = Netdev(7, "eth7", mtu=9000)
    done = readiness.prepare(nic)
    assert isinstance(done, Preparation) and done.settings == ()
    assert done.notes and done.notes[0].startswith("eth7 has an MTU of 9000: its driver needs multi-buffer XDP")
