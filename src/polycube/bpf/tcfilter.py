# SPDX-License-Identifier: Apache-2.0
"""The older way onto a netdev's TC hooks, for kernels without TCX: a clsact qdisc with a filter that is replaced atomically.

A filter belongs to the netdev, not to a process, so it survives like a pinned link does. Ours is known by handle and priority.
"""

from __future__ import annotations

import errno
from typing import Any

from polycube.bpf.errors import HookBusy
from polycube.bpf.lib import check, ffi, lib
from polycube.bpf.link import AttachType
from polycube.bpf.program import Program

HANDLE = 0x9C0BE
PRIORITY = 1
_POINT = {AttachType.TCX_INGRESS: 1, AttachType.TCX_EGRESS: 2}
_REPLACE = 1


def attach(program: Program, ifindex: int, point: AttachType) -> None:
    """Puts the program on the hook, in place of ours if it stands there."""
    result = lib.bpf_tc_hook_create(_hook(ifindex, _POINT[point]))
    if result != -errno.EEXIST:
        check(result, f"create clsact on netdev {ifindex}")
    opts = _opts(flags=_REPLACE, prog_fd=program.fd)
    result = lib.bpf_tc_attach(_hook(ifindex, _POINT[point]), opts)
    if result == -errno.EEXIST:
        raise HookBusy(errno.EBUSY, f"TC hook of netdev {ifindex}", f"priority {PRIORITY} is taken")
    check(result, f"attach TC filter to netdev {ifindex}")


def query(ifindex: int, point: AttachType) -> int:
    """Id of our program on the hook; 0: there is none."""
    opts = _opts()
    result = lib.bpf_tc_query(_hook(ifindex, _POINT[point]), opts)
    return int(opts.prog_id) if result == 0 else 0


def detach(ifindex: int, point: AttachType) -> None:
    """Takes our program off; nothing happens if it or the netdev is gone. The qdisc goes when neither direction is in use."""
    result = lib.bpf_tc_detach(_hook(ifindex, _POINT[point]), _opts())
    if result not in (0, -errno.ENOENT, -errno.ENODEV, -errno.EINVAL):
        check(result, f"detach TC filter from netdev {ifindex}")
    if not any(query(ifindex, other) for other in _POINT):
        lib.bpf_tc_hook_destroy(_hook(ifindex, 3))


def _hook(ifindex: int, point: int) -> Any:
    hook = ffi.new("struct bpf_tc_hook *")
    hook.sz, hook.ifindex, hook.attach_point = ffi.sizeof("struct bpf_tc_hook"), ifindex, point
    return hook


def _opts(*, flags: int = 0, prog_fd: int = 0) -> Any:
    opts = ffi.new("struct bpf_tc_opts *")
    opts.sz = ffi.sizeof("struct bpf_tc_opts")
    opts.flags, opts.prog_fd, opts.handle, opts.priority = flags, prog_fd, HANDLE, PRIORITY
    return opts
