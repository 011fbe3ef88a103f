# SPDX-License-Identifier: Apache-2.0
"""The way into a cube's namespace: frames that are handed over, and copies of all frames (unit_shadow.h)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polycube.compiler.function import Function
from polycube.core.slowpath import INJECT, META_OUT, META_SEEN
from polycube.testing.harness import Chain, Hook
from polycube.testing.result import Result

FOLDER = Path(__file__).parent / "shadower"


def frame(op: str, size: int = 60) -> bytes:
    return (bytes.fromhex("02000000000202000000000188b5") + op.encode()).ljust(size, b"\0")


@pytest.fixture
def spanning(cube: Any) -> Any:
    made = cube(Function("shadower", FOLDER, span=True), ports=3)
    made.shadow()
    return made


def copies(result: Result, count: int) -> list[tuple[int, bytes]]:
    """What was copied, by port, in the order of its coming."""
    result.wait(lambda: len(result.spanned) >= count)
    return [(one.port, one.packet) for one in result.spanned]


@pytest.mark.parametrize("size", [60, 1514])
def test_a_frame_is_handed_over_as_received_by_its_port(cube: Any, size: int) -> None:
    shadower = cube(FOLDER, ports=3)
    shadower.shadow()
    for port in range(3):
        shadower.send(frame("n", size), port=port).shadowed(port, frame("n", size))
    assert shadower.send(frame("h")).shadowed().spanned == []


def test_fused_units_hand_over_too(isolated: None, hook: Hook) -> None:
    with Chain(hook, fused=True) as chain:
        shadower = chain.cube(FOLDER)
        shadower.shadow()
        shadower.send(frame("h"), port=1).shadowed(1, frame("h"))


def test_without_a_namespace_nothing_is_handed_over(cube: Any) -> None:
    shadower = cube(FOLDER)
    shadower.send(frame("n")).dropped("no_port")
    shadower.send(frame("h")).passed()


@pytest.mark.parametrize("size", [60, 300, 1514, 3000])
def test_a_frame_is_copied_as_it_came_and_as_it_leaves(spanning: Any, size: int) -> None:
    came, left = frame("f", size), frame("F", size)
    result = spanning.send(came, port=2).forwarded(1, left)
    assert copies(result, 2) == [(2, came), (1, left)]


def test_dropped_frames_and_those_handed_over_are_copied_too(spanning: Any) -> None:
    assert copies(spanning.send(frame("x")).dropped("policy"), 1) == [(0, frame("x"))]
    assert copies(spanning.send(frame("n")).shadowed(0), 1) == [(0, frame("n"))]


def test_of_flooded_frames_each_port_gets_its_copy(spanning: Any) -> None:
    spanning.netdev(1)  # the other ones lead to a cube
    result = spanning.send(frame("a")).flooded([1, 2])
    assert copies(result, 3)[0] == (0, frame("a"))
    assert sorted(copies(result, 3)[1:]) == [(1, frame("a")), (2, frame("a"))]


def test_what_the_namespace_has_sent_is_not_copied_for_it(spanning: Any, hook: Hook) -> None:
    assert copies(spanning.inject(frame("-"), 1).forwarded(1), 1) == [(1, frame("-"))]
    spanning.stage.maps["pcn_leads"].set(
        spanning.stage.near.to_bytes(4, "little"), INJECT.pack(1, META_OUT | META_SEEN, 0, spanning.number * 2, 0)
    )
    stage = spanning.stage
    if hook == Hook.TC:
        result = spanning.chain._run(spanning, 1, frame("-"), lambda: stage.run(stage.shadow_out, frame("-")))
    else:
        result = spanning.chain._run(spanning, 1, frame("-"), lambda: stage.run(stage.lead, frame("-")))
    assert result.forwarded(1, frame("-")).spanned == []


def test_a_lost_copy_is_counted_and_the_frame_goes_on(spanning: Any, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    if hook == Hook.TC:
        spanning.cfg(pcn_shadow_base=0x7F000000)  # no netdev has an index like that
    else:
        monkeypatch.setattr(spanning, "take_copies", list)  # nobody reads the ring buffer
        for _ in range(spanning.kernel_map("pcn_copies").info.max_entries // 16384):
            spanning.send(frame("x", 3000))
    before = spanning.drops().get("span", 0)
    result = spanning.send(frame("f", 3000))
    assert [one.port for one in result.exits] == [1] and result.spanned == []
    assert spanning.drops()["span"] == before + 2
