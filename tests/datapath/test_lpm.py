# SPDX-License-Identifier: Apache-2.0
"""Longest-prefix match: tables written by the toolkit, looked up by the data plane, against a plain model."""

from __future__ import annotations

import ipaddress
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prefixes import BITS, agrees, around, longest, network, packet

from polycube.toolkit.lpm import PrefixTable

FOLDER = Path(__file__).parent / "matcher"
PREFIXES = 512


def table_of(made: Any, version: int, prefixes: int = PREFIXES) -> PrefixTable:
    maps = {name: made.map(name) for name in PrefixTable.sizes(f"prefixes{version}", 1)}
    return PrefixTable(maps, f"prefixes{version}", version, prefixes)


@pytest.mark.parametrize("version", [4, 6])
def test_data_plane_and_toolkit_find_the_longest_prefix_as_the_plain_model_does(cube: Any, version: int) -> None:
    made = cube(FOLDER, ports=8, sizes=PrefixTable.sizes(f"prefixes{version}", PREFIXES))
    table, rnd = table_of(made, version), random.Random(version)
    prefixes, addresses = around(rnd, version, 60)
    model = {one: rnd.randrange(8) for one in prefixes}
    table.sync(model)
    assert dict(table.items()) == model
    for _ in range(3):
        some = rnd.sample(addresses, 25)
        agrees(made, model, some)
        assert [table.longest(address) for address in some] == [longest(model, address) for address in some]
        gone = rnd.sample(sorted(model, key=str), 5)
        table.remove([*gone, network(version, 1, BITS[version])])  # one that is not there
        for one in gone:
            del model[one]
        more = {one: rnd.randrange(8) for one in around(rnd, version, 10)[0]} | {one: 0 for one in list(model)[:5]}
        table.update(more)
        model |= more
        assert dict(table.items()) == model
    table.clear()
    made.send(packet(addresses[0])).dropped("no_prefix")


@pytest.mark.parametrize("version", [4, 6])
def test_every_length_around_an_address_is_found_in_its_turn(cube: Any, version: int) -> None:
    made = cube(FOLDER, ports=8, sizes=PrefixTable.sizes(f"prefixes{version}", PREFIXES))
    table, bits = table_of(made, version), BITS[version]
    address = random.Random(9).getrandbits(bits)
    model = {network(version, address, length): length % 8 for length in range(bits + 1)}
    table.update(model)
    near = ipaddress.ip_address(address.to_bytes(bits // 8, "big"))
    for length in range(bits, -1, -1 if version == 4 else -4):
        agrees(made, model, [near])
        gone = [one for one in model if one.prefixlen >= length]
        table.remove(gone)
        model = {one: value for one, value in model.items() if one not in gone}
    made.send(packet(near)).dropped("no_prefix")


@pytest.fixture
def made(cube: Any) -> Any:
    return cube(FOLDER, ports=2, sizes=PrefixTable.sizes("prefixes4", PREFIXES))


def test_blocks_bits_and_values_go_with_the_last_prefix(made: Any) -> None:
    table = table_of(made, 4)
    table.sync({})
    empty = [value for _, value in made.map("prefixes4_filter").items()]
    one, two, beside = (ipaddress.ip_network(text) for text in ("10.0.0.0/24", "10.0.0.1/32", "10.0.0.2/31"))
    table[one] = 1
    table[two] = 1
    table[beside] = 1
    table[one] = 0  # known already: counted once
    assert (len(made.map("prefixes4")), len(made.map("prefixes4_numbers")), len(made.map("prefixes4_counts"))) == (2, 2, 4)
    del table[one]
    made.send(packet(ipaddress.ip_address("10.0.0.1"))).forwarded(1)
    assert table.get(beside) == 1 and one not in table
    del table[two]
    del table[two]
    made.send(packet(ipaddress.ip_address("10.0.0.3"))).forwarded(1)
    del table[beside]
    assert [len(made.map(f"prefixes4{name}")) for name in ("", "_numbers", "_counts")] == [0, 0, 0]
    assert [value for _, value in made.map("prefixes4_filter").items()] == empty
    assert not any(value["taken"] for _, value in made.map("prefixes4_values").items())


def test_default_route_is_found_without_a_bit(made: Any) -> None:
    table = table_of(made, 4)
    table[ipaddress.ip_network("0.0.0.0/0")] = 1
    made.send(packet(ipaddress.ip_address("1.2.3.4"))).forwarded(1)
    assert table.longest(ipaddress.ip_address("1.2.3.4")) == (ipaddress.ip_network("0.0.0.0/0"), 1)


def test_as_many_values_as_prefixes_can_all_change_at_once(cube: Any) -> None:
    made = cube(FOLDER, ports=2, sizes=PrefixTable.sizes("prefixes4", 8))
    table = table_of(made, 4, 8)
    for round in range(3):
        model = {ipaddress.ip_network(f"10.{number}.0.0/16"): 100 * round + number for number in range(8)}
        table.update(model)
        assert dict(table.items()) == model


def test_full_table_refuses_one_more_and_keeps_the_others(cube: Any) -> None:
    made = cube(FOLDER, ports=2, sizes=PrefixTable.sizes("prefixes4", PREFIXES) | {"prefixes4": 2})
    table = table_of(made, 4)
    table.sync({ipaddress.ip_network(f"10.{n}.0.0/16"): n for n in range(0, 32, 16)})
    with pytest.raises(Exception, match="full"):
        table[ipaddress.ip_network("10.32.0.0/16")] = 1
    made.send(packet(ipaddress.ip_address("10.0.0.1"))).forwarded(0)


def test_sync_mends_what_a_change_that_was_cut_off_has_left(made: Any) -> None:
    table, one, two = table_of(made, 4), ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("11.0.0.0/8")
    table.update({one: 1, two: 0})
    made.map("prefixes4_numbers").clear()
    made.map("prefixes4_counts").clear()
    made.map("prefixes4_values")[7] = {"taken": 1, "value": 99}
    table.sync({one: 1, two: 0})
    assert dict(table.items()) == {one: 1, two: 0}
    made.send(packet(ipaddress.ip_address("10.0.0.1"))).forwarded(1)
    del table[one], table[two]
    assert not any(value["taken"] for _, value in made.map("prefixes4_values").items())
    assert len(made.map("prefixes4_counts")) == 0


networks4 = st.builds(lambda address, length: network(4, address, length), st.integers(0, 2**32 - 1), st.integers(0, 32))
close4 = st.builds(lambda address, length: network(4, 10 << 24 | address, length), st.integers(0, 255), st.integers(20, 32))
changes = st.lists(st.tuples(st.none() | st.integers(0, 3), networks4 | close4), max_size=30)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes)
def test_any_sequence_of_changes_leaves_what_a_table_made_at_once_would_hold(made: Any, steps: list[tuple[int | None, Any]]) -> None:
    table, model = table_of(made, 4), dict[Any, int]()
    table.clear()
    for value, one in steps:
        if value is None:
            model.pop(one, None)
            del table[one]
        else:
            model[one] = table[one] = value
    assert dict(table.items()) == model
    one_by_one = [sorted(made.map(name).items(), key=str) for name in PrefixTable.sizes("prefixes4", 1)]
    table.sync(model)
    assert [sorted(made.map(name).items(), key=str) for name in PrefixTable.sizes("prefixes4", 1)] == one_by_one
