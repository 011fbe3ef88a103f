# SPDX-License-Identifier: Apache-2.0
"""Packets through the bridge: VLANs in and out, stations, and what is refused."""

import pytest
from bridge_lab import BROADCAST, A, B, C, access, frame, key, set_up, trunk
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether

from polycube.toolkit.fdb import now

# 0, 1: access to VLAN 10; 2: access to 20; 3: trunk of 10 and 20, native 1; 4: trunk of 20, no native; 5: trunk of all, native 10
PORTS = [access(10), access(10), access(20), trunk(10, 20, native=1), trunk(20), trunk(native=10, every=True)]
PRIORITY = 5 << 13


@pytest.fixture
def bridge(cube):
    made = cube("bridge", ports=len(PORTS))
    set_up(made, *PORTS)
    return made


def floods(result, **expected):
    """`p3=(10,)`: a copy at port 3 with these tags."""
    copies = {int(name[1:]): frame(A, BROADCAST, *tags) for name, tags in expected.items()}
    result.flooded(ports=sorted(copies))
    assert result.copies == {port: bytes(packet) for port, packet in copies.items()}


def test_a_flooded_copy_has_the_tag_that_its_port_wants(bridge):
    floods(bridge.send(frame(A, BROADCAST), port=0), p1=(), p3=(10,), p5=())
    floods(bridge.send(frame(A, BROADCAST), port=2), p3=(20,), p4=(20,), p5=(20,))
    floods(bridge.send(frame(A, BROADCAST, 10), port=3), p0=(), p1=(), p5=())
    floods(bridge.send(frame(A, BROADCAST, 20), port=5), p2=(), p3=(20,), p4=(20,))


def test_untagged_frames_of_a_trunk_are_in_its_native_vlan(bridge):
    floods(bridge.send(frame(A, BROADCAST), port=3), p5=(1,))
    floods(bridge.send(frame(A, BROADCAST), port=5), p0=(), p1=(), p3=(10,))
    bridge.send(frame(A, BROADCAST), port=4).dropped("no_vlan")


def test_vlans_that_only_trunks_of_all_have(cube):
    bridge = cube("bridge", ports=4)
    set_up(bridge, access(10), trunk(native=1, every=True), trunk(native=1, every=True), trunk(native=1, every=True))
    floods(bridge.send(frame(A, BROADCAST, 3000), port=1), p2=(3000,), p3=(3000,))
    assert bridge.drops() == {"not_member": 1}  # the copy for the access port, in the domain of all ports


@pytest.mark.parametrize(("port", "tags"), [(0, (10,)), (0, (20,)), (3, (30,)), (4, (10,)), (4, (1,)), (3, (4095,)), (5, (4095,))])
def test_frames_of_vlans_that_a_port_is_not_in_are_dropped(bridge, port, tags):
    bridge.send(frame(A, BROADCAST, *tags), port=port).dropped("not_member")
    assert len(bridge.map("fdb")) == 0


def test_a_priority_tag_is_no_vlan(bridge):
    floods(bridge.send(frame(A, BROADCAST, PRIORITY), port=0), p1=(), p3=(PRIORITY | 10,), p5=())
    bridge.send(frame(B, A, PRIORITY), port=3).flooded(ports=[5], packet=frame(B, A, PRIORITY | 1))
    bridge.send(frame(A, BROADCAST, PRIORITY), port=4).dropped("no_vlan")


def test_priorities_travel_from_trunk_to_trunk(bridge):
    floods(bridge.send(frame(A, BROADCAST, PRIORITY | 20), port=3), p2=(), p4=(PRIORITY | 20,), p5=(PRIORITY | 20,))


def test_inner_tags_are_the_customers(bridge):
    floods(bridge.send(frame(A, BROADCAST, 20, 30), port=3), p2=(30,), p4=(20, 30), p5=(20, 30))
    double = Ether(src=A, dst=BROADCAST) / Dot1AD(vlan=7) / Dot1Q(vlan=30) / bytes(50)
    bridge.send(double, port=0).flooded(ports=[1, 3, 5])
    inside = Ether(src=A, dst=BROADCAST) / Dot1Q(vlan=10) / Dot1AD(vlan=7) / Dot1Q(vlan=30) / bytes(50)
    assert bridge.send(double, port=0).copies == {1: bytes(double), 3: bytes(inside), 5: bytes(double)}


@pytest.mark.parametrize(
    ("first", "then", "back", "out"),
    [(0, 1, (), ()), (0, 3, (10,), ()), (0, 5, (), ()), (2, 4, (20,), ()), (2, 5, (20,), ())],
)
def test_a_known_station_gets_one_copy_in_the_form_of_its_port(bridge, first, then, back, out):
    bridge.send(frame(A, BROADCAST, *out), port=first)
    bridge.send(frame(B, A, *back), port=then).forwarded(port=first, packet=frame(B, A, *out))
    bridge.send(frame(A, B, *out), port=first).forwarded(port=then, packet=frame(A, B, *back))


def test_a_station_is_known_in_each_vlan_apart(bridge):
    bridge.send(frame(A, BROADCAST), port=0)
    bridge.send(frame(A, BROADCAST), port=2)
    assert {(k["vlan"], v["port"]) for k, v in bridge.map("fdb").items()} == {(10, 0), (20, 2)}
    bridge.send(frame(B, A, 10), port=3).forwarded(port=0, packet=frame(B, A))
    bridge.send(frame(B, A, 20), port=3).forwarded(port=2, packet=frame(B, A))


def test_a_station_that_moves_is_followed_and_a_static_one_is_not(bridge):
    bridge.send(frame(A, BROADCAST), port=0)
    bridge.send(frame(A, BROADCAST, 10), port=3)
    bridge.send(frame(B, A), port=1).forwarded(port=3, packet=frame(B, A, 10))
    bridge.map("fdb")[key(C, 10)] = {"seen": 0, "port": 1, "flags": 1}
    bridge.send(frame(C, BROADCAST, 10), port=3)
    bridge.send(frame(B, C), port=0).forwarded(port=1)


def test_an_aged_station_is_flooded_to(bridge):
    bridge.map("fdb")[key(A, 10)] = {"seen": now() - 302, "port": 0}
    bridge.send(frame(B, A), port=1).flooded(ports=[0, 3, 5])
    bridge.map("fdb")[key(A, 10)] = {"seen": now() - 290, "port": 0}
    bridge.send(frame(B, A), port=1).forwarded(port=0)


def test_a_full_table_floods_counts_and_keeps_whom_it_knows(cube):
    bridge = cube("bridge", ports=len(PORTS), sizes={"fdb": 2})
    set_up(bridge, *PORTS)
    bridge.send(frame(A, BROADCAST), port=0)
    for number in range(1, 9):
        bridge.send(frame(f"02:00:00:00:01:{number:02x}", BROADCAST), port=1).flooded(ports=[0, 3, 5])
    learned = len(bridge.map("fdb"))
    assert 2 <= learned < 9 and sum(bridge.map("learn_failures").percpu(0)) == 9 - learned
    bridge.send(frame(B, A), port=1).forwarded(port=0)


def test_a_station_on_the_port_it_is_asked_for(bridge):
    bridge.send(frame(A, BROADCAST, 10), port=3)
    bridge.send(frame(B, A, 10), port=3).dropped("same_port")


@pytest.mark.parametrize("last", [0x01, 0x02, 0x0E, 0x0F])
def test_control_frames_of_the_link_stay_there(bridge, last):
    bridge.send(Ether(src=A, dst=f"01:80:c2:00:00:{last:02x}") / bytes(46), port=0).dropped("link_local")


@pytest.mark.parametrize("source", ["01:00:5e:00:00:01", BROADCAST, "00:00:00:00:00:00"])
def test_sources_that_nobody_has(bridge, source):
    bridge.send(frame(source, B), port=0).dropped("bad_source")
    assert len(bridge.map("fdb")) == 0


def test_without_spanning_tree_bpdus_of_others_pass(bridge):
    bpdu = Ether(src=A, dst="01:80:c2:00:00:00") / bytes(46)
    bridge.send(bpdu, port=0).flooded(ports=[1, 3, 5])


@pytest.mark.parametrize("data", [bytes.fromhex("ffffffffffff02000000000a8100"), bytes.fromhex("ffffffffffff02000000000a810000")])
def test_a_tag_that_is_cut_off(bridge, data):
    bridge.send(data, port=3).dropped("malformed")


@pytest.mark.parametrize("size", [60, 1514, 3000])
def test_frames_of_all_sizes(bridge, size):
    packet = bytes(Ether(src=A, dst=B, type=0x9000)) + bytes(size - 14)
    tagged = packet[:12] + b"\x81\x00\x00\x0a" + packet[12:]
    assert bridge.send(packet, port=0).copies == {1: packet, 3: tagged, 5: packet}
    assert bridge.send(tagged, port=3).copies == {0: packet, 1: packet, 5: packet}


def test_frames_of_the_control_plane_take_the_form_of_the_port(bridge):
    bridge.inject(frame(A, B, 10), 0).forwarded(port=0, packet=frame(A, B))
    bridge.inject(frame(A, B, 10), 3).forwarded(port=3, packet=frame(A, B, 10))
    bridge.inject(frame(A, B, 30), 3).dropped("not_member")
    bridge.inject(frame(A, B), 3).dropped("malformed")


def test_a_port_that_the_control_plane_has_not_set_up_takes_nothing(cube):
    bridge = cube("bridge", ports=2)
    bridge.send(frame(A, BROADCAST), port=0).dropped("no_vlan")
    bridge.send(frame(A, BROADCAST, 5), port=0).dropped("not_member")


def test_two_bridges_joined_by_a_trunk(chain):
    left, right = chain.cube("bridge", ports=3, name="left"), chain.cube("bridge", ports=3, name="right")
    for one in (left, right):
        set_up(one, access(10), access(20), trunk(10, 20))
    chain.link(left, 2, right, 2)
    left.send(frame(A, BROADCAST), port=0).left((right, 0), packet=frame(A, BROADCAST))
    right.send(frame(B, A), port=0).left((left, 0), packet=frame(B, A))
    left.send(frame(A, B), port=0).left((right, 0))
    left.send(frame(C, BROADCAST), port=1).left((right, 1))
