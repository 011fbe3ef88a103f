# SPDX-License-Identifier: Apache-2.0
"""Where the bitcode of a unit lies: that of the framework first, then one file for each member."""

from __future__ import annotations

from pathlib import Path

from polycube.compiler.build import TRANSPARENT, UNIT
from polycube.compiler.errors import BitcodeMissing, CompileError
from polycube.compiler.function import COMPILER, Function, Helper, Hook, UnitSpec


def existing(path: Path, title: str, hook: Hook) -> Path:
    """The path, if there is a file."""
    if not path.is_file():
        raise BitcodeMissing(title, hook, path)
    return path


def function_bitcode(function: Function, hook: Hook) -> Path:
    """The bitcode of a function for a hook."""
    if hook not in function.hooks:
        raise CompileError(function.name, hook, "this function is not made for this hook")
    return existing(function.folder / f"{function.name}.{hook}.bc", function.name, hook)


def unit_bitcode(transparent: bool, hook: Hook) -> Path:
    """The framework's part of a unit."""
    name = TRANSPARENT if transparent else UNIT
    return existing(COMPILER / f"{name}.{hook}.bc", name, hook)


def inputs(spec: UnitSpec | Helper) -> list[Path]:
    """The files that are linked: the framework's part, then the members'."""
    if isinstance(spec, Helper):
        return [existing(spec.folder / f"{spec.name}.{spec.hook}.bc", spec.name, spec.hook)]
    if len(spec.members) != 1:
        raise CompileError(spec.title, spec.hook, "units of several members cannot be emitted yet")
    function = spec.members[0].function
    return [unit_bitcode(function.transparent, spec.hook), function_bitcode(function, spec.hook)]


def has_egress(function: Function, hook: Hook) -> bool:
    """Whether the function defines HANDLER(egress): the symbol table of bitcode holds names of what is defined, as plain bytes."""
    return b"pcn_egress" in function_bitcode(function, hook).read_bytes()
