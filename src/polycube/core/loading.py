# SPDX-License-Identifier: Apache-2.0
"""Loads objects into the kernel: units of one, and the programs that lead frames into them.

What stands pinned and has the layout that the object wants is taken over; other maps are made. All that was made is pinned, or, if
something fails, nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from polycube.bpf import Map, MapSpec, MapType, Object, pin
from polycube.core.fusing import Piece
from polycube.core.openmaps import OpenMaps
from polycube.core.paths import LEAD_TC, LEAD_XDP, SLOWPATH, XDP_INJECTOR, Paths
from polycube.core.shadownetdevs import SHADOW_PROGRAMS

_OWNED_BY_UNIT = {"ports", "domains", "flood_devices"}
_PER_HOOK = {"pcn_progs"}


@dataclass(frozen=True)
class Load:
    """What is needed to load a unit."""

    name: str  # for messages: the service
    data: bytes
    sizes: Mapping[str, int] = field(default_factory=dict)
    piece: Piece | None = None  # what it takes to fuse it with others


class Loader:
    """Loads, and knows where what is loaded is pinned."""

    def __init__(self, paths: Paths, opened: OpenMaps) -> None:
        self.loads: dict[tuple[str, str], Load] = {}  # (uuid, unit) -> its object; filled by who plans
        self.fresh: dict[str, set[str]] = {}  # uuid -> maps that had to be created
        self.lost: list[str] = []  # sentences on maps whose layout changed
        self._paths = paths
        self._opened = opened

    def load(self, uuid: str, unit: str) -> None:
        """A unit of one, whose load is known; blocking."""
        load, hook, folder = self.loads[uuid, unit], unit.partition("-")[0], self._paths.units / uuid / unit
        pin.remove(folder)
        folder.mkdir(parents=True)
        with Object.open(load.data, load.name[:15]) as object:
            for name, size in load.sizes.items():
                if name in object.maps:
                    object.maps[name].max_entries = size
            pins = {name: folder / name for name in object.programs}
            try:
                made = self._load(object, lambda name: self.pin_of(uuid, folder, hook, name), pins)
            except BaseException:
                pin.remove(folder)
                raise
        own = {path.name for path in made if path.parent == self._paths.cube(uuid)} - {SLOWPATH}
        self.fresh.setdefault(uuid, set()).update(own)

    def load_injectors(self, injectors: Mapping[str, bytes]) -> None:
        """Replaces the programs that lead frames into cubes, hook by hook; the maps they share with units are adopted."""
        folder = self._paths.shared
        for hook, data in injectors.items():
            names = {"pcn_inject": XDP_INJECTOR, "pcn_lead": LEAD_XDP} if hook == "xdp" else {"pcn_lead": LEAD_TC, **SHADOW_PROGRAMS}
            with Object.open(data, f"inject_{hook}") as object:
                pins = {name: folder / target for name, target in names.items()}
                self._load(object, lambda name, hook=hook: self.pin_of("", folder, hook, name), pins)  # type: ignore[misc]

    def _load(self, object: Object, pin_of: Callable[[str], Path], programs: Mapping[str, Path]) -> list[Path]:
        """Loads and pins; returns the pins of maps that were made."""
        new: dict[str, Path] = {}
        for name, spec in object.maps.items():
            path = pin_of(name)
            standing = self._adoptable(path, spec)
            if standing:
                spec.reuse(standing)
            else:
                new[name] = path
        made: list[Path] = []
        try:
            object.load()
            for name, path in new.items():
                self._opened.forget(path)
                pin.remove(path)
                with object.map(name) as created:
                    created.pin(path)
                made.append(path)
            for name, path in programs.items():
                pin.remove(path)
                with object.program(name) as program:
                    program.pin(path)
        except BaseException:
            for path in made:
                pin.remove(path)
            raise
        return made

    def remove_unused(self, uuid: str) -> None:
        """Maps of a cube that no generation of its programs has any more, and what would be needed to load others."""
        for key in [key for key in self.loads if key[0] == uuid and not (self._paths.units / uuid / key[1]).is_dir()]:
            del self.loads[key]
        used = {SLOWPATH}
        loads = [load for key, load in self.loads.items() if key[0] == uuid]
        for load in loads:
            with Object.open(load.data, load.name[:15]) as object:
                used.update(object.maps)
        folder = self._paths.cube(uuid)
        for path in list(folder.iterdir()) if loads and folder.is_dir() else ():
            if path.name not in used:
                self._opened.forget(path)
                pin.remove(path)

    def pin_of(self, uuid: str, folder: Path, hook: str, name: str) -> Path:
        """Where a map of a cube is pinned; `folder` is that of the unit."""
        if name in _OWNED_BY_UNIT or name.startswith("."):  # sections of the program: constants and tables of the compiler's making, too
            return folder / name.rpartition(".")[2]
        if name.startswith("pcn_"):
            return self._paths.shared_map(f"{name}_{hook}" if name in _PER_HOOK else name)
        return self._paths.cube_map(uuid, name)

    def _adoptable(self, path: Path, spec: MapSpec) -> Map | None:
        """The pinned map, if it has the layout that the object wants."""
        standing = Map.find(path)
        if standing is None:
            return None
        layouts = standing.layouts()
        info = standing.info
        described = ":".join(
            [MapType(info.type).name, str(spec.flags), str(info.key_size), str(info.value_size)]
            + ([layouts[0].describe(), layouts[1].describe()] if layouts else [])
        )
        if described == spec.describe() or (not layouts and spec.describe().startswith(described)):
            return standing
        standing.close()
        self.lost.append(f"map {path.name} of {path.parent.name} has another layout in the new program; its entries are lost")
        return None
