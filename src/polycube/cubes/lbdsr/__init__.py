# SPDX-License-Identifier: Apache-2.0
from polycube.cubes.lbdsr.cube import Lbdsr

__all__ = ["Lbdsr"]
