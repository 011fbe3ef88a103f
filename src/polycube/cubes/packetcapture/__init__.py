# SPDX-License-Identifier: Apache-2.0
"""The packetcapture service."""

from polycube.cubes.packetcapture.cube import Packetcapture

__all__ = ["Packetcapture"]
