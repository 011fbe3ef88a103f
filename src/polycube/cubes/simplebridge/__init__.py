# SPDX-License-Identifier: Apache-2.0
from polycube.cubes.simplebridge.cube import Simplebridge

__all__ = ["Simplebridge"]
