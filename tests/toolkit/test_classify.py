# SPDX-License-Identifier: Apache-2.0
"""The classification engine against a plain model: the first rule that matches."""

from __future__ import annotations

from pathlib import Path

import pytest
from classify_lab import KernelViews, Maker, first, wire

from polycube.bpf import u32
from polycube.toolkit.classify import Sides, Table

NO_RULE = 0xFFFFFFFF


def found(table: Table, frame) -> int | None:
    entry = next(iter(table.matching(frame)), None)
    return None if entry is None else table.entries.index(entry)


@pytest.mark.parametrize("version", [4, 6])
def test_random_rule_sets_classify_as_the_first_rule_that_matches(version):
    for seed in range(60):
        maker = Maker(seed, version)
        rules = [maker.rule(at) for at in range(maker.chance.randrange(1, 60))]
        table = Table()
        table.update(rules, maker.sets)
        for _ in range(60):
            frame = maker.frame()
            assert found(table, frame) == first(rules, frame, maker.sets), (seed, frame)


@pytest.mark.parametrize("version", [4, 6])
def test_a_table_that_is_changed_is_as_good_as_a_new_one(version):
    for seed in range(40):
        maker = Maker(1000 + seed, version)
        rules = [maker.rule(at) for at in range(maker.chance.randrange(1, 40))]
        table, number = Table(), len(rules)
        table.update(rules, maker.sets)
        for _ in range(12):
            change = maker.chance.random()
            at = maker.chance.randrange(len(rules) + 1)
            if change < 0.4:
                rules = [*rules[:at], maker.rule(number), *rules[at:]]
                number += 1
            elif change < 0.7:
                rules = rules[:at] + rules[at + maker.chance.randrange(4) :]
            elif change < 0.85:
                maker.chance.shuffle(rules)
            else:
                maker.sets = {**maker.sets, "one": Maker(seed + number, version).sets["one"]}
            table.update(rules, maker.sets)
            for _ in range(15):
                frame = maker.frame()
                assert found(table, frame) == first(rules, frame, maker.sets), (seed, frame)


FOLDER = Path(__file__).parent / "classifier"


def slots(cube, frames) -> list[int | None]:
    """What the data plane says of each frame."""
    program, results = cube.program("ingress"), cube.kernel_map("results")
    said = []
    for frame in frames:
        results.set(u32(0), u32(0xFFFFFFFE))
        program.test_run(wire(frame))
        said.append(int.from_bytes(results.get(u32(0)), "little"))
    return [None if slot == NO_RULE else slot for slot in said]


@pytest.mark.parametrize("version", [4, 6])
def test_the_data_plane_classifies_as_the_first_rule_that_matches(cube, version):
    made = cube(FOLDER, transparent=True)
    sides = Sides(KernelViews(made), 0, Table(), "counters")
    for seed in range(20):
        maker = Maker(2000 + seed, version)
        rules = [maker.rule((seed, at)) for at in range(maker.chance.randrange(1, 50))]
        sides.update(rules, maker.sets, flows=64)
        frames = [maker.frame() for _ in range(40)]
        frames += maker.chance.sample(frames, 10)  # known flows
        for frame, slot in zip(frames, slots(made, frames), strict=True):
            at = first(rules, frame, maker.sets)
            assert slot == (None if at is None else sides.table.entries[at].slot), (seed, frame)
