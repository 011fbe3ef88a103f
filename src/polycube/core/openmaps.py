# SPDX-License-Identifier: Apache-2.0
"""Pinned maps that are written again and again: opened at first use, and kept open."""

from __future__ import annotations

from pathlib import Path

from polycube.bpf import Map


class OpenMaps:
    """Those of one daemon."""

    def __init__(self) -> None:
        self._maps: dict[Path, Map] = {}

    def at(self, path: Path) -> Map:
        """The map that is pinned there. Raises BpfError."""
        if path not in self._maps:
            self._maps[path] = Map.open(path)
        return self._maps[path]

    def forget(self, folder: Path) -> None:
        """Lets go of a pin, or of all in a folder, that go or are replaced."""
        for path in [path for path in self._maps if folder in (path, *path.parents)]:
            self._maps.pop(path).close()

    def close(self) -> None:
        """Lets go of all."""
        for map in self._maps.values():
            map.close()
        self._maps.clear()
