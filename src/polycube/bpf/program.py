# SPDX-License-Identifier: Apache-2.0
"""Programs, over a file descriptor, and BPF_PROG_TEST_RUN: one packet in; verdict and packet out."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from polycube.bpf.disasm import Line
from polycube.bpf.fd import Handle, name_of
from polycube.bpf.lib import check, ffi, lib, text

LIVE_FRAMES = 1 << 1
_INFO_SIZE = 224
_INFO = {  # offsets in struct bpf_prog_info
    "type": 0,
    "id": 4,
    "tag": 8,
    "jited_prog_len": 16,
    "xlated_prog_len": 20,
    "xlated_prog_insns": 32,
    "load_time": 40,
    "nr_map_ids": 52,
    "map_ids": 56,
    "name": 64,
    "btf_id": 128,
    "nr_line_info": 148,
    "line_info": 152,
    "line_info_rec_size": 172,
    "run_time_ns": 192,
    "run_cnt": 200,
    "verified_insns": 216,
}
_SK_BUFF_SIZE = 192
_SK_BUFF = {  # offsets in struct __sk_buff
    "mark": 8,
    "priority": 32,
    "ingress_ifindex": 36,
    "ifindex": 40,
    "cb": 48,
    "gso_segs": 164,
    "gso_size": 176,
}

_STATS_RUN_TIME = 0  # enum bpf_stats_type


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
    *,
    mark: int = 0,
    priority: int = 0,
    ingress_ifindex: int = 0,
    ifindex: int = 0,
    cb: tuple[int, ...] = (0,) * 5,
    gso_segs: int = 0,
    gso_size: int = 0,
) -> bytes:
    """A struct __sk_buff with the members a test run accepts."""
    buffer = bytearray(_SK_BUFF_SIZE)
    struct.pack_into("<I", buffer, _SK_BUFF["mark"], mark)
    struct.pack_into("<I", buffer, _SK_BUFF["priority"], priority)
    struct.pack_into("<I", buffer, _SK_BUFF["ingress_ifindex"], ingress_ifindex)
    struct.pack_into("<I", buffer, _SK_BUFF["ifindex"], ifindex)
    struct.pack_into("<5I", buffer, _SK_BUFF["cb"], *cb)
    struct.pack_into("<I", buffer, _SK_BUFF["gso_segs"], gso_segs)
    struct.pack_into("<I", buffer, _SK_BUFF["gso_size"], gso_size)
    return bytes(buffer)


class Program(Handle):
    """A loaded program."""

    kind = "program"

    @classmethod
    def by_id(cls, id: int) -> Program:
        return cls(check(lib.bpf_prog_get_fd_by_id(id), f"program with id {id}"))

    @property
    def info(self) -> ProgramInfo:
        raw = self._info(_INFO_SIZE)

        def number(name: str, form: str = "<I") -> int:
            return int(struct.unpack_from(form, raw, _INFO[name])[0])

        tag, name = raw[_INFO["tag"] :][:8].hex(), name_of(raw[_INFO["name"] :][:16])
        return ProgramInfo(
            type=number("type"),
            id=number("id"),
            tag=tag,
            name=name,
            jited_len=number("jited_prog_len"),
            xlated_len=number("xlated_prog_len"),
            load_time=number("load_time", "<Q"),
            map_ids=self._map_ids(number("nr_map_ids")),
            run_time_ns=number("run_time_ns", "<Q"),
            run_cnt=number("run_cnt", "<Q"),
            verified_insns=number("verified_insns"),
        )

    def _map_ids(self, count: int) -> tuple[int, ...]:
        if not count:
            return ()
        ids, info = ffi.new("uint32_t[]", count), ffi.new("char[]", _INFO_SIZE)
        struct.pack_into("<I", ffi.buffer(info), _INFO["nr_map_ids"], count)
        struct.pack_into("<Q", ffi.buffer(info), _INFO["map_ids"], int(ffi.cast("uintptr_t", ids)))
        length = ffi.new("uint32_t *", _INFO_SIZE)
        check(lib.bpf_obj_get_info_by_fd(self.fd, info, length), "maps of program")
        return tuple(int(id) for id in ids)

    def code(self) -> bytes:
        """The instructions, as the verifier left them; empty if this process may not see them."""
        size = self.info.xlated_len
        return self._array("xlated_prog_len", "xlated_prog_insns", size, size) if size else b""

    def lines(self) -> dict[int, Line]:
        """Lines of C by the instruction at which they begin, from the program's BTF."""
        raw = self._info(_INFO_SIZE)
        count, size, types = (struct.unpack_from("<I", raw, _INFO[name])[0] for name in ("nr_line_info", "line_info_rec_size", "btf_id"))
        if not count or not types:
            return {}
        records = self._array("nr_line_info", "line_info", count, count * size, {"line_info_rec_size": size})
        btf = lib.btf__load_from_kernel_by_id(types)
        if btf == ffi.NULL:
            return {}
        try:
            found = {}
            for at in range(0, len(records), size):
                begin, file, line, place = struct.unpack_from("<4I", records, at)
                name, content = (text(lib.btf__name_by_offset(btf, offset)) for offset in (file, line))
                found[begin] = Line(begin, name, place >> 10, content)
            return found
        finally:
            lib.btf__free(btf)

    def _array(self, length: str, pointer: str, count: int, size: int, more: Mapping[str, int] | None = None) -> bytes:
        """What the kernel writes where one of the pointers of bpf_prog_info leads."""
        array, info = ffi.new("char[]", size), ffi.new("char[]", _INFO_SIZE)
        for name, value in {length: count, **(more or {})}.items():
            struct.pack_into("<I", ffi.buffer(info), _INFO[name], value)
        struct.pack_into("<Q", ffi.buffer(info), _INFO[pointer], int(ffi.cast("uintptr_t", array)))
        check(lib.bpf_obj_get_info_by_fd(self.fd, info, ffi.new("uint32_t *", _INFO_SIZE)), f"{pointer} of program")
        return bytes(ffi.buffer(array, size))

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
        left_context = bytes(ffi.buffer(context_out, opts.ctx_size_out)) if context_out else b""
        return TestRun(int(opts.retval), left, left_context, int(opts.duration))


@contextmanager
def run_statistics() -> Iterator[None]:
    """Within, the kernel counts runs of programs and the time they take: `run_cnt` and `run_time_ns` of ProgramInfo (kernel 5.8)."""
    fd = check(lib.bpf_enable_stats(_STATS_RUN_TIME), "switch run statistics on")
    try:
        yield
    finally:
        os.close(fd)
