# SPDX-License-Identifier: Apache-2.0
"""Classic BPF: its instructions, what makes a program valid, and its translation to LLVM IR. Pure.

The machine (McCanne and Jacobson, *The BSD Packet Filter*, USENIX 1993; constants as in <pcap/bpf.h>): accumulator A, index register X,
sixteen words M[], all 32 bits wide and zero at the start; a load beyond the frame, and a division by zero, end the program with 0.

In the translation, A, X and M[] are variables that LLVM turns into registers, each instruction is a basic block, and loads are calls of
`capture_load<size>(ctx, pkt, offset)`, which the data plane defines and inlines: the value in host order, negative beyond the frame. What
libpcap makes jumps forward only, but for `protochain`, whose loop jumps back: such jumps are followed `BACK` times, then the frame is not
taken.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)  # code & 7
WORD, HALF, BYTE = 0x00, 0x08, 0x10  # size of a load, code & 0x18
IMM, ABS, IND, MEM, LEN, MSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0  # its mode, code & 0xe0
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, MOD, XOR = (number << 4 for number in range(11))  # of ALU, code & 0xf0
JA, JEQ, JGT, JGE, JSET = (number << 4 for number in range(5))  # of JMP
X_SOURCE = 0x08  # the second operand is X
RET_A, RET_X = 0x10, 0x08  # code & 0x18 of RET
TAX, TXA = 0x00, 0x80  # of MISC, code & 0xf8
WORDS = 16
MASK = 0xFFFFFFFF
MAX_INSTRUCTIONS = 4096
BACK = 16
SIZES = {WORD: 4, HALF: 2, BYTE: 1}
FORMAT = struct.Struct("<HBBI")


@dataclass(frozen=True)
class Instruction:
    """struct bpf_insn."""

    code: int
    jt: int
    jf: int
    k: int


class Invalid(ValueError):
    """No program: says which instruction is wrong."""


def parse(data: bytes) -> list[Instruction]:
    """Instructions from an array of struct bpf_insn."""
    return [Instruction(*fields) for fields in FORMAT.iter_unpack(data)]


def pack(program: Sequence[Instruction]) -> bytes:
    """The inverse of `parse`."""
    return b"".join(FORMAT.pack(one.code, one.jt, one.jf, one.k) for one in program)


def check(program: Sequence[Instruction]) -> None:
    """Raises Invalid unless every jump lands in the program, every word and operation exists, and the end is a return."""
    if not 0 < len(program) <= MAX_INSTRUCTIONS:
        raise Invalid(f"a program of {len(program)} instructions, 1 to {MAX_INSTRUCTIONS} expected")
    for number, one in enumerate(program):
        problem = _problem(program, number, one)
        if problem:
            raise Invalid(f"instruction {number} (code {one.code:#x}): {problem}")
    if program[-1].code & 7 != RET:
        raise Invalid("the last instruction is no return")


def _problem(program: Sequence[Instruction], number: int, one: Instruction) -> str:
    kind = one.code & 7
    if kind == JMP:
        known = one.code & 0xF0 in (JA, JEQ, JGT, JGE, JSET)
        ends = [displacement(one.k)] if one.code & 0xF0 == JA else [one.jt, one.jf]
        return "" if known and all(0 <= number + 1 + end < len(program) for end in ends) else "an unknown jump, or one out of the program"
    if kind in (ST, STX) or (kind in (LD, LDX) and one.code & 0xE0 == MEM):
        return "" if one.k < WORDS else f"no word {one.k}"
    if kind == LD:
        return "" if one.code & 0xE0 in (IMM, LEN) or (one.code & 0xE0 in (ABS, IND) and one.code & 0x18 in SIZES) else "an unknown load"
    if kind == LDX:
        return "" if one.code & 0xE0 in (IMM, LEN) or one.code & 0xF8 == MSH | BYTE else "an unknown load"
    if kind == ALU:
        if one.code & 0xF0 > XOR:
            return "an unknown operation"
        return "a division by zero" if one.code & 0xF0 in (DIV, MOD) and not one.code & X_SOURCE and not one.k else ""
    return "" if kind == RET or one.code & 0xF8 in (TAX, TXA) else "an unknown instruction"


def displacement(k: int) -> int:
    """Of an unconditional jump, which may lead back."""
    return k - (1 << 32) if k & 0x80000000 else k


# ---- interpreter: what the translation is measured by ----


_ALU: dict[int, Callable[[int, int], int]] = {
    ADD: operator.add,
    SUB: operator.sub,
    MUL: operator.mul,
    DIV: operator.floordiv,
    MOD: operator.mod,
    OR: operator.or_,
    AND: operator.and_,
    XOR: operator.xor,
    LSH: lambda a, b: a << b if b < 32 else 0,
    RSH: lambda a, b: a >> b if b < 32 else 0,
    NEG: lambda a, _: -a,
}
_TESTS: dict[int, Callable[[int, int], bool]] = {
    JEQ: operator.eq,
    JGT: operator.gt,
    JGE: operator.ge,
    JSET: lambda a, b: bool(a & b),
}


class _Beyond(Exception):
    pass


def run(program: Sequence[Instruction], frame: bytes, length: int | None = None) -> int:
    """What a program returns for a frame; `length`: of the frame on the wire, if it was cut."""

    def load(offset: int, size: int) -> int:
        if offset + size > len(frame):
            raise _Beyond
        return int.from_bytes(frame[offset : offset + size], "big")

    total = len(frame) if length is None else length
    a = x = at = 0
    words = [0] * WORDS
    back = BACK
    try:
        while True:
            one = program[at]
            at += 1
            kind, operand = one.code & 7, x if one.code & X_SOURCE else one.k
            if kind == LD:
                a = _loaded(one, load, x, words, total)
            elif kind == LDX:
                x = (load(one.k, 1) & 0xF) * 4 if one.code & 0xE0 == MSH else _loaded(one, load, x, words, total)
            elif kind in (ST, STX):
                words[one.k] = a if kind == ST else x
            elif kind == ALU:
                if one.code & 0xF0 in (DIV, MOD) and not operand:
                    return 0
                a = _ALU[one.code & 0xF0](a, operand) & MASK
            elif kind == JMP and one.code & 0xF0 == JA:
                back -= displacement(one.k) < 0
                if back < 0:
                    return 0
                at += displacement(one.k)
            elif kind == JMP:
                at += one.jt if _TESTS[one.code & 0xF0](a, operand) else one.jf
            elif kind == RET:
                return a if one.code & 0x18 == RET_A else x if one.code & 0x18 == RET_X else one.k
            elif one.code & 0xF8 == TAX:
                x = a
            else:
                a = x
    except _Beyond:
        return 0


def _loaded(one: Instruction, load: Callable[[int, int], int], x: int, words: Sequence[int], total: int) -> int:
    mode = one.code & 0xE0
    if mode == IMM:
        return one.k
    if mode == LEN:
        return total
    if mode == MEM:
        return words[one.k]
    return load(one.k + (x if mode == IND else 0), SIZES[one.code & 0x18])


# ---- translation ----

_IR_ALU = {ADD: "add", SUB: "sub", MUL: "mul", DIV: "udiv", MOD: "urem", OR: "or", AND: "and", XOR: "xor", LSH: "shl", RSH: "lshr"}
_IR_TESTS = {JEQ: "eq", JGT: "ugt", JGE: "uge"}


def translate(program: Sequence[Instruction], name: str) -> str:
    """LLVM assembly of `i32 name(ptr ctx, ptr pkt)`, which returns what the program does. Raises Invalid."""
    check(program)
    lines = [*(f"declare i64 @capture_load{size}(ptr, ptr, i64)" for size in SIZES.values()), "declare i32 @capture_length(ptr, ptr)"]
    lines += [f"define i32 @{name}(ptr %ctx, ptr %pkt) {{", "entry:"]
    lines += [f"  %{variable} = alloca i32\n  store i32 0, ptr %{variable}" for variable in ("a", "x", *(f"m{i}" for i in range(WORDS)))]
    lines += ["  %back = alloca i32", f"  store i32 {BACK}, ptr %back", "  br label %i0"]
    for number, one in enumerate(program):
        lines.append(f"i{number}:")
        lines += ["  " + line for line in _translated(number, one)]
    lines += ["reject:", "  ret i32 0", "}"]
    return "\n".join(lines) + "\n"


def _translated(number: int, one: Instruction) -> Iterator[str]:
    kind, mode, here, following = one.code & 7, one.code & 0xE0, f"%v{number}", f"br label %i{number + 1}"
    if kind == RET:
        register = {RET_A: "a", RET_X: "x"}.get(one.code & 0x18)
        if register:
            yield f"{here} = load i32, ptr %{register}"
        yield f"ret i32 {here if register else _signed(one.k)}"
    elif kind == JMP:
        yield from _jump(number, one)
    elif kind in (LD, LDX) and mode in (ABS, IND, MSH):
        yield from _load(number, one)
    elif kind in (LD, LDX):
        value = _signed(one.k) if mode == IMM else here
        if mode == LEN:
            yield f"{here} = call i32 @capture_length(ptr %ctx, ptr %pkt)"
        elif mode == MEM:
            yield f"{here} = load i32, ptr %m{one.k}"
        yield f"store i32 {value}, ptr %{'a' if kind == LD else 'x'}"
        yield following
    elif kind == ALU:
        yield from _operation(number, one)
        yield following
    else:
        source, target = {ST: ("a", f"m{one.k}"), STX: ("x", f"m{one.k}")}.get(kind) or (
            ("a", "x") if one.code & 0xF8 == TAX else ("x", "a")
        )
        yield f"{here} = load i32, ptr %{source}"
        yield f"store i32 {here}, ptr %{target}"
        yield following


def _load(number: int, one: Instruction) -> Iterator[str]:
    here, mode = f"%v{number}", one.code & 0xE0
    offset, size = str(one.k), SIZES[one.code & 0x18]
    if mode == IND:  # 64 bits wide: a sum that wraps around is beyond every frame
        yield f"{here}.x = load i32, ptr %x"
        yield f"{here}.wide = zext i32 {here}.x to i64"
        yield f"{here}.offset = add i64 {here}.wide, {one.k}"
        offset = f"{here}.offset"
    yield f"{here}.loaded = call i64 @capture_load{size}(ptr %ctx, ptr %pkt, i64 {offset})"
    yield f"{here}.beyond = icmp slt i64 {here}.loaded, 0"
    yield f"br i1 {here}.beyond, label %reject, label %i{number}.there"
    yield f"i{number}.there:"
    yield f"{here} = trunc i64 {here}.loaded to i32"
    if mode == MSH:
        yield f"{here}.low = and i32 {here}, 15"
        yield f"{here}.times = shl i32 {here}.low, 2"
        yield f"store i32 {here}.times, ptr %x"
    else:
        yield f"store i32 {here}, ptr %a"
    yield f"br label %i{number + 1}"


def _operation(number: int, one: Instruction) -> Iterator[str]:
    here, operation, operand = f"%v{number}", one.code & 0xF0, str(_signed(one.k))
    yield f"{here}.a = load i32, ptr %a"
    if operation == NEG:
        yield f"{here} = sub i32 0, {here}.a"
    elif not one.code & X_SOURCE:
        gone = operation in (LSH, RSH) and one.k > 31  # which LLVM leaves undefined
        yield f"{here} = and i32 {here}.a, 0" if gone else f"{here} = {_IR_ALU[operation]} i32 {here}.a, {operand}"
    else:
        yield f"{here}.x = load i32, ptr %x"
        if operation in (DIV, MOD):
            yield f"{here}.zero = icmp eq i32 {here}.x, 0"
            yield f"br i1 {here}.zero, label %reject, label %i{number}.divided"
            yield f"i{number}.divided:"
        if operation in (LSH, RSH):
            yield f"{here}.shift = and i32 {here}.x, 31"
            yield f"{here}.shifted = {_IR_ALU[operation]} i32 {here}.a, {here}.shift"
            yield f"{here}.gone = icmp ugt i32 {here}.x, 31"
            yield f"{here} = select i1 {here}.gone, i32 0, i32 {here}.shifted"
        else:
            yield f"{here} = {_IR_ALU[operation]} i32 {here}.a, {here}.x"
    yield f"store i32 {here}, ptr %a"


def _jump(number: int, one: Instruction) -> Iterator[str]:
    here, operation = f"%v{number}", one.code & 0xF0
    if operation == JA:
        target = f"%i{number + 1 + displacement(one.k)}"
        if displacement(one.k) < 0:
            yield f"{here} = load i32, ptr %back"
            yield f"{here}.less = sub i32 {here}, 1"
            yield f"store i32 {here}.less, ptr %back"
            yield f"{here}.often = icmp eq i32 {here}, 0"
            yield f"br i1 {here}.often, label %reject, label {target}"
        else:
            yield f"br label {target}"
        return
    operand = str(_signed(one.k))
    yield f"{here}.a = load i32, ptr %a"
    if one.code & X_SOURCE:
        yield f"{here}.x = load i32, ptr %x"
        operand = f"{here}.x"
    if operation == JSET:
        yield f"{here}.common = and i32 {here}.a, {operand}"
        yield f"{here} = icmp ne i32 {here}.common, 0"
    else:
        yield f"{here} = icmp {_IR_TESTS[operation]} i32 {here}.a, {operand}"
    yield f"br i1 {here}, label %i{number + 1 + one.jt}, label %i{number + 1 + one.jf}"


def _signed(number: int) -> int:
    """As LLVM writes an i32."""
    return number - (1 << 32) if number & 0x80000000 else number
