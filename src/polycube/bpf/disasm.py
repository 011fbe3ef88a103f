# SPDX-License-Identifier: Apache-2.0
"""BPF instructions as text, in the notation of the kernel's verifier, with the lines of C they come from.

What is shown is what the kernel runs: after the verifier's changes (dead code gone, look-ups in arrays and per-CPU addresses inlined).
Encoding: RFC 9669, "BPF Instruction Set Architecture".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

INSTRUCTION = struct.Struct("<BBhi")
_SIZES = {0x00: "u32", 0x08: "u16", 0x10: "u8", 0x18: "u64"}
_SIGNED = {0x00: "s32", 0x08: "s16", 0x10: "s8"}
_ALU = dict(
    enumerate(("+=", "-=", "*=", "/=", "|=", "&=", "<<=", ">>=", "", "%=", "^=", "=", "", "s>>="))
)  # by the upper half of the opcode
_JUMP = dict(enumerate(("", "==", ">", ">=", "&", "!=", "s>", "s>=", "", "", "<", "<=", "s<", "s<=")))
_ATOMIC = {0x00: "+=", 0x40: "|=", 0x50: "&=", 0xA0: "^="}
_MAP_FD, _MAP_VALUE, _FUNCTION = 1, 2, 4
_TAIL_CALL = 12


@dataclass(frozen=True)
class Line:
    """A line of C, and where in the program its code begins."""

    at: int
    file: str
    number: int
    text: str


def listing(code: bytes, lines: Mapping[int, Line], maps: Mapping[int, str]) -> Iterator[str]:
    """The program as lines of text. `lines`: by instruction; `maps`: names by id."""
    wide = False
    for at, (opcode, registers, offset, immediate) in enumerate(INSTRUCTION.iter_unpack(code)):
        line = lines.get(at)
        if line:
            yield f"; {line.text.strip()} @ {line.file}:{line.number}"
        if wide:
            wide = False
            continue
        if opcode == 0x18:
            wide = True
            high = INSTRUCTION.unpack_from(code, (at + 1) * 8)[3] if (at + 2) * 8 <= len(code) else 0
            yield f"{at:5}: r{registers & 15} = {_wide(registers >> 4, immediate, high, maps)}"
        else:
            yield f"{at:5}: {_one(at, opcode, registers & 15, registers >> 4, offset, immediate)}"


def _wide(kind: int, low: int, high: int, maps: Mapping[int, str]) -> str:
    if kind == _MAP_FD:
        return f"map {maps.get(low, low)}"
    if kind == _MAP_VALUE:
        return f"map {maps.get(low, low)}[0]+{high}"
    if kind == _FUNCTION:
        return f"function {low:+d}"
    return f"{(high & 0xFFFFFFFF) << 32 | low & 0xFFFFFFFF:#x}"


def _one(at: int, opcode: int, to: int, source: int, offset: int, immediate: int) -> str:
    kind = opcode & 7
    if kind in (4, 7):
        return _alu(opcode, to, source, offset, immediate)
    if kind in (5, 6):
        return _jump(at, opcode, to, source, offset, immediate)
    return _memory(opcode, to, source, offset, immediate)


def _alu(opcode: int, to: int, source: int, offset: int, immediate: int) -> str:
    register = "r" if opcode & 7 == 7 else "w"
    action, value = opcode & 0xF0, f"{register}{source}" if opcode & 8 else f"{immediate}"
    if action == 0x80:
        return f"{register}{to} = -{register}{to}"
    if action == 0xD0:
        return f"r{to} = {'bswap' if opcode & 7 == 7 else 'be' if opcode & 8 else 'le'}{immediate} r{to}"
    if action == 0xB0 and offset == 1 and opcode & 8:
        return f"r{to} = per-CPU address of r{source}" if immediate == 0 and opcode & 7 == 7 else f"{register}{to} = {value}"
    if action == 0xB0 and offset in (8, 16, 32) and opcode & 8:
        return f"{register}{to} = (s{offset}){value}"
    if action == 0xB0 and offset == -1 and opcode & 8:
        return f"r{to} = per-CPU address of r{source}"
    sign = "s" if offset == 1 and action in (0x30, 0x90) else ""
    return f"{register}{to} {sign}{_ALU.get(action >> 4, '?')} {value}"


def _jump(at: int, opcode: int, to: int, source: int, offset: int, immediate: int) -> str:
    action = opcode & 0xF0
    if action == 0x80:
        if source == 1:
            return f"call function at {at + 1 + immediate}"
        return "tail call" if immediate == _TAIL_CALL else f"call {'kfunc ' if source == 2 else ''}{immediate & 0xFFFFFFFF:#x}"
    if action == 0x90:
        return "exit"
    if action == 0x00:
        return f"goto {at + 1 + (immediate if opcode & 7 == 6 else offset)}"
    if not _JUMP.get(action >> 4):
        return f"({opcode:#04x})"
    register = "r" if opcode & 7 == 5 else "w"
    value = f"{register}{source}" if opcode & 8 else f"{immediate:#x}"
    return f"if {register}{to} {_JUMP[action >> 4]} {value} goto {at + 1 + offset}"


def _memory(opcode: int, to: int, source: int, offset: int, immediate: int) -> str:
    kind, mode, size = opcode & 7, opcode & 0xE0, _SIZES[opcode & 0x18]
    if kind == 1:
        return f"r{to} = *({_SIGNED.get(opcode & 0x18, size) if mode == 0x80 else size} *)(r{source} {offset:+d})"
    place = f"*({size} *)(r{to} {offset:+d})"
    if kind == 2:
        return f"{place} = {immediate}"
    if kind == 3 and mode == 0xC0:
        return f"lock {place} {_ATOMIC.get(immediate & 0xF0, 'exchange')} r{source}"
    if kind == 3:
        return f"{place} = r{source}"
    return f"({opcode:#04x})"
