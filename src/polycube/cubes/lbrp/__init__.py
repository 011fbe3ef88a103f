# SPDX-License-Identifier: Apache-2.0
from polycube.cubes.lbrp.cube import Lbrp

__all__ = ["Lbrp"]
