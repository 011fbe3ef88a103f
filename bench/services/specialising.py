# SPDX-License-Identifier: Apache-2.0
"""What specialising a fused chain further could gain at most: the mixture of chains.py written by hand, with and without each step.

docs/design/0002-fused-chains.md says what was made of it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paired
import router
import yardstick
from figures import Found, Row

from polycube.bpf import u32, xdp_md
from polycube.compiler.function import Hook
from polycube.testing.harness import Chain

A, B = bytes.fromhex("020000000a01"), bytes.fromhex("020000000b02")
FRAME = B + A + b"\x90\x00" + bytes(50)
REDIRECT = 4
ROUTES = 16
STEPS = {
    "look at the frame once": "READ_EACH",  # the other way round: what stands now is the variant
    "the forwarder's table as code": "ACTIONS_AS_CODE",
    "the forwarder's table as an array": "ACTIONS_AS_ARRAY",
    "the bridges' stations as code": "STATIONS_AS_CODE",
    "the device map as code": "DEVICES_AS_CODE",
    "the likely way straight on": "LAYOUT",
}
_keep: list[Any] = []


def mixture(repeat: int, *variants: str) -> Callable[[], int]:
    """The hand-written program, from the near netdev to the far one."""
    chain = Chain(Hook.XDP, fused=False)
    near, far = chain.stage.near, chain.stage.far
    opened = yardstick.load("mixture", *(f"{name}={far}" if name == "DEVICES_AS_CODE" else name for name in variants))
    opened.map("side_of").set(u32(near), u32(1))
    opened.map("devices").set(u32(1), u32(far))
    opened.map("actions").set(u32(0), u32(2) + u32(1))
    for table in ("fdb1", "fdb2"):
        opened.map(table).set(B + bytes(2), struct.pack("<IHH", 0, 1, 1))
    _keep.append(chain)
    return paired.timed(opened.program("mixture"), FRAME, xdp_md(len(FRAME), ingress_ifindex=near), repeat, REDIRECT)


def addresses(calls: int) -> Row:
    """The hand-written router with the addresses of its ports in the table of interfaces, and as constants."""
    model, _, _ = router.cube(Hook.XDP, ROUTES)
    sides = [router.handwritten(model, ROUTES), router.handwritten(model, ROUTES, "ADDRESSES_AS_CODE")]
    links = paired.kept(sides)
    frame = router.frames()["ipv4"]
    context = xdp_md(len(frame), ingress_ifindex=model.stage.near)
    runs = [paired.timed(program, frame, context, router.REPEAT, REDIRECT) for program in sides]
    row = row_of("router by hand: addresses of ports as code, to without", paired.turns("addresses", calls, *runs))
    for link in links:
        link.close()
    return row


def row_of(what: str, one: paired.Paired) -> Row:
    return Row(what, one.ratio, f"95 %: {one.low:.3f} to {one.high:.3f}; {one.cube:.0f} and {one.by_hand:.0f} ns")


def measure(_folder: Path, quick: bool) -> Found:
    """In turns."""
    runs, repeat = (15, 100_000) if quick else (60, 300_000)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    rows = []
    try:
        for what, variant in STEPS.items():
            sides = [mixture(repeat), mixture(repeat, variant)]
            if variant == "READ_EACH":
                sides.reverse()
            one = paired.turns(what, runs, *sides)
            rows.append(row_of(f"mixture by hand: {what}, to without", one))
        rows.append(addresses(10 if quick else 200))
    finally:
        os.sched_setaffinity(0, before)
    return rows, {}
