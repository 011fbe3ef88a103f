# SPDX-License-Identifier: Apache-2.0
"""Code of instances: C and LLVM IR that come at run time are linked into a function, kept by content, and refused with the line."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from polycube.bpf import Object, VerifierError
from polycube.compiler import build, clang
from polycube.compiler.cache import ObjectCache
from polycube.compiler.code import Code, CodeError, Language, located
from polycube.compiler.errors import CompileError
from polycube.compiler.function import Function, Hook
from polycube.compiler.process import Compiler

SERVICE = """
#include <polycube/cube.h>

MAP(which, ARRAY, __u32, __u32, 1);

__weak int first(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	return PCN_PASS;
}

__weak int second(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	return PCN_PASS;
}

HANDLER(ingress)
{
	__u32 zero = 0, *index = bpf_map_lookup_elem(&which, &zero);

	return index && *index ? second(ctx, pkt) : first(ctx, pkt);
}
"""
MONITOR = """
MAP(ports, HASH, __u32, __u64, 16);
MAP(total, ARRAY, __u32, __u64, 1);
static __u64 seen;

static __noinline __u64 *counter(struct pcn_ctx *ctx)
{
	__u32 zero = 0;

	return ctx ? bpf_map_lookup_elem(&total, &zero) : 0;
}

HANDLER(monitor)
{
	__u64 *count = counter(ctx), one = 1;

	if (count)
		*count += 1;
	seen++;
	bpf_map_update_elem(&ports, &pkt->in_port, &one, BPF_ANY);
	return pcn_pass(pkt);
}
"""
IR = """
declare i32 @second(ptr, ptr)
define i32 @chosen(ptr %ctx, ptr %pkt) {
  %verdict = call i32 @second(ptr %ctx, ptr %pkt)
  ret i32 %verdict
}
"""
FIRST, SECOND = (("pcn_monitor", "first"),), (("pcn_monitor", "second"),)


@pytest.fixture(scope="module")
def function(tmp_path_factory):
    folder = tmp_path_factory.mktemp("services") / "host"
    folder.mkdir()
    (folder / "host.bpf.c").write_text(SERVICE)
    build.build([folder])
    return Function("host", folder, transparent=True)


@pytest.fixture(scope="module")
def compiler():
    with Compiler() as made:
        yield made


def c(text, exports=FIRST, **more):
    return Code("mine", Language.C, text, exports=exports, **more)


def maps(data):
    with Object.open(data, "test") as opened:
        return {name for name in opened.maps if not name.startswith(("pcn_", "."))} - {"ports"}


def tags(data):
    """Digests of the programs' instructions, as the kernel computes them."""
    with Object.open(data, "test") as opened:
        opened.load()
        return {name: opened.program(name).info.tag for name in opened.programs}


def emitted(compiler, function, *code, hook=Hook.TC):
    return compiler.emit_sync(replace(function, code=code), hook)


@pytest.mark.parametrize("hook", list(Hook))
def test_c_is_linked_into_the_function_with_maps_of_its_own_name(compiler, function, hook):
    data = emitted(compiler, function, c(MONITOR), hook=hook)
    assert maps(data) == {"which", "mine_ports", "mine_total"}
    with Object.open(data, "test") as opened:
        opened.load()


def test_two_copies_share_all_maps_but_those_that_are_swapped(compiler, function):
    data = emitted(compiler, function, c(MONITOR), c(MONITOR, SECOND, swapped=("ports",)))
    assert maps(data) == {"which", "mine_ports", "mine_ports_swap", "mine_total"}
    with Object.open(data, "test") as opened:
        assert len(opened.maps[".bss"].variables()) == 1
        opened.load()


def test_ir_and_generators_are_linked(compiler, function, tmp_path, monkeypatch):
    (tmp_path / "maker.py").write_text(f"def make(hook, name):\n    return '''{IR}'''.replace('chosen', name) if hook == 'tc' else ''\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    plain = Code("plain", Language.IR, IR, exports=(("chosen", "first"),))
    made = Code("made", Language.GENERATOR, "maker:make", arguments=("other",), exports=(("other", "first"),))
    with Compiler() as other:  # whose environment has the module
        assert tags(emitted(other, function, plain)) == tags(emitted(other, function, made))
        with pytest.raises(CodeError, match="it defines no other"):
            emitted(other, function, made, hook=Hook.XDP)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("HANDLER(monitor)\n{\n\treturn oops;\n}", "line 3, column 9: use of undeclared identifier 'oops', at: return oops;"),
        ("HANDLER(monitor) { return bar(); }", "line 1, column 27: "),  # each clang says it in other words
        ("int bar(void);\nHANDLER(monitor) { return bar(); }", "bar is declared and defined nowhere"),
        ("int x;", "it defines no pcn_monitor"),
        ('SEC("tc") int own(void *ctx) { return 0; }\nHANDLER(monitor) { return 0; }', "it defines the program own"),
        ('#include "/etc/shadow"\n', "line 1, column 10: "),
        ("#include <nowhere.h>\n", "'nowhere.h' file not found"),
    ],
)
def test_errors_say_which_line_of_the_code(compiler, function, text, said):
    with pytest.raises(CodeError) as caught:
        emitted(compiler, function, c(text))
    assert said in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be somebody else")
def test_clang_may_not_read_what_root_may(compiler, function, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("very secret\n")
    secret.chmod(0o600)
    with pytest.raises(CodeError) as caught:
        emitted(compiler, function, c(f'#include "{secret}"\n'))
    assert "very" not in str(caught.value)


def test_clang_is_stopped_when_it_takes_too_long(compiler, function, monkeypatch):
    monkeypatch.setattr(clang, "SECONDS", 1)
    endless = "#define A(x) x x x x x x x x x x x x x x x x\n#define B(x) A(A(A(A(x))))\nHANDLER(monitor) { B(B(B(;))) return 0; }"
    with pytest.raises(CodeError, match=r"clang (did not end within|was ended by signal)"):
        emitted(compiler, function, c(endless))


def test_what_llvm_does_not_take_is_an_error_too(compiler, function):
    with pytest.raises(CompileError, match="asm parser"):
        emitted(compiler, function, c('HANDLER(monitor) { asm volatile("r0 = 1"); return 1; }'))


def test_a_verdict_of_the_verifier_is_traced_to_the_line_of_c(compiler, function):
    wrong = c("HANDLER(monitor)\n{\n\tchar *far = (void *)(long)ctx->mark;\n\treturn far[1];\n}")
    with Object.open(emitted(compiler, function, wrong), "test") as opened, pytest.raises(VerifierError) as caught:
        opened.load()
    assert str(located(wrong, "refused", caught.value.log)) == "line 4: refused, at: return far[1];"


def test_what_was_compiled_once_needs_no_clang(function, tmp_path, monkeypatch):
    cache = ObjectCache(tmp_path / "cache")
    with Compiler(cache) as first:
        wanted = emitted(first, function, c(MONITOR))
    monkeypatch.setenv("CLANG", "no-such-clang")
    with Compiler(cache) as second:
        assert emitted(second, function, c(MONITOR)) == wanted
        assert second.started == 0
        with pytest.raises(CodeError, match="needs no-such-clang, which is not on this machine"):
            emitted(second, function, c(MONITOR + "\n"))


def test_generated_code_needs_neither_clang_nor_llvm_in_this_process():
    script = "import sys; import polycube.compiler.process; sys.exit('llvmlite' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(Path("src").resolve())}).returncode == 0
