# SPDX-License-Identifier: Apache-2.0
"""What this kernel can do, found out by trying, never by its version. `POLYCUBE_DISABLE_FEATURES=tcx,...` forces the fallbacks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache

from polycube.bpf.lib import disabled, ffi, lib
from polycube.bpf.link import has_tcx
from polycube.bpf.map import MapType

_XDP, _SCHED_CLS = 6, 3
_HELPER_LOOP, _HELPER_REDIRECT_PEER, _HELPER_XDP_LOAD_BYTES = 181, 155, 189


@dataclass(frozen=True)
class Features:
    """True: the kernel has it."""

    tcx: bool
    ringbuf: bool
    bpf_loop: bool
    redirect_peer: bool
    xdp_load_bytes: bool
    devmap_hash: bool

    def missing(self) -> list[str]:
        """Names of what is lacking."""
        return [entry.name for entry in fields(self) if not getattr(self, entry.name)]


@cache
def features() -> Features:
    """Probes once a process."""
    found = {
        "tcx": has_tcx(),
        "ringbuf": lib.libbpf_probe_bpf_map_type(MapType.RINGBUF, ffi.NULL) == 1,
        "bpf_loop": lib.libbpf_probe_bpf_helper(_SCHED_CLS, _HELPER_LOOP, ffi.NULL) == 1,
        "redirect_peer": lib.libbpf_probe_bpf_helper(_SCHED_CLS, _HELPER_REDIRECT_PEER, ffi.NULL) == 1,
        "xdp_load_bytes": lib.libbpf_probe_bpf_helper(_XDP, _HELPER_XDP_LOAD_BYTES, ffi.NULL) == 1,
        "devmap_hash": lib.libbpf_probe_bpf_map_type(MapType.DEVMAP_HASH, ffi.NULL) == 1,
    }
    return Features(**{name: value and name not in disabled() for name, value in found.items()})
