# SPDX-License-Identifier: Apache-2.0
"""Captures of real traffic, read by tcpdump and tshark: files, a live stream, deaths, and changes on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Dot1Q, Ether
from scenes import bridge

from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host, Lab, eventually
from polycube.testing.traffic import Headers, Traffic

CAP = "packetcapture/cap1"
Scene = tuple[Daemon, Host, Host, Path]


@pytest.fixture(params=["TC", "XDP_DRV"])
def scene(daemon: Daemon, lab: Lab, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Two hosts on a bridge, a capture of ICMP on the first one's port."""
    one, two = lab.some(2)
    bridge(daemon, "br1", [one, two], request.param)
    daemon.post(CAP, {"type": request.param, "dump": str(tmp_path / "trace"), "filter": "icmp", "capture": "BIDIRECTIONAL"})
    daemon.post("attach", {"cube": "cap1", "port": "br1:p1"})
    yield daemon, one, two, tmp_path
    if not daemon.running:
        daemon.start()
    daemon.delete("simplebridge/br1")
    daemon.delete(CAP)


def written(daemon: Daemon, number: int) -> None:
    """Waits until so many packets have been written."""
    assert eventually(lambda: daemon.get(f"{CAP}/statistics").get("written", 0) >= number), daemon.get(CAP)


def tcpdump(*files: Path) -> list[str]:
    """The packets of files, a line each."""
    found: list[str] = []
    for path in files:
        done = subprocess.run(["tcpdump", "--nano", "-enr", path], capture_output=True, text=True, check=True)
        found += done.stdout.splitlines()
    return found


def tshark(path: Path, *fields: str) -> list[list[str]]:
    """Fields of the packets of a file."""
    command = ["tshark", "-r", str(path), "-T", "fields", *(word for field in fields for word in ("-e", field))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


def traces(folder: Path) -> list[Path]:
    return sorted(folder.glob("trace-*.pcapng"))


def test_a_file_is_what_tcpdump_and_tshark_read(scene: Scene) -> None:
    daemon, one, two, folder = scene
    assert one.ping(two, count=3).received == 3
    written(daemon, 6)
    daemon.patch(f"{CAP}/capture", "OFF")
    (path,) = traces(folder)
    lines = tcpdump(path)
    assert len(lines) == 6
    assert [("echo request" in line, "echo reply" in line) for line in lines] == [(True, False), (False, True)] * 3
    fields = tshark(path, "frame.interface_name", "frame.packet_flags_direction", "frame.len", "icmp.type", "frame.time_epoch")
    assert [row[:4] for row in fields] == [["br1:p1", "0x00000001", "98", "8"], ["br1:p1", "0x00000002", "98", "0"]] * 3
    times = [row[4] for row in fields]
    assert times == sorted(times)
    assert all(len(time.partition(".")[2]) == 9 for time in times)
    statistics = daemon.get(f"{CAP}/statistics")
    assert (statistics["taken"], statistics["lost"]) == (6, 0)


@pytest.mark.parametrize("scene", ["TC"], indirect=True)
def test_a_live_stream_goes_into_tcpdump_and_tshark(scene: Scene) -> None:
    daemon, one, two, _ = scene
    readers = {
        "tcpdump": ["tcpdump", "-l", "-nr", "-", "-c", "4"],
        "tshark": ["tshark", "-l", "-i", "-", "-c", "4"],  # as wireshark -k -i - does
    }
    running = []
    for command in readers.values():
        ctl = subprocess.Popen(
            [sys.executable, "-m", "polycube.cli.main", "cap1", "show", "stream"],
            stdout=subprocess.PIPE,
            env={**os.environ, "POLYCUBECTL_URL": f"unix://{daemon.socket}"},
        )
        running.append((ctl, subprocess.Popen(command, stdin=ctl.stdout, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)))
        assert ctl.stdout
        ctl.stdout.close()
    assert eventually(lambda: daemon.get(f"{CAP}/statistics").get("streams") == 2)
    assert one.ping(two, count=2).received == 2
    try:
        for ctl, reader in running:
            out, _ = reader.communicate(timeout=30)
            assert out.count(one.ipv4 or "") == 4, out
            assert "request" in out
            assert "reply" in out
            ctl.send_signal(signal.SIGINT)
            ctl.wait(30)
    finally:
        for ctl, reader in running:
            for process in (ctl, reader):
                process.kill()
                process.wait()
                process.stdout.close()
    assert eventually(lambda: daemon.get(f"{CAP}/statistics").get("streams") == 0)


@pytest.mark.parametrize("scene", ["TC"], indirect=True)
def test_a_stream_of_nothing_is_refused_and_an_open_one_ends_with_the_daemon(scene: Scene) -> None:
    daemon, _, _, _ = scene
    reader = subprocess.Popen(
        ["curl", "-sN", "--unix-socket", daemon.socket, f"http://localhost/polycube/v1/{CAP}/stream/"], stdout=subprocess.PIPE
    )
    assert eventually(lambda: daemon.get(f"{CAP}/statistics").get("streams") == 1)
    daemon.stop()
    out, _ = reader.communicate(timeout=30)
    assert out[:4] == b"\x0a\x0d\x0d\x0a"
    daemon.start()
    daemon.patch(f"{CAP}/capture", "OFF")
    answer = daemon.rest("GET", f"{CAP}/stream")
    assert answer.status == 409
    assert "cap1 captures nothing" in answer.text


def test_what_passes_while_the_daemon_is_dead_is_in_the_next_file(scene: Scene) -> None:
    daemon, one, two, folder = scene
    assert one.ping(two, count=2).received == 2
    written(daemon, 4)
    daemon.kill()
    assert one.ping(two, count=3).received == 3
    daemon.start()
    written(daemon, 6)
    first, second = traces(folder)
    assert (len(tcpdump(first)), len(tcpdump(second))) == (4, 6)
    assert daemon.get(f"{CAP}/statistics")["lost"] == 0
    assert daemon.get(f"{CAP}/file") == str(second)


@pytest.mark.parametrize("scene", ["TC"], indirect=True)
def test_a_bad_filter_is_answered_and_a_good_one_begins_a_file(scene: Scene) -> None:
    daemon, one, two, folder = scene
    answer = daemon.rest("PATCH", f"{CAP}/filter", "tcp porrt 80")
    assert answer.status == 400
    (error,) = answer.data["ietf-restconf:errors"]["error"]
    assert error["error-path"] == "/cap1/filter"
    assert "syntax error" in error["error-message"]
    assert one.ping(two, count=1).received == 1
    written(daemon, 2)
    daemon.patch(f"{CAP}/filter", "icmp[icmptype] = icmp-echoreply")
    assert one.ping(two, count=2).received == 2
    written(daemon, 4)
    assert [len(tcpdump(path)) for path in traces(folder)] == [2, 2]


def test_a_filter_on_tags_sees_those_in_the_metadata_too(scene: Scene) -> None:
    daemon, one, two, folder = scene
    daemon.patch(f"{CAP}/filter", "vlan 7 and icmp")
    frame = Ether(src=str(one.mac), dst=str(two.mac)) / Dot1Q(vlan=7) / IP(src=one.ipv4, dst=two.ipv4) / ICMP()
    assert one.ping(two, count=1).received == 1
    one.send(bytes(frame))
    written(daemon, 1)
    (line,) = tcpdump(*traces(folder))
    assert "vlan 7" in line


@pytest.mark.parametrize("scene", ["TC"], indirect=True)
def test_packets_are_read_one_by_one_in_network_mode(scene: Scene) -> None:
    daemon, one, two, folder = scene
    daemon.patch(f"{CAP}/networkmode", True)
    assert one.ping(two, count=1).received == 1
    assert eventually(lambda: daemon.get(f"{CAP}/statistics")["queued"] == 2)
    request, reply, none = (daemon.get(f"{CAP}/packet") for _ in range(3))
    assert (request["packetlen"], request["capturelen"], none["capturelen"], none["rawdata"]) == (98, 98, 0, "")
    assert request["rawdata"].encode("latin-1")[34] == 8
    assert reply["rawdata"].encode("latin-1")[34] == 0
    assert daemon.get(f"{CAP}/globalheader")["linktype"] == 1
    assert traces(folder) == []


def test_a_flood_loses_copies_never_packets(scene: Scene) -> None:
    daemon, one, two, folder = scene
    body = {"type": daemon.get(CAP)["type"], "capture": "INGRESS", "filter": "udp", "buffer": 1, "dump": str(folder / "flood")}
    daemon.post("packetcapture/cap2", body)
    daemon.post("attach", {"cube": "cap2", "port": "br1:p1"})
    try:
        with Traffic(one, two, Headers(size=1400)) as traffic:
            traffic.start(200_000, count=40_000)
            assert daemon.rest("GET", "cubes").status == 200
            report = traffic.wait()
        assert report.clean, report

        def accounted() -> bool:
            found = daemon.get("packetcapture/cap2/statistics")
            return bool(found["taken"] >= 40_000 and found["taken"] == found["lost"] + found["written"])

        assert eventually(accounted, "all packets to be accounted for"), daemon.get("packetcapture/cap2/statistics")
    finally:
        daemon.delete("packetcapture/cap2")
