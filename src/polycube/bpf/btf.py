# SPDX-License-Identifier: Apache-2.0
"""Layouts of C types from BTF, and the codec that follows from them.

C is the only definition of what a map holds; Python reads it from the object or from the running kernel. A layout has a canonical
text; its digest tells whether a map made by an older object fits a newer one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from polycube.bpf.lib import ffi, lib, text

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _VAR, _DATASEC = 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 14, 15
_TYPE_TAG, _ENUM64 = 18, 19


@dataclass(frozen=True)
class Field:
    name: str
    offset: int  # bytes
    layout: Layout


@dataclass(frozen=True)
class Layout:
    """A C type: `kind` is int, enum, struct, union, array or void; size in bytes."""

    kind: str
    size: int
    signed: bool = False
    fields: tuple[Field, ...] = ()
    element: Layout | None = None
    count: int = 0
    names: tuple[tuple[str, int], ...] = field(default=())  # of an enum
    char: bool = False  # an int called char in C: in arrays it is text

    def describe(self) -> str:
        """Canonical text; equal text means equal bytes with equal meaning."""
        if self.kind in ("struct", "union"):
            return f"{self.kind}:{self.size}{{" + ",".join(f"{f.name}@{f.offset}:{f.layout.describe()}" for f in self.fields) + "}"
        if self.kind == "array":
            assert self.element
            return f"{self.element.describe()}[{self.count}]"
        return f"{'s' if self.signed else 'u'}{self.size * 8}"

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.describe().encode()).hexdigest()[:16]

    @property
    def _bytes(self) -> bool:
        return self.kind == "array" and self.element is not None and self.element.kind in ("int", "enum") and self.element.size == 1

    def pack(self, value: Any, name: str = "value") -> bytes:
        """Python to C: int, dict of fields (missing ones are 0), bytes for arrays of bytes, list for other arrays.

        Bytes of the type's size are taken as they are; arrays of bytes are filled up with zeros. Of members that overlap (unions), the
        later ones win.
        """
        if isinstance(value, (bytes, bytearray, memoryview)):
            if len(value) > self.size or (len(value) < self.size and not self._bytes):
                raise ValueError(f"{name}: {len(value)} bytes given, {self.size} expected")
            return bytes(value).ljust(self.size, b"\0")
        if self.kind in ("int", "enum"):
            return self._pack_number(value, name)
        if self.kind in ("struct", "union"):
            if not isinstance(value, dict):
                raise ValueError(f"{name}: {value!r} given, the fields {', '.join(f.name for f in self.fields)} expected")
            buffer = bytearray(self.size)
            known = self._by_name
            for key, item in value.items():
                at = known.get(key)
                if at is None:
                    raise ValueError(f"{name}: no field {key!r}; it has {', '.join(known)}")
                buffer[at.offset : at.offset + at.layout.size] = at.layout.pack(item, f"{name}.{key}")
            return bytes(buffer)
        if self.kind == "array":
            assert self.element
            if isinstance(value, (str, dict)) or not hasattr(value, "__iter__"):
                raise ValueError(f"{name}: {value!r} given, {'bytes' if self._bytes else 'a list'} expected")
            items = list(value)
            if len(items) > self.count:
                raise ValueError(f"{name}: {len(items)} elements given, up to {self.count} expected")
            return b"".join(self.element.pack(item, f"{name}[{i}]") for i, item in enumerate(items)).ljust(self.size, b"\0")
        raise ValueError(f"{name}: can't pack a {self.kind}")

    def _pack_number(self, value: Any, name: str) -> bytes:
        try:
            if isinstance(value, (str, float)):  # int() would take them
                raise TypeError
            number = int(value)
            # clang 14 says of no enum that it is signed
            return number.to_bytes(self.size, "little", signed=self.signed or (self.kind == "enum" and number < 0))
        except (OverflowError, TypeError, ValueError):
            low, high = (-1 << self.size * 8 - 1, (1 << self.size * 8 - 1) - 1) if self.signed else (0, (1 << self.size * 8) - 1)
            raise ValueError(f"{name}: {value!r} given, an integer from {low} to {high} expected") from None

    def unpack(self, data: bytes) -> Any:
        """C to Python; the reverse of `pack`."""
        if len(data) < self.size:
            raise ValueError(f"{len(data)} bytes given, {self.size} expected")
        if self.kind in ("int", "enum"):
            return int.from_bytes(data[: self.size], "little", signed=self.signed)
        if self.kind in ("struct", "union"):
            return {f.name: f.layout.unpack(data[f.offset : f.offset + f.layout.size]) for f in self.fields}
        if self._bytes:
            return bytes(data[: self.size])
        if self.kind == "array":
            assert self.element
            step = self.element.size
            return [self.element.unpack(data[i * step : (i + 1) * step]) for i in range(self.count)]
        return bytes(data)

    @cached_property
    def _by_name(self) -> dict[str, Field]:
        return {f.name: f for f in self.fields}


def layout(btf: Any, type_id: int) -> Layout:
    """The layout of a type in a `struct btf`. Raises ValueError for what maps can't hold (bit fields, floats, functions)."""
    kind, info, size, body = _raw(btf, type_id)
    while kind in (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG, _VAR):
        type_id = size
        kind, info, size, body = _raw(btf, type_id)
    if type_id == 0:
        return Layout("void", 0)
    if kind == _INT:
        return Layout("int", size, signed=bool(body[0] >> 24 & 1), char=_name(btf, type_id) == "char")
    if kind == _PTR:
        return Layout("int", 8)
    if kind in (_ENUM, _ENUM64):
        return Layout("enum", size, signed=bool(info >> 31), names=_enumerators(btf, kind, info, body))
    if kind == _ARRAY:
        element = layout(btf, body[0])
        return Layout("array", element.size * body[2], element=element, count=body[2])
    if kind in (_STRUCT, _UNION):
        return Layout("struct" if kind == _STRUCT else "union", size, fields=_members(btf, info, body))
    raise ValueError(f"BTF kind {kind} has no layout")


def _enumerators(btf: Any, kind: int, info: int, body: Any) -> tuple[tuple[str, int], ...]:
    step, found = (3 if kind == _ENUM64 else 2), []
    for i in range(info & 0xFFFF):
        number = int(body[step * i + 1]) | (int(body[step * i + 2]) << 32 if kind == _ENUM64 else 0)
        top = 1 << (63 if kind == _ENUM64 else 31)
        if info >> 31 and number >= top:
            number -= 2 * top
        found.append((text(lib.btf__name_by_offset(btf, body[step * i])), number))
    return tuple(found)


def _members(btf: Any, info: int, body: Any) -> tuple[Field, ...]:
    fields: list[Field] = []
    for i in range(info & 0xFFFF):
        name, offset = text(lib.btf__name_by_offset(btf, body[3 * i])), int(body[3 * i + 2])
        bits, offset = (offset >> 24, offset & 0xFFFFFF) if info >> 31 else (0, offset)
        if bits or offset % 8:
            raise ValueError(f"bit field {name}: use whole bytes in maps")
        try:
            inner = layout(btf, body[3 * i + 1])
        except ValueError as error:
            raise ValueError(f"{name}: {error}" if name else str(error)) from None
        if name:
            fields.append(Field(name, offset // 8, inner))
        else:  # anonymous struct or union: its fields are reached directly
            fields += [Field(f.name, offset // 8 + f.offset, f.layout) for f in inner.fields]
    return tuple(fields)


def variables(btf: Any, section: str) -> dict[str, tuple[int, Layout]]:
    """Variables of a data section: name -> (offset, layout)."""
    type_id = lib.btf__find_by_name_kind(btf, section.encode(), _DATASEC)
    if type_id < 0:
        return {}
    _, info, _, body = _raw(btf, type_id)
    found = {}
    for i in range(info & 0xFFFF):
        type_of, offset = int(body[3 * i]), int(body[3 * i + 1])
        kind = lib.btf__type_by_id(btf, type_of)
        found[text(lib.btf__name_by_offset(btf, kind.name_off))] = (offset, layout(btf, type_of))
    return found


def enum_values(btf: Any, name: str) -> dict[str, int]:
    """Enumerators of an enum by its name; empty if there is none."""
    type_id = lib.btf__find_by_name_kind(btf, name.encode(), _ENUM)
    return dict(layout(btf, type_id).names) if type_id >= 0 else {}


def _name(btf: Any, type_id: int) -> str:
    return text(lib.btf__name_by_offset(btf, lib.btf__type_by_id(btf, type_id).name_off))


def _raw(btf: Any, type_id: int) -> tuple[int, int, int, Any]:
    if type_id == 0:
        return 0, 0, 0, None
    entry = lib.btf__type_by_id(btf, type_id)
    if entry == ffi.NULL:
        raise ValueError(f"no BTF type {type_id}")
    return entry.info >> 24 & 0x1F, entry.info, entry.size, ffi.cast("uint32_t *", ffi.cast("char *", entry) + 12)
