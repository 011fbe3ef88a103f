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


def installed() -> tuple[dict[str, Installed], list[str]]:
    """Services by name, and a sentence on each that can't be imported: it must not keep the others from working."""
    found, broken = {}, []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        service = Installed(entry.name, entry.value)
        try:
            if not issubclass(service.cls, Cube):
                raise TypeError(f"{entry.value} is no Cube")
            found[entry.name] = service
        except Exception as error:
            broken.append(f"service {entry.name} can't be loaded: {type(error).__name__}: {error}")
    return found, broken
