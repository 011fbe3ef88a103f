# SPDX-License-Identifier: Apache-2.0
"""Lists numbered in a row: beside a plain list, and what of them is written."""

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polycube.model import (
    INSERT,
    Diff,
    Edit,
    ModelError,
    Node,
    Op,
    Ordered,
    Uint32,
    dump,
    edit,
    from_rows,
    key,
    leaf,
    listing,
    load,
    row_changes,
    rows,
)
from polycube.model.ordered import RANKS


class Line(Node):
    """An element."""

    id: Uint32 = key("Place", example="0")
    text: str = leaf("What it says", default="")


class Program(Node):
    """Holds them."""

    lines: Ordered[Line] = listing("Lines")


def texts(program):
    assert [line.id for line in program.lines.values()] == list(range(len(program.lines)))
    return [line.text for line in program.lines.values()]


def written(store, old, new):
    """The store after a change, and how many rows it wrote or removed."""
    upserts, gone = row_changes(old, new)
    return {**{path: text for path, text in store.items() if path not in gone}, **upserts}, len(upserts) + len(gone)


def program(*said):
    return load(Program, {"lines": [{"id": at, "text": text} for at, text in enumerate(said)]})


places = st.integers(0, 12)
words = st.sampled_from("abc")
steps = st.one_of(
    st.tuples(st.just("insert"), places, words),
    st.tuples(st.just("append"), places, words),
    st.tuples(st.just("delete"), places, words),
    st.tuples(st.just("set"), places, words),
    st.tuples(st.just("replace"), places, words),
    st.tuples(st.just("restart"), places, words),
)


@given(st.lists(steps, max_size=40))
def test_it_is_what_a_plain_list_is_also_in_the_store(sequence):
    made, plain = program("x", "y"), ["x", "y"]
    store = rows(made)
    for what, at, text in sequence:
        before = made
        if what == "insert":
            plain.insert(at, text)
            made = edit(made, [Edit(Op.CREATE, ("lines", str(INSERT + at)), {"text": text})])
        elif what == "append":
            plain.append(text)
            made = edit(made, [Edit(Op.CREATE, ("lines", str(len(plain) + at)), {"text": text})])
        elif what == "replace":
            plain[at : at + 2] = [text]
            body = [{"id": number * 3, "text": said} for number, said in enumerate(plain)]
            made = edit(made, [Edit(Op.REPLACE, ("lines",), body)])
        elif what == "restart":
            made = from_rows(Program, dict(reversed(store.items())))
            assert not any(row_changes(before, made))
        elif at < len(plain):
            op = Op.DELETE if what == "delete" else Op.MERGE
            plain[at : at + 1] = [] if op is Op.DELETE else [text]
            made = edit(made, [Edit(op, ("lines", str(at)), {"text": text})])
        assert texts(made) == plain
        assert bool(Diff(before, made)) == (texts(before) != plain)
        store, _ = written(store, before, made)
        assert store == rows(made)
        assert made == load(Program, dump(made)) == from_rows(Program, store)


@pytest.mark.parametrize("place", ["front", "back", "middle"])
def test_a_change_of_one_among_many_writes_one_row(place):
    made = program(*map(str, range(1000)))
    costs = []
    for number in range(300):
        at = {"front": 0, "back": len(made.lines), "middle": 500}[place]
        after = edit(made, [Edit(Op.CREATE, ("lines", str(INSERT + at)), {"text": "new"})])
        costs.append(written({}, made, after)[1])
        assert len(Diff(made, after).added("lines")) >= 1
        assert after.lines[at].text == "new"
        made = after
        assert number < 299 or texts(made).count("new") == 300
    assert sorted(costs)[len(costs) * 8 // 10] == 1
    assert sum(costs) < 6 * len(costs)
    assert costs[0] == written({}, made, edit(made, [Edit(Op.DELETE, ("lines", "7"))]))[1] == 1


def test_a_queue_never_runs_out_of_ranks():
    made = program(*map(str, range(3)))
    highest = 0
    for number in range(3, 40_000):
        lines = made.lines.without(0).adding(Line(id=2, text=str(number)))
        made = Program(lines=lines)
        highest = max(highest, lines.kept[-1].id)
    assert texts(made) == ["39997", "39998", "39999"]
    assert RANKS // 2 < highest < RANKS


def test_a_store_of_consecutive_numbers_keeps_its_order():
    old = {"": "{}"} | {f"lines/{at}": json.dumps({"id": at, "text": str(at)}) for at in (10, 2, 0, 1, *range(3, 10))}
    made = from_rows(Program, old)
    assert texts(made) == [str(at) for at in range(11)]
    after = edit(made, [Edit(Op.CREATE, ("lines", str(INSERT)), {"text": "new"})])
    store, _ = written(old, made, after)
    assert texts(from_rows(Program, store)) == ["new", *map(str, range(11))]


def test_what_changes_nothing_is_the_same():
    made = program("a", "b")
    for one in (
        Edit(Op.MERGE, ("lines", "1"), {"text": "b"}),
        Edit(Op.REPLACE, ("lines", "1"), {"text": "b"}),
        Edit(Op.REPLACE, ("lines",), [{"id": 5, "text": "b"}, {"id": 1, "text": "a"}]),
        Edit(Op.MERGE, ("lines",), [{"id": 0, "text": "a"}]),
    ):
        assert edit(made, [one]) is made
    assert pickle.loads(pickle.dumps(made.lines)) == copy.copy(made.lines) == made.lines
    assert hash(load(Program, dump(made)).lines) == hash(made.lines)


def test_what_is_created_in_a_place_takes_it_over():
    made = edit(program("a", "b", "c"), [Edit(Op.CREATE, ("lines", "1"), {"text": "x"})])
    assert [line.text for line in made.lines.values()] == ["a", "x", "c"]


def test_places_that_are_not_there_are_refused():
    made = program("a", "b")
    for one in (Edit(Op.DELETE, ("lines", "2")), Edit(Op.MERGE, ("lines", "2"), {})):
        with pytest.raises(ModelError, match="lines has no 2"):
            edit(made, [one])
    with pytest.raises(ModelError, match="holds 1 twice"):
        load(Program, {"lines": [{"id": 1}, {"id": 1}]})
    with pytest.raises(KeyError):
        made.lines[2]
