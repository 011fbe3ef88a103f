# SPDX-License-Identifier: Apache-2.0
"""The classification engine against a plain model: the first rule that matches."""

from __future__ import annotations

from pathlib import Path

import pytest
from classify_lab import Maker, first, wire

from polycube.bpf import u32
from polycube.toolkit.classify import Result, Rule, Sides, Table, match
from polycube.toolkit.classify.space import Numbers

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
    sides = Sides(made.maps, 0, Table(), "counters")
    for seed in range(20):
        maker = Maker(2000 + seed, version)
        rules = [maker.rule((seed, at)) for at in range(maker.chance.randrange(1, 50))]
        sides.update(rules, maker.sets, flows=64)
        frames = [maker.frame() for _ in range(40)]
        frames += maker.chance.sample(frames, 10)  # known flows
        for frame, slot in zip(frames, slots(made, frames), strict=True):
            at = first(rules, frame, maker.sets)
            assert slot == (None if at is None else sides.table.entries[at].slot), (seed, frame)


def says(cube, sides, maker, rules):
    frames = [maker.frame() for _ in range(40)]
    for frame, slot in zip(frames, slots(cube, frames), strict=True):
        at = first(rules, frame, maker.sets)
        assert slot == (None if at is None else sides.table.entries[at].slot)


def test_rules_that_ask_for_nothing_are_found_where_they_are(cube):
    made, maker = cube(FOLDER, transparent=True), Maker(6, 4)
    sides = Sides(made.maps, 0, Table(), "counters")
    rules = [Rule(at, match({}), Result(action=0)) for at in range(3)]
    for left in (rules, rules[1:], rules[2:], []):
        sides.update(left, maker.sets)
        assert slots(made, [maker.frame()]) == [sides.table.entries[0].slot if left else None]


def test_a_set_of_known_flows_holds_them_apart(cube):
    """With room for one set, all flows meet in it: of both IP versions, more than it holds, and again."""
    made = cube(FOLDER, transparent=True)
    sides = Sides(made.maps, 0, Table(), "counters")
    makers = [Maker(7, 4), Maker(8, 6)]
    for version in range(3):
        rules = [maker.rule((version, at)) for at in range(10) for maker in makers]
        sides.update(rules, flows=4)
        frames = [maker.frame() for _ in range(5) for maker in makers]
        for frame, slot in zip(frames * 3, slots(made, frames * 3), strict=True):
            at = first(rules, frame, {})
            assert slot == (None if at is None else sides.table.entries[at].slot)


def test_what_a_failed_request_took_back_is_not_seen_later(cube):
    made, maker = cube(FOLDER, transparent=True), Maker(5, 4)
    sides = Sides(made.maps, 0, Table(), "counters")
    versions = [[maker.rule((version, at)) for at in range(20)] for version in range(4)]
    sides.update(versions[0], maker.sets, flows=64)
    counters = [entry.counter for entry in sides.table.entries]
    for version in (1, 2):
        standing = made.map("cls_tables")[0]
        sides.update(versions[version], maker.sets, flows=64)
        tried = made.map("cls_tables")[0]
        made.map("cls_tables")[0] = standing  # the undo of the only write that was recorded
        assert tried > standing
    sides.update(versions[0], maker.sets, flows=64)
    says(made, sides, maker, versions[0])
    assert [entry.counter for entry in sides.table.entries] == counters
    sides.update(versions[3], maker.sets, flows=64)
    says(made, sides, maker, versions[3])


def test_a_new_process_takes_over_what_stands(cube):
    made, maker = cube(FOLDER, transparent=True), Maker(6, 6)
    rules = [maker.rule(at) for at in range(30)]
    former = Sides(made.maps, 0, Table(), "counters")
    former.update(rules, maker.sets)
    former.update(rules[5:], maker.sets)
    places = Sides(made.maps, 0, Table(), "counters").places()
    assert places == [(entry.slot, entry.counter) for entry in former.table.entries]
    numbers = Numbers(last=-1)
    numbers.reserve([counter for _, counter in places])
    sides = Sides(made.maps, 0, Table(counters=numbers), "counters")
    sides.table.restore(rules[5:], places, maker.sets)
    assert [entry.counter for entry in sides.table.entries] == [counter for _, counter in places]
    for left in (rules[5:], rules[8:], rules):
        sides.update(left, maker.sets)
        says(made, sides, maker, left)
    used = [entry.counter for entry in sides.table.entries]
    assert len(set(used)) == len(used)
