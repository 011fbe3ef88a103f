# SPDX-License-Identifier: Apache-2.0
"""Makes `_libbpf.py` from `abi.h`: cffi's out-of-line ABI mode, pure Python, quick to import, no compiler needed. Run at build time."""

from pathlib import Path

from cffi import FFI


def build(folder: Path = Path(__file__).parent) -> Path:
    """Writes the module beside `abi.h` and returns its path."""
    header = (folder / "abi.h").read_text()
    ffi = FFI()
    ffi.cdef(header[header.index("*/") + 2 :])
    ffi.set_source("polycube.bpf._libbpf", None)
    target = folder / "_libbpf.py"
    ffi.emit_python_code(str(target))
    return target


if __name__ == "__main__":
    build()
