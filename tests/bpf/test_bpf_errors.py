# SPDX-License-Identifier: Apache-2.0
"""Refused programs: who, why, and at which line of C."""

import errno

import pytest
from bpflab import Compile

from polycube.bpf import BpfError, MapFull, Object, VerifierError
from polycube.bpf.errors import summarise

FDB = """
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32); __type(value, __u64); } fdb SEC(".maps");
"""
PAST_END = """SEC("xdp") int reads_past_end(struct xdp_md *ctx)
{
	char *data = (void *)(long)ctx->data;
	return data[13];
}"""
NULL = (
    FDB
    + """SEC("xdp") int forgets_null(struct xdp_md *ctx)
{
	__u32 key = ctx->rx_queue_index;
	__u64 *value = bpf_map_lookup_elem(&fdb, &key);
	return *value;
}"""
)
ENDLESS = """SEC("xdp") int never_ends(struct xdp_md *ctx)
{
	volatile __u64 i = 0;
	while (i < 1ull << 40) {
		i++;
		asm volatile(".rept 999; r0 = 1; .endr" ::: "r0");
	}
	return XDP_PASS;
}"""
LONG = """SEC("xdp") int long_way(struct xdp_md *ctx)
{
	volatile __u64 i = 0;
	while (i < 30000)
		i++;
	return *(char *)(long)ctx->data;
}"""
HELPER = """SEC("xdp") int wrong_helper(struct xdp_md *ctx)
{
	return bpf_skb_load_bytes(ctx, 0, 0, 4);
}"""
STACK = """static __attribute__((noinline)) int deep(struct xdp_md *ctx)
{
	volatile char b[300];
	b[ctx->rx_queue_index & 127] = 1;
	return b[5];
}
SEC("xdp") int stack_too_big(struct xdp_md *ctx)
{
	volatile char b[300];
	b[ctx->rx_queue_index & 127] = 2;
	return deep(ctx) + b[5];
}"""
CONTEXT = """SEC("tc") int writes_context(struct __sk_buff *ctx)
{
	ctx->len = 3;
	return 0;
}"""
GOOD = """SEC("xdp") int good(struct xdp_md *ctx) { return XDP_PASS; }
"""


def refused(compile: Compile, source: str, clang: str = "clang") -> VerifierError:
    with Object.open(compile(source, clang), "test") as opened, pytest.raises(VerifierError) as caught:
        opened.load()
    return caught.value


CASES = [
    (PAST_END, "reads_past_end", "R1 offset is outside of the packet", "return data[13];"),
    (PAST_END, "reads_past_end", "invalid access to packet, off=13 size=1", "return data[13];"),
    (NULL, "forgets_null", "R0 invalid mem access 'map_value_or_null'", "return *value;"),
    (LONG, "long_way", "invalid access to packet", "return *(char *)(long)ctx->data;"),
    (HELPER, "wrong_helper", "helper bpf_skb_load_bytes#26", "return bpf_skb_load_bytes(ctx, 0, 0, 4);"),
    (CONTEXT, "writes_context", "invalid bpf_context access off=0 size=4", "ctx->len = 3;"),
]


@pytest.mark.parametrize("clang", ["clang", "clang-19"])
@pytest.mark.parametrize(("source", "program", "verdict", "line"), CASES, ids=lambda value: value[:20] if " " in value else value)
def test_the_summary_names_the_verdict_and_the_line_of_c(
    compile: Compile, clang: str, source: str, program: str, verdict: str, line: str
) -> None:
    error = refused(compile, source, clang)
    assert error.program == program
    assert verdict in error.summary and f"at: {line} (test.bpf.c:" in error.summary
    assert len(error.summary) < 300
    assert str(error) == f"the verifier refuses program {program}: {error.summary}"


def test_the_failing_program_is_named_among_good_ones(compile: Compile) -> None:
    assert refused(compile, GOOD + PAST_END).program == "reads_past_end"


def test_a_stack_too_deep_is_a_verdict_without_a_line(compile: Compile) -> None:
    summary = refused(compile, STACK).summary
    assert "combined stack size of 2 calls" in summary and "Too large" in summary


def test_the_log_is_whole_even_when_it_is_megabytes(compile: Compile) -> None:
    error = refused(compile, LONG)
    assert len(error.log) > 1 << 20
    assert error.log.startswith("libbpf: prog 'long_way'") and error.log.endswith("-- END PROG LOAD LOG --")
    assert "\n0: R1=ctx() R10=fp0\n" in error.log and "\nprocessed " in error.log
    assert int(error.summary.rpartition("; ")[2].split()[0]) > 100000


def test_a_program_too_complex_to_verify_says_so(compile: Compile) -> None:
    summary = refused(compile, ENDLESS).summary  # of few turns: at each the kernel compares with all before
    assert summary.startswith("BPF program is too large. Processed 1000001 insn, at: asm volatile(")


def test_the_end_of_a_long_log_begins_with_a_whole_line() -> None:
    log = "0: (b7) r0 = 1 ; R0_w=1\n" * 10_000 + "BPF program is too large. Processed 1000001 insn\n"
    assert summarise(log) == "BPF program is too large. Processed 1000001 insn; 10000 lines omitted"


def test_a_log_of_an_older_kernel_has_its_line_without_a_place() -> None:
    log = "0: R1=ctx(off=0,imm=0) R10=fp0\n; return data[13];\n1: (71) r0 = *(u8 *)(r1 +13)\n"
    log += "R1 offset is outside of the packet\nprocessed 2 insns"
    assert summarise(log) == "R1 offset is outside of the packet, at: return data[13];; 2 lines omitted"


def test_code_of_no_line_is_not_taken_for_the_place() -> None:
    log = "; right(); @ a.c:5\n1: (b7) r0 = 0\n;  @ a.c:0\n2: (07) r2 += -4\nwrong\n"
    assert summarise(log).startswith("wrong, at: right(); (a.c:5)")


def test_verdicts_about_global_functions_are_verdicts() -> None:
    log = "Func#1 ('deep') is global and assumed valid.\n; deep(x); @ a.c:5\n1: (85) call pc+1\n"
    log += "Global function deep() doesn't return scalar. Only those are supported.\n"
    assert summarise(log).startswith("Global function deep() doesn't return scalar")


def test_an_empty_log_is_said_to_be_empty() -> None:
    assert summarise("") == "no log"


@pytest.mark.parametrize(("number", "words"), [(524, "not supported"), (4001, "Not a BPF object"), (errno.EPERM, "not permitted")])
def test_codes_libc_does_not_know_are_put_into_words(number: int, words: str) -> None:
    assert words in str(BpfError(number, "try")) and BpfError(number, "try").errno == number


def test_a_full_map_says_so_and_nothing_of_argument_lists() -> None:
    error = MapFull(errno.E2BIG, "map m is full")
    assert str(error) == "map m is full" and error.errno == errno.E2BIG
