# SPDX-License-Identifier: Apache-2.0
"""Frames with bytes changed, cut and grown by chance: the data plane reads what the control plane's parser reads, and every verdict is
counted under a reason."""

from __future__ import annotations

import pytest
from firewall_lab import Wall, kept

from polycube.cubes.firewall import explain
from polycube.cubes.firewall.chains import ACTIONS
from polycube.model import ModelError
from polycube.testing import malformed
from polycube.testing.harness import Chain, Hook
from polycube.toolkit.classify import Space

RULES = [
    {"l4proto": "TCP", "dport": "0-127", "action": "ACCEPT"},
    {"l4proto": "TCP", "tcpflags": "SYN,!ACK", "action": "DROP"},
    {"src": "10.0.0.0/9", "l4proto": "UDP", "sport": "!53", "action": "DROP"},
    {"icmptype": "3", "action": "ACCEPT"},
    {"dst": "fd00::/17", "dport": 53, "action": "ACCEPT"},
    {"fragment": "LATER", "action": "DROP"},
    {"vlan": "7", "src": "!10.0.0.1", "action": "DROP"},
    {"l4proto": "128-255", "action": "DROP"},
    {"ethertype": "ARP", "action": "ACCEPT"},
    {"src": "fd00::/16", "action": "ACCEPT"},
]
LEAST = {Hook.XDP: 0, Hook.TC: 54}  # a test run takes no shorter ones
PASS, DROP = {Hook.XDP: {2}, Hook.TC: {0, 0xFFFFFFFF}}, {Hook.XDP: {1}, Hook.TC: {2}}


@pytest.fixture(scope="module", params=list(Hook))
def wall(isolated, request):
    with Chain(request.param) as chain:
        firewall = chain.cube("firewall", transparent=True)
        for port in range(2):
            firewall.write_port(port, next=3, id=firewall.ids[port])
        with kept(request.param, firewall.program("ingress")):
            yield Wall(firewall, conntrack="OFF")


def run(wall: Wall, count: int, seed: int) -> None:
    hook = wall.cube.stage.hook
    wall.configure(ingress=RULES, defaults={"INGRESS": "ACCEPT"}, others={"INGRESS": "DROP"}, conntrack="OFF")
    program, table = wall.cube.program("ingress"), wall.chains.table("INGRESS")
    for number, data in enumerate(malformed.frames(seed, count, least=LEAST[hook])):
        said = program.test_run(data).retval
        assert said in PASS[hook] | DROP[hook], (number, data.hex())
        try:
            frame = explain.parsed(data.hex())
        except ModelError:
            assert said in DROP[hook], (number, data.hex())
            continue
        if not malformed.sound(data):
            assert said in DROP[hook], (number, data.hex())
            continue
        place, _, _ = explain.decides(table, frame, 0)
        accepted = ACTIONS[table.entries[place].rule.result.action] == "ACCEPT" if place is not None else Space.ETHERTYPE not in frame
        if said in DROP[hook] and accepted and wall.cube.drops().get("extensions"):
            continue  # more headers than are followed
        assert (said in PASS[hook]) == accepted, (number, place, data.hex())


def reasons(wall: Wall, count: int, seed: int) -> None:
    """Sessions included: what was counted is as much as was sent."""
    wall.configure(ingress=RULES, defaults={"INGRESS": "DROP"}, conntrack="ON")
    program = wall.cube.program("ingress")
    wall.chains.reset(range(1000))
    before, passed = wall.cube.drops(), 0
    hook = wall.cube.stage.hook
    for frame in malformed.frames(seed, count, least=LEAST[hook]):
        passed += program.test_run(frame).retval in PASS[hook]
    dropped = sum(wall.cube.drops().values()) - sum(before.values())
    assert passed + dropped == count
    decided = sum(wall.counted()) + wall.established()
    unread = sum(wall.cube.drops().get(name, 0) - before.get(name, 0) for name in ("malformed", "extensions"))
    assert decided + unread == count


def test_no_frame_is_misread(wall):
    run(wall, 6_000, 1)


def test_no_verdict_is_without_a_reason(wall):
    reasons(wall, 6_000, 2)


@pytest.mark.soak
def test_a_million_frames(wall):
    run(wall, 500_000, 3)
    reasons(wall, 500_000, 4)
