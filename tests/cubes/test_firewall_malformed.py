# SPDX-License-Identifier: Apache-2.0
"""Frames with bytes changed, cut and grown by chance: the data plane reads what the control plane's parser reads, and every verdict is
counted under a reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from firewall_lab import Wall, quick_wall

from polycube.cubes.firewall import explain
from polycube.cubes.firewall.chains import ACTIONS
from polycube.model import ModelError
from polycube.testing import malformed
from polycube.testing.harness import Hook
from polycube.testing.quick import LEAST, Passage
from polycube.toolkit.classify import Space

Subject = tuple[Wall, Callable[[bytes], Passage]]
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


@pytest.fixture(scope="module", params=list(Hook))
def subject(isolated, request):
    with quick_wall(request.param) as made:
        yield made


def same(subject: Subject, count: int, seed: int) -> None:
    wall, run = subject
    wall.configure(ingress=RULES, defaults={"INGRESS": "ACCEPT"}, others={"INGRESS": "DROP"}, conntrack="OFF")
    table = wall.chains.table("INGRESS")
    for number, data in enumerate(malformed.frames(seed, count, least=LEAST[wall.cube.chain.hook])):
        passed = run(data).passed
        try:
            frame = explain.parsed(data.hex())
        except ModelError:
            assert not passed, (number, data.hex())
            continue
        if not malformed.sound(data):
            assert not passed, (number, data.hex())
            continue
        place, _, _ = explain.decides(table, frame, 0)
        accepted = ACTIONS[table.entries[place].rule.result.action] == "ACCEPT" if place is not None else Space.ETHERTYPE not in frame
        if not passed and accepted and wall.cube.drops().get("extensions"):
            continue  # more headers than are followed
        assert passed == accepted, (number, place, data.hex())


def reasons(subject: Subject, count: int, seed: int) -> None:
    """Sessions included: what was counted is as much as was sent."""
    wall, run = subject
    wall.configure(ingress=RULES, defaults={"INGRESS": "DROP"}, conntrack="ON")
    wall.chains.reset(range(1000))
    before = wall.cube.drops()
    passed = sum(run(frame).passed for frame in malformed.frames(seed, count, least=LEAST[wall.cube.chain.hook]))
    dropped = sum(wall.cube.drops().values()) - sum(before.values())
    assert passed + dropped == count
    decided = sum(wall.counted()) + wall.established()
    unread = sum(wall.cube.drops().get(name, 0) - before.get(name, 0) for name in ("malformed", "extensions"))
    assert decided + unread == count


def test_no_frame_is_misread(subject):
    same(subject, 6_000, 1)


def test_no_verdict_is_without_a_reason(subject):
    reasons(subject, 6_000, 2)


@pytest.mark.soak
def test_a_million_frames(subject):
    same(subject, 500_000, 3)
    reasons(subject, 500_000, 4)
