# SPDX-License-Identifier: Apache-2.0
"""Binding of libbpf: objects, maps, programs, links, pins, ring buffers, test runs, probes. Knows nothing of cubes.

Everything that stands for a kernel object owns a file descriptor and has `close()`; what shall live on is pinned. libbpf 1.1 and newer,
through cffi without a compiler.
"""

from polycube.bpf.btf import Field, Layout
from polycube.bpf.errors import BpfError, HookBusy, MapFull, NotSupported, VerifierError
from polycube.bpf.link import AttachType, Link, LinkInfo, XdpMode
from polycube.bpf.map import Map, MapInfo, MapType, u32
from polycube.bpf.object import MapSpec, Object, ProgramSpec
from polycube.bpf.pin import ensure_bpffs, is_bpffs
from polycube.bpf.probe import Features, features
from polycube.bpf.program import Program, ProgramInfo, TestRun, run_statistics, sk_buff, xdp_md
from polycube.bpf.rcu import grace, quiesce
from polycube.bpf.ringbuf import Batch, RingBuffer, RingReader

__all__ = [
    "AttachType",
    "Batch",
    "BpfError",
    "Features",
    "Field",
    "HookBusy",
    "Layout",
    "Link",
    "LinkInfo",
    "Map",
    "MapFull",
    "MapInfo",
    "MapSpec",
    "MapType",
    "NotSupported",
    "Object",
    "Program",
    "ProgramInfo",
    "ProgramSpec",
    "RingBuffer",
    "RingReader",
    "TestRun",
    "VerifierError",
    "XdpMode",
    "ensure_bpffs",
    "features",
    "grace",
    "is_bpffs",
    "quiesce",
    "run_statistics",
    "sk_buff",
    "u32",
    "xdp_md",
]
