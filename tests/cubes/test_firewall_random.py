# SPDX-License-Identifier: Apache-2.0
"""Random rule sets and packets: the firewall in the kernel says what a plain model says, first match by first match."""

from __future__ import annotations

import pytest
from firewall_lab import quick_wall
from firewall_model import Maker, decide

from polycube.testing.harness import Hook

SETS, PACKETS = 500, 200


@pytest.fixture(scope="module", params=list(Hook))
def subject(isolated, request):
    with quick_wall(request.param) as made:
        yield made


@pytest.mark.parametrize("version", [4, 6])
def test_the_kernel_decides_as_the_model_does(subject, version):
    """Half of the sets on each hook, both halves of 500."""
    wall, run = subject
    for seed in range(SETS):
        if seed % 2 == (wall.cube.chain.hook == Hook.TC):
            continue
        maker = Maker(version * 100_000 + seed, version)
        rules = [maker.rule() for _ in range(maker.chance.randrange(1, 40))]
        default = maker.chance.choice(["ACCEPT", "DROP"])
        sets = [{"name": name, "element": [{"value": value} for value in values]} for name, values in maker.sets.items()]
        wall.configure(ingress=rules, defaults={"INGRESS": default}, sets=sets, conntrack="OFF")
        expected = [0] * (len(rules) + 1)
        wall.chains.reset(range(1000))  # rules that were in the last set, too, have kept theirs
        for _ in range(PACKETS):
            packet = maker.packet()
            action, by = decide(rules, packet, maker.sets, default)
            assert run(packet.frame()).passed == (action == "ACCEPT"), (seed, packet, by)
            expected[-1 if by is None else by] += 1
        assert wall.counted() == expected, seed
