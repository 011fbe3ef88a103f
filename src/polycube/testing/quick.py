# SPDX-License-Identifier: Apache-2.0
"""Many frames through one cube: microseconds each, where `send` takes milliseconds.

    with quick(cube) as run:
        assert run(frame).passed

The program runs as it is, with nothing behind its ports to write down what arrives: whether a frame goes on, and as what, is all there is
to see of it. Counters, drops and maps of the cube are as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from polycube.bpf import Link, XdpMode, sk_buff, u32, xdp_md
from polycube.compiler.function import Hook
from polycube.testing.cube import CubeUnderTest
from polycube.testing.packets import PacketLike, to_bytes

NEXT_NETDEV, NEXT_STACK = 1, 3
PASSED = {Hook.XDP: {2, 4}, Hook.TC: {0, 0xFFFFFFFF, 7}}  # PASS, REDIRECT; OK, UNSPEC, REDIRECT
DROPPED = {Hook.XDP: 1, Hook.TC: 2}
LEAST = {Hook.XDP: 14, Hook.TC: 54}  # bytes: a run in TC takes no shorter frames


@dataclass(frozen=True)
class Passage:
    """What became of a frame."""

    passed: bool
    frame: bytes  # as it was left


@contextmanager
def quick(cube: CubeUnderTest, direction: str = "ingress") -> Iterator[Callable[[PacketLike], Passage]]:
    """Frames are received by port 0; by a transparent cube in a direction. While it lasts, the cube is for nothing else."""
    hook, stage = cube.stage.hook, cube.stage
    for port, id in enumerate(cube.ids):
        if cube.function.transparent:
            cube.write_port(port, next=NEXT_STACK, id=id)
            continue
        cube.write_port(port, next=NEXT_NETDEV, target=stage.far, id=id)
        if hook == Hook.XDP:
            stage.maps["pcn_netdevs"].set(u32(id), u32(stage.far))
    if not cube.function.transparent:
        stage.maps["pcn_entries"].set(u32(stage.near), u32(0) + u32(cube.ids[0]))
    program = cube.program(direction if cube.function.transparent else "entry")

    def run(packet: PacketLike) -> Passage:
        frame = to_bytes(packet)
        context = xdp_md(len(frame), ingress_ifindex=stage.near) if hook == Hook.XDP else sk_buff(ifindex=stage.near)
        result = program.test_run(frame, context=context)
        passed = result.retval in PASSED[hook]
        assert passed or result.retval == DROPPED[hook], f"verdict {result.retval} for {frame.hex()}"
        return Passage(passed, result.data)

    try:
        if hook == Hook.TC:
            yield run
        else:  # it stands in the kernel's dispatcher all the time; else each run would enter it there and take it out again
            outer, _ = stage.take_device()
            with Link.xdp(program, outer, XdpMode.SKB):
                yield run
    finally:
        cube.chain.wire()
