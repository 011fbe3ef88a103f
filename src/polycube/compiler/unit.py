# SPDX-License-Identifier: Apache-2.0
"""Bitcode to a BPF object, by llvmlite. Imported in the compiler process only: LLVM ends the process on some errors.

Pure: equal bitcode gives equal bytes. The first module is the framework's, the others are linked into it.

- Functions in a section (SEC) are programs and stay; all others become internal and are inlined, unless their author said noinline. A
  function whose address is taken (a bpf_loop callback) survives as a subprogram by itself.
- The framework's maps are `linkonce_odr` while the passes run: one that nobody refers to any more vanishes with the code that used it
  (a kernel limit: a program takes at most 64 maps). Before emission they become `external` again: libbpf looks for global symbols.
- The function's own maps and configuration constants always stay: they are its state, whether or not this hook's code uses them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import llvmlite.binding as llvm

MAPS = ".maps"
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


def prepare(module: Any) -> None:
    """Programs stay, all else is inlined."""
    for function in module.functions:
        if function.is_declaration or section(function):
            continue
        function.linkage = "internal"
        if not any(b"noinline" in attribute for attribute in function.attributes):
            function.add_function_attribute("alwaysinline")


def emit(modules: Sequence[bytes]) -> bytes:
    """Links, optimises and emits. Raises RuntimeError with LLVM's sentence, or ends the process."""
    target = machine()
    module = llvm.parse_bitcode(modules[0])
    framework = [value.name for value in maps(module)]
    for other in modules[1:]:
        module.link_in(llvm.parse_bitcode(other))
    module.verify()
    prepare(module)
    for name in framework:
        module.get_global_variable(name).linkage = "linkonce_odr"
    builder = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(module, builder)
    for value in maps(module):
        if value.linkage == llvm.Linkage.linkonce_odr:
            value.linkage = "external"
    result: bytes = target.emit_object(module)
    return result
