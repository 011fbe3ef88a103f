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
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from polycube.toolkit.lpm import PrefixTable, sizes

FOLDER = Path(__file__).parent / "matcher"
BITS = {4: 32, 6: 128}
PREFIXES = 512


def network(version: int, address: int, length: int) -> Any:
    shift = BITS[version] - length
    return ipaddress.ip_network(((address >> shift << shift).to_bytes(BITS[version] // 8, "big"), length))


def table_of(made: Any, version: int, counted: bool = True) -> PrefixTable:
    maps = {name: made.map(name) for name in sizes(f"prefixes{version}", 1)}
    return PrefixTable(maps, f"prefixes{version}", version, PREFIXES, counted=counted)


def longest(model: dict[Any, int], address: Any) -> tuple[Any, int] | None:
    """The plain model: look at all of them."""
    matching = [(one.prefixlen, one) for one in model if address in one]
    return (max(matching)[1], model[max(matching)[1]]) if matching else None


def around(rnd: random.Random, version: int, count: int) -> tuple[list[Any], list[Any]]:
    """Prefixes that lie in one another, and addresses in and beside them."""
    bits = BITS[version]
    centres = [rnd.getrandbits(bits) for _ in range(4)]

    def near() -> int:
        return rnd.choice(centres) ^ rnd.getrandbits(rnd.randrange(bits + 1))

    prefixes = sorted({network(version, near(), rnd.randrange(bits + 1)) for _ in range(count)}, key=str)
    flips = [near() for _ in range(count)]
    inside = [int(one.network_address) | rnd.getrandbits(bits) >> one.prefixlen for one in prefixes[:10]]
    return prefixes, [ipaddress.ip_address(one.to_bytes(bits // 8, "big")) for one in (*flips, *inside)]


def packet(address: Any) -> Any:
    return Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02") / (IP if address.version == 4 else IPv6)(dst=str(address))


@pytest.mark.parametrize("version", [4, 6])
def test_data_plane_and_toolkit_find_the_longest_prefix_as_the_plain_model_does(cube: Any, version: int) -> None:
    made = cube(FOLDER, ports=8, sizes=sizes(f"prefixes{version}", PREFIXES))
    table, rnd = table_of(made, version), random.Random(version)
    prefixes, addresses = around(rnd, version, 60)
    model = {one: rnd.randrange(8) for one in prefixes}
    table.sync(model)
    assert dict(table.items()) == model
    for _ in range(3):
        for address in rnd.sample(addresses, 25):
            expected, result = longest(model, address), made.send(packet(address))
            assert table.longest(address) == expected
            if expected is None:
                result.dropped("no_prefix")
            else:
                result.forwarded(expected[1])
        gone = rnd.sample(sorted(model, key=str), 5)
        table.remove([*gone, network(version, 1, BITS[version])])  # one that is not there
        for one in gone:
            del model[one]
        more = {one: rnd.randrange(8) for one in around(rnd, version, 10)[0]} | {one: 0 for one in list(model)[:5]}
        table.update(more)
        model |= more
    table.clear()
    made.send(packet(addresses[0])).dropped("no_prefix")


@pytest.fixture
def made(cube: Any) -> Any:
    return cube(FOLDER, ports=2, sizes=sizes("prefixes4", PREFIXES))


def test_filter_and_counts_go_with_the_last_prefix(made: Any) -> None:
    table = table_of(made, 4)
    filters, counts = made.map("prefixes4_filter"), made.map("prefixes4_counts")
    table.sync({})
    empty = [value for _, value in filters.items()]
    one, two = ipaddress.ip_network("10.0.0.0/24"), ipaddress.ip_network("10.0.0.1/32")
    table[one] = 1
    table[two] = 1
    table[one] = 0  # known already: counted once
    assert len(counts) == 4
    del table[one]
    assert made.send(packet(ipaddress.ip_address("10.0.0.1"))).forwarded(1)
    del table[two]
    del table[two]
    assert len(counts) == 0
    assert [value for _, value in filters.items()] == empty


def test_default_route_is_found_without_a_bit(made: Any) -> None:
    table = table_of(made, 4)
    table[ipaddress.ip_network("0.0.0.0/0")] = 1
    made.send(packet(ipaddress.ip_address("1.2.3.4"))).forwarded(1)
    assert table.longest(ipaddress.ip_address("1.2.3.4")) == (ipaddress.ip_network("0.0.0.0/0"), 1)


def test_full_table_refuses_one_more_and_keeps_the_others(cube: Any) -> None:
    made = cube(FOLDER, ports=2, sizes=sizes("prefixes4", PREFIXES) | {"prefixes4": 2})
    table = table_of(made, 4)
    table.sync({ipaddress.ip_network(f"10.{n}.0.0/16"): n for n in range(2)})
    with pytest.raises(Exception, match="full"):
        table[ipaddress.ip_network("10.2.0.0/16")] = 1
    made.send(packet(ipaddress.ip_address("10.1.0.1"))).forwarded(1)


networks4 = st.builds(lambda address, length: network(4, address, length), st.integers(0, 2**32 - 1), st.integers(0, 32))
changes = st.lists(st.tuples(st.booleans(), networks4), max_size=30)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes)
def test_any_sequence_of_changes_leaves_what_a_table_made_at_once_would_hold(made: Any, steps: list[tuple[bool, Any]]) -> None:
    table, model = table_of(made, 4), dict[Any, int]()
    table.clear()
    for add, one in steps:
        if add:
            model[one] = table[one] = 1
        else:
            model.pop(one, None)
            del table[one]
    one_by_one = [sorted(made.map(name).items(), key=str) for name in sizes("prefixes4", 1)]
    table.sync(model)
    assert [sorted(made.map(name).items(), key=str) for name in sizes("prefixes4", 1)] == one_by_one


@pytest.mark.parametrize("version", [4, 6])
def test_tables_in_bulk_are_found_and_forgotten(cube: Any, version: int) -> None:
    """Bits of what was dropped stay until the filter is renewed, and do no harm."""
    made = cube(FOLDER, ports=8, sizes=sizes(f"prefixes{version}", PREFIXES, counted=False))
    table, rnd = table_of(made, version, counted=False), random.Random(version)
    prefixes, addresses = around(rnd, version, 100)
    keys = {one: one.prefixlen.to_bytes(4, "little") + one.network_address.packed for one in prefixes}
    model = dict.fromkeys(prefixes, 3)
    lines: dict[int, int] = {}
    table.gather(keys.values(), lines)
    table.admit(lines)
    table.fill(keys.values(), (3).to_bytes(4, "little"))
    agrees(made, model, addresses)
    gone = prefixes[::2]
    table.drop([keys[one] for one in gone[:20]])
    table.remove(gone[20:])
    for one in gone:
        del model[one]
    agrees(made, model, addresses)
    before = set_bits(made, version)
    for _ in table.refilter():
        pass
    assert set_bits(made, version) < before
    agrees(made, model, addresses)
    table.drop(list(keys.values()))
    for _ in table.refilter():
        pass
    assert set_bits(made, version) == 0
    agrees(made, {}, addresses)


def agrees(made: Any, model: dict[Any, int], addresses: list[Any]) -> None:
    for address in addresses[::8]:
        expected, result = longest(model, address), made.send(packet(address))
        if expected is None:
            result.dropped("no_prefix")
        else:
            result.forwarded(expected[1])


def set_bits(made: Any, version: int) -> int:
    lines = [words["words"] for _, words in made.map(f"prefixes{version}_filter").items()]
    return sum(word.bit_count() for number, line in enumerate(lines) for word in (line[:1] if not number else line))
