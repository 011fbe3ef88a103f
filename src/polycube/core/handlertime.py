# SPDX-License-Identifier: Apache-2.0
"""What the handlers of timed cubes took: the map of timed.bpf.c, two entries for each cube, an account for each CPU."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from polycube.bpf import u32

TIMES = "pcn_times"
HANDLERS = ("ingress", "egress")  # enum pcn_direction
_TIME = struct.Struct("<2Q")  # struct pcn_time


class HandlerTime(NamedTuple):
    """All CPUs together."""

    nanoseconds: int = 0
    packets: int = 0


def handler_time(look_up: Callable[[bytes], Sequence[bytes]], cube: int, handler: str) -> HandlerTime:
    """`look_up` is of the map, `cube` the number."""
    found = [_TIME.unpack(cpu) for cpu in look_up(u32(cube * len(HANDLERS) + HANDLERS.index(handler)))]
    return HandlerTime(*map(sum, zip(*found, strict=True)))
