# SPDX-License-Identifier: Apache-2.0
"""Cubes that are sent malformed frames, one by one and many of them, and what has to hold of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from polycube.testing import malformed
from polycube.testing.harness import Chain, CubeUnderTest, Hook
from polycube.testing.quick import LEAST, quick
from polycube.toolkit.frame import IPV4, IPV6, ethertype


@dataclass
class Subject:
    """A cube, and what has to hold of a frame (as it came, whether it passed, as it left) and of all of them at the end."""

    cube: CubeUnderTest
    right: Callable[[bytes, bool, bytes], bool]
    sums: Callable[[int], None] = lambda count: None
    also: list[Any] = field(default_factory=list)
    direction: str = "ingress"  # of a transparent cube


def is_ip(frame: bytes) -> bool:
    return ethertype(malformed.untagged(frame)) in (IPV4, IPV6)


def soak(hook: Hook, service: Callable[[Chain], Subject], seed: int, count: int) -> None:
    """Frames made by chance."""
    check(hook, service, malformed.frames(seed, count, least=LEAST[hook]))


def check(hook: Hook, service: Callable[[Chain], Subject], frames: Iterable[bytes]) -> None:
    """Each frame, one after the other; all that do not pass are counted, or handed up."""
    with Chain(hook) as chain:
        subject = service(chain)
        cube = subject.cube
        with quick(cube, subject.direction) as run:
            number = stopped = 0
            for number, frame in enumerate(frames, 1):
                passage = run(frame)
                stopped += not passage.passed
                if not passage.passed and cube.drops().get("extensions", 0):
                    continue  # more headers than are followed
                said = number, passage.passed, frame.hex(), passage.frame.hex(), cube.drops()
                assert subject.right(frame, passage.passed, passage.frame), said
        assert sum(cube.drops().values()) + len(cube.take_events()) == stopped
        subject.sums(number)
        for one in subject.also:
            one.close()
