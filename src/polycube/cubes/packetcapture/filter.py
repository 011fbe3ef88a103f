# SPDX-License-Identifier: Apache-2.0
"""A filter expression as code of an instance: called by the compiler process."""

from __future__ import annotations

from polycube.compiler.code import Code, Language
from polycube.cubes.packetcapture.cbpf import translate
from polycube.cubes.packetcapture.libpcap import compile_filter

FUNCTION = "capture_filter"


def generate(hook: str, expression: str) -> str:
    """LLVM assembly of the filter; the same for both hooks."""
    return translate(compile_filter(expression), FUNCTION)


def code(expression: str) -> Code:
    """The piece of code for an expression."""
    target = f"{__name__}:{generate.__name__}"
    return Code("filter", Language.GENERATOR, target, (expression,), exports=((FUNCTION, FUNCTION),), path=("filter",))
