# SPDX-License-Identifier: Apache-2.0
"""The count-min sketch of ddosmitigator against exact counts: with few cells, so that there are many collisions."""

import math
import random
import struct
from collections import Counter
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "sketcher"
LINK = bytes(12) + b"\x88\xb5"
CELLS, ROWS = 64, 4


@pytest.fixture
def add(cube):
    """Counts and estimates: `add(source, units, second)`."""
    made = cube(FOLDER, transparent=True)
    made.cfg(seed=0xC0FFEE)

    def add(source: int, units: int, second: int = 1000) -> int:
        frame = LINK + source.to_bytes(16, "big") + struct.pack("<IIQ", second, units, 0)
        (estimate,) = struct.unpack_from("<Q", made.send(frame.ljust(60, b"\0")).packet, 38)
        return int(estimate)

    return add


def test_one_source_is_counted_exactly(add):
    assert [add(7, units) for units in (1, 1, 60, 1500)] == [1, 2, 62, 1562]


def test_estimates_are_never_too_small_and_seldom_too_large(add):
    """Too large by more than e / cells of the total: for less than e^-4 of the sources, by the theorem; 2 more for luck."""
    chance, counts, estimates = random.Random(11), Counter(), {}
    sources = [chance.getrandbits(128) for _ in range(150)]
    for _ in range(500):
        source, units = chance.choice(sources), int(chance.paretovariate(1))
        counts[source] += units
        assert add(source, units) >= counts[source]
    for source in counts:
        estimates[source] = add(source, 0)
    bound = math.e / CELLS * counts.total()
    beyond = [source for source in counts if estimates[source] - counts[source] > bound]
    assert len(beyond) <= math.exp(-ROWS) * len(counts) + 2
    assert any(estimates[source] > counts[source] for source in counts), "no collision at all: too easy"


def test_each_second_begins_at_nothing(add):
    for second in (5, 6, 7, 6):
        assert [add(1, 10, second), add(1, 10, second)] == [10, 20], second
    assert add(1, 10, 5) == 10


def test_large_counts_do_not_reach_the_time(add):
    """Beyond 32 bits; a cell holds 1 TB."""
    for _ in range(20):
        estimate = add(3, 0xFFFFFFFF)
    assert estimate == 20 * 0xFFFFFFFF
