# SPDX-License-Identifier: Apache-2.0
"""The pbforwarder service."""

from polycube.cubes.pbforwarder.cube import Pbforwarder

__all__ = ["Pbforwarder"]
