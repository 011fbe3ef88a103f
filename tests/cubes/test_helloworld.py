# SPDX-License-Identifier: Apache-2.0
"""Packets through helloworld."""

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1Q, Ether

PACKET = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01") / IP() / UDP() / b"hello"
PACKETS = [
    PACKET,
    Ether(dst="ff:ff:ff:ff:ff:ff") / bytes(46),
    Ether(dst="02:00:00:00:00:02") / Dot1Q(vlan=7, prio=5) / IP() / UDP(),
    Ether() / Dot1Q(vlan=7, type=0x8100) / Dot1Q(vlan=8) / IP(),
    Ether(type=0x88A8) / Dot1Q(vlan=7, type=0x8100) / Dot1Q(vlan=8) / IP(),
    Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01", type=0x1234) / bytes(1400),
]


@pytest.mark.parametrize("packet", PACKETS)
def test_forward_sends_out_of_the_other_port(cube, packet):
    hello = cube("helloworld", ports=2)
    hello.cfg(action="FORWARD")
    hello.send(packet, port=0).forwarded(port=1, packet=packet)
    hello.send(packet, port=1).forwarded(port=0, packet=packet)
    assert hello.counters(0).rx_packets == hello.counters(0).tx_packets == 1
    assert hello.counters(1).rx_packets == hello.counters(1).tx_packets == 1


def test_drops_by_default(cube):
    hello = cube("helloworld", ports=2)
    hello.send(PACKET).dropped("policy")
    assert hello.drops() == {"policy": 1}


@pytest.mark.parametrize("packet", PACKETS)
def test_slowpath_hands_up_the_whole_frame(cube, packet):
    hello = cube("helloworld", ports=2)
    hello.cfg(action="SLOWPATH")
    hello.send(packet, port=1).slowpath(reason=1, port=1, packet=packet)
    assert hello.drops() == {}


def test_without_a_second_port_there_is_none_to_forward_to(cube):
    hello = cube("helloworld", ports=1)
    hello.cfg(action="FORWARD")
    hello.send(PACKET, port=0).dropped("no_port")


def test_what_does_not_leave_is_dropped_not_sent(cube):
    hello = cube("helloworld", ports=2)
    hello.cfg(action="FORWARD")
    hello.write_port(1, next=0, id=hello.ids[1])
    hello.send(PACKET, port=0).dropped("no_peer")
    hello.write_port(1, next=2, target=4095, id=hello.ids[1])  # a cube that is gone
    hello.send(PACKET, port=0).dropped("hops")
    assert hello.counters(1).tx_packets == hello.counters(1).tx_bytes == 0
