# SPDX-License-Identifier: Apache-2.0
"""Fused units in the kernel: loaded with the maps of their cubes, pinned with what they stand in for.

A unit is a folder of bpffs with its program and, for each of its entries, a symbolic link to the program of the unit of one that is there
without it; so everything that `Kind.FUSED` says can be read back. Loading, which takes long, and pinning, which does not, are two steps:
nobody waits for the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from polycube.bpf import Map, Object, Program, pin
from polycube.core.fusing import SHARED
from polycube.core.paths import Paths

PROGRAM = "fused"


@dataclass(frozen=True)
class FusedLoad:
    """What is needed to load a fused unit. `cubes`: prefix of its maps -> (uuid, unit)."""

    data: bytes
    cubes: Mapping[str, tuple[str, str]]


class FusedUnits:
    """Those of one daemon. `pin_of`: where a map of a cube is pinned, by uuid, folder of the unit, hook and name."""

    def __init__(self, paths: Paths, pin_of: Callable[[str, Path, str, str], Path]) -> None:
        self.loads: dict[str, FusedLoad] = {}  # by name; filled by who plans
        self._paths = paths
        self._pin_of = pin_of
        self._loaded: dict[str, Program] = {}  # not pinned yet

    def load(self, name: str) -> None:
        """Has the kernel verify the program, unless that was done; blocking. Errors: those of `Object.load`, or of a map that is gone."""
        if name in self._loaded:
            return
        load, hook = self.loads[name], name.partition("-")[0]
        with ExitStack() as stack:
            object = stack.enter_context(Object.open(load.data, "fused"))
            for spec in object.maps.values():
                path = self._path(load, hook, spec.name)
                if path:
                    spec.reuse(stack.enter_context(Map.open(path)))
            object.load()
            self._loaded[name] = object.program(PROGRAM)

    def verified(self, uuid: str, unit: str) -> int:
        """Instructions that the verifier looked at in the program of a unit of one that took it longest; 0: the unit does not stand."""
        found = [Program.find(self._paths.units / uuid / unit / name) for name in ("entry", "ingress", "egress")]
        with ExitStack() as stack:
            return max((stack.enter_context(program).info.verified_insns for program in found if program), default=0)

    def _path(self, load: FusedLoad, hook: str, name: str) -> Path | None:
        if name.startswith("."):
            return None  # a table of the compiler's making
        if name.startswith(SHARED):
            return self._pin_of("", self._paths.units, hook, name)
        prefix, _, own = name.partition("_")
        uuid, unit = load.cubes[f"{prefix}_"]
        return self._pin_of(uuid, self._paths.units / uuid / unit, hook, own)

    def forget(self, name: str) -> None:
        """Lets go of a unit that was loaded and is not wanted any more."""
        self.loads.pop(name, None)
        program = self._loaded.pop(name, None)
        if program:
            program.close()

    def add(self, name: str, entries: Mapping[str, str]) -> None:
        """Pins a unit, which is loaded if it was not."""
        self.load(name)
        folder = self._paths.fused / name
        pin.remove(folder)
        folder.mkdir(parents=True)
        for entry, program in entries.items():
            (folder / entry).symlink_to(f"../../units/{program}")
        with self._loaded.pop(name) as loaded:
            loaded.pin(folder / PROGRAM)

    def remove(self, name: str) -> None:
        """Removes the pins."""
        pin.remove(self._paths.fused / name)
        self.forget(name)

    def read(self) -> dict[str, dict[str, str]]:
        """Entries of those that are pinned, by name. What a killed daemon left half done is removed."""
        found = {}
        for name in pin.listing(self._paths.fused):
            folder = self._paths.fused / name
            if not (folder / PROGRAM).exists():
                pin.remove(folder)
                continue
            links = {path.name: str(path.readlink()) for path in folder.iterdir() if path.is_symlink()}
            found[name] = {entry: target.removeprefix("../../units/") for entry, target in sorted(links.items())}
        return found

    def close(self) -> None:
        """Lets go of what was not pinned."""
        for name in list(self._loaded):
            self.forget(name)
