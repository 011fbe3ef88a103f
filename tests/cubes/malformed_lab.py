# SPDX-License-Identifier: Apache-2.0
"""Cubes that are sent malformed frames, one by one and many of them, and what has to hold of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from firewall_lab import kept

from polycube.bpf import sk_buff, u32, xdp_md
from polycube.testing import malformed
from polycube.testing.cube import CubeUnderTest
from polycube.testing.harness import NEXT_NETDEV, NEXT_STACK, Chain, Hook
from polycube.toolkit.frame import IPV4, IPV6, ethertype

PASS, DROP = {Hook.XDP: {2, 4}, Hook.TC: {0, 0xFFFFFFFF, 7}}, {Hook.XDP: {1}, Hook.TC: {2}}


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


@contextmanager
def standing(hook: Hook, service: Callable[[Chain], Subject]) -> Iterator[tuple[Subject, Any, Callable[[bytes], bytes]]]:
    """A subject, its program, and the context of a frame."""
    with Chain(hook) as chain:
        subject = service(chain)
        cube, stage = subject.cube, subject.cube.stage
        for port, id in enumerate(cube.ids):
            if cube.function.transparent:
                cube.write_port(port, next=NEXT_STACK, id=id)
                continue
            cube.write_port(port, next=NEXT_NETDEV, target=stage.far, id=id)
            if hook == Hook.XDP:
                stage.maps["pcn_netdevs"].set(u32(id), u32(stage.far))
        if not cube.function.transparent:
            stage.maps["pcn_entries"].set(u32(stage.near), u32(0) + u32(cube.ids[0]))
        program = cube.program(subject.direction if cube.function.transparent else "entry")
        with kept(hook, program):
            yield subject, program, lambda frame: context(hook, frame, stage.near)
        for one in subject.also:
            one.close()


def context(hook: Hook, frame: bytes, ifindex: int) -> bytes:
    return xdp_md(len(frame), ingress_ifindex=ifindex) if hook == Hook.XDP else sk_buff(ifindex=ifindex)


def soak(hook: Hook, service: Callable[[Chain], Subject], seed: int, count: int) -> None:
    """Frames made by chance."""
    check(hook, service, malformed.frames(seed, count, least=54 if hook == Hook.TC else 0))


def check(hook: Hook, service: Callable[[Chain], Subject], frames: Iterable[bytes]) -> None:
    """Each frame, one after the other; all that do not pass are counted, or handed up."""
    with standing(hook, service) as (subject, program, context_of):
        number = stopped = 0
        for number, frame in enumerate(frames, 1):
            result = program.test_run(frame, context=context_of(frame))
            assert result.retval in PASS[hook] | DROP[hook], (number, frame.hex())
            passed = result.retval in PASS[hook]
            stopped += not passed
            if not passed and subject.cube.drops().get("extensions", 0):
                continue  # more headers than are followed
            assert subject.right(frame, passed, result.data), (number, passed, frame.hex(), result.data.hex(), subject.cube.drops())
        assert sum(subject.cube.drops().values()) + len(subject.cube.take_events()) == stopped
        subject.sums(number)
