# SPDX-License-Identifier: Apache-2.0
from polycube.cubes.helloworld.cube import Helloworld

__all__ = ["Helloworld"]
