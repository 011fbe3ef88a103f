# SPDX-License-Identifier: Apache-2.0
"""Maps, over a file descriptor: raw bytes in and out. Typed access is a matter of layouts (btf.py) and of whoever knows them."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any

from polycube.bpf import btf
from polycube.bpf.errors import ENOTSUPP, MapFull
from polycube.bpf.fd import Handle, name_of
from polycube.bpf.lib import check, ffi, lib, possible_cpus

_BATCH = 4096  # entries
_BATCH_BYTES = 1 << 22
# No batches for this type, or (arrays of maps with gaps before 6.15) an entry that vanished three times.
_NO_BATCH = {-errno.EINVAL, -errno.EOPNOTSUPP, -ENOTSUPP, -errno.EINTR}
_INFO = {  # offsets in struct bpf_map_info
    "type": 0,
    "id": 4,
    "key_size": 8,
    "value_size": 12,
    "max_entries": 16,
    "map_flags": 20,
    "name": 24,
    "btf_id": 64,
    "btf_key_type_id": 68,
    "btf_value_type_id": 72,
}


class _NoBatch(Exception):
    """The kernel reads this map one by one only."""


class MapType(IntEnum):
    """enum bpf_map_type, as far as it is used."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERF_EVENT_ARRAY = 4
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    DEVMAP = 14
    CPUMAP = 16
    XSKMAP = 17
    QUEUE = 22
    STACK = 23
    DEVMAP_HASH = 25
    RINGBUF = 27


PERCPU = {MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH}
_INDEXED = {
    MapType.ARRAY,
    MapType.PROG_ARRAY,
    MapType.PERF_EVENT_ARRAY,
    MapType.PERCPU_ARRAY,
    MapType.ARRAY_OF_MAPS,
    MapType.DEVMAP,
    MapType.CPUMAP,
    MapType.XSKMAP,
}
NO_PREALLOC = 1


def u32(number: int) -> bytes:
    """A 32-bit key or value; what arrays, program arrays and maps of maps take (file descriptors in, ids out)."""
    return struct.pack("<I", number)


@dataclass(frozen=True)
class MapInfo:
    """struct bpf_map_info."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str
    btf_id: int
    btf_key_type_id: int
    btf_value_type_id: int


class Map(Handle):
    """A map of the kernel."""

    kind = "map"

    @classmethod
    def create(
        cls, type: MapType, key_size: int, value_size: int, max_entries: int, *, flags: int = 0, name: str = "", inner: Map | None = None
    ) -> Map:
        """A new map without BTF. `inner` is the model of the values of a map of maps."""
        opts = ffi.new("struct bpf_map_create_opts *")
        opts.sz = ffi.sizeof("struct bpf_map_create_opts")
        opts.map_flags = flags
        opts.inner_map_fd = inner.fd if inner else 0
        fd = lib.bpf_map_create(int(type), name.encode()[:15], key_size, value_size, max_entries, opts)
        return cls(check(fd, f"create {MapType(type).name} map {name}"))

    @classmethod
    def by_id(cls, id: int) -> Map:
        return cls(check(lib.bpf_map_get_fd_by_id(id), f"map with id {id}"))

    @cached_property
    def info(self) -> MapInfo:
        raw = self._info(88)
        number = {name: struct.unpack_from("<I", raw, at)[0] for name, at in _INFO.items() if name != "name"}
        number["flags"] = number.pop("map_flags")
        return MapInfo(name=name_of(raw[_INFO["name"] :][:16]), **number)

    @cached_property
    def _length(self) -> int:
        """Bytes that a look-up writes."""
        if self.info.type in PERCPU:
            return (self.info.value_size + 7 & ~7) * possible_cpus()
        return self.info.value_size

    def layouts(self) -> tuple[btf.Layout, btf.Layout] | None:
        """Layouts of key and value from the BTF the map was created with; None if it has none."""
        if not self.info.btf_id or not self.info.btf_value_type_id:
            return None
        loaded = check(lib.btf__load_from_kernel_by_id(self.info.btf_id), f"BTF of map {self.info.name}")
        try:
            return btf.layout(loaded, self.info.btf_key_type_id), btf.layout(loaded, self.info.btf_value_type_id)
        finally:
            lib.btf__free(loaded)

    def fits(self, described: str) -> bool:
        """Whether it is what `MapSpec.describe` says; the kernel adds flags of its own. Without BTF it has no layouts that could differ."""
        info, layouts, flags = self.info, self.layouts(), described.split(":", 2)[1]
        parts = [MapType(info.type).name, flags, str(info.key_size), str(info.value_size)]
        own = ":".join(parts + [one.describe() for one in layouts or ()])
        return not int(flags) & ~info.flags and (described == own or (not layouts and described.startswith(own)))

    # ---- single entries ----

    def get(self, key: bytes) -> bytes | None:
        """The value, or None. Of a per-CPU map: all CPUs' values in a row (see get_percpu)."""
        value = ffi.new("char[]", self._length)
        result = lib.bpf_map_lookup_elem(self.fd, self._key(key), value)
        if result == -errno.ENOENT:
            return None
        check(result, f"look up in map {self.info.name}")
        return bytes(ffi.buffer(value))

    def get_percpu(self, key: bytes) -> list[bytes]:
        """One value for each possible CPU; empty if there is no such entry."""
        value = self.get(key)
        return [] if value is None else self._split(value)

    def set(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Writes an entry (flags: BPF_ANY 0, BPF_NOEXIST 1, BPF_EXIST 2). A full map raises MapFull.

        A per-CPU map takes one value for all CPUs, or all CPUs' values in a row.
        """
        if self.info.type in PERCPU and len(value) == self.info.value_size:
            value = value.ljust(self.info.value_size + 7 & ~7, b"\0") * possible_cpus()
        if len(value) != self._length:
            raise ValueError(f"map {self.info.name}: value of {len(value)} bytes, {self._length} expected")
        result = lib.bpf_map_update_elem(self.fd, self._key(key), ffi.from_buffer(value), flags)
        if result == -errno.E2BIG or (result == -errno.ENOSPC and self.info.type == MapType.LPM_TRIE):
            wrong = f"has no index {int.from_bytes(key, 'little')}" if self.info.type in _INDEXED else "is full"
            raise MapFull(-result, f"map {self.info.name} {wrong}, it has {self.info.max_entries} entries")
        check(result, f"update map {self.info.name}")

    def delete(self, key: bytes) -> bool:
        """False: there was no such entry."""
        result = lib.bpf_map_delete_elem(self.fd, self._key(key))
        if result == -errno.ENOENT:
            return False
        check(result, f"delete from map {self.info.name}")
        return True

    def lookup_and_delete(self, key: bytes) -> bytes | None:
        """Takes an entry out; None: there is none. The key of queues and stacks is empty."""
        value = ffi.new("char[]", self._length)
        result = lib.bpf_map_lookup_and_delete_elem(self.fd, self._key(key), value)
        if result == -errno.ENOENT:
            return None
        check(result, f"take from map {self.info.name}")
        return bytes(ffi.buffer(value))

    # ---- many entries ----

    def keys(self) -> Iterator[bytes]:
        key, following = ffi.NULL, ffi.new("char[]", self.info.key_size)
        while (result := lib.bpf_map_get_next_key(self.fd, key, following)) == 0:
            found = bytes(ffi.buffer(following))
            yield found
            key = ffi.from_buffer(found)
        if result != -errno.ENOENT:
            check(result, f"list map {self.info.name}")

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """A snapshot as good as the kernel gives one: entries that come or go meanwhile may be missed."""
        entries = self._items_batch()
        if entries is not None:
            yield from entries
            return
        for key in list(self.keys()):
            value = self.get(key)
            if value is not None:
                yield key, value

    def count(self) -> int:
        """How many entries there are now."""
        try:
            return sum(len(keys) // self.info.key_size for keys, _ in self.raw_batches())
        except _NoBatch:
            return sum(1 for _ in self.keys())

    def batches(self) -> Iterator[list[tuple[bytes, bytes]]]:
        """`items` in parts of some thousands, for maps that are too large to be held at once."""
        try:
            for keys_in_a_row, values in self.raw_batches():
                yield self._entries(keys_in_a_row, values)
        except _NoBatch:
            keys = list(self.keys())
            for start in range(0, len(keys), _BATCH):
                found = [(key, self.get(key)) for key in keys[start : start + _BATCH]]
                yield [(key, value) for key, value in found if value is not None]

    def take_items(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries, which are deleted (of arrays: zeroed). A program that has an entry in hand meanwhile may write to what is gone."""
        entries = None if self.info.type in _INDEXED else self._items_batch(lib.bpf_map_lookup_and_delete_batch)
        if entries is not None:
            yield from entries
            return
        for key in list(self.keys()):
            if self.info.type in _INDEXED:
                value = self.get(key)
                self.set(key, bytes(self._length))
            elif self.info.type == MapType.LPM_TRIE:  # can't do both at once
                value = self.get(key)
                self.delete(key)
            else:
                value = self.lookup_and_delete(key)
            if value is not None:
                yield key, value

    def take_all(self) -> Iterator[bytes]:
        """The values of a queue or stack, taken out in its order; no more than it can hold, though programs go on adding."""
        for _ in range(self.info.max_entries):
            value = self.lookup_and_delete(b"")
            if value is None:
                return
            yield value

    def items_percpu(self) -> Iterator[tuple[bytes, list[bytes]]]:
        for key, value in self.items():
            yield key, self._split(value)

    def set_many(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Writes many entries by batches; a failure leaves those before it written."""
        pending = list(entries)
        for start in range(0, len(pending), _BATCH):
            chunk = pending[start : start + _BATCH]
            count = ffi.new("uint32_t *", len(chunk))
            keys, values = b"".join(k for k, _ in chunk), b"".join(v for _, v in chunk)
            result = -errno.EINVAL
            if all(len(k) == self.info.key_size and len(v) == self._length for k, v in chunk):
                result = lib.bpf_map_update_batch(self.fd, ffi.from_buffer(keys), ffi.from_buffer(values), count, ffi.NULL)
            if result < 0:  # not supported for this type, or one entry failed: the loop finds out which
                for key, value in chunk:
                    self.set(key, value)

    def delete_many(self, keys: Iterable[bytes]) -> None:
        """Deletes many entries by batches; those that are not there don't matter."""
        pending = list(keys)
        for start in range(0, len(pending), _BATCH):
            chunk = pending[start : start + _BATCH]
            count = ffi.new("uint32_t *", len(chunk))
            result = -errno.EINVAL
            if all(len(key) == self.info.key_size for key in chunk):
                result = lib.bpf_map_delete_batch(self.fd, ffi.from_buffer(b"".join(chunk)), count, ffi.NULL)
            if result < 0:  # not supported for this type, or one entry went meanwhile
                for key in chunk:
                    self.delete(key)

    def clear(self) -> None:
        """Deletes all entries of a map whose entries can be deleted."""
        self.delete_many([key for key, _ in self._items_batch() or ()] or list(self.keys()))

    def _items_batch(self, read: Any = None) -> list[tuple[bytes, bytes]] | None:
        try:
            return [entry for keys, values in self.raw_batches(read) for entry in self._entries(keys, values)]
        except _NoBatch:
            return None

    def _entries(self, keys: bytes, values: bytes) -> list[tuple[bytes, bytes]]:
        key, step = self.info.key_size, self._length
        return [(keys[i * key : (i + 1) * key], values[i * step : (i + 1) * step]) for i in range(len(values) // step)]

    def raw_batches(self, read: Any = None) -> Iterator[tuple[bytes, bytes]]:
        """Some thousands of entries at a time, keys in a row and values in a row; only for types that have batches.

        For whoever looks at a word of each of a million entries. `read`: another of libbpf's batch functions than the look-up.
        """
        read = read or lib.bpf_map_lookup_batch
        key_size, step = self.info.key_size, self._length
        room = max(1, min(_BATCH, self.info.max_entries, _BATCH_BYTES // (key_size + step or 1)))
        keys, values = ffi.new("char[]", key_size * room), ffi.new("char[]", step * room)
        position: Any = ffi.NULL
        cursor = ffi.new("char[]", max(key_size, 8))
        while True:
            count = ffi.new("uint32_t *", room)
            result = read(self.fd, position, cursor, keys, values, count, ffi.NULL)
            if result in _NO_BATCH:
                raise _NoBatch
            if result == -errno.ENOSPC:  # a hash returns whole buckets, and the next one is larger than this
                room *= 2
                keys, values = ffi.new("char[]", key_size * room), ffi.new("char[]", step * room)
                continue
            if result < 0 and result != -errno.ENOENT:
                check(result, f"read map {self.info.name}")
            n = int(count[0])
            yield bytes(ffi.buffer(keys, n * key_size)), bytes(ffi.buffer(values, n * step))
            if result == -errno.ENOENT:
                return
            position = cursor

    def _split(self, value: bytes) -> list[bytes]:
        step = self.info.value_size + 7 & ~7
        return [value[i : i + self.info.value_size] for i in range(0, len(value), step)]

    def _key(self, key: bytes) -> Any:
        if len(key) != self.info.key_size:
            raise ValueError(f"map {self.info.name}: key of {len(key)} bytes, {self.info.key_size} expected")
        return ffi.from_buffer(key) if key else ffi.NULL  # the kernel refuses a key for maps that have none
