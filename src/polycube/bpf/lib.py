# SPDX-License-Identifier: Apache-2.0
"""libbpf.so.1, loaded once. What libbpf would print is kept per thread and goes into errors instead of onto stderr."""

from __future__ import annotations

import errno
import os
import threading
from typing import Any

from polycube.bpf import _libbpf
from polycube.bpf.errors import ENOTSUPP, BpfError, NotSupported

ffi: Any = _libbpf.ffi
lib: Any = ffi.dlopen("libbpf.so.1")
_libc: Any = ffi.dlopen(None)
_said = threading.local()
_VA_LIST = 32  # bytes on AArch64; 24 on x86-64, where the next ones are stack too


def _print(level: int, form: Any, arguments: Any) -> int:
    # A va_list handed on as a pointer: right on x86-64 and AArch64, where it is passed by reference. Reading uses it up, and a verifier
    # log may be 16 MB long: keep a copy for a second go with a buffer that is large enough.
    if level > 1:  # debug
        return 0
    again = ffi.new("char[]", bytes(ffi.buffer(ffi.cast("char *", arguments), _VA_LIST)))
    buffer = ffi.new("char[]", 4096)
    needed = _libc.vsnprintf(buffer, 4096, form, arguments)
    if needed >= 4096:
        buffer = ffi.new("char[]", needed + 1)
        _libc.vsnprintf(buffer, needed + 1, form, again)
    lines = getattr(_said, "lines", None)
    if lines is None:
        lines = _said.lines = []
    lines.append(ffi.string(buffer).decode(errors="replace").rstrip())
    del lines[:-50]
    return 0


_printer: Any = ffi.callback("int(int, const char *, void *)", _print)  # kept: libbpf calls it as long as the process lives
lib.libbpf_set_print(_printer)


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
        code = -result
    elif result == ffi.NULL:
        code = ffi.errno
    else:
        return result
    raise NotSupported(code, what) if code in (errno.EOPNOTSUPP, ENOTSUPP) else BpfError(code, what)


def text(pointer: Any) -> str:
    return str(ffi.string(pointer).decode()) if pointer != ffi.NULL else ""


def disabled() -> frozenset[str]:
    """Features that are to be taken for missing, to force the fallbacks."""
    return frozenset(os.environ.get("POLYCUBE_DISABLE_FEATURES", "").replace(" ", "").split(",")) - {""}


def possible_cpus() -> int:
    return int(lib.libbpf_num_possible_cpus())


def version() -> str:
    return text(lib.libbpf_version_string())
