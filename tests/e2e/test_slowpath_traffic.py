# SPDX-License-Identifier: Apache-2.0
"""The slow path both ways, on each hook, with services that are not installed but named by POLYCUBE_SERVICES."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import services
from scenes import BROADCAST, bridge, clear, frame, transparent

from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host, Lab, eventually


@pytest.fixture(scope="module")
def daemon(isolated: None, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("services")
    environment = {"POLYCUBE_SERVICES": services.write(folder), "PYTHONPATH": str(folder)}
    with Daemon(tmp_path_factory.mktemp("daemon"), cache=cache, environment=environment) as running:
        yield running


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> list[Host]:
    return lab.some(3, ipv6=False)


@pytest.fixture(params=["TC", "XDP_SKB", "XDP_DRV"])
def type(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def clean(daemon: Daemon) -> Iterator[None]:
    yield
    clear(daemon)


def probe(daemon: Daemon, hosts: list[Host], type: str, **config: object) -> None:
    ports = [{"name": f"p{number}", "peer": host.netdev} for number, host in enumerate(hosts, 1)]
    daemon.post("probe/pr", {"type": type, "ports": ports, **config})


def test_a_packet_comes_up_with_all_that_is_known_of_it(daemon: Daemon, hosts: list[Host], type: str) -> None:
    probe(daemon, hosts, type)
    for size in (64, 900, 1500):
        since = len(daemon.log())
        hosts[1].send(frame(hosts[1], BROADCAST, b"probe %08d" % size, size=size))
        line = daemon.logged(f"marked={size:08d}", since)
        assert f"port=p2 length={size} reason=7 metadata='[11, 22, 33]' egress=False" in line and "[Probe] [pr]" in line


def test_a_tag_is_in_the_bytes(daemon: Daemon, hosts: list[Host], type: str) -> None:
    probe(daemon, hosts, type, mood="send")
    tagged = frame(hosts[0], BROADCAST, b"probe tagged", vlan=77, size=80)
    with hosts[1].sniff() as sniffer:
        hosts[0].send(tagged)
        assert sniffer.expect(b"probe tagged") == [tagged]


def test_what_is_sent_leaves_by_that_port_only(daemon: Daemon, hosts: list[Host], type: str) -> None:
    probe(daemon, hosts, type, mood="send")
    with hosts[0].sniff() as first, hosts[1].sniff() as second, hosts[2].sniff() as third:
        sent = [frame(hosts[0], BROADCAST, b"probe %08d" % number, size=64 + number * 100) for number in range(10)]
        hosts[0].send(*sent)
        assert sorted(second.expect(b"probe", 10)) == sorted(sent)
        assert sorted(third.expect(b"probe", 10)) == sorted(sent)
        assert first.matching(b"probe") == []
    assert daemon.counter("pr", "p2", "tx_packets") == daemon.counter("pr", "p3", "tx_packets") == 10


def test_what_is_received_again_goes_through_the_program_again(daemon: Daemon, hosts: list[Host], type: str) -> None:
    probe(daemon, hosts, type, mood="receive")
    since = len(daemon.log())
    hosts[0].send(frame(hosts[0], BROADCAST, b"probe one"))
    assert "port=p1" in daemon.logged("marked=again", since)
    assert daemon.counter("pr", "p1", "rx_packets") == 2


def test_what_is_sent_passes_transparent_cubes_and_other_cubes(daemon: Daemon, hosts: list[Host], type: str) -> None:
    bridge(daemon, "br1", hosts[1:], type)
    daemon.post("simplebridge/br1/ports/link")
    daemon.post("probe/pr", {"type": type, "mood": "send", "ports": [{"name": "p1", "peer": hosts[0].netdev}, {"name": "link"}]})
    daemon.post("connect", {"peer1": "pr:link", "peer2": "br1:link"})
    transparent(daemon, "th", type)
    daemon.post("attach", {"cube": "th", "port": "pr:link"})
    with hosts[1].sniff() as second, hosts[2].sniff() as third:
        hosts[0].send(frame(hosts[0], BROADCAST, b"probe through"))
        second.expect(b"probe through")
        third.expect(b"probe through")
        assert len(second.matching(b"probe")) == len(third.matching(b"probe")) == 1
    assert daemon.counter("th", "egress", "rx_packets") == 1


@pytest.mark.parametrize("target", ["br1:p1", "{netdev}"], ids=["port", "netdev"])
@pytest.mark.parametrize("punted", [1, 2], ids=["ingress", "egress"])
def test_a_transparent_cube_takes_up_and_sends_onward(daemon: Daemon, hosts: list[Host], type: str, target: str, punted: int) -> None:
    bridge(daemon, "br1", hosts[:2], type)
    daemon.post("watch/w", {"type": type, "mood": "onward", "punted": punted})
    daemon.post("attach", {"cube": "w", "port": target.format(netdev=hosts[0].netdev)})
    sender, receiver = (hosts[0], hosts[1]) if punted == 1 else (hosts[1], hosts[0])
    since = len(daemon.log())
    with receiver.sniff() as sniffer:
        sent = frame(sender, BROADCAST, b"probe onward", size=200)
        sender.send(sent)
        assert sniffer.expect(b"probe onward") == [sent]
        line = daemon.logged("marked=onward", since)
        assert f"egress={punted == 2}" in line
        assert hosts[0].ping(hosts[1], count=3).received == 3
        assert sniffer.matching(b"probe onward") == [sent]


def test_helloworld_hands_frames_to_its_log(daemon: Daemon, hosts: list[Host], type: str) -> None:
    ports = [{"name": name, "peer": host.netdev} for name, host in zip("ab", hosts, strict=False)]
    daemon.post("helloworld/hw", {"type": type, "action": "SLOWPATH", "ports": ports})
    since = len(daemon.log())
    hosts[1].send(frame(hosts[1], BROADCAST, b"hello", size=123))
    assert "[Helloworld] [hw] [info]" in daemon.logged("length=123 port=b", since)


def test_a_flood_into_one_slow_path_does_not_starve_another(daemon: Daemon, hosts: list[Host], type: str) -> None:
    """Both cubes live in the same worker; the flooded one needs 5 ms a packet, far more than it gets."""
    daemon.post("probe/flooded", {"type": type, "mood": "slow", "ports": [{"name": "p1", "peer": hosts[0].netdev}]})
    daemon.post("probe/other", {"type": type, "mood": "send", "ports": [{"name": f"p{n}", "peer": hosts[n].netdev} for n in (1, 2)]})
    flood = [frame(hosts[0], BROADCAST, b"flood %08d" % number, size=1400) for number in range(4000)]
    with hosts[2].sniff() as sniffer:
        hosts[0].send(*flood)
        for number in range(5):
            hosts[0].send(*flood[:200])
            hosts[1].send(frame(hosts[1], BROADCAST, b"probe %08d" % number))
            sniffer.expect(b"probe %08d" % number)
    eventually(lambda: daemon.drops("flooded").get("slowpath-full", 0) > 0, "drops of what is too much")
    assert daemon.drops("other") == {}
    assert daemon.get("probe/other")["mood"] == "send"
