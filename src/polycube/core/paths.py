# SPDX-License-Identifier: Apache-2.0
"""Where things are pinned. Everything lies under one folder of a bpffs; no name holds a dot, which bpffs refuses, nor a user's name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

INJECTION_DEVICE = "pcn_tc0"  # outer end of the veth pair through which user space sends frames into TC programs
GENERIC_DEVICE = "pcn_xdp0"  # the same for programs on generic XDP: a struct pcn_inject stands in front of the frame
XDP_INJECTOR = "inject_xdp"  # pin, among the shared ones, of program pcn_inject
COPIES = "pcn_copies"  # pin, among the shared ones, of the ring buffer for copies of XDP cubes' traffic
LEAD_XDP = "lead_xdp"  # the same of program pcn_lead
LEAD_TC = "lead_tc"  # the same for TC
SLOWPATH = "slowpath"  # pin, among a cube's, of its ring buffer
FRAMEWORK_MAPS = frozenset(("ports", "domains", "flood_devices", SLOWPATH))  # of each cube, beside those called pcn_*


class Point(StrEnum):
    """Where on a netdev a program is attached."""

    XDP = "xdp"
    TC_INGRESS = "tc-ingress"
    TC_EGRESS = "tc-egress"


@dataclass(frozen=True)
class Paths:
    """The pins of one daemon."""

    root: Path = Path("/sys/fs/bpf/polycube")

    @property
    def shared(self) -> Path:
        """Maps and programs of the framework."""
        return self.root / "shared"

    def shared_map(self, name: str) -> Path:
        return self.shared / name

    @property
    def cubes(self) -> Path:
        return self.root / "cubes"

    def cube(self, uuid: str) -> Path:
        """The maps of a cube."""
        return self.cubes / uuid

    def cube_map(self, uuid: str, name: str) -> Path:
        return self.cube(uuid) / name

    @property
    def units(self) -> Path:
        return self.root / "units"

    def unit(self, uuid: str, hook: str, digest: str) -> Path:
        """The programs of one generation of a cube's unit."""
        return self.units / uuid / f"{hook}-{digest}"

    @property
    def fused(self) -> Path:
        """The fused units, by name."""
        return self.root / "fused"

    @property
    def links(self) -> Path:
        return self.root / "links"

    def link(self, ifindex: int, point: Point | str) -> Path:
        """The attachment of a program to a netdev."""
        return self.links / f"{ifindex}-{Point(point)}"
