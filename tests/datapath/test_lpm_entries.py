# SPDX-License-Identifier: Apache-2.0
"""Prefixes with states of their own: tables in bulk, and conditions, against a plain model."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from prefixes import agrees, around, longest

from polycube.toolkit.lpm import EntryTable

FOLDER = Path(__file__).parent / "lister"
PREFIXES = 512


@pytest.mark.parametrize("version", [4, 6])
def test_the_longest_prefix_that_counts_is_found_also_of_tables_in_bulk(cube: Any, version: int) -> None:
    """Bits of what was dropped stay until the filter is renewed, and do no harm."""
    made = cube(FOLDER, ports=8, sizes=EntryTable.sizes(f"prefixes{version}", PREFIXES))
    made.cfg(limit=8)
    maps = {name: made.map(name) for name in EntryTable.sizes(f"prefixes{version}", 1)}
    table, rnd = EntryTable(maps, f"prefixes{version}", version, PREFIXES), random.Random(version)
    prefixes, addresses = around(rnd, version, 100)
    keys = {one: one.prefixlen.to_bytes(4, "little") + one.network_address.packed for one in prefixes}
    model = dict.fromkeys(prefixes, 3)
    lines: dict[int, int] = {}
    table.gather(keys.values(), lines)
    table.admit(lines)
    table.fill(keys.values(), (3).to_bytes(4, "little"))
    agrees(made, model, addresses[::8])
    others = dict.fromkeys(prefixes[1::3], 6)
    table.update(others)
    model |= others
    agrees(made, model, addresses[::8])
    made.cfg(limit=5)
    agrees(made, model, addresses[::4], lambda value: value < 5)
    for address in addresses[::4]:
        assert table.longest(address, lambda value: value < 5) == longest(model, address, lambda value: value < 5)
    gone = prefixes[::2]
    table.drop([keys[one] for one in gone[:20]])
    table.remove([*gone[20:], gone[0]])  # one that is not there
    for one in gone:
        del model[one]
    agrees(made, model, addresses[::8], lambda value: value < 5)
    before = set_bits(made, version)
    for _ in table.refilter():
        pass
    assert set_bits(made, version) < before
    agrees(made, model, addresses[::8], lambda value: value < 5)
    table.drop(list(keys.values()))
    for _ in table.refilter():
        pass
    assert set_bits(made, version) == 0
    agrees(made, {}, addresses[::8])


def set_bits(made: Any, version: int) -> int:
    lines = [words["words"] for _, words in made.map(f"prefixes{version}_filter").items()]
    return sum(word.bit_count() for number, line in enumerate(lines) for word in (line[:1] if not number else line))
