# SPDX-License-Identifier: Apache-2.0
"""libbpf.so.1, loaded once. What libbpf would print is kept per thread and goes into errors instead of onto stderr."""

from __future__ import annotations

import threading
from typing import Any

from polycube.bpf import _libbpf
from polycube.bpf.errors import BpfError

ffi: Any = _libbpf.ffi
lib: Any = ffi.dlopen("libbpf.so.1")
_libc: Any = ffi.dlopen(None)
_said = threading.local()


@ffi.callback("int(int, const char *, void *)")
def _print(level: int, form: Any, arguments: Any) -> int:
    # A va_list handed on as a pointer: right on x86-64 and AArch64, where it is passed by reference.
    if level > 1:  # debug
        return 0
    size = 1 << 16
    buffer = ffi.new("char[]", size)
    needed = _libc.vsnprintf(buffer, size, form, arguments)
    lines = getattr(_said, "lines", None)
    if lines is None:
        lines = _said.lines = []
    lines.append(ffi.string(buffer).decode(errors="replace").rstrip() + (" [cut]" if needed >= size else ""))
    del lines[:-50]
    return 0


lib.libbpf_set_print(_print)


def take_log() -> list[str]:
    """What libbpf said in this thread since the last call."""
    lines: list[str] = getattr(_said, "lines", [])
    _said.lines = []
    return lines


def check(result: Any, what: str) -> Any:
    """Returns libbpf's result, or raises: pointer functions give NULL and set errno, int functions give -errno."""
    if isinstance(result, int):
        if result >= 0:
            return result
        raise BpfError(-result, what)
    if result == ffi.NULL:
        raise BpfError(ffi.errno, what)
    return result


def text(pointer: Any) -> str:
    return str(ffi.string(pointer).decode()) if pointer != ffi.NULL else ""


def possible_cpus() -> int:
    return int(lib.libbpf_num_possible_cpus())


def version() -> str:
    return text(lib.libbpf_version_string())
