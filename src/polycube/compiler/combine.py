# SPDX-License-Identifier: Apache-2.0
"""Links code of an instance into the bitcode of a function, by llvmlite. Imported in the compiler process only.

What a piece of code defines is renamed first (code.py), maps included: their names in BTF follow. The result is bitcode like that of any
function.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import llvmlite.binding as llvm

from polycube.compiler.code import Language
from polycube.compiler.unit import LOCAL, section

SHARED = "linkonce_odr"
CONSTANT = re.compile(r"@\S+ = (?:\w+ )*constant ")
EXTERNS = (".ksyms", ".kconfig")  # sections of what the kernel defines


def combine(blobs: Sequence[bytes]) -> bytes:
    """`blobs`: the function's bitcode, then for each piece of code what is to be known of it (JSON) and its content (for C: bitcode).

    Raises RuntimeError with a sentence on what is wrong with a piece; its first word is the number of the piece.
    """
    function, pieces = blobs[0], list(zip(blobs[1::2], blobs[2::2], strict=True))
    module = llvm.parse_bitcode(function)
    known = {value.name for value in _symbols(module)}
    for number, (header, content) in enumerate(pieces):
        about = json.loads(header)
        try:
            part = _read(about, content)
            part.triple, part.data_layout = module.triple, module.data_layout
            _rename(part, about)
            module.link_in(part)
            _check(module, known)
        except Exception as error:
            raise RuntimeError(f"{number} {error}") from None
    module.verify()
    result: bytes = module.as_bitcode()
    return result


def _read(about: dict[str, Any], content: bytes) -> Any:
    if about["language"] == Language.C:
        return llvm.parse_bitcode(content)
    text = content.decode()
    if about["language"] == Language.GENERATOR:
        module, _, name = text.partition(":")
        text = getattr(importlib.import_module(module), name)(about["hook"], *about["arguments"])
    return llvm.parse_assembly(text)


def _symbols(module: Any) -> Iterator[Any]:
    yield from module.functions
    yield from module.global_variables


def _rename(part: Any, about: dict[str, Any]) -> None:
    """Gives all that a piece defines its name in the function. Of two copies of one piece, the second has functions of its own and
    shares the data but for maps that are swapped, so that it is the same code on other maps."""
    exports, swapped = dict(about["exports"]), set(about["swapped"])
    defined = {value.name for value in _symbols(part) if not value.is_declaration}
    for name in exports:
        if name not in defined:
            raise ValueError(f"it defines no {name}")
    for name in swapped:
        if name not in defined:
            raise ValueError(f"it defines no map {name}")
    prefix = about["name"]
    for function in part.functions:
        name = function.name
        if function.is_declaration or function.linkage in LOCAL:
            continue
        if section(function):
            raise ValueError(f"it defines the program {name} (a function in a section): programs are the framework's")
        function.name = exports.get(name) or f"{prefix}_{name}" + ("_swap" if swapped else "")
    for variable in part.global_variables:
        name = variable.name
        if variable.is_declaration or (variable.linkage in LOCAL and CONSTANT.match(str(variable))):
            continue
        variable.name = f"{prefix}_{name}" + ("_swap" if name in swapped else "")
        variable.linkage = SHARED if swapped and name not in swapped else "external"


def _check(module: Any, known: set[str]) -> None:
    for value in _symbols(module):
        if value.is_declaration and value.name not in known and not value.name.startswith("llvm.") and section(value) not in EXTERNS:
            raise ValueError(f"{value.name} is declared and defined nowhere")
