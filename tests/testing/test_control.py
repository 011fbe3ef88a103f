# SPDX-License-Identifier: Apache-2.0
"""The control plane on the stage: configuration, what goes up and comes down, what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.l2 import Ether

from polycube.core.cube import Cube
from polycube.cubes.helloworld.model import HelloworldConfig, Verdict
from polycube.model import Edit, Op
from polycube.testing.control import ControlPlane

FRAME = bytes(Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:0b") / bytes(46))


class Odd(Cube[HelloworldConfig]):
    """Answers the first frame, and drops all others from then on."""

    config = HelloworldConfig

    def apply(self, change):
        if change.new.loglevel == "OFF":
            raise ValueError("no log at all?")
        for _, action in change.changed("action"):
            self.cfg["action"] = list(Verdict).index(action)

    def facts(self, changed):
        self.changed = changed

    async def packet(self, packet):
        self.log.info("got a frame")
        self.send(packet.port, packet.data)
        self.receive(1, packet.data)
        self.alarm("seen", port=packet.port.name)
        await self.edit([Edit(Op.MERGE, ("action",), "DROP")])


@pytest.fixture
def control(cube):
    return ControlPlane(cube("helloworld"), Odd, {"action": "SLOWPATH"})


def test_what_goes_up_is_handled_and_what_comes_down_is_kept(control):
    control.send(FRAME, port=0).slowpath(port=0)
    assert (control.sent, control.received) == ([(0, FRAME)], [(1, FRAME)])
    assert control.alarms == [("seen", {"port": "p0"})]
    assert control.log.lines == ["got a frame"]
    assert [edit.path for edit in control.edits] == [("action",)]
    control.send(FRAME, port=0).dropped()
    control.adopt()
    assert control.service.current.action == "DROP"


def test_what_is_refused_leaves_what_stood(control):
    with pytest.raises(ValueError, match="no log"):
        control.edit(Edit(Op.MERGE, ("loglevel",), "OFF"))
    assert control.service.current.loglevel == "INFO"
    control.send(FRAME).slowpath()


def test_a_port_s_facts_change(control):
    port = replace(control.service.ports["p1"], up=False, netdev=None)
    control.set_facts(port)
    assert control.service.changed == ["p1"] and control.service.ports["p1"] is port and len(control.service.ports) == 2
