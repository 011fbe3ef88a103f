# SPDX-License-Identifier: Apache-2.0
"""Packets through simpleforwarder."""

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

PACKET = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01") / IP() / TCP()


@pytest.fixture
def forwarder(cube):
    made = cube("simpleforwarder", ports=4)
    verbs = made.enum("simpleforwarder_verb")
    actions = made.map("actions")
    actions[0] = {"verb": verbs["FORWARD"], "port": 2}
    actions[1] = {"verb": verbs["SLOWPATH"]}
    actions[2] = {"verb": verbs["DROP"]}
    return made


def test_forward_sends_out_of_the_port_it_names(forwarder):
    forwarder.send(PACKET, port=0).forwarded(port=2, packet=PACKET)


def test_slowpath(forwarder):
    forwarder.send(PACKET, port=1).slowpath(reason=1, port=1, packet=PACKET)


def test_drop(forwarder):
    forwarder.send(PACKET, port=2).dropped("policy")


def test_a_port_without_an_entry_drops(forwarder):
    forwarder.send(PACKET, port=3).dropped("no_action")


def test_forward_back_where_it_came_from(forwarder):
    forwarder.map("actions")[0] = {"verb": forwarder.enum("simpleforwarder_verb")["FORWARD"], "port": 0}
    forwarder.send(PACKET, port=0).forwarded(port=0, packet=PACKET)


@pytest.mark.parametrize(("port", "reason"), [(100, "no_port"), (5000, "no_port")])
def test_forward_to_a_port_that_is_not_there(forwarder, port, reason):
    forwarder.map("actions")[0] = {"verb": forwarder.enum("simpleforwarder_verb")["FORWARD"], "port": port}
    forwarder.send(PACKET, port=0).dropped(reason)


def test_an_unknown_verb_drops(forwarder):
    forwarder.map("actions")[0] = {"verb": 77, "port": 1}
    forwarder.send(PACKET, port=0).dropped("policy")
