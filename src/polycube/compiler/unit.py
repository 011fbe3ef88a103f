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
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import llvmlite.binding as llvm

from polycube.compiler.bitcode import Part, Recipe

MAPS = ".maps"
CONSTANTS = ".data.cfg"
SHARED = "pcn_"  # what the maps that all cubes share are called by
SECTION = re.compile(r' section "([^"]+)"')
DEFINED = re.compile(r'^(?:@|define [^@]*@)([^\s(]+)[ (].* section "([^"]+)"', re.MULTILINE)
LOCALS = re.compile(r"^ +(?:#dbg_|(?:tail )?call void @llvm\.dbg\.).*\n", re.MULTILINE)
# LLVM puts types into BTF that are just pointed at from a struct in the order of their addresses, which differ from run to run; those that
# are just declared, in the order in which it meets them. These are what a TC program's context points to.
POINTEES = re.compile(r'= (?:distinct )?(!DICompositeType\(tag: DW_TAG_structure_type, name: "bpf_(?:sock|flow_keys)")[^)]*\)')
LOCAL = (llvm.Linkage.internal, llvm.Linkage.private)


@cache
def machine() -> Any:
    """The BPF back end. `v3` has 32-bit jumps and atomics with results; kernels of 5.12 and later take it."""
    # A member of the context has to be read at a constant place from where the context lies. LLVM adds first and reads then if very many
    # read it, since it does not look for more than 100 whether they could do without.
    llvm.set_option("polycube", "-cgp-max-address-users-to-scan=1000000")
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm.Target.from_triple("bpfel").create_target_machine(cpu="v3", opt=2)


def section(value: Any) -> str | None:
    """The section of a function or a global, from its first line of IR (llvmlite has no accessor). Comments may precede it."""
    line = next((line for line in str(value).splitlines() if line.startswith(("define", "@"))), "")
    match = SECTION.search(line)
    return match.group(1) if match else None


@dataclass(frozen=True)
class Linked:
    """Modules as one, and the sections of what it defines, by name. To be cloned: parsing and linking takes longer."""

    module: Any
    sections: Mapping[str, str]

    @property
    def programs(self) -> set[str]:
        """Names of the functions that are programs."""
        return {function.name for function in self.module.functions if function.name in self.sections and not function.is_declaration}

    @property
    def maps(self) -> list[str]:
        """Names of the maps."""
        return [name for name, kind in self.sections.items() if kind == MAPS]


@lru_cache(16)
def joined(modules: tuple[bytes, ...]) -> Linked:
    """Links modules, and leaves out where local variables are: BTF has nothing of it, and the passes take a third longer with it."""
    module = llvm.parse_bitcode(modules[0])
    for other in modules[1:]:
        module.link_in(llvm.parse_bitcode(other))
    text = POINTEES.sub(r"= \1, flags: DIFlagFwdDecl)", LOCALS.sub("", str(module)))
    return Linked(llvm.parse_assembly(text), dict(DEFINED.findall(text)))


def named(part: Part) -> Linked:
    """A part of a fused unit, in which all that it does not share with others is called by its prefix."""
    whole = joined(part.modules)
    module, sections = whole.module.clone(), dict[str, str]()
    for value in [*module.functions, *module.global_variables]:
        name = value.name
        kind = whole.sections.get(name)
        if not name or value.is_declaration or (kind is None and value.linkage in LOCAL):
            continue
        if name.startswith(SHARED) and kind == MAPS:
            value.linkage = "linkonce_odr"
        else:
            value.name = name = part.prefix + name
        if kind:
            sections[name] = kind
    return Linked(module, sections)


def link(recipe: Recipe) -> Linked:
    """One module: programs and what their code needs. Maps that may vanish if nobody refers to them are `linkonce_odr`."""
    frame = joined((recipe.frame,))
    module, sections, kept = frame.module.clone(), dict(frame.sections), frame.programs
    if recipe.glue:
        release(module, sections)
        head = f'target datalayout = "{module.data_layout}"\ntarget triple = "{module.triple}"\n'
        module.link_in(llvm.parse_assembly(head + recipe.glue))
    for part in recipe.parts:
        if part.prefix:
            other = named(part)
            module.link_in(other.module)
        else:
            other = joined(part.modules)
            kept |= other.programs
            module.link_in(other.module.clone())
        sections |= other.sections
    if recipe.glue:
        release(module, sections)
    for name in frame.maps:  # not before, since a function must not have a map of the same name
        module.get_global_variable(name).linkage = "linkonce_odr"
    module.verify()
    prepare(module, kept)
    return Linked(module, sections)


def prepare(module: Any, kept: set[str]) -> None:
    """Programs stay, all else is inlined."""
    for function in module.functions:
        if function.is_declaration or function.name in kept:
            continue
        function.linkage = "internal"
        if not any(b"noinline" in attribute for attribute in function.attributes):
            function.add_function_attribute("alwaysinline")


def release(module: Any, sections: Mapping[str, str]) -> None:
    """Nothing from outside reads or writes a fused unit: constants are folded, and what the code does not refer to vanishes."""
    for value in module.global_variables:
        if value.is_declaration:
            continue
        kind = sections.get(value.name)
        if kind in (None, CONSTANTS):
            value.linkage = "internal"
        elif kind == MAPS:
            value.linkage = "linkonce_odr"


def emit(recipe: Recipe) -> bytes:
    """Links, optimises and emits. Raises RuntimeError with LLVM's sentence, or ends the process."""
    target = machine()
    whole = link(recipe)
    module = whole.module
    builder = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(module, builder)
    for value in module.global_variables:
        if whole.sections.get(value.name) == MAPS and value.linkage == llvm.Linkage.linkonce_odr:
            value.linkage = "external"
    result: bytes = target.emit_object(module)
    return result
