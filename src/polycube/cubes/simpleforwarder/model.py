# SPDX-License-Identifier: Apache-2.0
"""Configuration of simpleforwarder."""

from polycube.core.config import StandardCube
from polycube.model import Choice, Keyed, Metric, Name, Node, key, leaf, listing


class Verb(Choice):
    """What happens to a frame."""

    DROP = "DROP"
    SLOWPATH = "SLOWPATH"
    FORWARD = "FORWARD"


class ForwardingAction(Node):
    """What happens to frames that come by a port."""

    inport: Name = key("Port the frames come by", example="port1")
    action: Verb = leaf("What happens to them")
    outport: Name | None = leaf("Port out of which FORWARD sends them", default=None, example="port2")


class SimpleforwarderConfig(StandardCube):
    """Forwards, drops or hands to the control plane frames by the port they come by."""

    actions: Keyed[ForwardingAction] = listing(
        "What happens to frames, by port; frames of other ports are dropped", metric=Metric("gauge", "simpleforwarder_actions_entries")
    )
