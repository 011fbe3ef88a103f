# SPDX-License-Identifier: Apache-2.0
"""What is linked to make an object: bitcode of the framework, then that of the functions.

A `Recipe` holds everything that goes into an object, so that equal recipes have equal objects; it travels to the compiler process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from polycube.compiler.errors import BitcodeMissing, CompileError
from polycube.compiler.function import COMPILER, Function, Helper, Hook, UnitSpec
from polycube.compiler.glue import FusedSpec, glue, prefix

Spec = UnitSpec | FusedSpec | Helper


@dataclass(frozen=True)
class Part:
    """Modules that are linked with each other; then what they define gets the prefix, but for what all units share."""

    prefix: str
    modules: tuple[bytes, ...]


@dataclass(frozen=True)
class Recipe:
    """The framework's module with the programs, the parts linked into it, and LLVM assembly that joins them."""

    frame: bytes
    parts: tuple[Part, ...] = ()
    glue: str = ""

    def pack(self) -> list[bytes]:
        """As blobs: the structure as JSON, and each module once."""
        modules = list(dict.fromkeys([self.frame, *(module for part in self.parts for module in part.modules)]))
        parts = [[part.prefix, [modules.index(module) for module in part.modules]] for part in self.parts]
        return [json.dumps({"glue": self.glue, "parts": parts}).encode(), *modules]

    @classmethod
    def unpack(cls, blobs: Sequence[bytes]) -> Recipe:
        """The inverse of `pack`."""
        structure, modules = json.loads(blobs[0]), blobs[1:]
        parts = tuple(Part(name, tuple(modules[index] for index in indexes)) for name, indexes in structure["parts"])
        return cls(modules[0], parts, structure["glue"])


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


def framework_bitcode(name: str, hook: Hook, function: Function | None = None) -> Path:
    """A module of the framework, in the variant for standard cubes, for those whose traffic is copied, or for transparent ones."""
    variant = f"{name}_transparent" if function and function.transparent else f"{name}_span" if function and function.span else name
    return existing(COMPILER / f"{variant}.{hook}.bc", variant, hook)


def _clock(function: Function, hook: Hook) -> tuple[bytes, ...]:
    """What is linked with a function that is timed."""
    if not function.timed:
        return ()
    return (framework_bitcode("timed_egress" if has_egress(function, hook) else "timed", hook).read_bytes(),)


def plain_bitcode(function: Function, hook: Hook) -> bytes:
    """The bitcode of a function that has no code of an instance."""
    return function_bitcode(function, hook).read_bytes()


def recipe(spec: Spec, bitcode: Callable[[Function, Hook], bytes] = plain_bitcode) -> Recipe:
    """What is linked for a unit. `bitcode` gives that of its functions."""
    if isinstance(spec, Helper):
        return Recipe(existing(spec.folder / f"{spec.name}.{spec.hook}.bc", spec.name, spec.hook).read_bytes())
    if isinstance(spec, UnitSpec):
        frame = framework_bitcode("unit", spec.hook, spec.function).read_bytes()
        return Recipe(frame, (Part("", (bitcode(spec.function, spec.hook), *_clock(spec.function, spec.hook))),))
    frame = framework_bitcode("fused", spec.hook).read_bytes()
    parts = []
    for number, cube in enumerate(spec.cubes):
        member = framework_bitcode("member", spec.hook, cube.function).read_bytes()
        parts.append(Part(prefix(number), (member, bitcode(cube.function, spec.hook), *_clock(cube.function, spec.hook))))
    return Recipe(frame, tuple(parts), glue(spec))


def has_egress(function: Function, hook: Hook) -> bool:
    """Whether the function defines HANDLER(egress): the symbol table of bitcode holds names of what is defined, as plain bytes."""
    return b"pcn_egress" in function_bitcode(function, hook).read_bytes()
