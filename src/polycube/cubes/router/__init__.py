# SPDX-License-Identifier: Apache-2.0
"""The router service."""

from polycube.cubes.router.cube import Router

__all__ = ["Router"]
