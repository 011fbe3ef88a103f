# SPDX-License-Identifier: Apache-2.0
"""simplebridge against a hand-written XDP program with the same table and counters, by BPF_PROG_TEST_RUN in turns.

    python bench/simplebridge.py [rounds] [repeat]

A known destination, 64 bytes. Prints ns a packet (medians) and the ratio of speeds: hand-written ns / cube ns, of the medians.
"""

from __future__ import annotations

import os
import statistics
import struct
import sys
import time

import yardstick

from polycube.bpf import Program, sk_buff, u32, xdp_md
from polycube.compiler.function import Hook
from polycube.testing.harness import NEXT_NETDEV, Chain
from polycube.testing.isolation import isolate

A, B = bytes.fromhex("020000000a01"), bytes.fromhex("020000000b02")
FRAME = B + A + b"\x90\x00" + bytes(50)


def handwritten(ifindex: int, far: int) -> Program:
    """The yardstick, with the same two stations."""
    opened = yardstick.load("simplebridge")
    opened.map("port_of").set(u32(ifindex), u32(1))
    opened.map("devices").set(u32(1), u32(far))
    now = int(time.clock_gettime(time.CLOCK_MONOTONIC))
    opened.map("fdb").set(B + bytes(2), struct.pack("<IHH", now, 1, 0))
    return opened.program("bridge")


def cube(hook: Hook) -> tuple[Program, bytes]:
    """The cube's entry and the context to run it with. Port 1 leads to a netdev."""
    chain = Chain(hook)
    bridge = chain.cube("simplebridge", ports=2)
    stage = chain.stage
    bridge.cfg(aging_time=300)
    bridge.write_port(1, next=NEXT_NETDEV, target=stage.far, id=bridge.ids[1])
    if hook == Hook.XDP:
        stage.maps["pcn_netdevs"].set(u32(bridge.ids[1]), u32(stage.far))
    stage.maps["pcn_entries"].set(u32(stage.near), u32(0) + u32(bridge.ids[0]))
    now = int(time.clock_gettime(time.CLOCK_MONOTONIC))
    bridge.map("fdb")[{"address": B}] = {"port": 1, "seen": now}
    context = xdp_md(len(FRAME), ingress_ifindex=stage.near) if hook == Hook.XDP else sk_buff(ifindex=stage.near)
    return bridge.program("entry"), context


def main() -> None:
    """Runs the rounds."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    repeat = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    isolate()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    entry, context = cube(Hook.XDP)
    tc, tc_context = cube(Hook.TC)
    ifindex = struct.unpack_from("<I", context, 12)[0]
    yardstick = handwritten(ifindex, ifindex + 1)
    candidates = {"handwritten": (yardstick, context), "cube": (entry, context), "cube_tc": (tc, tc_context)}
    expected = {"handwritten": 4, "cube": 4, "cube_tc": 7}
    times: dict[str, list[int]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, (program, ctx) in candidates.items():
            result = program.test_run(FRAME, context=ctx, repeat=repeat)
            assert result.retval == expected[name], (name, result.retval)
            times[name].append(result.duration_ns)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:12} {value:6.1f} ns   {min(times[name])} to {max(times[name])}")
    print(f"ratio cube to handwritten: {medians['handwritten'] / medians['cube']:.3f}")


if __name__ == "__main__":
    main()
