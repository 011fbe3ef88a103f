# SPDX-License-Identifier: Apache-2.0
"""Packets through transparenthelloworld, alone and stacked on a port."""

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1Q, Ether

PACKET = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01") / Dot1Q(vlan=3) / IP() / UDP() / b"hello"


@pytest.fixture
def hello(cube):
    return cube("transparenthelloworld", transparent=True)


@pytest.mark.parametrize(("direction", "number"), [("ingress", 0), ("egress", 1)])
def test_passes_by_default(hello, direction, number):
    hello.send(PACKET, direction=direction).forwarded(port=number, packet=PACKET)
    counters = hello.counters(number)
    assert (counters.rx_packets, counters.tx_packets) == (1, 1)
    assert hello.counters(1 - number).rx_packets == 0


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_drops_one_direction_only(hello, direction):
    other = {"ingress": "egress", "egress": "ingress"}[direction]
    hello.cfg(**{f"{direction}_action": "DROP"})
    hello.send(PACKET, direction=direction).dropped("policy")
    hello.send(PACKET, direction=other).forwarded()


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_slowpath_says_the_direction(hello, direction):
    hello.cfg(**{f"{direction}_action": "SLOWPATH"})
    result = hello.send(PACKET, direction=direction).slowpath(reason=1, packet=PACKET)
    assert result.events[0].egress == (direction == "egress")


@pytest.mark.parametrize("port", [0, 1])
def test_injected_frames_skip_the_handler(hello, port):
    hello.cfg(ingress_action="DROP", egress_action="DROP")
    hello.inject(PACKET, port, out=True).forwarded(port=port, packet=PACKET)
    hello.inject(PACKET, port, out=False).dropped("policy")


def test_stacked_on_a_port_it_sees_both_directions(chain):
    forwarder = chain.cube("helloworld", ports=2)
    hello = chain.cube("transparenthelloworld", transparent=True)
    forwarder.cfg(action="FORWARD")
    chain.stack(hello, forwarder, 1)
    forwarder.send(PACKET, port=0).left((forwarder, 1), packet=PACKET)
    assert hello.counters(1).tx_packets == 1
    forwarder.send(PACKET, port=1).left((forwarder, 0), packet=PACKET)
    assert hello.counters(0).tx_packets == 1
    hello.cfg(egress_action="DROP")
    forwarder.send(PACKET, port=0).dropped("policy", cube=hello)
    forwarder.send(PACKET, port=1).forwarded(port=0)


def test_frames_are_logged(hello):
    packet = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01") / bytes(46)
    hello.send(packet, direction="egress")
    assert hello.logs() == ["DEBUG frame of 60 bytes by port 1, 02:00:00:00:00:01 to 02:00:00:00:00:02"]
    hello.cfg(pcn_loglevel="LOG_INFO")
    hello.send(packet)
    assert hello.logs() == []
