# SPDX-License-Identifier: Apache-2.0
"""BPF objects: from the bytes of an ELF file to maps and programs in the kernel.

Between `open` and `load` everything that depends on the instance is set: sizes, maps to share, programs to leave out. After `load`,
`map()` and `program()` hand out objects that own their file descriptors, so that the object itself can be closed.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Collection
from typing import Any, Self

from polycube.bpf import btf
from polycube.bpf.errors import BpfError, VerifierError
from polycube.bpf.fd import dup_fd
from polycube.bpf.lib import check, ffi, lib, take_log, text
from polycube.bpf.map import Map, MapType
from polycube.bpf.program import Program

CALL = 0x85  # BPF_JMP | BPF_CALL, no registers


class MapSpec:
    """A map of an object that is not loaded yet."""

    def __init__(self, pointer: Any, types: Any) -> None:
        self._pointer = pointer
        self._types = types
        name = text(lib.bpf_map__name(pointer))
        # libbpf calls a data section's map by the object's name and the section's
        # (which may hold dots too), or just by the section's name if that is an own one (.data.cfg).
        self.data = bool(lib.bpf_map__is_internal(pointer))
        self.name = name[name.rindex(".") :] if self.data and not name.startswith(".") and "." in name else name

    @property
    def type(self) -> int:
        return int(lib.bpf_map__type(self._pointer))

    @property
    def key_size(self) -> int:
        return int(lib.bpf_map__key_size(self._pointer))

    @property
    def value_size(self) -> int:
        return int(lib.bpf_map__value_size(self._pointer))

    @property
    def max_entries(self) -> int:
        return int(lib.bpf_map__max_entries(self._pointer))

    @max_entries.setter
    def max_entries(self, number: int) -> None:
        check(lib.bpf_map__set_max_entries(self._pointer, number), f"set size of map {self.name}")

    @property
    def flags(self) -> int:
        return int(lib.bpf_map__map_flags(self._pointer))

    @property
    def key_layout(self) -> btf.Layout:
        return btf.layout(self._types, lib.bpf_map__btf_key_type_id(self._pointer))

    @property
    def value_layout(self) -> btf.Layout:
        return btf.layout(self._types, lib.bpf_map__btf_value_type_id(self._pointer))

    def variables(self) -> dict[str, tuple[int, btf.Layout]]:
        """Of a data section: name -> (offset, layout)."""
        return btf.variables(self._types, self.name)

    def describe(self) -> str:
        """Canonical text of type, flags and layouts: equal text means that a pinned map may be adopted. Sizes are not part of it."""
        if self.data:
            entries = ",".join(f"{name}@{at}:{kind.describe()}" for name, (at, kind) in sorted(self.variables().items()))
            return f"data:{entries}"
        kind = MapType(self.type).name if self.type in MapType._value2member_map_ else str(self.type)
        parts = [kind, str(self.flags), str(self.key_size), str(self.value_size)]
        if lib.bpf_map__btf_value_type_id(self._pointer):
            parts += [self.key_layout.describe(), self.value_layout.describe()]
        return ":".join(parts)

    @property
    def initial(self) -> bytes:
        """Of a data section: its contents at load."""
        size = ffi.new("size_t *")
        pointer = lib.bpf_map__initial_value(self._pointer, size)
        return bytes(ffi.buffer(pointer, size[0])) if pointer != ffi.NULL else b""

    @initial.setter
    def initial(self, data: bytes) -> None:
        check(lib.bpf_map__set_initial_value(self._pointer, ffi.from_buffer(data), len(data)), f"set contents of {self.name}")

    def reuse(self, existing: Map) -> None:
        """Takes an existing map instead of creating one. Their layouts are for the caller to compare (`describe`)."""
        # libbpf takes any map and lets it change the spec: programs would then read past its values, or be refused for no visible reason.
        mine, its = (self.type, self.key_size, self.value_size), (existing.info.type, existing.info.key_size, existing.info.value_size)
        if mine != its:
            detail = f"it has (type, key size, value size) {its}, the object expects {mine}"
            raise BpfError(errno.EINVAL, f"reuse map {existing.info.name} for {self.name}", detail)
        check(lib.bpf_map__reuse_fd(self._pointer, existing.fd), f"reuse map {self.name}")

    def skip(self) -> None:
        """Does not create the map; a program that uses it can't be loaded."""
        check(lib.bpf_map__set_autocreate(self._pointer, False), f"leave out map {self.name}")

    @property
    def skipped(self) -> bool:
        """Whether it was left out. Newer libbpfs have a descriptor for it all the same, which is no map."""
        return not lib.bpf_map__autocreate(self._pointer)


class ProgramSpec:
    """A program of an object that is not loaded yet."""

    def __init__(self, pointer: Any) -> None:
        self._pointer = pointer
        self.name = text(lib.bpf_program__name(pointer))
        self.section = text(lib.bpf_program__section_name(pointer))
        self.instructions = int(lib.bpf_program__insn_cnt(pointer))  # without those of subprograms

    @property
    def autoload(self) -> bool:
        return bool(lib.bpf_program__autoload(self._pointer))

    @autoload.setter
    def autoload(self, value: bool) -> None:
        check(lib.bpf_program__set_autoload(self._pointer, value), f"select program {self.name}")

    @property
    def expected_attach_type(self) -> int:
        return int(lib.bpf_program__expected_attach_type(self._pointer))

    @expected_attach_type.setter
    def expected_attach_type(self, value: int) -> None:
        check(lib.bpf_program__set_expected_attach_type(self._pointer, value), f"set attach type of program {self.name}")


class Object:
    """An ELF object with maps and programs."""

    def __init__(self, pointer: Any, data: bytes, name: str) -> None:
        self._pointer = pointer
        self.data = data
        self.name = name
        self._types = lib.bpf_object__btf(pointer)
        self.maps = {spec.name: spec for spec in (MapSpec(p, self._types) for p in self._each(lib.bpf_object__next_map))}
        self.programs = {spec.name: spec for spec in (ProgramSpec(p) for p in self._each(lib.bpf_object__next_program))}

    @classmethod
    def open(cls, data: bytes, name: str) -> Self:
        """Parses an object; needs no privileges and touches nothing."""
        take_log()
        opts = ffi.new("struct bpf_object_open_opts *")
        opts.sz = ffi.sizeof("struct bpf_object_open_opts")
        label = ffi.new("char[]", name.encode())
        opts.object_name = label
        pointer = lib.bpf_object__open_mem(ffi.from_buffer(data), len(data), opts)
        code = ffi.errno
        if pointer == ffi.NULL:
            raise BpfError(code, f"open object {name}", "; ".join(take_log()[-2:]))
        return cls(pointer, data, name)

    def enum_values(self, name: str) -> dict[str, int]:
        """Enumerators of an enum in the object's BTF."""
        return btf.enum_values(self._types, name)

    def calls(self, helpers: Collection[int]) -> bool:
        """Whether the code may call one of these helpers: any instruction of the file that looks like a call counts."""
        return any(opcode == CALL and number in helpers for opcode, number in struct.iter_unpack("<II", self.data[: len(self.data) & ~7]))

    def load(self) -> None:
        """Creates the maps and loads the programs. VerifierError names the program and carries the log.

        May run in another thread than the rest, as long as nobody else uses this object meanwhile.
        """
        take_log()
        result = lib.bpf_object__load(self._pointer)
        said = take_log()
        if result < 0:
            for entry in said:
                if "BEGIN PROG LOAD LOG" in entry:
                    raise VerifierError(-result, _between(entry, "prog '", "'"), entry)
            raise BpfError(-result, f"load object {self.name}", "; ".join(said[-3:]))

    def map(self, name: str) -> Map:
        """A loaded map, owned by the caller."""
        spec = self.maps[name]
        return Map(self._dup(-1 if spec.skipped else lib.bpf_map__fd(spec._pointer), f"map {name}"))

    def program(self, name: str) -> Program:
        """A loaded program, owned by the caller."""
        return Program(self._dup(lib.bpf_program__fd(self.programs[name]._pointer), f"program {name}"))

    def close(self) -> None:
        if self._pointer is not None:
            for spec in self.maps.values():  # a use from now on is a TypeError, not one of freed memory
                spec._pointer = spec._types = None
            for program in self.programs.values():
                program._pointer = None
            self._types = None
            lib.bpf_object__close(self._pointer)
            self._pointer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _dup(self, fd: int, what: str) -> int:
        if fd < 0:
            raise BpfError(errno.ENOENT, what, f"object {self.name} has not loaded it")
        return dup_fd(fd, what)

    def _each(self, following: Any) -> list[Any]:
        found, pointer = [], ffi.NULL
        while (pointer := following(self._pointer, pointer)) != ffi.NULL:
            found.append(pointer)
        return found


def _between(line: str, before: str, after: str) -> str:
    _, _, rest = line.partition(before)
    return rest.partition(after)[0]
