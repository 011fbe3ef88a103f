# SPDX-License-Identifier: Apache-2.0
"""What is compiled: functions (sources of data planes) and units (what becomes one object).

A function is compiled once per hook, to bitcode that lies beside its source: `<name>.bpf.c` becomes `<name>.xdp.bc` and
`<name>.tc.bc`. A unit names the members whose bitcode is linked with the framework's; its object depends on nothing else, so equal
units have equal objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from polycube.compiler.code import Code

PACKAGE = Path(__file__).resolve().parents[1]
COMPILER = PACKAGE / "compiler"
INCLUDE = PACKAGE / "include"


class Hook(StrEnum):
    """Where in the kernel a program runs."""

    XDP = "xdp"
    TC = "tc"


ALL_HOOKS = frozenset(Hook)


@dataclass(frozen=True)
class Function:
    """The data plane of a service, `<folder>/<name>.bpf.c`, with the code of one of its instances if that has any."""

    name: str
    folder: Path
    transparent: bool = False
    hooks: frozenset[Hook] = ALL_HOOKS
    code: tuple[Code, ...] = ()
    span: bool = False  # with copies of all frames for the cube's namespace; the unit of one only
    timed: bool = False  # with a clock around its handlers

    @property
    def source(self) -> Path:
        """The C file."""
        return self.folder / f"{self.name}.bpf.c"


@dataclass(frozen=True)
class UnitSpec:
    """The unit of one: the object does not depend on the instance."""

    function: Function
    hook: Hook

    @property
    def title(self) -> str:
        """How errors name it."""
        return self.function.name


@dataclass(frozen=True)
class Helper:
    """A program of the framework or of a test that holds no function: compiled like one, emitted alone."""

    name: str
    folder: Path
    hook: Hook

    @property
    def title(self) -> str:
        """How errors name it."""
        return self.name


def injector(hook: Hook) -> Helper:
    """The programs of inject.bpf.c: ways into a cube for frames that no netdev received."""
    return Helper("inject", COMPILER, hook)
