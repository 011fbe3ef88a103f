# SPDX-License-Identifier: Apache-2.0
from polycube.cubes.synflood.cube import Synflood

__all__ = ["Synflood"]
