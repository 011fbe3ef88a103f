# SPDX-License-Identifier: Apache-2.0
"""Objects of functions, and what the daemon reads from them: which features of the framework they use, names of drop reasons."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from polycube.bpf import Object
from polycube.compiler.bitcode import has_egress
from polycube.compiler.function import Hook
from polycube.compiler.process import Compiler
from polycube.core.registry import Installed


@dataclass(frozen=True)
class Built:
    """An object of a function for a hook, in the file system so that workers can read its layouts."""

    unit: str
    data: bytes
    path: Path
    floods: bool
    egress: bool
    reasons: dict[int, str]


class Objects:
    """Objects of functions, from the compiler or its cache."""

    def __init__(self, compiler: Compiler, folder: Path) -> None:
        self._compiler = compiler
        self._folder = folder
        self._built: dict[tuple[str, str], Built] = {}

    async def get(self, installed: Installed, hook: str) -> Built:
        """The unit of one of a service for a hook."""
        known = self._built.get((installed.name, hook))
        if known:
            return known
        data = await self._compiler.emit(installed.function, Hook(hook))
        digest = hashlib.sha256(data).hexdigest()[:12]
        path = self._folder / f"{digest}.o"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(".new")  # whoever is killed in the middle leaves no half of it under its name
            draft.write_bytes(data)
            draft.replace(path)
        with Object.open(data, installed.name[:15]) as object:
            floods = "domains" in object.maps
        egress = has_egress(installed.function, Hook(hook))
        built = Built(f"{hook}-{digest}", data, path, floods, egress, reason_names(data, installed.name))
        self._built[installed.name, hook] = built
        return built

    def reasons(self, service: str, hook: str) -> dict[int, str]:
        """Names of the drop reasons of a service; empty before it was used."""
        built = self._built.get((service, hook))
        return built.reasons if built else {}


def reason_names(data: bytes, service: str) -> dict[int, str]:
    """Names of drop reasons, from the object's BTF: those of the framework and the function's own."""
    with Object.open(data, service[:15]) as object:
        common = {value: _word(name.removeprefix("PCN_DROP_")) for name, value in object.enum_values("pcn_drop_reason").items()}
        own = {value: _word(name) for name, value in object.enum_values("pcn_cube_drop").items()}
    common.pop(16, None)  # PCN_DROP_CUBE: where the function's own begin
    return common | own


def _word(name: str) -> str:
    return name.lower().replace("_", "-")
