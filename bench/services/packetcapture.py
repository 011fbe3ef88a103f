# SPDX-License-Identifier: Apache-2.0
"""packetcapture against tcpdump on the same kind of link: a bridge cube in TC, of which one has a capture on its first port, the other one
tcpdump on that port's netdev, and a third one nothing. The generator, the bridge and the sink share a CPU; whoever writes the file has the
other one. Both have a buffer of 8 MiB, and keep whole packets of 64 bytes.
"""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rates
from figures import Found, Row, compared
from rates import Subject

from polycube.compiler.function import Hook
from polycube.net import netns
from polycube.testing.daemon import Daemon
from polycube.testing.hosts import eventually
from polycube.testing.traffic import Headers, Place, Traffic

BUFFER = 8  # MiB
PACED = 100_000  # packets a second
NOTHING = "tcp port 1"  # a filter that takes none of the packets


@dataclass
class Capture:
    """What somebody captured of the packets that passed."""

    taken: int = 0
    written: int = 0


@dataclass
class Side:
    """One way to capture, or none."""

    subject: Subject
    full: list[float] = field(default_factory=list)  # packets a second that arrived, everything captured
    filtered: list[float] = field(default_factory=list)  # the same, nothing captured
    flow: Any = None


def measure(folder: Path, quick: bool) -> Found:
    """Packets a second that arrive, are written, are lost."""
    rounds = 3 if quick else 9
    with Daemon(folder / "daemon", cache=folder / "cache") as daemon, sides(daemon) as (bare, cube, dump):
        with tcpdump(dump.subject, folder, Capture(), NOTHING):
            for _ in range(rounds):
                for side in (bare, cube, dump):
                    side.filtered.append(rate(side))
        daemon.patch("packetcapture/cap/filter", "all")
        all_cube, all_dump, seconds = Capture(), Capture(), [0.0, 0.0]
        with tcpdump(dump.subject, folder, all_dump, "udp"):
            for _ in range(rounds):
                for number, side in enumerate((bare, cube, dump)):
                    side.full.append(rate(side))
                    if number:
                        seconds[number - 1] += rates.ROUND
                    time.sleep(0.3)  # whoever is behind catches up
            time.sleep(0.5)
        counted(daemon, all_cube)
        paced_cube, paced_dump = Capture(), Capture()
        with tcpdump(dump.subject, folder, paced_dump, "udp"):
            for side in (cube, dump):
                side.flow.start(PACED, seconds=1 if quick else 3)
                side.flow.wait()
            time.sleep(0.5)
        counted(daemon, paced_cube)
    paced_cube = Capture(paced_cube.taken - all_cube.taken, paced_cube.written - all_cube.written)
    written = (all_cube.written / seconds[0], all_dump.written / seconds[1])
    rows = [
        compared("capture of nothing (filter), packets that arrive: cube to tcpdump", cube.filtered, dump.filtered, 1.0),
        compared("the same, cube to no capture", cube.filtered, bare.filtered),
        compared("capture of everything at full rate, packets that arrive: cube to tcpdump", cube.full, dump.full, 1.0),
        compared("the same, cube to no capture", cube.full, bare.full),
        Row("the same, packets written a second: cube to tcpdump", written[0] / written[1], aim="≥ 1", met=written[0] >= written[1]),
        Row("the same, packets written a second, cube", written[0] / 1000, unit="k/s"),
        Row("the same, packets written a second, tcpdump", written[1] / 1000, unit="k/s"),
        Row("the same, lost, cube", lost(all_cube), unit="%"),
        Row("the same, lost, tcpdump", lost(all_dump), unit="%"),
        Row(f"lost at {PACED // 1000}k packets a second, cube", lost(paced_cube), unit="%", aim="0", met=lost(paced_cube) == 0),
        Row(f"lost at {PACED // 1000}k packets a second, tcpdump", lost(paced_dump), unit="%"),
    ]
    raw = {side.subject.name: {"full": side.full, "filtered": side.filtered} for side in (bare, cube, dump)}
    return rows, {**raw, "captures": [vars(one) for one in (all_cube, all_dump, paced_cube, paced_dump)]}


def lost(capture: Capture) -> float:
    return 100 * (capture.taken - capture.written) / capture.taken if capture.taken else 0.0


def rate(side: Side) -> float:
    return netns.run_in(f"{side.subject.tag}a", lambda: rates.one_rate(side.flow))


@contextmanager
def sides(daemon: Daemon) -> Iterator[list[Side]]:
    """Three bridges with two hosts each; a capture on one of them, whose filter takes nothing, and tcpdump on another, the same way."""
    made = [Side(Subject(name, tag, False, False)) for name, tag in (("no capture", "n"), ("packetcapture", "c"), ("tcpdump", "d"))]
    with ExitStack() as stack:
        for side in made:
            side.subject.make()
            rates.bridge_cube(side.subject, daemon)
        body = {"capture": "INGRESS", "filter": NOTHING, "dump": str(daemon.folder / "cap"), "buffer": BUFFER, "rotation": {"files": 2}}
        daemon.post("packetcapture/cap", body)
        daemon.post("attach", {"cube": "cap", "port": "c:p0"})
        for side in made:
            eventually(side.subject.reaches, f"{side.subject.name} to let frames pass", 15)
            stack.enter_context(rates.gro(side.subject))
            headers = Headers(
                source=side.subject.addresses[0], destination=side.subject.addresses[1], destination_mac=rates.next_mac(side.subject)
            )
            side.flow = Traffic(
                Place(f"{side.subject.tag}a"), Place(f"{side.subject.tag}b"), headers, hook=Hook.XDP, sink_hook=Hook.TC, count_only=True
            )
            side.flow.prepare(64)
            stack.callback(side.flow.close)
        yield made


@contextmanager
def tcpdump(subject: Subject, folder: Path, found: Capture, expression: str) -> Iterator[None]:
    """tcpdump on the near end of the first host."""
    command = ["tcpdump", "-i", f"{subject.tag}0", "-Q", "in", "-B", str(BUFFER * 1024), "-C", "100", "-W", "2", "-Z", "root", "-w"]
    process = subprocess.Popen([*command, str(folder / "tcpdump.pcap"), expression], stderr=subprocess.PIPE, text=True)
    assert process.stderr
    assert "listening" in "".join(iter(lambda: process.stderr.read(1), "\n"))  # type: ignore[union-attr]
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        numbers = [int(number) for number in re.findall(r"(\d+) packets? (?:captured|received|dropped)", said)]
        found.written, found.taken = numbers[0], numbers[0] + numbers[2]


def counted(daemon: Daemon, found: Capture) -> None:
    statistics = daemon.get("packetcapture/cap/statistics")
    found.taken, found.written = statistics["taken"], statistics["taken"] - statistics["lost"]
