# SPDX-License-Identifier: Apache-2.0
"""How much of the stack code takes, found by looking through it."""

from __future__ import annotations

from pathlib import Path

import pytest

from polycube.bpf.stack import stack_of
from polycube.compiler import build
from polycube.compiler.function import COMPILER, Function, Hook
from polycube.compiler.process import Compiler

CODE = """
#include <polycube/cube.h>
MAP(table, ARRAY, __u32, __u32, 8);
struct big { __u64 words[8]; };
static __attribute__((noinline)) int deepest(struct big *big)
{
	struct big own = *big;

	asm volatile("" :: "r"(&own) : "memory");
	return own.words[1];
}
static int step(__u32 number, void *context)
{
	struct big own = {};

	own.words[0] = number;
	return deepest(&own);
}
static __attribute__((noinline)) int between(__u32 count)
{
	__u64 few[4] = {count};

	asm volatile("" :: "r"(few) : "memory");
	return bpf_loop(few[0], step, few, 0);
}
HANDLER(ingress) { return between(pkt->len) ? PCN_DROP : pcn_forward(pkt, 1); }
"""


def test_calls_and_callbacks_come_on_top_of_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    (folder / "deep.bpf.c").write_text(CODE)
    build.build([COMPILER, folder])
    with Compiler() as compiler:
        found = stack_of(compiler.emit_sync(Function("deep", folder), Hook.XDP))
    assert found.below == 32 + 64 + 64, "between, step, deepest"
    assert 0 < found.frame <= 128


@pytest.mark.parametrize("hook", list(Hook))
def test_a_function_without_subprograms(hook: Hook, tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    folder.mkdir()
    body = '{ __u64 words[20] = {}; asm volatile("" :: "r"(words) : "memory"); return pcn_forward(pkt, words[pkt->len & 7]); }'
    (folder / "flat.bpf.c").write_text(f"#include <polycube/cube.h>\nHANDLER(ingress) {body}\n")
    build.build([COMPILER, folder])
    with Compiler() as compiler:
        found = stack_of(compiler.emit_sync(Function("flat", folder), hook))
    assert found.below == 0
    assert 160 <= found.frame <= 256
