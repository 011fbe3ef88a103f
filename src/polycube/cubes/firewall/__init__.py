# SPDX-License-Identifier: Apache-2.0
from polycube.cubes.firewall.cube import Firewall

__all__ = ["Firewall"]
