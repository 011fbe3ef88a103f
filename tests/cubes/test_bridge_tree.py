# SPDX-License-Identifier: Apache-2.0
"""The spanning tree engine: trees, times, and that no frame ever loops."""

from hypothesis import given, settings
from hypothesis import strategies as st
from spanning import Network

from polycube.cubes.bridge.bpdu import ADDRESS, PVST_ADDRESS, Bpdu, BpduType, Flag, SentRole, Times, Vector, frame, parse
from polycube.cubes.bridge.port import Role
from polycube.net.addr import Mac


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


@settings(max_examples=40, deadline=None)
@given(networks(st.just(True)), st.data())
def test_rapid_trees_converge_without_a_loop_at_any_time(network: Network, data: st.DataObject) -> None:
    _live(network, data, 60)


@settings(max_examples=25, deadline=None)
@given(networks(st.just(False)), st.data())
def test_trees_of_the_old_protocol_do_so_too(network: Network, data: st.DataObject) -> None:
    _live(network, data, 120)


@settings(max_examples=25, deadline=None)
@given(networks(st.booleans()), st.data())
def test_trees_of_both_do_so_too(network: Network, data: st.DataObject) -> None:
    _live(network, data, 120)


def triangle(rapid: bool = True) -> Network:
    """Bridge 0 is the root; the wire between 1 and 2 is closed at 2."""
    network = Network(3, [(0, 1), (0, 2), (1, 2)], [rapid] * 3)
    network.run(60)
    network.assert_converged()
    return network


def test_a_cut_link_of_rapid_trees_is_replaced_without_a_tick() -> None:
    network = triangle()
    assert network.trees[2].ports[1].role is Role.ALTERNATE
    network.set_link(network.wires[1], False)
    while network.deliver():
        pass
    network.assert_converged()


def test_a_cut_link_of_the_old_protocol_takes_twice_the_forward_delay() -> None:
    network = triangle(rapid=False)
    network.set_link(network.wires[1], False)
    network.run(29)
    assert not network.trees[2].ports[1].forwarding
    network.run(3)
    network.assert_converged()


def test_a_silent_root_is_replaced_after_three_hellos() -> None:
    network = triangle()
    network.trees[0].outbox.clear()
    for wire in network.wires[:2]:  # nothing comes from there any more, while the links stay up
        wire.up = False
    network.run(6)
    assert network.trees[1].root_priority.root == network.trees[1].settings.identifier
    assert network.trees[2].root_priority.root == network.trees[1].settings.identifier


def test_an_edge_port_forwards_at_once_and_causes_no_topology_change() -> None:
    network = triangle()
    tree = network.trees[0]
    changes = tree.changes
    tree.add(9, edge=True)
    tree.link(9, True)
    tree.run()
    assert tree.ports[9].forwarding and tree.changes == changes and not tree.flushed & {9}


def test_a_port_on_which_nothing_is_heard_becomes_an_edge_port_after_three_seconds() -> None:
    network = triangle()
    tree = network.trees[0]
    tree.add(9)
    tree.link(9, True)
    tree.run()
    for _ in range(2):
        tree.tick()
        assert not tree.ports[9].learning
    tree.tick()
    assert tree.ports[9].forwarding and tree.ports[9].oper_edge


def test_a_topology_change_makes_stations_void_behind_the_other_ports() -> None:
    network = triangle()
    for tree in network.trees:
        tree.flushed.clear()
    network.set_link(network.wires[1], False)
    while network.deliver():
        pass
    assert network.trees[1].flushed == {0}  # what was there of bridge 2 is now behind port 1


def test_what_a_port_sent_itself_closes_it() -> None:
    network = triangle()
    tree = network.trees[0]
    tree.add(9)
    tree.link(9, True)
    tree.run()
    for _ in range(30):
        tree.tick()
        mine = [bpdu for port, bpdu in tree.outbox if port == 9]
        tree.outbox.clear()
        for bpdu in mine:
            tree.receive(9, bpdu)
        assert not tree.ports[9].forwarding


def test_a_successor_goes_on_where_its_predecessor_ended() -> None:
    network = triangle()
    for bridge in range(3):
        old = network.trees[bridge]
        states = {number: (port.role, port.forwarding) for number, port in old.ports.items()}
        new = network.trees[bridge] = type(old)(old.settings)
        for number, port in old.ports.items():
            new.add(number, kept=port.pack())
            new.link(number, True)
        new.run()
        assert {number: (port.role, port.forwarding) for number, port in new.ports.items()} == states
        assert new.root_priority == old.root_priority and not new.outbox
    for _ in range(20):
        network.second()
        network.assert_converged()


BPDUS = st.builds(
    Bpdu,
    st.sampled_from([BpduType.CONFIG, BpduType.RST]),
    st.builds(Vector, *(st.integers(0, 2**bits - 1) for bits in (64, 32, 64, 16))),
    st.builds(Times, st.integers(0, 19), st.integers(20, 40), st.integers(1, 10), st.integers(4, 30)),
    st.sampled_from([Flag(0), Flag.PROPOSAL, Flag.TOPOLOGY_CHANGE | Flag.FORWARDING | Flag.LEARNING, Flag.AGREEMENT]),
)


@given(BPDUS, st.integers(1, 4094), st.booleans())
def test_a_bpdu_is_read_as_it_was_written(bpdu: Bpdu, vlan: int, per_vlan: bool) -> None:
    data = frame(bpdu, Mac.parse("02:00:00:00:00:01"), vlan, per_vlan=per_vlan)
    assert data[:6] == bytes(PVST_ADDRESS if per_vlan else ADDRESS) and parse(data) == bpdu
    assert parse(data[:12] + data[16:]) == bpdu  # as it is on the wire of an access port


@given(st.binary(max_size=80))
def test_anything_else_is_no_bpdu_or_one_that_makes_sense(data: bytes) -> None:
    for head in (b"", bytes(12) + b"\x00\x26\x42\x42\x03", bytes(12) + b"\x00\x26\x42\x42\x03\x00\x00\x02\x02"):
        found = parse(head + data)
        assert found is None or isinstance(found, Bpdu)


# As the Linux bridge sends it (stp_state 1)
LINUX = "0180c20000004a5f0e0c51d300264242030000000000800002000000000a0000000080004a5f0e0c51d38001000006000200040000000000000000"


def test_a_bpdu_of_the_linux_bridge() -> None:
    bpdu = parse(bytes.fromhex(LINUX))
    assert bpdu is not None and bpdu.type is BpduType.CONFIG and bpdu.role is SentRole.DESIGNATED
    assert bpdu.times == Times(0, 6, 2, 4) and bpdu.vector.root == 0x8000_0200_0000_000A
