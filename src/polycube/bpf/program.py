# SPDX-License-Identifier: Apache-2.0
"""Programs, over a file descriptor, and BPF_PROG_TEST_RUN: one packet in; verdict and packet out."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from polycube.bpf.fd import Handle, name_of
from polycube.bpf.lib import check, ffi, lib

LIVE_FRAMES = 1 << 1


@dataclass(frozen=True)
class ProgramInfo:
    """struct bpf_prog_info, as far as it is used."""

    type: int
    id: int
    tag: str
    name: str
    jited_len: int
    xlated_len: int
    load_time: int  # ns since boot
    map_ids: tuple[int, ...]
    run_time_ns: int
    run_cnt: int
    verified_insns: int


@dataclass(frozen=True)
class TestRun:
    """What a test run gave: the program's return value, the packet as it was left, ns per run."""

    __test__ = False

    retval: int
    data: bytes
    context: bytes
    duration_ns: int


def xdp_md(length: int, *, ingress_ifindex: int = 0, rx_queue_index: int = 0, meta: int = 0) -> bytes:
    """A struct xdp_md for a test run; `meta` bytes at the start of the data are metadata."""
    return struct.pack("<6I", meta, length, 0, ingress_ifindex, rx_queue_index, 0)


def sk_buff(
    *, mark: int = 0, priority: int = 0, ingress_ifindex: int = 0, ifindex: int = 0, cb: tuple[int, ...] = (0,) * 5, gso_segs: int = 0, gso_size: int = 0
) -> bytes:
    """A struct __sk_buff with the members a test run accepts."""
    buffer = bytearray(192)
    struct.pack_into("<I", buffer, 8, mark)
    struct.pack_into("<I", buffer, 32, priority)
    struct.pack_into("<2I", buffer, 36, ingress_ifindex, ifindex)
    struct.pack_into("<5I", buffer, 48, *cb)
    struct.pack_into("<I", buffer, 164, gso_segs)
    struct.pack_into("<I", buffer, 176, gso_size)
    return bytes(buffer)


class Program(Handle):
    """A loaded program."""

    kind = "program"

    @classmethod
    def by_id(cls, id: int) -> Program:
        return cls(check(lib.bpf_prog_get_fd_by_id(id), f"program with id {id}"))

    @property
    def info(self) -> ProgramInfo:
        raw = self._info(224)
        type, id = struct.unpack_from("<2I", raw, 0)
        jited, xlated = struct.unpack_from("<2I", raw, 16)
        load_time, _, map_count = struct.unpack_from("<Q2I", raw, 40)
        run_time, run_cnt = struct.unpack_from("<2Q", raw, 192)
        (verified,) = struct.unpack_from("<I", raw, 216)
        return ProgramInfo(
            type, id, raw[8:16].hex(), name_of(raw[64:80]), jited, xlated, load_time, self._map_ids(map_count), run_time, run_cnt, verified
        )

    def _map_ids(self, count: int) -> tuple[int, ...]:
        if not count:
            return ()
        ids, info = ffi.new("uint32_t[]", count), ffi.new("char[]", 224)
        struct.pack_into("<I", ffi.buffer(info), 52, count)
        struct.pack_into("<Q", ffi.buffer(info), 56, int(ffi.cast("uintptr_t", ids)))
        length = ffi.new("uint32_t *", 224)
        check(lib.bpf_obj_get_info_by_fd(self.fd, info, length), "maps of program")
        return tuple(int(id) for id in ids)

    def test_run(
        self, data: bytes, *, context: bytes | None = None, repeat: int = 1, live: bool = False, batch_size: int = 0, flags: int = 0
    ) -> TestRun:
        """Runs the program on a packet. `live` (XDP) carries out redirects and returns no packet."""
        opts: Any = ffi.new("struct bpf_test_run_opts *")
        opts.sz = ffi.sizeof("struct bpf_test_run_opts")
        packet = ffi.from_buffer(data)
        opts.data_in, opts.data_size_in = packet, len(data)
        opts.repeat = repeat
        opts.flags = flags | (LIVE_FRAMES if live else 0)
        opts.batch_size = batch_size
        out = ffi.new("char[]", len(data) + 4096)
        if not live:
            opts.data_out, opts.data_size_out = out, len(data) + 4096
        context_in = context_out = None
        if context is not None:
            context_in = ffi.from_buffer(context)
            opts.ctx_in, opts.ctx_size_in = context_in, len(context)
            if not live:
                context_out = ffi.new("char[]", len(context))
                opts.ctx_out, opts.ctx_size_out = context_out, len(context)
        check(lib.bpf_prog_test_run_opts(self.fd, opts), "test run")
        left = b"" if live else bytes(ffi.buffer(out, opts.data_size_out))
        return TestRun(int(opts.retval), left, bytes(ffi.buffer(context_out)) if context_out else b"", int(opts.duration))
