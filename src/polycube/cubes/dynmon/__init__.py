# SPDX-License-Identifier: Apache-2.0
"""The dynmon service."""

from polycube.cubes.dynmon.cube import Dynmon

__all__ = ["Dynmon"]
