# SPDX-License-Identifier: Apache-2.0
"""Configuration of transparenthelloworld."""

from polycube.core.config import TransparentCube
from polycube.model import Choice, leaf


class Verdict(Choice):
    """What happens to a frame."""

    PASS = "PASS"
    DROP = "DROP"
    SLOWPATH = "SLOWPATH"


class TransparenthelloworldConfig(TransparentCube):
    """Passes, drops or hands to the control plane all frames of a direction."""

    ingress_action: Verdict = leaf("What happens to frames on their way in", default=Verdict.PASS)
    egress_action: Verdict = leaf("What happens to frames on their way out", default=Verdict.PASS)
