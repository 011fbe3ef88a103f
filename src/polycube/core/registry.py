# SPDX-License-Identifier: Apache-2.0
"""The services that are installed: classes named by entry points of the group `polycube.cubes`. Built-in ones come the same way.

A service under development need not be installed: `POLYCUBE_SERVICES=name=module:Class,...` in the daemon's environment names it, beside
the installed ones or in the place of one. Its module must be found in PYTHONPATH, its bitcode beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from polycube.compiler.function import Function
from polycube.core.config import CubeConfig, TransparentCube
from polycube.core.cube import Cube

GROUP = "polycube.cubes"
VARIABLE = "POLYCUBE_SERVICES"


@dataclass(frozen=True)
class Installed:
    """A service: `target` is "module:Class", `path` a folder where its module is found, if that is not on the path of all."""

    name: str
    target: str
    path: str = ""

    @cached_property
    def cls(self) -> type[Cube[Any]]:
        loaded: type[Cube[Any]] = EntryPoint(self.name, self.target, GROUP).load()
        return loaded

    @property
    def config(self) -> type[CubeConfig]:
        return self.cls.config

    @cached_property
    def transparent(self) -> bool:
        return issubclass(self.config, TransparentCube)

    @property
    def function(self) -> Function:
        return self.cls.function()

    @cached_property
    def description(self) -> str:
        return (self.cls.__doc__ or "").strip().partition("\n")[0]


def installed() -> tuple[dict[str, Installed], list[str]]:
    """Services by name, and a sentence on each that can't be imported: it must not keep the others from working."""
    found, broken = {}, []
    for name, target in sorted(dict(_named()).items()):
        service = Installed(name, target)
        try:
            if not issubclass(service.cls, Cube):
                raise TypeError(f"{target} is no Cube")
            found[name] = service
        except Exception as error:
            broken.append(f"service {name} can't be loaded: {type(error).__name__}: {error}")
    return found, broken


def _named() -> Iterator[tuple[str, str]]:
    """Name and target of each service; later ones take the place of earlier ones."""
    for entry in entry_points(group=GROUP):
        yield entry.name, entry.value
    for item in filter(None, os.environ.get(VARIABLE, "").split(",")):
        name, _, target = item.partition("=")
        yield name.strip(), target.strip()
