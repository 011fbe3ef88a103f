# SPDX-License-Identifier: Apache-2.0
"""Typed views of a cube's maps, for authors.

The layout of keys and values comes from the BTF of the object, so that C is its only definition: a struct is a dict of its fields, an
integer an int, an array of bytes is bytes. While a view is *recording* (inside `apply` and `facts`) a write becomes a `MapWrite`, and
reads see it; otherwise it goes to the kernel at once. Maps are opened at first use: they may come into being later than the cube. One of
another layout, of programs of another version, is none.

An entry of an array cannot be removed; deleting one writes zeros. Values of per-CPU maps are read by `percpu`, all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from polycube.bpf import Layout, Map, MapType, Object
from polycube.core.paths import FRAMEWORK_MAPS

CFG_SECTION = ".data.cfg"
_ARRAYS = {MapType.ARRAY, MapType.PERCPU_ARRAY}
_PERCPU = {MapType.PERCPU_ARRAY, MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH}


@dataclass(frozen=True)
class MapWrite:
    """A recorded write: `value` None deletes. Bytes as the kernel has them."""

    map: str
    key: bytes
    value: bytes | None


@dataclass(frozen=True)
class MapShape:
    """What the object says of a map."""

    type: int
    key: Layout
    value: Layout
    max_entries: int
    described: str  # what a map must be to be this one (Map.fits)


@dataclass(frozen=True)
class Shapes:
    """What the objects of a function say: its own maps and configuration constants, the framework's left out."""

    maps: dict[str, MapShape]
    cfg: dict[str, Layout]

    @staticmethod
    def read(*paths: Path) -> Shapes:
        """Reads one object for each hook; they agree, since they come from one source. Raises BpfError, OSError."""
        return Shapes.of(*(path.read_bytes() for path in paths))

    @staticmethod
    @lru_cache(maxsize=32)
    def of(*objects: bytes) -> Shapes:
        """The same, of objects in memory."""
        shapes = Shapes({}, {})
        for data in objects:
            with Object.open(data, "shapes") as opened:
                for name, spec in opened.maps.items():
                    if name == CFG_SECTION:
                        cfg = {variable: layout for variable, (_, layout) in spec.variables().items()}
                        shapes.cfg.update((k, v) for k, v in cfg.items() if not k.startswith("pcn_"))
                    elif not spec.data and name not in FRAMEWORK_MAPS and not name.startswith("pcn_"):
                        key, value = spec.key_layout, spec.value_layout
                        shapes.maps[name] = MapShape(spec.type, key, value, spec.max_entries, spec.describe())
        return shapes


class MapView:
    """One map, as a mapping from unpacked keys to unpacked values."""

    def __init__(self, name: str, shape: MapShape, opened: Callable[[], Map | None]) -> None:
        self.name = name
        self.shape = shape
        self._key = shape.key
        self._value = shape.value
        self._opened = opened
        self._written: dict[bytes, bytes | None] | None = None  # None: not recording
        self._journal: dict[tuple[str, bytes], bytes | None] = {}  # while recording: of all views, in the order of the last writes

    def get(self, key: Any, default: Any = None) -> Any:
        value = self.packed(key)
        return default if value is None else self._value.unpack(value)

    def packed(self, key: Any) -> bytes | None:
        """The value as the kernel has it; None if there is no such entry."""
        self._one_value()
        packed = self._key.pack(key, f"key of {self.name}")
        if self._written is not None and packed in self._written:
            return self._written[packed]
        kernel = self._opened()
        return kernel.get(packed) if kernel else None

    def __getitem__(self, key: Any) -> Any:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __contains__(self, key: Any) -> bool:
        return self.get(key) is not None

    def __setitem__(self, key: Any, value: Any) -> None:
        self._write(self._key.pack(key, f"key of {self.name}"), self._value.pack(value, self.name))

    def __delitem__(self, key: Any) -> None:
        """Nothing happens if there is no such entry."""
        self._write(self._key.pack(key, f"key of {self.name}"), self._gone)

    def items(self) -> Iterator[tuple[Any, Any]]:
        """A snapshot: entries that come or go meanwhile may be missed."""
        self._one_value()
        for key, value in self.packed_items():
            yield self.unpack(key, value)

    def __iter__(self) -> Iterator[Any]:
        for key, _ in self.packed_items():
            yield self._key.unpack(key)

    def __len__(self) -> int:
        return sum(1 for _ in self.packed_items())

    def clear(self) -> None:
        """Deletes all entries there are now."""
        kernel = self._opened()
        if self._written is None and kernel and self._gone is None:
            kernel.clear()
            return
        for key, _ in list(self.packed_items()):
            self._write(key, self._gone)

    def load(self, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Writes entries that no packet can see yet, and nobody has to undo: at once, also while recording, and many at a time. They are
        recorded only if the map is not there yet. Bytes as the kernel has them; None deletes."""
        kernel = self._opened()
        written = [(key, self._gone if value is None else value) for key, value in entries]
        if kernel is None:
            for key, value in written:
                self._write(key, value)
            return
        for key, value in written:
            if value is None:
                kernel.delete(key)
        kernel.set_many((key, value) for key, value in written if value is not None)

    def percpu(self, key: Any) -> list[Any]:
        """The value of each CPU, of a per-CPU map."""
        kernel = self._opened()
        return [self._value.unpack(value) for value in kernel.get_percpu(self._key.pack(key))] if kernel else []

    def percpu_items(self) -> Iterator[tuple[Any, list[Any]]]:
        """All entries of a per-CPU map, each with the value of every CPU."""
        kernel = self._opened()
        for key, values in kernel.items_percpu() if kernel else ():
            yield self._key.unpack(key), [self._value.unpack(value) for value in values]

    # ---- many at once, as the kernel has them; not in `apply` ----

    def set_many(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Writes entries at once. A failure (MapFull) leaves those before it written."""
        self._kernel().set_many(entries)

    def delete_many(self, keys: Iterable[bytes]) -> None:
        """Those that are not there don't matter."""
        self._kernel().delete_many(keys)

    def batches(self) -> Iterator[list[tuple[bytes, bytes]]]:
        """`packed_items` in parts of some thousands, for tables too large to be held at once."""
        kernel = self._opened()
        return kernel.batches() if kernel else iter(())

    def raw_batches(self) -> Iterator[tuple[bytes, bytes]]:
        """The same, keys in a row and values in a row: for a look at a word of each of a million entries."""
        kernel = self._opened()
        return kernel.raw_batches() if kernel else iter(())

    def _kernel(self) -> Map:
        kernel = self._opened()
        if self._written is not None or kernel is None:
            raise RuntimeError(f"map {self.name} can't be written in bulk while a change is being made, or before it is there")
        return kernel

    @property
    def kernel(self) -> Map | None:
        """The map itself, bytes in and out; None: it is not there yet."""
        return self._opened()

    @property
    def _gone(self) -> bytes | None:
        return bytes(self._value.size) if self.shape.type in _ARRAYS else None

    def _one_value(self) -> None:
        if self.shape.type in _PERCPU:
            raise TypeError(f"map {self.name} has a value for each CPU: use percpu() or percpu_items()")

    def pack(self, value: Any) -> bytes:
        """A value as the kernel has it; to write the same one many times."""
        return self._value.pack(value, self.name)

    def unpack(self, key: bytes, value: bytes) -> tuple[Any, Any]:
        """An entry that the kernel has so."""
        return self._key.unpack(key), self._value.unpack(value)

    def packed_items(self) -> Iterator[tuple[bytes, bytes]]:
        """`items` as the kernel has them."""
        kernel = self._opened()
        entries: dict[bytes, bytes | None] = dict(kernel.items()) if kernel else {}
        entries.update(self._written or {})
        return ((key, value) for key, value in entries.items() if value is not None)

    def _write(self, key: bytes, value: bytes | None) -> None:
        if self._written is not None:
            self._written[key] = value
            self._journal.pop((self.name, key), None)
            self._journal[self.name, key] = value
            return
        kernel = self._opened()
        if kernel is None:
            raise RuntimeError(f"map {self.name} is not there yet; write to it in apply()")
        if value is None:
            kernel.delete(key)
        else:
            kernel.set(key, value)


class MapViews:
    """The maps of one cube: `self.maps["fdb"]`."""

    def __init__(self, shapes: Shapes, find: Callable[[str], Map | None]) -> None:
        """`find`: opens a map by its name, if it is there."""
        self._find = find
        self._open: dict[str, Map] = {}
        self._views = {name: MapView(name, shape, partial(self._opened, name)) for name, shape in shapes.maps.items()}

    def __getitem__(self, name: str) -> MapView:
        view = self._views.get(name)
        if view is None:
            raise KeyError(f"no map {name} in the data plane; it has {', '.join(self._views) or 'none'}")
        return view

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __contains__(self, name: str) -> bool:
        return name in self._views

    @contextmanager
    def recording(self) -> Iterator[list[MapWrite]]:
        """Collects writes instead of carrying them out, in their order; the list is filled when the block ends without an exception.

        Of several writes to one entry the last one counts, at its place.
        """
        writes: list[MapWrite] = []
        journal: dict[tuple[str, bytes], bytes | None] = {}
        for view in self._views.values():
            view._written, view._journal = {}, journal
        try:
            yield writes
            writes += [MapWrite(name, key, value) for (name, key), value in journal.items()]
        finally:
            for view in self._views.values():
                view._written = None

    def close(self) -> None:
        """Lets go of the maps; the next use opens them again."""
        for kernel in self._open.values():
            kernel.close()
        self._open.clear()

    def _opened(self, name: str) -> Map | None:
        kernel = self._open.get(name)
        if kernel is None and (kernel := self._find(name)):
            if not kernel.fits(self._views[name].shape.described):
                kernel.close()
                return None
            self._open[name] = kernel
        return kernel


class CfgView:
    """The constants declared by CFG(): `self.cfg["aging_time"] = 300`. Written in `apply` only."""

    def __init__(self, variables: dict[str, Layout]) -> None:
        self._variables = variables
        self._written: dict[str, bytes] = {}

    def __setitem__(self, name: str, value: Any) -> None:
        layout = self._variables.get(name)
        if layout is None:
            raise KeyError(f"no CFG({name}) in the data plane; it has {', '.join(self._variables) or 'none'}")
        self._written[name] = layout.pack(value, name)

    def __contains__(self, name: str) -> bool:
        return name in self._variables

    def take(self) -> dict[str, bytes]:
        """What was written since the last call."""
        written, self._written = self._written, {}
        return written
