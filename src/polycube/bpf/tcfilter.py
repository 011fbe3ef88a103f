# SPDX-License-Identifier: Apache-2.0
"""The older way onto a netdev's TC hooks, for kernels without TCX: a clsact qdisc with a filter that is replaced atomically.

A filter belongs to the netdev, not to a process, so it survives like a pinned link does. Ours is known by handle and priority; others on
the same clsact are left alone.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

from polycube.bpf.errors import BpfError, HookBusy
from polycube.bpf.lib import check, ffi, lib
from polycube.bpf.link import AttachType
from polycube.bpf.program import Program

HANDLE = 0x9C0BE
PRIORITY = 1
_POINT = {AttachType.TCX_INGRESS: 1, AttachType.TCX_EGRESS: 2}
_REPLACE = 1
_PARENT = {AttachType.TCX_INGRESS: 0xFFFFFFF2, AttachType.TCX_EGRESS: 0xFFFFFFF3}  # of clsact
_CLSACT = 0xFFFFFFF1
_NEWQDISC, _GETQDISC, _NEWTFILTER, _GETTFILTER, _DUMP, _ECHO_ACK, _ERROR = 36, 38, 44, 46, 0x300, 12, 2


def attach(program: Program, ifindex: int, point: AttachType) -> None:
    """Puts the program on the hook, in place of ours if it stands there."""
    result = lib.bpf_tc_hook_create(_hook(ifindex, _POINT[point]))
    if result != -errno.EEXIST:
        check(result, f"create clsact on netdev {ifindex}")
    elif _older_qdisc(ifindex):
        raise HookBusy(errno.EBUSY, f"TC hook of netdev {ifindex}", "an ingress qdisc stands where clsact has to")
    opts = _opts(flags=_REPLACE, prog_fd=program.fd)
    result = lib.bpf_tc_attach(_hook(ifindex, _POINT[point]), opts)
    if result == -errno.EEXIST or (result == -errno.EINVAL and _in_use(ifindex, _PARENT[point])):
        # EINVAL: a filter of another kind or protocol has our priority.
        raise HookBusy(errno.EBUSY, f"TC hook of netdev {ifindex}", f"priority {PRIORITY} is taken")
    check(result, f"attach TC filter to netdev {ifindex}")


def query(ifindex: int, point: AttachType) -> int:
    """Id of our program on the hook; 0: there is none."""
    if _older_qdisc(ifindex):
        return 0
    opts = _opts()
    result = lib.bpf_tc_query(_hook(ifindex, _POINT[point]), opts)
    return int(opts.prog_id) if result == 0 else 0


def detach(ifindex: int, point: AttachType) -> None:
    """Takes our program off; nothing happens if it or the netdev is gone. The qdisc goes when no filter is left in either direction."""
    if _older_qdisc(ifindex):
        return
    result = lib.bpf_tc_detach(_hook(ifindex, _POINT[point]), _opts())
    if result not in (0, -errno.ENOENT, -errno.ENODEV, -errno.EINVAL):
        check(result, f"detach TC filter from netdev {ifindex}")
    if not any(_in_use(ifindex, parent) for parent in _PARENT.values()):
        lib.bpf_tc_hook_destroy(_hook(ifindex, 3))


def _in_use(ifindex: int, parent: int) -> bool:
    # libbpf's query knows of one filter, ours: ask the kernel for all.
    return bool(_ask(_GETTFILTER, _DUMP, ifindex, parent))


def _older_qdisc(ifindex: int) -> bool:
    # The qdisc "ingress" has clsact's handle and takes filters for egress too, but runs them on ingress.
    # Without ECHO a found qdisc is told to listeners only; without ACK nobody says a word of a builtin one.
    return b"ingress\0" in _ask(_GETQDISC, _ECHO_ACK, ifindex, _CLSACT)


def _ask(kind: int, flags: int, ifindex: int, parent: int) -> bytes:
    """Attributes of the first object there; empty if there is none, or neither netdev nor qdisc."""
    request = struct.pack("=BxHiIII", 0, 0, ifindex, 0, parent, 0)  # struct tcmsg
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
        netlink.bind((0, 0))
        netlink.send(struct.pack("=IHHII", 16 + len(request), kind, 1 | flags, 1, 0) + request)
        answer = netlink.recv(1 << 18)
    length, type = struct.unpack_from("=IH", answer)
    if type in (_NEWQDISC, _NEWTFILTER):
        return answer[36:length]
    code = -struct.unpack_from("=i", answer, 16)[0] if type == _ERROR else 0
    if code not in (0, errno.ENODEV, errno.EINVAL, errno.ENOENT):
        raise BpfError(code, f"list what is on the TC hooks of netdev {ifindex}")
    return b""


def _hook(ifindex: int, point: int) -> Any:
    hook = ffi.new("struct bpf_tc_hook *")
    hook.sz, hook.ifindex, hook.attach_point = ffi.sizeof("struct bpf_tc_hook"), ifindex, point
    return hook


def _opts(*, flags: int = 0, prog_fd: int = 0) -> Any:
    opts = ffi.new("struct bpf_tc_opts *")
    opts.sz = ffi.sizeof("struct bpf_tc_opts")
    opts.flags, opts.prog_fd, opts.handle, opts.priority = flags, prog_fd, HANDLE, PRIORITY
    return opts
