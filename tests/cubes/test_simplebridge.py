# SPDX-License-Identifier: Apache-2.0
"""Packets through simplebridge: what is learned, flooded, forwarded, aged and refused."""

import time

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether

A, B, C = "02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c"
BROADCAST = "ff:ff:ff:ff:ff:ff"


def frame(source, target):
    return Ether(src=source, dst=target) / IP() / UDP() / b"payload"


def mac(text):
    return {"address": bytes.fromhex(text.replace(":", ""))}


def now():
    return int(time.clock_gettime(time.CLOCK_MONOTONIC))


@pytest.fixture
def bridge(cube):
    made = cube("simplebridge", ports=3)
    made.cfg(aging_time=300)
    return made


@pytest.mark.parametrize("target", [B, BROADCAST, "01:00:5e:00:00:fb", "33:33:00:00:00:01", "01:80:c2:00:00:10"])
def test_unknown_and_group_destinations_flood(bridge, target):
    packet = frame(A, target)
    bridge.send(packet, port=0).flooded(ports=[1, 2], packet=packet)
    bridge.send(packet, port=1).flooded(ports=[0, 2], packet=packet)
    assert [bridge.counters(port).tx_packets for port in range(3)] == [1, 1, 2]
    assert [bridge.counters(port).rx_packets for port in range(3)] == [1, 1, 0]


def test_a_learned_destination_gets_one_copy(bridge):
    with bridge.changes("fdb") as changes:
        bridge.send(frame(A, BROADCAST), port=0).flooded(ports=[1, 2])
    assert [key["address"] for key, _ in changes.added] == [mac(A)["address"]]
    assert changes.added[0][1]["port"] == 0
    bridge.send(frame(B, A), port=2).forwarded(port=0, packet=frame(B, A))
    bridge.send(frame(A, B), port=0).forwarded(port=2)
    assert len(bridge.map("fdb")) == 2


@pytest.mark.parametrize("tagged", [Dot1Q(vlan=5, prio=3), Dot1Q(vlan=5) / Dot1Q(vlan=6)])
def test_tags_travel_along(bridge, tagged):
    packet = Ether(src=A, dst=B) / tagged / ARP()
    bridge.send(packet, port=0).flooded(ports=[1, 2], packet=packet)


def test_a_station_that_moves_is_followed(bridge):
    bridge.send(frame(A, BROADCAST), port=0)
    with bridge.changes("fdb") as changes:
        bridge.send(frame(A, BROADCAST), port=1)
    assert changes.changed[0][1]["port"] == 1
    bridge.send(frame(B, A), port=2).forwarded(port=1)


def test_the_table_is_not_written_twice_a_second(bridge):
    bridge.send(frame(A, BROADCAST), port=0)
    fdb = bridge.map("fdb")
    fdb[mac(A)] = {"port": 0, "seen": now() - 10}
    bridge.send(frame(A, BROADCAST), port=0)
    assert now() - fdb[mac(A)]["seen"] <= 1


def test_destination_on_the_same_port_is_dropped(bridge):
    bridge.send(frame(A, BROADCAST), port=0)
    bridge.send(frame(B, A), port=0).dropped("same_port")


def test_group_sources_are_not_learned(bridge):
    bridge.send(frame("01:00:5e:00:00:01", BROADCAST), port=0).flooded(ports=[1, 2])
    bridge.send(frame(BROADCAST, BROADCAST), port=0).flooded(ports=[1, 2])
    assert len(bridge.map("fdb")) == 0


def test_an_aged_entry_is_as_good_as_none_until_it_is_heard_again(bridge):
    fdb = bridge.map("fdb")
    fdb[mac(A)] = {"port": 0, "seen": now() - 302}
    bridge.send(frame(B, A), port=1).flooded(ports=[0, 2])
    fdb[mac(A)] = {"port": 0, "seen": now() - 290}
    bridge.send(frame(B, A), port=1).forwarded(port=0)
    fdb[mac(A)] = {"port": 0, "seen": now() - 302}
    bridge.send(frame(A, B), port=2).forwarded(port=1)
    bridge.send(frame(B, A), port=1).forwarded(port=2)


def test_static_entries_neither_age_nor_move(bridge):
    fdb = bridge.map("fdb")
    fdb[mac(A)] = {"port": 2, "seen": 0, "flags": bridge.enum("simplebridge_flag").get("SIMPLEBRIDGE_STATIC", 1)}
    with bridge.changes("fdb") as changes:
        bridge.send(frame(A, C), port=0).flooded(ports=[1, 2])
    assert not changes
    bridge.send(frame(B, A), port=0).forwarded(port=2)


def test_a_station_heard_in_the_second_that_just_began_is_not_aged(bridge):
    bridge.map("fdb")[mac(A)] = {"port": 2, "seen": int(time.monotonic()) + 2, "flags": 0}
    bridge.send(frame(B, A), port=0).forwarded(port=2)


def test_a_full_table_floods_and_counts(cube):
    bridge = cube("simplebridge", ports=3, sizes={"fdb": 2})
    bridge.cfg(aging_time=300)
    for number in range(1, 9):
        packet = frame(f"02:00:00:00:01:{number:02x}", BROADCAST)
        bridge.send(packet, port=0).flooded(ports=[1, 2], packet=packet)
    learned = len(bridge.map("fdb"))
    assert 2 <= learned < 8
    assert sum(bridge.map("learn_failures").percpu(0)) == 8 - learned
    bridge.send(frame(B, "02:00:00:00:01:08"), port=1).flooded(ports=[0, 2])


@pytest.mark.parametrize("last", [0x00, 0x01, 0x02, 0x0E, 0x0F])
def test_link_local_control_frames_stay_on_their_link(bridge, last):
    bridge.send(Ether(src=A, dst=f"01:80:c2:00:00:{last:02x}") / bytes(46), port=0).dropped("link_local")
    assert mac(A) in bridge.map("fdb")


def test_a_flood_with_nobody_to_hear_it(cube):
    bridge = cube("simplebridge", ports=1)
    bridge.send(frame(A, BROADCAST), port=0).dropped("no_members")


@pytest.mark.parametrize("size", [15, 59, 60, 1514, 3000])
def test_frames_of_all_sizes(bridge, size):
    packet = bytes(Ether(src=A, dst=B, type=0x9000)) + bytes(size - 14)
    bridge.send(packet, port=1).flooded(ports=[0, 2], packet=packet)
    assert bridge.counters(1).rx_bytes == size


def test_two_bridges_in_a_chain(chain):
    left, right = chain.cube("simplebridge", ports=3, name="left"), chain.cube("simplebridge", ports=3, name="right")
    for bridge in (left, right):
        bridge.cfg(aging_time=300)
    chain.link(left, 2, right, 0)
    packet = frame(A, BROADCAST)
    left.send(packet, port=0).left((left, 1), (right, 1), (right, 2), packet=packet)
    right.send(frame(B, A), port=2).left((left, 0), packet=frame(B, A))
    left.send(frame(A, B), port=0).left((right, 2))
    assert right.map("fdb")[mac(A)]["port"] == 0


def test_a_transparent_cube_sees_flooded_copies(chain):
    bridge = chain.cube("simplebridge", ports=3)
    guard = chain.cube("transparenthelloworld", transparent=True)
    chain.stack(guard, bridge, 2)
    guard.cfg(egress_action="DROP")
    result = bridge.send(frame(A, BROADCAST), port=0)
    assert sorted(result.copies) == [1]
    assert [drop.cube for drop in result.drops] == [str(guard)]
