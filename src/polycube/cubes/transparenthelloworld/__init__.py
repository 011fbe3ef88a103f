# SPDX-License-Identifier: Apache-2.0
from polycube.cubes.transparenthelloworld.cube import Transparenthelloworld

__all__ = ["Transparenthelloworld"]
