# SPDX-License-Identifier: Apache-2.0
"""The harness: what it observes is what the units do."""

import itertools
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1Q, Ether

from polycube.testing.harness import Chain

PASSER = Path(__file__).parent / "passer"
A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
PACKET = Ether(src=A, dst=B) / IP() / UDP() / b"data"
TAGGED = Ether(src=A, dst=B) / Dot1Q(vlan=9, prio=3) / IP() / UDP()
BROADCAST = Ether(src=A, dst="ff:ff:ff:ff:ff:ff") / IP() / UDP()


@pytest.fixture
def passer(cube):
    return cube(PASSER, ports=3)


@pytest.fixture
def bridge(cube):
    made = cube("simplebridge", ports=4)
    made.cfg(aging_time=300)
    return made


@pytest.mark.parametrize("packet", [PACKET, TAGGED])
def test_passed_to_the_stack(passer, packet):
    expected = packet.copy()
    expected.src = "02:00:00:00:00:99"
    passer.send(packet).passed(packet=expected)
    assert passer.counters(0).rx_packets == 1


def test_egress_handlers_decide_about_forwarded_frames(passer):
    passer.cfg(forward=2)
    passer.send(PACKET).forwarded(port=2, packet=PACKET)
    passer.send(BROADCAST).dropped("refused")
    up = passer.send(Ether(src=A, dst="04:00:00:00:00:01") / bytes(50)).slowpath(reason=9, metadata=(1, 2, 2))
    assert up.events[0].egress
    assert passer.drops() == {"refused": 1}


def test_injected_frames(passer):
    passer.inject(PACKET, 1).forwarded(port=1, packet=PACKET)
    passer.inject(BROADCAST, 1).dropped("refused")
    passer.inject(PACKET, 1, out=False).passed()
    assert passer.counters(1).rx_packets == 1
    assert passer.counters(1).tx_packets == 1


def test_frames_injected_into_a_transparent_cube(cube):
    hello = cube("transparenthelloworld", transparent=True)
    for port in (0, 1):
        hello.inject(PACKET, port, out=False).forwarded(port=port, packet=PACKET)
        assert hello.counters(port).rx_packets == 1


def test_injected_frames_keep_their_tags(passer):
    passer.inject(TAGGED, 0).forwarded(port=0, packet=TAGGED)


@pytest.mark.parametrize("direct", [[], [0], [3], [0, 1, 2, 3], [1, 2]])
def test_floods_reach_netdevs_and_cubes_alike(bridge, direct):
    for port in direct:
        bridge.netdev(port)
    for port in range(4):
        others = [other for other in range(4) if other != port]
        bridge.send(BROADCAST, port=port).flooded(ports=others, packet=BROADCAST)
    assert [bridge.counters(port).tx_packets for port in range(4)] == [3] * 4


def test_forwarding_to_a_netdev(bridge):
    bridge.netdev(1)
    bridge.send(BROADCAST, port=1)
    back = Ether(src=B, dst=A) / Dot1Q(vlan=3) / bytes(64)
    bridge.send(back, port=0).forwarded(port=1, packet=back)


def test_domains(bridge):
    bridge.domain(0, ports=[0, 3])
    bridge.send(BROADCAST, port=0).flooded(ports=[3])
    bridge.send(BROADCAST, port=1).flooded(ports=[0, 3])
    bridge.domain(0, ports=[0])
    bridge.send(BROADCAST, port=0).dropped("no_members")
    bridge.send(BROADCAST, port=1).flooded(ports=[0])


def test_a_member_without_a_peer_gets_no_copy(bridge):
    bridge.write_port(3, next=0, id=bridge.ids[3])
    bridge.domain(1, ports=[0])
    bridge.write_port(3, next=0, id=bridge.ids[3])
    result = bridge.send(BROADCAST, port=0)
    assert sorted(result.copies) == [1, 2]


@pytest.fixture
def tails(chain):
    """A chain whose cubes are joined by tail calls, whatever the other tests are run with."""
    with Chain(chain.hook, fused=False) as made:
        yield made


def test_a_chain_of_units_and_its_limit(tails):
    """The kernel ends a run after 33 tail calls; the frame is dropped and counted where that happens."""
    chain = tails
    cubes = [chain.cube("helloworld", name=f"h{number}") for number in range(34)]
    for cube in cubes:
        cube.cfg(action="FORWARD")
    for left, right in itertools.pairwise(cubes):
        chain.link(left, 1, right, 0)
    chain.send(PACKET, cubes[2], 0).left((cubes[-1], 1), packet=PACKET)
    result = chain.send(PACKET, cubes[0], 0)
    result.dropped("hops")


def test_a_loop_ends(chain):
    one, two = chain.cube("helloworld", name="one"), chain.cube("helloworld", name="two")
    for cube in (one, two):
        cube.cfg(action="FORWARD")
    chain.link(one, 1, two, 0)
    chain.link(two, 1, one, 0)
    chain.send(PACKET, one, 1).dropped("hops")


def test_stacks_of_transparent_cubes_keep_their_order(chain):
    forwarder = chain.cube("helloworld")
    forwarder.cfg(action="FORWARD")
    near, far = (chain.cube("transparenthelloworld", transparent=True, name=name) for name in ("near", "far"))
    chain.stack(near, forwarder, 0)
    chain.stack(far, forwarder, 0)
    chain.send(PACKET, forwarder, 0).left((forwarder, 1))
    near.cfg(ingress_action="DROP", egress_action="DROP")
    chain.send(PACKET, forwarder, 0).dropped(cube=near)
    chain.send(PACKET, forwarder, 1).dropped(cube=near)
    assert far.counters(0).tx_packets == 2, "ingress: the far one comes first"
    assert far.counters(1).rx_packets == 0, "egress: it comes last"


def test_expectations_that_fail_say_what_happened(bridge):
    result = bridge.send(BROADCAST, port=0)
    with pytest.raises(AssertionError, match="expected: flooded to ports \\[1, 2\\]; but flooded:\n  left by port 1 of simplebridge: "):
        result.flooded(ports=[1, 2])
    with pytest.raises(AssertionError, match="expected: dropped for same_port; but flooded"):
        result.dropped("same_port")
    with pytest.raises(AssertionError, match=r"at port 1 of simplebridge: frames differ(.|\n)*! src = 02:00:00:00:00:0a, expected"):
        result.flooded(packet=Ether(src=B, dst="ff:ff:ff:ff:ff:ff") / IP() / UDP())


def test_names_that_do_not_exist(bridge):
    with pytest.raises(KeyError, match=r"no CFG\(agingtime\) in simplebridge; it has .*aging_time"):
        bridge.cfg(agingtime=1)
    with pytest.raises(KeyError, match=r"no map FDB in the data plane; it has .*fdb"):
        bridge.map("FDB")


def test_without_pytest():
    code = """
    from polycube.testing.isolation import isolate
    isolate()
    from polycube.testing.harness import Chain, Hook
    with Chain(Hook.TC) as chain:
        hello = chain.cube("helloworld", ports=2)
        hello.cfg(action="FORWARD")
        print(hello.send(bytes(60), port=0).forwarded(port=1).verdict)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert (run.stdout, run.returncode) == ("forwarded\n", 0), run.stderr


def test_it_works_inside_a_running_loop(chain):
    import asyncio

    async def main():
        return chain.cube("helloworld").send(PACKET)

    asyncio.run(main()).dropped("policy")
