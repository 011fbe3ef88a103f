# SPDX-License-Identifier: Apache-2.0
from polycube.cubes.ddosmitigator.cube import Ddosmitigator

__all__ = ["Ddosmitigator"]
