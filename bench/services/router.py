# SPDX-License-Identifier: Apache-2.0
"""The router beside the kernel's, with few and with many routes.

Routes are /24 by one next hop. Frames go to one of them, or to 10,000 in turn, so that neither a cache of the processor nor one of the
function hides what a look-up costs. How it compares with a hand-written program is bench/router.py's business.
"""

from __future__ import annotations

import ipaddress
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rates
from figures import Found, Row, compared
from rates import Subject

from polycube.core.worker import processor_time
from polycube.testing.daemon import Daemon
from polycube.testing.hosts import eventually

FIRST = int(ipaddress.IPv4Address("20.0.0.0"))
SPREAD = 10_000  # destinations
COUNTS = (1, 10_000, 100_000)
NEXT_HOP = "10.2.0.2"
HOPS = {4: "10.9.0.2", 6: "fd09::2"}  # of the router that is only loaded
AIMS = {"XDP": 3.0, "TC": 1.4}


def networks(first: int, last: int) -> list[str]:
    return [f"{ipaddress.IPv4Address(FIRST + (number << 8))}/24" for number in range(first, last)]


def add_linux(subject: Subject, wanted: list[str]) -> None:
    batch = "".join(f"route add {network} via {NEXT_HOP}\n" for network in wanted)
    subprocess.run(["ip", "-n", f"{subject.tag}r", "-batch", "-"], input=batch, text=True, check=True)


def add_cube(daemon: Daemon, name: str, wanted: list[str], next_hop: str = NEXT_HOP) -> None:
    body = [{"network": network, "nexthop": next_hop} for network in wanted]
    for at in range(0, len(body), 50_000):  # a request has up to 16 MB
        daemon.patch(f"router/{name}", {"route": body[at : at + 50_000]})


def loads(daemon: Daemon) -> dict[int, tuple[float, float]]:
    """Seconds, and seconds of the daemon's and its workers' processors, to load the most routes into an empty router, by IP version."""
    daemon.post(
        "router/rm", {"ports": [{"name": "p", "ip": "10.9.0.1/24", "secondaryip": [{"ip": "fd09::1/64"}]}], "route-table-size": COUNTS[-1]}
    )
    wanted = {4: networks(0, COUNTS[-1]), 6: [f"2400:{number >> 16:x}:{number & 0xFFFF:x}::/48" for number in range(COUNTS[-1])]}
    found = {}
    for version, hop in HOPS.items():
        before, began = processors(daemon), time.perf_counter()
        add_cube(daemon, "rm", wanted[version], hop)
        found[version] = time.perf_counter() - began, processors(daemon) - before
    daemon.delete("rm")
    return found


def processors(daemon: Daemon) -> float:
    return sum(processor_time(pid) for pid in (daemon.pid, *daemon.descendants()))


def made(daemon: Daemon) -> list[Subject]:
    linux, tc, xdp = Subject("Linux", "rl", True, False), Subject("TC", "rt", True, False), Subject("XDP", "rx", True, True)
    for subject in (linux, tc, xdp):
        subject.make()
    rates.linux_router(linux)
    for subject in (tc, xdp):
        ports = [{"name": f"p{number}", "peer": f"{subject.tag}{number}", "ip": f"10.{number + 1}.0.1/24"} for number in (0, 1)]
        daemon.post(f"router/{subject.tag}", {"type": "XDP_DRV" if subject.xdp else "TC", "ports": ports, "route-table-size": COUNTS[-1]})
    for subject in (linux, tc, xdp):
        eventually(subject.reaches, f"{subject.name} to let frames pass", 15)
    rates.settle(daemon)
    return [linux, tc, xdp]


def measure(folder: Path, quick: bool) -> Found:
    """Rates with 1, 10,000 and 100,000 routes, and how long these take to load."""
    rounds, rows, raw = 3 if quick else 7, [], dict[str, Any]()
    with Daemon(folder) as daemon:
        subjects = made(daemon)
        kept: dict[tuple[int, str], list[float]] = {}
        for before, count in zip((0, *COUNTS), COUNTS, strict=False):
            wanted = networks(before, count)
            add_linux(subjects[0], wanted)
            for subject in subjects[1:]:
                began = time.perf_counter()
                add_cube(daemon, subject.tag, wanted)
                raw[f"seconds to load {len(wanted)} routes, {subject.name}"] = time.perf_counter() - began
            for spread in (1, SPREAD):
                for size in (64, 1500) if (count, spread) == (COUNTS[-1], SPREAD) else (64,):
                    for subject in subjects:
                        subject.packets = []
                    rates.packet_rates(subjects, rounds, destination="20.0.0.9", networks=min(spread, count), size=size)
                    if spread == 1 or count > 1:
                        rows += lines(subjects, count, spread, size)
                    raw[f"{count} routes, {spread} destinations, {size} B"] = [asdict(subject) for subject in subjects]
                    if size == 64:
                        kept.update({(count * spread, subject.name): subject.packets for subject in subjects})
        for subject in subjects:
            many, one = kept[COUNTS[-1] * SPREAD, subject.name], kept[1, subject.name]
            aim = None if subject.name == "Linux" else round(1 / 1.3, 2)
            rows.append(compared(f"router, {subject.name}: 100,000 routes and 10,000 destinations to one of each", many, one, aim))
        rates.tcp_rates(subjects[:2], 3 * rounds)
        rows.append(compared("router, TC, 100,000 routes, TCP: cube to Linux", subjects[1].tcp, subjects[0].tcp, 1.0))
        raw["TCP, Gbit/s"] = {subject.name: subject.tcp for subject in subjects[:2]}
        seconds = max(value for name, value in raw.items() if name.startswith("seconds to load 9"))
        rows.append(Row("router: 90,000 routes more, by REST", seconds, unit="s"))
        raw["loads"] = loads(daemon)
        for version, (wall, spent) in raw["loads"].items():
            rows.append(
                Row(f"router: 100,000 routes of IPv{version} into an empty router, by REST", wall, f"{spent:.1f} s of processor time", "s")
            )
    return rows, {"router": raw}


def lines(subjects: list[Subject], count: int, spread: int, size: int) -> list[Row]:
    linux, *cubes = subjects
    what = f"{size} B, {count:,} routes, {spread:,} destination{'s' if spread > 1 else ''}"
    return [compared(f"router, {one.name}, {what}: cube to Linux", one.packets, linux.packets, AIMS[one.name]) for one in cubes]
