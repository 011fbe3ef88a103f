# SPDX-License-Identifier: Apache-2.0
"""How much of the stack the code of an object takes, as the verifier counts it: found by looking through the instructions.

A frame is as deep as the lowest address below the frame pointer that is computed or accessed, in steps of 32 bytes. A call takes the
caller's and the callee's; a callback is called by whoever hands it out. The formats are in the Linux documentation: of instructions in
bpf/standardization/instruction-set.rst, of relocations in bpf/llvm_reloc.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

LIMIT = 512  # MAX_BPF_STACK
STEP = 32
TEXT = ".text"  # where subprograms are
FRAME_POINTER = 10
MOVE, ADD, CALL, LOAD_ADDRESS = 0xBF, 0x07, 0x85, 0x18
PSEUDO_CALL, PSEUDO_FUNC = 1, 4
_LOAD, _STORES = 1, (2, 3)  # classes
_MODES = (0x60, 0x80, 0xC0)  # memory, with sign, atomic
_SYMBOLS, _REL, _EXECUTABLE, _FUNCTION = 2, 9, 4, 2


@dataclass(frozen=True)
class Stack:
    """Bytes. `frame`: of the program that takes most; `below`: of the chain of subprograms that takes most."""

    frame: int = 0
    below: int = 0


@dataclass(frozen=True)
class _Section:
    name: str
    kind: int
    flags: int
    content: bytes
    link: int
    info: int


def stack_of(data: bytes) -> Stack:
    """Of an object file (ELF, 64 bits, little-endian)."""
    sections = _sections(data)
    text = next((number for number, section in enumerate(sections) if section.name == TEXT), -1)
    programs = [section.content for number, section in enumerate(sections) if section.flags & _EXECUTABLE and number != text]
    frame = max(map(_depth, programs), default=0)
    if text < 0:
        return Stack(frame)
    functions = dict(sorted(_functions(sections, text)))
    addends = dict(_addends(sections, text))
    code = sections[text].content
    deepest: dict[int, int] = {}

    def chain(begin: int) -> int:
        if begin not in deepest:
            body = code[begin : begin + functions[begin]]
            deepest[begin] = 0  # the kernel takes no recursion
            called = {target for target in _targets(body, begin, addends) if target in functions}
            deepest[begin] = _depth(body) + max(map(chain, called), default=0)
        return deepest[begin]

    return Stack(frame, max(map(chain, functions), default=0))


def _sections(data: bytes) -> list[_Section]:
    (place,), (size, count, names) = struct.unpack_from("<Q", data, 40), struct.unpack_from("<3H", data, 58)
    heads = [struct.unpack_from("<IIQQQQII", data, place + size * number) for number in range(count)]
    found = []
    for name, kind, flags, _, begin, length, link, info in heads:
        at = heads[names][4] + name
        found.append(_Section(data[at : data.index(0, at)].decode(), kind, flags, data[begin : begin + length], link, info))
    return found


def _symbols(sections: list[_Section]) -> Iterator[tuple[int, int, int, int]]:
    """Type, section, value, size."""
    for section in sections:
        if section.kind == _SYMBOLS:
            for _, info, _, where, value, size in struct.iter_unpack("<IBBHQQ", section.content):
                yield info & 15, where, value, size


def _functions(sections: list[_Section], text: int) -> Iterator[tuple[int, int]]:
    """Begin and size of subprograms."""
    yield from ((value, size) for kind, where, value, size in _symbols(sections) if kind == _FUNCTION and where == text)


def _addends(sections: list[_Section], text: int) -> Iterator[tuple[int, int]]:
    """Of an instruction of the subprograms that refers to them: its place, and the place of the symbol that it refers to."""
    symbols = list(_symbols(sections))
    for section in sections:
        if section.kind == _REL and section.info == text:
            for place, info in struct.iter_unpack("<QQ", section.content):
                _, where, value, _ = symbols[info >> 32]
                if where == text:
                    yield place, value


def _targets(body: bytes, begin: int, addends: Mapping[int, int]) -> Iterator[int]:
    """Places of the subprograms that one calls, or gives away as a callback."""
    for number, (opcode, registers, _, value) in enumerate(struct.iter_unpack("<BBhi", body)):
        place = begin + 8 * number
        if opcode == CALL and registers >> 4 == PSEUDO_CALL:
            yield addends.get(place, place) + 8 * (value + 1)
        elif opcode == LOAD_ADDRESS and place in addends:
            yield addends[place] + value


def _depth(body: bytes) -> int:
    """Of a frame."""
    lowest, copy = 0, -1  # copy: the register into which the frame pointer has just been copied
    for opcode, registers, offset, value in struct.iter_unpack("<BBhi", body):
        target, source, kind = registers & 15, registers >> 4, opcode & 7
        if opcode & 0xE0 in _MODES and (source if kind == _LOAD else target if kind in _STORES else -1) == FRAME_POINTER:
            lowest = min(lowest, offset)
        elif opcode == ADD and target == copy:
            lowest = min(lowest, value)
        copy = target if opcode == MOVE and source == FRAME_POINTER else -1
    return -(lowest // STEP) * STEP
