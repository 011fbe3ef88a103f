# SPDX-License-Identifier: Apache-2.0
"""What the tests of the binding share besides fixtures."""

import time
from collections.abc import Callable
from typing import NamedTuple

from polycube.bpf import Object

HEADER = """
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
char _license[] SEC("license") = "GPL";
"""
Compile = Callable[..., bytes]
Load = Callable[..., Object]


class Veth(NamedTuple):
    near: int
    far: int
    near_name: str
    far_name: str


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
