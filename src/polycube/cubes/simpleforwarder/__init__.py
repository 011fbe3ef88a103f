# SPDX-License-Identifier: Apache-2.0
from polycube.cubes.simpleforwarder.cube import Simpleforwarder

__all__ = ["Simpleforwarder"]
