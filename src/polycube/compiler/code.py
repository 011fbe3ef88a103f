# SPDX-License-Identifier: Apache-2.0
"""Data-plane code of one instance: what a cube's configuration adds to the function of its service.

A service's bitcode calls functions that it defines weakly, as doing nothing; code of an instance defines them. It comes as C (clang is
needed, where it was not compiled before), as LLVM IR, or from a generator: a function of the service, called in the compiler's process,
that returns LLVM IR. It is linked into the bitcode of the function (combine.py), so whatever is made of functions needs to know nothing
of it, and is told apart by its content.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from polycube.compiler.errors import CompileError


class Language(StrEnum):
    """What the text of a piece of code is."""

    C = "c"
    IR = "ir"  # LLVM's, as text
    GENERATOR = "generator"  # "module:function", called as function(hook, *arguments), returns IR


@dataclass(frozen=True)
class Code:
    """A piece of code.

    `exports`: what it must define -> what that is called in the function. Everything else that it defines gets `<name>_` in front, so
    that pieces don't clash with one another or with the framework. `swapped`: maps that this piece doesn't share with another one of
    the same name, so theirs get a `_swap` behind.
    """

    name: str  # lower case, digits and _: in errors the name of the file
    language: Language
    text: str
    arguments: tuple[str, ...] = ()
    exports: tuple[tuple[str, str], ...] = ()
    swapped: tuple[str, ...] = ()
    path: tuple[str, ...] = ()  # where it stands in the configuration


@dataclass(frozen=True)
class Diagnostic:
    """What is wrong with a piece of code. Lines and columns begin at 1; 0: unknown."""

    message: str
    line: int = 0
    column: int = 0
    source: str = ""  # the line

    def __str__(self) -> str:
        where = f"line {self.line}" + (f", column {self.column}" if self.column else "") + ": " if self.line else ""
        return f"{where}{self.message}" + (f", at: {self.source.strip()}" if self.source.strip() else "")


class CodeError(CompileError):
    """Code of an instance is not taken; says what is wrong with which line."""

    def __init__(self, code: Code, hook: str, *diagnostics: Diagnostic) -> None:
        self.code = code
        self.diagnostics = diagnostics
        super().__init__(code.name, hook, "; ".join(map(str, diagnostics)))


_PLACE = re.compile(r"^;.*@ (\S+):([1-9]\d*)$", re.MULTILINE)  # in the verifier's log, since Linux 6.9


def located(code: Code, message: str, log: str = "") -> Diagnostic:
    """What the verifier says, with the line at which its log ends if that is one of this code."""
    places = _PLACE.findall(log)
    if code.language is not Language.C or not places or places[-1][0] != f"{code.name}.c":
        return Diagnostic(message)
    line = int(places[-1][1])
    return Diagnostic(message, line, source=(code.text.splitlines()[line - 1 : line] or [""])[0])
