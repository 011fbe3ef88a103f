# SPDX-License-Identifier: Apache-2.0
"""Objects of functions, and what the daemon reads from them: which features of the framework they use, names of drop reasons."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from polycube.bpf import Object
from polycube.compiler.function import Function, Hook
from polycube.compiler.process import Compiler
from polycube.core.fusing import Piece
from polycube.daemon.underway import step

KEPT = 512  # objects with code of an instance


@dataclass(frozen=True)
class Built:
    """An object of a function for a hook, in the file system so that workers can read its layouts."""

    unit: str
    data: bytes
    path: Path
    floods: bool
    egress: bool
    piece: Piece
    reasons: dict[int, str]


class Objects:
    """Objects of functions, from the compiler or its cache."""

    def __init__(self, compiler: Compiler, folder: Path) -> None:
        self._compiler = compiler
        self._folder = folder
        self._built: dict[tuple[Function, str], Built] = {}

    async def get(self, function: Function, hook: str) -> Built:
        """The unit of one of a function for a hook. Raises CompileError."""
        built = self._built.pop((function, hook), None) or await self.emit(function, hook)
        self._built[function, hook] = built  # the latest used are the last
        self._forget_oldest()
        return built

    async def emit(self, function: Function, hook: str) -> Built:
        """The same, from the bitcode as it is now, and not remembered."""
        step(f"compiling {function.name} for {hook}")
        data = await self._compiler.emit(function, Hook(hook))
        digest = hashlib.sha256(data).hexdigest()[:12]
        path = self._folder / f"{digest}.o"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(".new")  # whoever is killed in the middle leaves no half of it under its name
            draft.write_bytes(data)
            draft.replace(path)
        with Object.open(data, function.name[:15]) as object:
            floods = "domains" in object.maps
            piece = Piece.of(function, Hook(hook), object)
        return Built(f"{hook}-{digest}", data, path, floods, piece.egress, piece, reason_names(data, function.name))

    def replace(self, service: Function, built: Mapping[tuple[Function, str], Built]) -> dict[tuple[Function, str], Built]:
        """Forgets all objects of a service but these; returns those it had, for the way back."""
        before = {key: one for key, one in self._built.items() if key[0].folder == service.folder}
        for key in before:
            del self._built[key]
        self._built.update(built)
        return before

    def reasons(self, function: Function, hook: str) -> dict[int, str]:
        """Names of the drop reasons of a function; empty before it was used."""
        built = self._built.get((function, hook))
        return built.reasons if built else {}

    def _forget_oldest(self) -> None:
        """Functions with code of an instance come and go; the others stay."""
        own = [key for key in self._built if key[0].code]
        for key in own[:-KEPT]:
            self._built.pop(key).path.unlink(missing_ok=True)


def reason_names(data: bytes, service: str) -> dict[int, str]:
    """Names of drop reasons, from the object's BTF: those of the framework and the function's own."""
    with Object.open(data, service[:15]) as object:
        common = {value: _word(name.removeprefix("PCN_DROP_")) for name, value in object.enum_values("pcn_drop_reason").items()}
        own = {value: _word(name) for name, value in object.enum_values("pcn_cube_drop").items()}
    common.pop(16, None)  # PCN_DROP_CUBE: where the function's own begin
    return common | own


def _word(name: str) -> str:
    return name.lower().replace("_", "-")
