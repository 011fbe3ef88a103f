# SPDX-License-Identifier: Apache-2.0
"""Waiting for programs that run."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from contextlib import suppress
from pathlib import Path

_MEMBARRIER = {"x86_64": 324, "aarch64": 283}
_libc = ctypes.CDLL(None, use_errno=True)
_REALTIME = Path("/sys/kernel/realtime").exists()


def grace() -> None:
    """Returns when every program that was running has ended: membarrier(MEMBARRIER_CMD_GLOBAL) waits for an RCU grace period."""
    number = _MEMBARRIER.get(platform.machine())
    if number is None or _libc.syscall(number, 1, 0, 0) != 0:
        time.sleep(0.05)  # not offered on this machine: far longer than a program runs


def quiesce() -> None:
    """The same in microseconds, for programs of network hooks: they can't be preempted, so a CPU that runs this thread has ended what it
    ran before. Where the thread may not visit all CPUs, or programs can be preempted (PREEMPT_RT), it is `grace`. The thread goes before
    others meanwhile: in their turn, it would be kept waiting at each CPU that is busy."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) < (os.cpu_count() or 1) or _REALTIME:
        grace()
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        for cpu in allowed:
            os.sched_setaffinity(0, {cpu})
    finally:
        os.sched_setaffinity(0, allowed)
        with suppress(PermissionError):
            os.sched_setscheduler(0, policy, priority)
