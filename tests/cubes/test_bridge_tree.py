# SPDX-License-Identifier: Apache-2.0
"""The spanning tree engine: trees, times, and that no frame ever loops."""

from hypothesis import given, settings
from hypothesis import strategies as st
from spanning import Network

from polycube.cubes.bridge.bpdu import Times

QUICK = Times(0, 6, 1, 4)


@st.composite
def networks(draw: st.DrawFn, kinds: st.SearchStrategy[bool]) -> Network:
    bridges = draw(st.integers(2, 6))
    spanning = [(draw(st.integers(0, one - 1)), one) for one in range(1, bridges)]
    pair = st.tuples(st.integers(0, bridges - 1), st.integers(0, bridges - 1)).filter(lambda ends: ends[0] != ends[1])
    more = draw(st.lists(pair, max_size=6))
    rapid = draw(st.lists(kinds, min_size=bridges, max_size=bridges))
    return Network(bridges, spanning + more, rapid, draw(st.integers(0, 2**32)))


def _live(network: Network, data: st.DataObject, converged: int) -> None:
    network.run(converged)
    network.assert_converged()
    for _ in range(data.draw(st.integers(1, 5))):
        wire = network.wires[data.draw(st.integers(0, len(network.wires) - 1))]
        network.set_link(wire, not wire.up)
        network.run(data.draw(st.integers(0, 12)))
    network.run(converged)
    network.assert_converged()


@settings(max_examples=150, deadline=None)
@given(networks(st.just(True)), st.data())
def test_rapid_trees_converge_without_a_loop_at_any_time(network: Network, data: st.DataObject) -> None:
    _live(network, data, 60)


@settings(max_examples=100, deadline=None)
@given(networks(st.just(False)), st.data())
def test_trees_of_the_old_protocol_do_so_too(network: Network, data: st.DataObject) -> None:
    _live(network, data, 120)


@settings(max_examples=100, deadline=None)
@given(networks(st.booleans()), st.data())
def test_trees_of_both_do_so_too(network: Network, data: st.DataObject) -> None:
    _live(network, data, 120)
