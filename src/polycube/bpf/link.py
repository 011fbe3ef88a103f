# SPDX-License-Identifier: Apache-2.0
"""Links: what holds a program on a hook. Pinned, they outlive every process; `update` swaps the program between two packets."""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

from polycube.bpf.errors import BpfError, HookBusy, NotSupported
from polycube.bpf.fd import Handle
from polycube.bpf.lib import check, disabled, ffi, lib
from polycube.bpf.program import Program


class AttachType(IntEnum):
    """enum bpf_attach_type, as far as it is used."""

    XDP = 37
    TCX_INGRESS = 46
    TCX_EGRESS = 47


class XdpMode(IntEnum):
    """XDP_FLAGS_*_MODE; DEFAULT lets the kernel choose."""

    DEFAULT = 0
    SKB = 1 << 1
    DRV = 1 << 2


@dataclass(frozen=True)
class LinkInfo:
    """struct bpf_link_info; ifindex is 0 once the netdev is gone."""

    type: int
    id: int
    prog_id: int
    ifindex: int
    attach_type: int


_TYPE_XDP, _TYPE_TCX = 6, 11
_INFO = {"type": 0, "id": 4, "prog_id": 8, "xdp.ifindex": 16, "tcx.ifindex": 16, "tcx.attach_type": 20}  # offsets in struct bpf_link_info
_NO_NETDEV = 0x7FFFFFFF


class Link(Handle):
    """An attachment of a program to a netdev."""

    kind = "link"

    @classmethod
    def xdp(cls, program: Program, ifindex: int, mode: XdpMode = XdpMode.DEFAULT) -> Link:
        """Attaches to a netdev's XDP hook, which takes one program. HookBusy says who has it."""
        fd = lib.bpf_link_create(program.fd, ifindex, AttachType.XDP, _flags(mode))
        if fd in (-errno.EBUSY, -errno.EEXIST):
            raise HookBusy(errno.EBUSY, f"XDP hook of {_name(ifindex)}", _xdp_holder(ifindex))
        if fd == -errno.EOPNOTSUPP:
            raise NotSupported(errno.EOPNOTSUPP, f"attach XDP program to {_name(ifindex)}", f"its driver has no mode {mode.name}")
        return cls(check(fd, f"attach XDP program to {_name(ifindex)}"))

    @classmethod
    def tcx(cls, program: Program, ifindex: int, point: AttachType) -> Link:
        """Attaches behind whatever stands on a netdev's TCX ingress or egress. NotSupported before kernel 6.6."""
        what = f"attach to {point.name} of {_name(ifindex)}"
        fd = -errno.EINVAL if "tcx" in disabled() else lib.bpf_link_create(program.fd, ifindex, point, _flags(0))
        if fd == -errno.EINVAL and ("tcx" in disabled() or not has_tcx()):
            raise NotSupported(errno.EOPNOTSUPP, what, "no TCX in this kernel")
        return cls(check(fd, what))

    @property
    def info(self) -> LinkInfo:
        raw = self._info(64)
        member = {name: struct.unpack_from("<I", raw, at)[0] for name, at in _INFO.items()}
        type = member["type"]
        ifindex = member["xdp.ifindex"] if type in (_TYPE_XDP, _TYPE_TCX) else 0
        attach = member["tcx.attach_type"] if type == _TYPE_TCX else AttachType.XDP if type == _TYPE_XDP else 0
        return LinkInfo(type, member["id"], member["prog_id"], ifindex, attach)

    def update(self, program: Program, expected: Program | None = None) -> None:
        """Swaps the program atomically; with `expected`, only if that one is attached."""
        opts = ffi.new("struct bpf_link_update_opts *")
        opts.sz = ffi.sizeof("struct bpf_link_update_opts")
        if expected:
            opts.flags, opts.old_prog_fd = 4, expected.fd  # BPF_F_REPLACE
        check(lib.bpf_link_update(self.fd, program.fd, opts), "swap program")

    def detach(self) -> None:
        """Takes the program off the hook, whoever still holds the link. Nothing happens when the netdev is gone."""
        result = lib.bpf_link_detach(self.fd)
        if result not in (0, -errno.ENOLINK, -errno.ENODEV):
            check(result, "detach link")


def _name(ifindex: int) -> str:
    """A netdev, for people."""
    try:
        return f"netdev {socket.if_indextoname(ifindex)}"
    except OSError:
        return f"netdev {ifindex}"


def xdp_mode(ifindex: int) -> str:
    """Mode of the XDP program on a netdev: "drv", "skb", "hw" or "" (none)."""
    opts = ffi.new("struct bpf_xdp_query_opts *")
    opts.sz = ffi.sizeof("struct bpf_xdp_query_opts")
    if lib.bpf_xdp_query(ifindex, 0, opts) < 0:
        return ""
    return ("", "drv", "skb", "hw", "")[int(opts.attach_mode)]


@cache
def has_tcx() -> bool:
    """Whether the kernel knows TCX: with it, a good program meets a netdev that isn't there (ENODEV), without it an unknown attach type."""
    # A bad program instead of a good one tells nothing: kernels look at the program first (EBADF), with or without TCX.
    code = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)  # r0 = 0; exit
    fd = lib.bpf_prog_load(3, b"probe_tcx", b"GPL", ffi.from_buffer(code), 2, ffi.NULL)
    if fd < 0:
        return False
    with Program(fd) as program:
        return bool(lib.bpf_link_create(program.fd, _NO_NETDEV, AttachType.TCX_INGRESS, ffi.NULL) == -errno.ENODEV)


def _flags(flags: int) -> object:
    opts = ffi.new("struct bpf_link_create_opts *")
    opts.sz = ffi.sizeof("struct bpf_link_create_opts")
    opts.flags = flags
    return opts


def _xdp_holder(ifindex: int) -> str:
    opts = ffi.new("struct bpf_xdp_query_opts *")
    opts.sz = ffi.sizeof("struct bpf_xdp_query_opts")
    if lib.bpf_xdp_query(ifindex, 0, opts) < 0:
        return "taken"
    id = int(opts.prog_id or opts.drv_prog_id or opts.skb_prog_id or opts.hw_prog_id)
    if not id:  # just gone
        return "taken"
    try:
        with Program.by_id(id) as program:
            return f"taken by program {program.info.name}, id {id}"
    except BpfError:
        return f"taken by program id {id}"
