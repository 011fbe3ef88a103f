# SPDX-License-Identifier: Apache-2.0
"""Counted traffic: nothing is seen on a sound path, and all of it on a bad one."""

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from polycube.bpf import AttachType, Link, Object, features, tcfilter, u32
from polycube.compiler.function import Helper, Hook
from polycube.testing.hosts import Host, Lab, eventually
from polycube.testing.stage import emit
from polycube.testing.traffic import Headers, Place, Report, Traffic

pytestmark = pytest.mark.e2e
MANGLER = Path(__file__).parent / "mangler"


@pytest.fixture
def pair(isolated: None) -> Iterator[tuple[Host, Host]]:
    """Two hosts; nothing joins them yet."""
    with Lab() as lab:
        one, two = lab.some(2)
        yield one, two


class Road:
    """Leads from one host to the other."""

    def __init__(self, source: Host, sink: Host, *, drop: int = 0, twice: int = 0, swap: int = 0) -> None:
        self._object = Object.open(emit(Helper("mangler", MANGLER, Hook.TC)), "mangler")
        self._object.load()
        target = socket.if_nametoindex(sink.netdev)
        with self._object.map("manglings") as how:
            how.set(u32(0), struct.pack("<4I", target, drop, twice, swap))
        ifindex = socket.if_nametoindex(source.netdev)
        with self._object.program("mangle") as program:
            if features().tcx:
                self._link: Link | None = Link.tcx(program, ifindex, AttachType.TCX_INGRESS)
            else:
                self._link = None
                tcfilter.attach(program, ifindex, AttachType.TCX_INGRESS)

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        if self._link:
            self._link.close()
        self._object.close()


def run(one: Host, two: Host, count: int = 5000, *, headers: Headers | None = None, **options: object) -> Report:
    with Traffic(one, two, headers, **options) as traffic:  # type: ignore[arg-type]
        traffic.start(50_000, count=count)
        return traffic.wait()


@pytest.mark.parametrize("flows", [1, 100])
def test_a_sound_path_loses_nothing(pair, flows):
    with Road(*pair):
        report = run(*pair, flows=flows)
    assert report == Report(sent=5000, received=5000, duplicated=0, reordered=0)
    assert report.clean


def test_loss_is_counted_and_located(pair):
    with Road(*pair, drop=100):
        report = run(*pair)
    assert (report.lost, report.duplicated, report.reordered) == (50, 0, 0)
    assert [(gap.first, gap.count) for gap in report.gaps[:3]] == [(0, 1), (100, 1), (200, 1)]
    assert "50 lost" in str(report) and not report.clean


def test_duplication_is_counted(pair):
    with Road(*pair, twice=100):
        report = run(*pair)
    assert (report.lost, report.duplicated, report.reordered) == (0, 50, 0)


def test_reordering_is_counted(pair):
    with Road(*pair, swap=100):
        report = run(*pair)
    assert (report.lost, report.duplicated, report.reordered) == (0, 0, 50)


def test_all_of_it_at_once(pair):
    with Road(*pair, drop=50, twice=10, swap=7):
        report = run(*pair)
    assert report.lost and report.duplicated and report.reordered


def test_nothing_arrives_without_a_path(pair):
    report = run(*pair, count=100)
    assert (report.sent, report.lost, [(gap.first, gap.count) for gap in report.gaps]) == (100, 100, [(0, 100)])


def test_stopping_early(pair):
    with Road(*pair), Traffic(*pair) as traffic:
        traffic.start(10_000)
        eventually(lambda: traffic.received() > 500, "500 frames")
        report = traffic.stop()
    assert report.clean and report.sent > 500


def test_a_second_run_begins_anew(pair):
    with Road(*pair), Traffic(*pair) as traffic:
        for count in (1000, 2000):
            traffic.start(count=count)
            assert traffic.wait() == Report(count, count, 0, 0)


@pytest.mark.parametrize(
    ("headers", "ipv6"),
    [
        (Headers(), False),
        (Headers(size=1500), False),
        (Headers(vlan=7, size=100), False),
        (Headers(size=90), True),
        (Headers(vlan=1, size=1400), True),
    ],
)
def test_frames_are_sound(pair, headers, ipv6):
    """What leaves the host is what was asked for, checksums included."""
    one, two = pair
    near = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    with near, Traffic(one, two, headers, ipv6=ipv6, flows=3) as traffic:
        near.bind((one.netdev, 0))
        near.settimeout(20)
        traffic.start(count=7)
        traffic.wait()
        frames = []
        while len(frames) < 7:
            frame = near.recv(2000)
            if frame[:6] == bytes.fromhex(two.mac.replace(":", "")):
                frames.append(frame)
    untagged = headers.size - (4 if headers.vlan is not None else 0)
    for number, frame in enumerate(frames):
        packet = Ether(frame)
        assert packet.src == one.mac
        assert len(frame) in (headers.size, untagged)  # a tag may stand beside the bytes
        assert packet[UDP].sport == 20000 + number % 3
        assert packet[UDP].dport == 9
        sums = [(layer.name, layer.chksum) for layer in packet.iterpayloads() if "chksum" in layer.fields]
        for layer in packet.iterpayloads():
            layer.fields.pop("chksum", None)
        again = Ether(bytes(packet))
        assert sums == [(layer.name, layer.chksum) for layer in again.iterpayloads() if "chksum" in layer.fields]


def test_frames_redirected_by_xdp(pair):
    """Straight from one end of a veth to the other."""
    one, _ = pair
    here = Place("/proc/thread-self/ns/net", one.netdev)
    with Traffic(one, here, Headers(source="10.0.0.1", destination="10.0.0.9"), hook=Hook.XDP) as traffic:
        traffic.start(count=5000)
        assert traffic.wait() == Report(5000, 5000, 0, 0)


def test_counting_only(pair):
    with Road(*pair):
        report = run(*pair, count_only=True)
    assert (report.sent, report.received) == (5000, 5000)


def test_frames_too_short_for_a_number(pair):
    with pytest.raises(ValueError, match="no room"):
        run(*pair, headers=Headers(size=64), ipv6=True)
