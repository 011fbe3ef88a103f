# SPDX-License-Identifier: Apache-2.0
"""The clock around the handlers of a cube (timed.bpf.c): in units of one and fused ones, before tail calls, redirects, floods and drops."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from polycube.bpf import Object
from polycube.compiler.function import PACKAGE, Function, UnitSpec
from polycube.core.handlertime import TIMES, HandlerTime
from polycube.testing.harness import Chain, Hook
from polycube.testing.stage import emit

KTIME = 5  # bpf_ktime_get_ns
CUBES = PACKAGE / "cubes"
HELLO = Function("helloworld", CUBES / "helloworld", timed=True)
BRIDGE = Function("simplebridge", CUBES / "simplebridge", timed=True)
FILTER = Function("transparenthelloworld", CUBES / "transparenthelloworld", transparent=True, timed=True)
FRAME = bytes.fromhex("02000000000202000000000188b5").ljust(60, b"\0")


@pytest.fixture(params=[False, True], ids=["one", "fused"])
def chain(isolated: None, hook: Hook, request: pytest.FixtureRequest) -> Iterator[Chain]:
    with Chain(hook, fused=request.param) as made:
        yield made


def counted(time: HandlerTime, packets: int) -> bool:
    return time.packets == packets and (time.nanoseconds > 0) is (packets > 0)


def test_each_cube_of_a_chain_counts_its_own_handlers(chain: Chain) -> None:
    first, plain, last = chain.cube(HELLO), chain.cube("helloworld"), chain.cube(HELLO)
    for cube in (first, plain, last):
        cube.cfg(action="FORWARD")
    chain.link(first, 1, plain, 0)
    chain.link(plain, 1, last, 0)
    for number in range(1, 4):
        chain.send(FRAME, first)
        assert all(counted(cube.time(handler), number) for cube in (first, last) for handler in ("ingress", "egress"))
    assert plain.time() == plain.time("egress") == HandlerTime()


def test_frames_that_are_dropped_handed_up_or_redirected_count(chain: Chain) -> None:
    cube = chain.cube(HELLO)
    cube.netdev(1)
    for number, action in enumerate(("DROP", "SLOWPATH", "FORWARD"), 1):
        cube.cfg(action=action)
        cube.send(FRAME)
        assert counted(cube.time(), number)
    assert counted(cube.time("egress"), 1)


def test_a_flooded_frame_counts_once_and_a_handler_that_is_not_there_never(chain: Chain) -> None:
    cube = chain.cube(BRIDGE, ports=4)
    cube.send(FRAME).flooded(ports=[1, 2, 3])
    assert counted(cube.time(), 1) and counted(cube.time("egress"), 0)


def test_a_transparent_cube_counts_its_directions(chain: Chain) -> None:
    cube, filter = chain.cube("helloworld"), chain.cube(FILTER)
    cube.cfg(action="FORWARD")
    chain.stack(filter, cube, 0)
    chain.send(FRAME, cube, 0)
    assert counted(filter.time(), 1) and counted(filter.time("egress"), 0)
    chain.send(FRAME, cube, 1)
    assert counted(filter.time(), 1) and counted(filter.time("egress"), 1)


def test_the_clock_is_not_there_unless_asked_for(hook: Hook) -> None:
    for timed in (False, True):
        function = Function(HELLO.name, HELLO.folder, timed=timed)
        with Object.open(emit(UnitSpec(function, hook)), "hello") as object:
            assert object.calls({KTIME}) is timed and (TIMES in object.maps) is timed
