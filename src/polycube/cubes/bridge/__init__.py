# SPDX-License-Identifier: Apache-2.0
from polycube.cubes.bridge.cube import Bridge

__all__ = ["Bridge"]
