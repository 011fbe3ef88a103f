# SPDX-License-Identifier: Apache-2.0
"""Errors of compiling, building time and run time alike. Each names what was compiled, for which hook, and why it failed."""

from __future__ import annotations

from pathlib import Path


class CompileError(Exception):
    """A function (or a whole unit) could not be turned into an object."""

    status = 400

    def __init__(self, title: str, hook: str, reason: str, passing: bool = False) -> None:
        """`passing`: the next attempt may succeed."""
        super().__init__(title, hook, reason)
        self.title = title
        self.hook = hook
        self.reason = reason
        self.passing = passing

    def __str__(self) -> str:
        return f"cannot compile {self.title} for {self.hook}: {self.reason}"


class SourceError(CompileError):
    """clang refused a source; `reason` is what it printed."""

    def __str__(self) -> str:
        return f"clang refused {self.title} for {self.hook}:\n{self.reason}"


class BitcodeMissing(CompileError):
    """The bitcode of a function is not there: the package was not built."""

    status = 500

    def __init__(self, title: str, hook: str, path: Path) -> None:
        super().__init__(title, hook, f"{path} is missing; run `python -m polycube.compiler.build`")
        self.path = path
