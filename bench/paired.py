# SPDX-License-Identifier: Apache-2.0
"""The same function as a cube and written by hand, by BPF_PROG_TEST_RUN in turns: what the framework costs, without the way of the packet.

The figure is the median of the ratios of neighbouring runs; its interval is bootstrapped (95 %).
"""

from __future__ import annotations

import os
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import router
import simplebridge

from polycube.bpf import Link, Program, XdpMode, xdp_md
from polycube.compiler.function import Hook
from polycube.testing.stage import veth


@dataclass(frozen=True)
class Paired:
    """ns a packet by hand and as a cube, and how fast the cube is in comparison (1: as fast)."""

    name: str
    by_hand: float
    cube: float
    ratio: float
    low: float
    high: float
    runs: int


def ratio_of(name: str, by_hand: Sequence[float], cube: Sequence[float]) -> Paired:
    """Compares runs that were made in pairs."""
    ratios = [hand / own for hand, own in zip(by_hand, cube, strict=True)]
    chance = random.Random(1)
    again = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(2000))
    middle = statistics.median
    return Paired(name, middle(by_hand), middle(cube), middle(ratios), again[50], again[1949], len(ratios))


def turns(name: str, runs: int, by_hand: Callable[[], int], cube: Callable[[], int]) -> Paired:
    """Runs both in turns, the order of a pair by chance."""
    chance = random.Random(2)
    times: tuple[list[float], list[float]] = ([], [])
    sides = [(times[0], by_hand), (times[1], cube)]
    for _ in range(runs):
        chance.shuffle(sides)
        for into, run in sides:
            into.append(run())
    return ratio_of(name, *times)


def timed(program: Program, frame: bytes, context: bytes, repeat: int, verdict: int) -> Callable[[], int]:
    """One test run of it."""

    def run() -> int:
        result = program.test_run(frame, context=context, repeat=repeat)
        assert result.retval == verdict, result.retval
        return result.duration_ns

    return run


def kept(programs: Sequence[Program]) -> list[Link]:
    """Holds programs in the kernel's XDP dispatcher: else each test run puts them in and out, some 20 ms."""
    return [Link.xdp(program, veth(f"keep{number}")[0], XdpMode.SKB) for number, program in enumerate(programs)]


def bridge(runs: int, repeat: int) -> list[Paired]:
    entry, context = simplebridge.cube(Hook.XDP)
    ifindex = int.from_bytes(context[12:16], "little")
    hand = simplebridge.handwritten(ifindex, ifindex + 1)
    frame = simplebridge.FRAME
    return [turns("bridge", runs, timed(hand, frame, context, repeat, 4), timed(entry, frame, context, repeat, 4))]


def routers(calls: int, routes: int = 1000) -> list[Paired]:
    """A packet's life ends after 255 hops, and a run goes on with what the last one left: hence many short calls."""
    model, entry, _ = router.cube(Hook.XDP, routes)
    hand = router.handwritten(model, routes)
    links = kept([entry, hand])
    found = []
    for version, frame in router.frames().items():
        context = xdp_md(len(frame), ingress_ifindex=model.stage.near)
        sides = [timed(program, frame, context, router.REPEAT, 4) for program in (hand, entry)]
        found.append(turns(f"router, {version}, {routes} routes", calls, *sides))
    for link in links:
        link.close()
    return found


def measure(runs: int = 30, repeat: int = 1_000_000, calls: int = 400) -> list[Paired]:
    """All functions that have been written by hand, too. To be called in an isolated process."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        return [*bridge(runs, repeat), *routers(calls)]
    finally:
        os.sched_setaffinity(0, before)
