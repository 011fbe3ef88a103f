# SPDX-License-Identifier: Apache-2.0
"""Loads objects into the kernel: units of one, and the programs that lead frames into them.

What stands pinned and has the layout that the object wants is taken over; other maps are made. All that was made is pinned, or, if
something fails, nothing.

A unit that wants a map of another layout gets a new one, which takes the name in the cube's folder, and is filled before its programs take
over. Each unit has pins of its own of the cube's maps that it uses: so the programs before it go on with theirs, and the folder shows these
again if the new unit goes first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from polycube.bpf import Map, MapSpec, Object, pin
from polycube.core.carry import Former
from polycube.core.fusing import Piece
from polycube.core.openmaps import OpenMaps
from polycube.core.paths import LEAD_TC, LEAD_XDP, SLOWPATH, XDP_INJECTOR, Paths
from polycube.core.shadownetdevs import SHADOW_PROGRAMS

_OWNED_BY_UNIT = {"ports", "domains", "flood_devices"}
_PER_HOOK = {"pcn_progs"}
MAPS = "maps"  # of a unit: pins of those of the cube that it uses


@dataclass(frozen=True)
class Load:
    """What is needed to load a unit."""

    name: str  # for messages: the service
    data: bytes
    sizes: Mapping[str, int] = field(default_factory=dict)
    learned: Collection[str] = ()  # maps whose entries come over into one of another layout
    piece: Piece | None = None  # what it takes to fuse it with others


class Loader:
    """Loads, and knows where what is loaded is pinned."""

    def __init__(self, paths: Paths, opened: OpenMaps) -> None:
        self.loads: dict[tuple[str, str], Load] = {}  # (uuid, unit) -> its object; filled by who plans
        self.fresh: dict[str, set[str]] = {}  # uuid -> maps that had to be created
        self.lost: list[str] = []  # sentences on maps whose layout changed
        self._paths = paths
        self._opened = opened
        self._formers: dict[Path, Former] = {}  # learned tables that are being replaced

    def load(self, uuid: str, unit: str) -> None:
        """A unit of one, whose load is known; blocking."""
        load, hook, folder = self.loads[uuid, unit], unit.partition("-")[0], self._paths.units / uuid / unit
        pin.remove(folder)
        folder.mkdir(parents=True)
        with Object.open(load.data, load.name[:15]) as object:
            for name, size in load.sizes.items():
                if name in object.maps:
                    object.maps[name].max_entries = size
            maps = {name: self.pin_of(uuid, folder, hook, name) for name in object.maps}
            try:
                made = self._load(object, maps, {name: folder / name for name in object.programs}, folder, load.learned)
            except BaseException:
                self.unload(uuid, unit)
                raise
        own = {path.name for path in made if path.parent == self._paths.cube(uuid)} - {SLOWPATH}
        self.fresh.setdefault(uuid, set()).update(own)

    def load_injectors(self, injectors: Mapping[str, bytes]) -> None:
        """Replaces the programs that lead frames into cubes, hook by hook; the maps they share with units are adopted."""
        folder = self._paths.shared
        for hook, data in injectors.items():
            names = {"pcn_inject": XDP_INJECTOR, "pcn_lead": LEAD_XDP} if hook == "xdp" else {"pcn_lead": LEAD_TC, **SHADOW_PROGRAMS}
            with Object.open(data, f"inject_{hook}") as object:
                maps = {name: self.pin_of("", folder, hook, name) for name in object.maps}
                self._load(object, maps, {name: folder / target for name, target in names.items()})

    def _load(
        self,
        object: Object,
        maps: Mapping[str, Path],
        programs: Mapping[str, Path],
        unit: Path | None = None,
        learned: Collection[str] = (),
    ) -> list[Path]:
        """Loads and pins; returns the pins of maps that were made. Programs are the last: a unit that has them is whole."""
        new: dict[str, Path] = {}
        for name, spec in object.maps.items():
            path = maps[name]
            standing = self._adoptable(path, spec, learned)
            if standing:
                spec.reuse(standing)
            else:
                new[name] = path
        made: list[Path] = []
        try:
            object.load()
            for name, path in new.items():
                with object.map(name) as created:
                    if unit and name in learned and path.exists():
                        self._formers[path] = former = Former(unit.name, Map.open(path), created.dup())
                        former.carry()
                    self._opened.forget(path)
                    pin.remove(path)
                    created.pin(path)
                made.append(path)
            if unit:
                (unit / MAPS).mkdir()
                for name in [name for name, path in maps.items() if path.parent.parent == self._paths.cubes]:
                    with object.map(name) as one:
                        one.pin(unit / MAPS / name)
            for name, path in programs.items():
                pin.remove(path)
                with object.program(name) as program:
                    program.pin(path)
        except BaseException:
            for path in made:
                pin.remove(path)
            raise
        return made

    def unload(self, uuid: str, unit: str) -> None:
        """A unit goes, and what only it needed of its cube; blocking."""
        self._carry_rest(uuid, unit)
        folder = self._paths.units / uuid
        self._opened.forget(folder / unit)
        pin.remove(folder / unit)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        self._show_maps(uuid)

    def forget(self, uuid: str) -> None:
        """Lets go of what it takes to load units that don't stand."""
        for key in [key for key in self.loads if key[0] == uuid and not (self._paths.units / uuid / key[1]).is_dir()]:
            del self.loads[key]

    def _show_maps(self, uuid: str) -> None:
        """The cube's folder has the maps that its units use; of two of a name the one that it has shown, as long as a unit uses it."""
        folder, units = self._paths.cube(uuid), self._paths.units / uuid
        uses = [units / unit / MAPS for unit in pin.listing(units)]
        if not folder.is_dir() or not uses or not all(one.is_dir() for one in uses):  # an earlier version's unit does not say what it uses
            return
        for name in {*pin.listing(folder), *(name for one in uses for name in pin.listing(one))} - {SLOWPATH}:
            used = [one / name for one in uses if (one / name).exists()]
            if (folder / name).exists() and _id(folder / name) in map(_id, used):
                continue
            self._opened.forget(folder / name)
            pin.remove(folder / name)
            if used:
                with Map.open(used[0]) as one:
                    one.pin(folder / name)

    def _carry_rest(self, uuid: str, unit: str) -> None:
        """The unit that goes is the last one that used tables which were replaced, or the one that they were replaced for."""
        for path in [path for path in self._formers if path.parent == self._paths.cube(uuid)]:
            former = self._formers.pop(path)
            left = former.carry() if former.unit != unit else 0
            former.close()
            if left:
                self.lost.append(f"map {path.name} of {uuid} has another layout in the new program: {left} entries are lost")

    def pin_of(self, uuid: str, folder: Path, hook: str, name: str) -> Path:
        """Where a map of a cube is pinned; `folder` is that of the unit."""
        if name in _OWNED_BY_UNIT or name.startswith("."):  # sections of the program: constants and tables of the compiler's making, too
            return folder / name.rpartition(".")[2]
        if name.startswith("pcn_"):
            return self._paths.shared_map(f"{name}_{hook}" if name in _PER_HOOK else name)
        return self._paths.cube_map(uuid, name)

    def _adoptable(self, path: Path, spec: MapSpec, learned: Collection[str]) -> Map | None:
        """The pinned map, if it has the layout that the object wants."""
        standing = Map.find(path)
        if standing is None or standing.fits(spec.describe()):
            return standing
        standing.close()
        if path.name not in learned:
            what = "only what the configuration says is written to the new one"
            self.lost.append(f"map {path.name} of {path.parent.name} has another layout in the new program: {what}")
        return None


def _id(path: Path) -> int:
    with Map.open(path) as one:
        return one.info.id
