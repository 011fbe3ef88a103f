# SPDX-License-Identifier: Apache-2.0
"""Configuration of helloworld."""

from polycube.core.config import StandardCube
from polycube.model import Choice, leaf


class Verdict(Choice):
    """What happens to a frame."""

    DROP = "DROP"
    SLOWPATH = "SLOWPATH"
    FORWARD = "FORWARD"


class HelloworldConfig(StandardCube):
    """Drops all frames, hands them to the control plane, or sends them out of the other of two ports."""

    action: Verdict = leaf("What happens to every frame", default=Verdict.DROP)
