# SPDX-License-Identifier: Apache-2.0
"""The bridge beside the Linux bridge: packets a second by size and number of stations, and TCP throughput.

The cubes have VLANs (access ports), the last one spanning tree, too; the Linux bridge filters none, as this kernel's cannot.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path

import rates
from figures import Found, Row, compared
from rates import Subject

from polycube.net import netns
from polycube.testing.daemon import Daemon
from polycube.testing.hosts import eventually

MANY = 10_000
FIRST = "02:10:00:00:00:00"  # address of the first station


def measure(folder: Path, quick: bool) -> Found:
    """Rounds in turn; each shape of traffic on its own."""
    linux = Subject("Linux bridge", "yl", False, False)
    cubes = [Subject("TC", "yt", False, False), Subject("XDP", "yx", False, True), Subject("XDP, spanning tree", "ys", False, True)]
    made = [linux, *cubes]
    rounds = 2 if quick else 7
    rows: list[Row] = []
    raw: dict[str, object] = {}
    with Daemon(folder) as daemon:
        for subject in made:
            subject.make()
        rates.linux_bridge(linux)
        for subject in cubes:
            ports = [{"name": f"p{n}", "peer": f"{subject.tag}{n}", "access": {"vlanid": 10}, "edge": True} for n in (0, 1)]
            stp = "spanning" in subject.name
            daemon.post(f"bridge/{subject.tag}", {"type": "XDP_DRV" if subject.xdp else "TC", "stp-enabled": stp, "ports": ports})
        for subject in made:
            eventually(subject.reaches, f"{subject.name} to let frames pass", 15)
        rates.settle(daemon)
        for subject in made:
            netns.run_in(f"{subject.tag}b", lambda: introduce(range(MANY)))
        for size in (64, 1500):
            for stations in (1, MANY):
                for subject in made:
                    subject.packets.clear()
                rates.packet_rates(made, rounds, size=size, stations=stations, destination_mac=FIRST)
                what = f"{size} bytes, {stations:,} station{'s' * (stations > 1)}"
                for subject, aim in zip(cubes, (1.4, 4.0, None), strict=True):
                    rows.append(compared(f"bridge, {subject.name}: {what}", subject.packets, linux.packets, aim))
                raw[f"bridge {what}"] = {subject.name: list(subject.packets) for subject in made}
        rates.tcp_rates(made[:2], rounds)
        rows.append(compared("bridge, TC: TCP", cubes[0].tcp, linux.tcp, 1.0))
    return rows, raw | {"bridge TCP, Gbit/s": {subject.name: subject.tcp for subject in made[:2]}}


def introduce(numbers: Iterable[int]) -> None:
    """Stations say where they are; in a thread of their namespace."""
    head = bytes.fromhex(FIRST.replace(":", ""))[:4]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("e0", 0))
        for number in numbers:
            sock.send(b"\xff" * 6 + head + number.to_bytes(2, "big") + b"\x88\xb5" + bytes(46))
