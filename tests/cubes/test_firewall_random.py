# SPDX-License-Identifier: Apache-2.0
"""Random rule sets and packets: the firewall in the kernel says what a plain model says, first match by first match."""

from __future__ import annotations

import pytest
from firewall_lab import Wall, kept
from firewall_model import Maker, decide

from polycube.testing.harness import Chain, Hook

SETS, PACKETS = 500, 200
PASS, DROP = {Hook.XDP: {2, 4}, Hook.TC: {0, 0xFFFFFFFF, 7}}, {Hook.XDP: 1, Hook.TC: 2}


@pytest.fixture(scope="module", params=list(Hook))
def wall(isolated, request):
    with Chain(request.param) as chain:
        firewall = chain.cube("firewall", transparent=True)
        for port in range(2):
            firewall.write_port(port, next=3, id=firewall.ids[port])  # to the stack: a verdict is all there is to see
        with kept(request.param, firewall.program("ingress")):
            yield Wall(firewall, conntrack="OFF")


@pytest.mark.parametrize("version", [4, 6])
def test_the_kernel_decides_as_the_model_does(wall, version):
    """Half of the sets on each hook, both halves of 500."""
    hook = wall.cube.stage.hook
    program = wall.cube.program("ingress")
    for seed in range(SETS):
        if seed % 2 == (hook == Hook.TC):
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
            said = program.test_run(packet.frame()).retval
            assert (said in PASS[hook]) == (action == "ACCEPT") and (said == DROP[hook]) == (action == "DROP"), (seed, packet, by)
            expected[-1 if by is None else by] += 1
        assert wall.counted() == expected, seed
