# SPDX-License-Identifier: Apache-2.0
"""Maps of a cube while programs of another version come that lay them out in another way: who has which, and what comes over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from sample_service import SOURCE, compile_object

from polycube.bpf import Map, ensure_bpffs, pin
from polycube.core.adopt import Reader
from polycube.core.carry import fitted
from polycube.core.kernel import Kernel
from polycube.core.loading import Load
from polycube.core.maps import MapViews, Shapes
from polycube.core.operation import Key, Kind, Operation
from polycube.core.paths import Paths
from polycube.testing.isolation import isolate

ONE, TWO = {"vlan": 1}, {"vlan": 2}
NEWER = SOURCE.replace("__u64 seen; __u16 ports[2];", "__u32 since; __u64 seen; __u16 ports[3];").replace(
    "numbers, ARRAY, __u32, __u32", "numbers, ARRAY, __u32, __u64"
)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    isolate()
    sources = {"tc-old": SOURCE, "tc-new": NEWER}
    return {unit: compile_object(tmp_path_factory.mktemp(unit), source) for unit, source in sources.items()}


class Cube:
    """Its units come and go."""

    def __init__(self, paths: Paths, objects: dict[str, Path]) -> None:
        self.paths, self.objects = paths, objects
        self.kernel = Kernel(paths, cast(Any, None))
        self.folder = paths.cube("u")
        self.folder.mkdir(parents=True)

    def load(self, unit: str) -> set[str]:
        """Returns the maps that were made."""
        self.kernel.loader.fresh.clear()
        self.kernel.loader.loads["u", unit] = Load("sampler", self.objects[unit].read_bytes(), learned=("table",))
        self._do(Operation(Key(Kind.UNIT, ("u", unit)), None, {}))
        return self.kernel.loader.fresh["u"]

    def unload(self, unit: str) -> None:
        self._do(Operation(Key(Kind.UNIT, ("u", unit)), {}, None))

    def _do(self, operation: Operation) -> None:
        asyncio.run(self.kernel.carry_out(operation))

    def views(self, unit: str) -> MapViews:
        """As the worker of that version has them."""
        return MapViews(Shapes.read(self.objects[unit]), lambda name: Map.find(self.folder / name))

    def ids(self) -> dict[str, int]:
        found = {}
        for path in self.folder.iterdir():
            with Map.open(path) as one:
                found[path.name] = one.info.id
        return found


@pytest.fixture
def cube(objects: dict[str, Path], request: pytest.FixtureRequest) -> Iterator[Cube]:
    ensure_bpffs()
    root = Path("/sys/fs/bpf") / request.node.name[:40]
    made = Cube(Paths(root), objects)
    yield made
    made.kernel.close()
    pin.remove(root)


def test_a_unit_that_goes_again_leaves_everything_as_it_was(cube: Cube) -> None:
    cube.load("tc-old")
    cube.views("tc-old")["numbers"][0] = 7
    before = cube.ids()
    assert cube.load("tc-new") == {"table", "numbers"}
    assert cube.ids()["counts"] == before["counts"] and cube.ids()["table"] != before["table"]
    assert "numbers" in cube.views("tc-old") and cube.views("tc-old")["numbers"].get(0) is None, "a map of another layout is none"
    cube.unload("tc-new")
    assert cube.ids() == before and cube.views("tc-old")["numbers"][0] == 7


def test_what_is_learned_comes_over_until_the_last_program_that_learns_has_gone(cube: Cube) -> None:
    cube.load("tc-old")
    learner = cube.views("tc-old")["table"]
    learner[ONE] = {"seen": 5, "ports": [1, 2]}
    cube.load("tc-new")
    table = cube.views("tc-new")["table"]
    assert table[ONE] == {"since": 0, "seen": 5, "ports": [1, 2, 0]}
    table[ONE] = {"seen": 6}
    learner[TWO] = {"seen": 9}
    cube.unload("tc-old")
    assert [table[key]["seen"] for key in (ONE, TWO)] == [6, 9]
    assert [line for line in cube.kernel.loader.lost if "table" in line] == [] and [
        line for line in cube.kernel.loader.lost if "numbers" in line
    ]
    assert set(cube.ids()) == {"table", "numbers", "counts", "slowpath"}


def test_what_finds_no_room_is_told(cube: Cube) -> None:
    cube.load("tc-old")
    learner = cube.views("tc-old")["table"]
    learner[{"vlan": 0}] = {}
    cube.load("tc-new")
    for vlan in range(40):
        cube.views("tc-new")["table"][{"vlan": 1000 + vlan}] = {}
        learner[{"vlan": vlan}] = {}
    cube.unload("tc-old")
    assert "16 entries are lost" in cube.kernel.loader.lost[-1]


def test_a_unit_that_has_never_taken_over_is_made_again(cube: Cube) -> None:
    """The daemon was killed when the new tables were there and not filled."""
    cube.load("tc-old")
    before = cube.ids()
    cube.load("tc-new")
    units = {Key(Kind.UNIT, ("u", unit)): {} for unit in ("tc-old", "tc-new")}
    found: dict[Key, Any] = {**units, Key(Kind.SLOT, ("tc", 2)): {"uuid": "u", "unit": "tc-old", "program": "tail"}}
    found[Key(Kind.PORT, ("u", "tc-new", 0))] = {}
    Reader(cube.kernel)._drop_idle(found)
    assert {key.name for key in found} == {("u", "tc-old"), ("tc", 2)} and cube.ids() == before
    assert cube.load("tc-new") == {"table", "numbers"}


def test_values_are_cut_to_the_fields_that_there_are(objects: dict[str, Path]) -> None:
    old, new = (Shapes.read(objects[unit]).maps["table"].value for unit in ("tc-old", "tc-new"))
    value = {"since": 1, "seen": 2, "ports": [3, 4, 0]}
    assert fitted(old, value) == {"seen": 2, "ports": [3, 4, 0]} and fitted(new, value) == value
