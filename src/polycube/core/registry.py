# SPDX-License-Identifier: Apache-2.0
"""The services that are installed: classes named by entry points of the group `polycube.cubes`. Built-in ones come the same way."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from polycube.compiler.function import Function
from polycube.core.config import CubeConfig, TransparentCube
from polycube.core.cube import Cube

GROUP = "polycube.cubes"


@dataclass(frozen=True)
class Installed:
    """A service: `target` is "module:Class"."""

    name: str
    target: str

    @cached_property
    def cls(self) -> type[Cube[Any]]:
        loaded: type[Cube[Any]] = EntryPoint(self.name, self.target, GROUP).load()
        return loaded

    @property
    def config(self) -> type[CubeConfig]:
        return self.cls.config

    @property
    def transparent(self) -> bool:
        return issubclass(self.config, TransparentCube)

    @property
    def function(self) -> Function:
        return self.cls.function()

    @property
    def description(self) -> str:
        return (self.cls.__doc__ or "").strip().partition("\n")[0]


def installed() -> dict[str, Installed]:
    """By name."""
    return {entry.name: Installed(entry.name, entry.value) for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name)}
