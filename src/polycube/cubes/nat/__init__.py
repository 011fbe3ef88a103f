# SPDX-License-Identifier: Apache-2.0
"""The nat service."""

from polycube.cubes.nat.cube import Nat

__all__ = ["Nat"]
