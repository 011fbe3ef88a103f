# SPDX-License-Identifier: Apache-2.0
"""Bitcode to a BPF object, by llvmlite. Imported in the compiler process only: LLVM ends the process on some errors.

Pure: equal recipes give equal bytes. The frame is the framework's, the others are linked into it.

- Functions in a section (SEC) are programs and stay; all others become internal and are inlined, unless their author said noinline. A
  function whose address is taken (a bpf_loop callback) survives as a subprogram by itself.
- The framework's maps are `linkonce_odr` while the passes run: one that nobody refers to any more vanishes with the code that used it
  (a kernel limit: a program takes at most 64 maps). Before emission they become `external` again: libbpf looks for global symbols.
- In a unit of one, the function's own maps and configuration constants always stay: they are its state, whether or not this hook's code
  uses them. In a fused unit the constants have the cubes' values, and vanish; of the maps those stay that the code refers to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

import llvmlite.binding as llvm

from polycube.compiler.bitcode import Part, Recipe

MAPS = ".maps"
CONSTANTS = ".data.cfg"
SHARED = "pcn_"  # what the maps that all cubes share are called by
SECTION = re.compile(r' section "([^"]+)"')


@cache
def machine() -> Any:
    """The BPF back end. `v3` has 32-bit jumps and atomics with results; kernels of 5.12 and later take it."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm.Target.from_triple("bpfel").create_target_machine(cpu="v3", opt=2)


def section(value: Any) -> str | None:
    """The section of a function or a global, from its first line of IR (llvmlite has no accessor). Comments may precede it."""
    line = next((line for line in str(value).splitlines() if line.startswith(("define", "@"))), "")
    match = SECTION.search(line)
    return match.group(1) if match else None


def maps(module: Any) -> Iterator[Any]:
    """The maps a module defines."""
    for value in module.global_variables:
        if not value.is_declaration and section(value) == MAPS:
            yield value


def programs(module: Any) -> set[str]:
    """The functions of a module that are programs. To be asked before others are linked to it: printing takes as long as the module is."""
    return {function.name for function in module.functions if not function.is_declaration and section(function)}


def prepare(module: Any, kept: set[str]) -> None:
    """Programs stay, all else is inlined."""
    for function in module.functions:
        if function.is_declaration or function.name in kept:
            continue
        function.linkage = "internal"
        if not any(b"noinline" in attribute for attribute in function.attributes):
            function.add_function_attribute("alwaysinline")


@lru_cache(16)
def joined(modules: tuple[bytes, ...]) -> Any:
    """Modules as one. To be cloned: parsing and linking takes longer, and cubes of a service have the same."""
    module = llvm.parse_bitcode(modules[0])
    for other in modules[1:]:
        module.link_in(llvm.parse_bitcode(other))
    return module


def named(part: Part) -> Any:
    """A part of a fused unit as one module, in which all that it does not share with others is called by its prefix."""
    module = joined(part.modules).clone()
    for value in [*module.functions, *module.global_variables]:
        if value.is_declaration or not value.name or value.linkage in (llvm.Linkage.internal, llvm.Linkage.private):
            continue
        if value.name.startswith(SHARED) and value.is_global and section(value) == MAPS:
            value.linkage = "linkonce_odr"
        else:
            value.name = part.prefix + value.name
    return module


def link(recipe: Recipe) -> Any:
    """One module: programs and what their code needs. Maps that may vanish if nobody refers to them are `linkonce_odr`."""
    module = llvm.parse_bitcode(recipe.frame)
    kept = programs(module)
    framework = [value.name for value in maps(module)]
    if recipe.glue:
        release(module)
        head = f'target datalayout = "{module.data_layout}"\ntarget triple = "{module.triple}"\n'
        module.link_in(llvm.parse_assembly(head + recipe.glue))
    for part in recipe.parts:
        if not part.prefix:
            kept |= programs(joined(part.modules))
        module.link_in(named(part) if part.prefix else joined(part.modules).clone())
    if recipe.glue:
        release(module)
    for name in framework:  # not before, since a function must not have a map of the same name
        module.get_global_variable(name).linkage = "linkonce_odr"
    module.verify()
    prepare(module, kept)
    return module


def release(module: Any) -> None:
    """Nothing from outside reads or writes a fused unit: constants are folded, and what the code does not refer to vanishes."""
    for value in module.global_variables:
        if value.is_declaration:
            continue
        kind = section(value)
        if kind in (None, CONSTANTS):
            value.linkage = "internal"
        elif kind == MAPS:
            value.linkage = "linkonce_odr"


def emit(recipe: Recipe) -> bytes:
    """Links, optimises and emits. Raises RuntimeError with LLVM's sentence, or ends the process."""
    target = machine()
    module = link(recipe)
    builder = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(module, builder)
    for value in maps(module):
        if value.linkage == llvm.Linkage.linkonce_odr:
            value.linkage = "external"
    result: bytes = target.emit_object(module)
    return result
