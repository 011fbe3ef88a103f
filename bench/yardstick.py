# SPDX-License-Identifier: Apache-2.0
"""The hand-written programs of bench/handwritten: compiled, loaded, filled."""

from __future__ import annotations

import os
import struct
import subprocess
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from polycube.bpf import Object, u32
from polycube.compiler.function import INCLUDE

FOLDER = Path(__file__).parent / "handwritten"
LOOP = b"\x7f\x00\x00\x01"


@cache
def compiled(name: str, *defines: str) -> bytes:
    """The object, by clang alone. The data-plane library's headers are at hand, for look-ups that are to be the same."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"{name}.o"
        include = f"-I/usr/include/{sysconfig.get_config_var('MULTIARCH')}"
        flags = ["-O2", "-g", "-Wall", "-target", "bpfel", "-mcpu=v3", include, f"-I{INCLUDE}"]
        flags += [f"-D{define}" for define in defines]
        subprocess.run([os.environ.get("CLANG", "clang"), *flags, "-c", FOLDER / f"{name}.bpf.c", "-o", target], check=True)
        return target.read_bytes()


def load(name: str, *defines: str, sizes: Mapping[str, int] | None = None) -> Object:
    """The loaded object; `sizes`: other max_entries for some maps."""
    opened = Object.open(compiled(name, *defines), "handwritten")
    for table, size in (sizes or {}).items():
        opened.maps[table].max_entries = size
    opened.load()
    return opened


def fill_router(opened: Object, hosts: Sequence[bytes], own: Sequence[bytes]) -> None:
    """Port n is 10.(n+1).0.1/24 with an own MAC and one host, .2, whose MAC is given."""
    for port in (0, 1):
        interface = own[port] + b"\x01\x00" + struct.pack("<I", 1500) + bytes(16)
        opened.map("interfaces").set(u32(port), interface)
        network = bytes((10, port + 1, 0, 0))
        opened.map("routes4").set(u32(24) + network, struct.pack("<III", port, 0, 0))
        opened.map("neighbours4").set(u32(port) + network[:3] + b"\x02", hosts[port] + b"\x01\x00" + u32(0))
