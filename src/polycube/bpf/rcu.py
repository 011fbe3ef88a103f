# SPDX-License-Identifier: Apache-2.0
"""Waiting for programs that run."""

from __future__ import annotations

import ctypes
import platform
import time

_MEMBARRIER = {"x86_64": 324, "aarch64": 283}
_libc = ctypes.CDLL(None, use_errno=True)


def grace() -> None:
    """Returns when every program that was running has ended: membarrier(MEMBARRIER_CMD_GLOBAL) waits for an RCU grace period."""
    number = _MEMBARRIER.get(platform.machine())
    if number is None or _libc.syscall(number, 1, 0, 0) != 0:
        time.sleep(0.05)  # not offered on this machine: far longer than a program runs
