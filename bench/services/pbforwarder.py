# SPDX-License-Identifier: Apache-2.0
"""The policy-based forwarder with 10, 1,000 and 10,000 rules, of which the last one matches, beside the Linux bridge, which has none.

The other rules are exact values, prefixes and ranges of addresses and ports. Frames are one flow, which the function remembers, or 10,000,
more than it does, of 64 bytes and, where there are most rules, of 1500.
"""

from __future__ import annotations

from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import rates
from figures import Found, Row, compared
from rates import Subject

from polycube.testing.daemon import Daemon
from polycube.testing.hosts import eventually

COUNTS = (10, 1_000, 10_000)
FLOWS = 10_000


def rules(count: int) -> list[dict[str, Any]]:
    """So many; the last two join the ports, the others match nothing that is sent."""
    made: list[dict[str, Any]] = []
    for number in range(count - 2):
        low, high = number % 250, number // 250
        kinds: tuple[dict[str, Any], ...] = (
            {"src_ip": f"172.16.{high}.{low}"},
            {"dst_ip": f"172.{20 + high % 8}.{low}.0/24", "l4_proto": "TCP"},
            {"dst_port": f"{1000 + number}-{1005 + number}", "src_ip": f"172.28.{low}.0/24"},
        )
        made.append({"id": number, "action": "DROP", **kinds[number % 3]})
    ends = [{"in_port": "p0", "out_port": "p1"}, {"in_port": "p1", "out_port": "p0"}]
    return made + [{"id": count - 2 + at, "action": "FORWARD", **one} for at, one in enumerate(ends)]


def made(daemon: Daemon) -> list[Subject]:
    linux, tc, xdp = Subject("Linux bridge", "bl", False, False), Subject("TC", "bt", False, False), Subject("XDP", "bx", False, True)
    for subject in (linux, tc, xdp):
        subject.make()
    rates.linux_bridge(linux)
    for subject in (tc, xdp):
        ports = [{"name": f"p{number}", "peer": f"{subject.tag}{number}"} for number in (0, 1)]
        daemon.post(f"pbforwarder/{subject.tag}", {"type": "XDP_DRV" if subject.xdp else "TC", "ports": ports, "rules": rules(COUNTS[0])})
    for subject in (linux, tc, xdp):
        eventually(subject.reaches, f"{subject.name} to let frames pass", 15)
    rates.settle(daemon)
    return [linux, tc, xdp]


def measure(folder: Path, quick: bool) -> Found:
    """Rates by number of rules, and what 10,000 cost."""
    rounds, rows, raw = 3 if quick else 7, list[Row](), dict[str, Any]()
    kept: dict[tuple[int, int, str], list[float]] = {}
    with Daemon(folder) as daemon:
        subjects = made(daemon)
        for count in COUNTS:
            for subject in subjects[1:]:
                if count != COUNTS[0]:
                    daemon.do("PUT", f"pbforwarder/{subject.tag}/rules", rules(count))
            for flows, size in product((1, FLOWS), (64, 1500) if count == COUNTS[-1] else (64,)):
                for subject in subjects:
                    subject.packets = []
                rates.packet_rates(subjects, rounds, flows, size=size)
                what = f"{size} B, {count:,} rules, {flows:,} flow{'s' if flows > 1 else ''}"
                rows += [
                    compared(f"pbforwarder, {one.name}, {what}: to the Linux bridge", one.packets, subjects[0].packets)
                    for one in subjects[1:]
                ]
                if size == 64:
                    kept.update({(count, flows, subject.name): subject.packets for subject in subjects})
                raw[what] = [asdict(subject) for subject in subjects]
        rates.tcp_rates(subjects[:2], 3 * rounds)  # a second each, and far apart
        rows.append(compared(f"pbforwarder, TC, TCP, {COUNTS[-1]:,} rules: to the Linux bridge", subjects[1].tcp, subjects[0].tcp, 1.0))
    for name in ("TC", "XDP"):
        for flows in (1, FLOWS):
            many, few = kept[COUNTS[-1], flows, name], kept[COUNTS[0], flows, name]
            rows.append(compared(f"pbforwarder, {name}, {flows:,} flows: 10,000 rules to 10", many, few, 0.8))
    return rows, {"pbforwarder": raw}
