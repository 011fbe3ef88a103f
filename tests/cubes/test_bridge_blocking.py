# SPDX-License-Identifier: Apache-2.0
"""Spanning tree in the data plane: states, BPDUs on their way up, and who blocks when nobody speaks the protocol."""

import pytest
from bridge_lab import (
    BROADCAST,
    DISCARDING,
    FORWARDING,
    LEARNING,
    TOWARDS_ROOT,
    A,
    B,
    access,
    beat,
    frame,
    set_up,
    states,
    trunk,
)

from polycube.cubes.bridge.bpdu import Bpdu, BpduType, Flag, SentRole
from polycube.cubes.bridge.bpdu import frame as bpdu_frame
from polycube.net.addr import Mac
from polycube.toolkit.fdb import now

THEIRS = Mac.parse("02:00:00:00:00:99")
CLAIM = Bpdu(BpduType.CONFIG)
RAPID_CLAIM = Bpdu(BpduType.RST, flags=Flag.PROPOSAL)
AGREEMENT = Bpdu(BpduType.RST, flags=Flag.AGREEMENT, role=SentRole.ROOT)
TCN = Bpdu(BpduType.TCN)


def untagged(bpdu, vlan=10):
    """As it comes from the wire of a port where the VLAN has no tags."""
    data = bpdu_frame(bpdu, THEIRS, vlan, per_vlan=False)
    return data[:12] + data[16:]


@pytest.fixture
def bridge(cube):
    """Ports 0 and 1: access to VLAN 10; 2: trunk of 10 and 20, native 1."""
    made = cube("bridge", ports=3)
    set_up(made, access(10), access(10), trunk(10, 20, native=1))
    made.cfg(stp=1)
    for port in range(3):
        states(made, port, v1=FORWARDING, v10=FORWARDING, v20=FORWARDING)
    beat(made)
    return made


def test_a_port_blocks_until_the_control_plane_has_decided(cube):
    bridge = cube("bridge", ports=2)
    set_up(bridge, access(10), access(10))
    bridge.cfg(stp=1)
    bridge.send(frame(A, BROADCAST), port=0).dropped("blocked")
    assert len(bridge.map("fdb")) == 0


def test_a_discarding_port_neither_learns_nor_forwards_nor_gets_anything(bridge):
    states(bridge, 0, v10=DISCARDING)
    bridge.send(frame(A, BROADCAST), port=0).dropped("blocked")
    assert len(bridge.map("fdb")) == 0
    bridge.send(frame(B, BROADCAST), port=1).flooded(ports=[2])
    bridge.map("fdb")[{"address": bytes.fromhex("02000000000a"), "vlan": 10}] = {"port": 0, "seen": now()}
    bridge.send(frame(B, A), port=1).dropped("blocked")


def test_a_learning_port_learns_only(bridge):
    states(bridge, 0, v10=LEARNING)
    bridge.send(frame(A, BROADCAST), port=0).dropped("blocked")
    assert len(bridge.map("fdb")) == 1
    bridge.send(frame(B, A), port=1).dropped("blocked")


def test_the_port_towards_the_root_forwards(bridge):
    states(bridge, 0, v10=TOWARDS_ROOT)
    bridge.send(frame(A, BROADCAST), port=0).flooded(ports=[1, 2])
    bridge.send(frame(B, A), port=1).forwarded(port=0)


def test_states_are_by_vlan(bridge):
    states(bridge, 2, v20=FORWARDING)
    bridge.send(frame(A, BROADCAST, 10), port=2).dropped("blocked")
    bridge.send(frame(A, BROADCAST, 20), port=2)  # nobody else is there, but it is learned
    assert {(key["vlan"], value["port"]) for key, value in bridge.map("fdb").items()} == {(20, 2)}


@pytest.mark.parametrize("state", [DISCARDING, LEARNING, FORWARDING, TOWARDS_ROOT])
def test_bpdus_go_up_whatever_the_state(bridge, state):
    states(bridge, 0, v10=state)
    bridge.send(untagged(CLAIM), port=0).slowpath(reason=0, port=0, metadata=(10, 0, 0))
    assert len(bridge.map("fdb")) == 0


def test_the_vlan_of_a_bpdu_is_that_of_its_port_or_its_tag(bridge):
    bridge.send(untagged(CLAIM), port=2).slowpath(metadata=(1, 0, 0))
    bridge.send(bpdu_frame(CLAIM, THEIRS, 20, per_vlan=True), port=2).slowpath(metadata=(20, 0, 0))
    bridge.send(bpdu_frame(CLAIM, THEIRS, 30, per_vlan=True), port=2).dropped("not_member")


@pytest.mark.parametrize("state", [DISCARDING, LEARNING, FORWARDING])
def test_own_bpdus_go_out_whatever_the_state(bridge, state):
    states(bridge, 0, v10=state)
    states(bridge, 2, v20=state)
    mine = bpdu_frame(CLAIM, THEIRS, 10, per_vlan=False)
    bridge.inject(mine, 0).forwarded(port=0, packet=mine[:12] + mine[16:])
    mine = bpdu_frame(CLAIM, THEIRS, 20, per_vlan=True)
    bridge.inject(mine, 2).forwarded(port=2, packet=mine)


def test_stations_from_before_a_topology_change_are_void(bridge):
    key = {"address": bytes.fromhex("02000000000a"), "vlan": 10}
    bridge.map("fdb")[key] = {"port": 0, "seen": now() - 5}
    states(bridge, 0, flushed=now() - 3, v10=FORWARDING)
    bridge.send(frame(B, A), port=1).flooded(ports=[0, 2])
    bridge.send(frame(A, B), port=0)
    bridge.send(frame(B, A), port=1).forwarded(port=0)
    bridge.map("fdb")[key] = {"port": 0, "seen": now() - 5, "flags": 1}
    bridge.send(frame(B, A), port=1).forwarded(port=0)


# ---- nobody speaks the protocol ----


@pytest.mark.parametrize("claim", [CLAIM, RAPID_CLAIM])
def test_a_port_that_another_bridge_claims_meanwhile_is_blocked(bridge, claim):
    beat(bridge, ago=5)
    bridge.send(frame(A, BROADCAST), port=0).flooded(ports=[1, 2])
    bridge.send(untagged(claim), port=0)
    bridge.send(frame(A, BROADCAST), port=0).dropped("silent")
    bridge.send(frame(B, A), port=1).flooded(ports=[2])  # A may be elsewhere now
    bridge.send(frame(B, BROADCAST), port=1).flooded(ports=[2])
    beat(bridge)
    bridge.send(frame(A, BROADCAST), port=0).flooded(ports=[1, 2])


@pytest.mark.parametrize("quiet", [AGREEMENT, TCN])
def test_who_agrees_claims_nothing(bridge, quiet):
    beat(bridge, ago=5)
    bridge.send(untagged(quiet), port=0)
    bridge.send(frame(A, BROADCAST), port=0).flooded(ports=[1, 2])


def test_a_claim_that_was_answered_is_none(bridge):
    bridge.map("bridge_heard")[{"vlan": 10, "port": 0}] = now() - 10
    beat(bridge, ago=5)
    bridge.send(frame(A, BROADCAST), port=0).flooded(ports=[1, 2])


def test_a_claim_in_one_vlan_is_none_in_another(bridge):
    beat(bridge, ago=5)
    bridge.send(bpdu_frame(RAPID_CLAIM, THEIRS, 10, per_vlan=True), port=2)
    bridge.send(frame(A, BROADCAST, 10), port=2).dropped("silent")
    bridge.send(frame(A, BROADCAST, 20), port=2)
    assert {(key["vlan"], value["port"]) for key, value in bridge.map("fdb").items()} == {(20, 2)}


def test_towards_the_root_claims_are_as_usual(bridge):
    states(bridge, 0, v10=TOWARDS_ROOT)
    beat(bridge, ago=50)
    bridge.send(untagged(CLAIM), port=0)
    bridge.send(frame(A, BROADCAST), port=0).flooded(ports=[1, 2])


def test_a_blocked_port_stays_so(bridge):
    states(bridge, 0, v10=DISCARDING)
    beat(bridge, ago=50)
    bridge.send(frame(A, BROADCAST), port=0).dropped("blocked")


@pytest.mark.parametrize("size", [14, 17, 20, 60])
def test_what_is_no_bpdu_claims_nothing(bridge, size):
    beat(bridge, ago=5)
    data = (bytes.fromhex("0180c2000000020000000099") + b"\x00\x26\x42\x42\x03\x00\x00\x00\x80").ljust(size, b"\0")[:size]
    bridge.send(data, port=0).slowpath()
    bridge.send(frame(A, BROADCAST), port=0).flooded(ports=[1, 2])
