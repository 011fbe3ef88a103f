# SPDX-License-Identifier: Apache-2.0
"""Maglev tables: even, in proportion to weights, the same everywhere, and little disturbed by changes."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polycube.toolkit.maglev import EMPTY, table

SIZE = 16384
names = st.text("0123456789abcdef.:", min_size=1, max_size=20)


def owners(weights: dict[str, int], size: int = SIZE) -> list[str]:
    """The name in each slot."""
    backends = list(weights)
    return [backends[index] for index in table(weights, size)]


def hundred() -> dict[str, int]:
    return {f"10.0.{number // 16}.{number}:80": 1 for number in range(100)}


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names, st.integers(0, 100), max_size=40), st.sampled_from([64, 256, 1024]))
def test_every_slot_has_a_backend_of_some_weight(weights: dict[str, int], size: int) -> None:
    slots = table(weights, size)
    assert len(slots) == size
    sharing = {index for index, weight in enumerate(weights.values()) if weight}
    assert set(slots) <= sharing if sharing else set(slots) == {EMPTY}


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(names, st.integers(1, 20), min_size=1, max_size=30))
def test_shares_are_as_even_as_the_weights(weights: dict[str, int]) -> None:
    """In every round of turns each gets its weight's part; at any moment it is at most one slot ahead of it or behind."""
    counts, total = Counter(owners(weights, 4096)), sum(weights.values())
    for name, weight in weights.items():
        assert abs(counts[name] - 4096 * weight / total) <= 2 + len(weights) * weight / total


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(names, st.integers(1, 5), min_size=2, max_size=20), st.randoms())
def test_the_order_of_backends_does_not_matter(weights: dict[str, int], random: object) -> None:
    shuffled = list(weights.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert owners(weights, 1024) == owners(dict(shuffled), 1024)


def moved(before: dict[str, int], after: dict[str, int], size: int = SIZE) -> float:
    """The part of the slots that changed hands without need: neither the old nor the new owner came or went."""
    pairs = zip(owners(before, size), owners(after, size), strict=True)
    return sum(old != new and old in after and new in before for old, new in pairs) / size


@pytest.mark.parametrize("gone", [0, 17, 50, 99])
def test_one_of_a_hundred_leaving_moves_less_than_two_per_cent_of_the_others(gone: int) -> None:
    before = hundred()
    after = {name: weight for number, (name, weight) in enumerate(before.items()) if number != gone}
    assert moved(before, after) < 0.02
    assert moved(after, before) < 0.02, "and when it comes back"
    assert moved(before, after, 65536) < 0.0075


def test_draining_is_leaving() -> None:
    drained = hundred() | {"10.0.1.17:80": 0}
    left = {name: weight for name, weight in drained.items() if weight}
    assert owners(drained) == owners(left)


def test_a_changed_weight_moves_about_what_it_must() -> None:
    before = hundred()
    after = before | {"10.0.1.17:80": 2}
    changed = sum(old != new for old, new in zip(owners(before), owners(after), strict=True)) / SIZE
    assert 0.009 < changed < 0.05


def test_a_table_has_a_power_of_two_of_slots() -> None:
    for size in (0, 100, 16381):
        with pytest.raises(ValueError, match=f"not {size}"):
            table({"a": 1}, size)
