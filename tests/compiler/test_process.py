# SPDX-License-Identifier: Apache-2.0
"""The compiler process: what it emits, and that its death is an ordinary error."""

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from polycube.bpf import Object
from polycube.compiler import build
from polycube.compiler.cache import ObjectCache
from polycube.compiler.errors import CompileError
from polycube.compiler.function import COMPILER, PACKAGE, Function, Hook, UnitSpec, injector
from polycube.compiler.process import COMBINE, LENGTH, Compiler, blob

HELLO = Function("helloworld", PACKAGE / "cubes" / "helloworld")
FRAMEWORK = {"pcn_entries", "pcn_entries_high", "pcn_counters", "pcn_drops", "pcn_progs", "ports", ".data.cfg"}


@pytest.fixture(scope="module", autouse=True)
def _bitcode():
    build.build([COMPILER, HELLO.folder])


@pytest.fixture
def compiler():
    with Compiler() as made:
        yield made


@pytest.fixture
def function(tmp_path):
    """Makes a function from C."""

    def make(body, name="made"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / f"{name}.bpf.c").write_text(f"#include <polycube/cube.h>\n{body}\n")
        build.build([folder])
        return Function(name, folder)

    return make


def maps(data):
    with Object.open(data, "test") as opened:
        return set(opened.maps)


@pytest.mark.parametrize("hook", list(Hook))
def test_unused_maps_of_the_framework_vanish(compiler, hook, function):
    bare = maps(compiler.emit_sync(function("HANDLER(ingress) { return pcn_forward(pkt, 1); }"), hook))
    assert bare == FRAMEWORK | ({"pcn_scratch", "pcn_netdevs"} if hook == Hook.XDP else set())
    full = maps(compiler.emit_sync(HELLO, hook))
    assert full - bare == {"slowpath"}


def test_maps_of_the_function_stay_even_if_unused(compiler, function):
    made = function("MAP(state, HASH, __u32, __u32, 16); CFG(__u32, unused); HANDLER(ingress) { return pcn_pass(pkt); }")
    with Object.open(compiler.emit_sync(made, Hook.TC), "test") as opened:
        assert "state" in opened.maps
        assert "unused" in opened.maps[".data.cfg"].variables()


def test_programs_of_a_unit(compiler):
    with Object.open(compiler.emit_sync(HELLO, Hook.TC), "test") as opened:
        assert set(opened.programs) == {"entry", "tail"}
        assert {spec.section for spec in opened.programs.values()} == {"tc"}
        assert opened.enum_values("pcn_drop_reason")["PCN_DROP_POLICY"] == 0
    with Object.open(compiler.emit_spec_sync(injector(Hook.XDP)), "test") as opened:
        assert set(opened.programs) == {"pcn_inject", "pcn_lead"}


@pytest.mark.parametrize("hook", list(Hook))
def test_equal_inputs_give_equal_objects(hook, monkeypatch):
    """In TC, LLVM orders types of BTF by where they lie in memory, if it gets the chance."""
    objects = set()
    for seed in range(2):
        monkeypatch.setenv("PYTHONHASHSEED", str(seed))
        with Compiler() as compiler:
            objects |= {compiler.emit_sync(HELLO, hook) for _ in range(4)}
    assert len(objects) == 1


@pytest.mark.parametrize("hook", list(Hook))
def test_the_context_may_be_read_at_many_places(compiler, hook, function):
    """The verifier takes no address within the context that was computed before it is read from."""
    read = "byte = pcn_at(ctx, {0}, 1); if (byte && *byte == {0}) sum += bpf_get_prandom_u32();"
    reads = " ".join(read.format(number) for number in range(60))
    data = compiler.emit_sync(
        function(f"HANDLER(ingress) {{ __u32 sum = 0; __u8 *byte; {reads} return pcn_forward(pkt, sum & 1); }}"), hook
    )
    with Object.open(data, "test") as opened:
        opened.load()


def test_one_process_serves_many_requests(compiler):
    assert compiler.started == 0, "started by the first request"
    for hook in Hook:
        compiler.emit_sync(HELLO, hook)
    assert compiler.started == 1


def test_an_owner_with_many_open_files(compiler):
    """The socket has its owner's number in the compiler process, too; select() would end at 1023."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limits[1]), limits[1]))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        assert compiler.emit_sync(HELLO, Hook.TC)
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


STACK = """
MAP(sink, ARRAY, __u32, __u32, 64);
HANDLER(ingress)
{
	__u32 keys[160];
	for (int i = 0; i < 160; i++) { keys[i] = i + pkt->len; bpf_map_lookup_elem(&sink, &keys[i]); }
	return pcn_forward(pkt, keys[pkt->len & 127]);
}"""


def test_too_much_stack_is_an_error_and_the_next_request_gets_a_new_process(compiler, function):
    greedy = function(STACK, "greedy")
    with pytest.raises(CompileError, match=r"cannot compile greedy for xdp: (.|\n)*stack") as caught:
        compiler.emit_sync(greedy, Hook.XDP)
    assert (caught.value.title, caught.value.hook) == ("greedy", "xdp")
    assert compiler.emit_sync(HELLO, Hook.XDP)
    assert compiler.started == 2


def test_a_clash_of_names_is_an_error(compiler, function):
    clash = function("MAP(ports, HASH, __u32, __u32, 16); HANDLER(ingress) { return pcn_pass(pkt); }")
    with pytest.raises(CompileError, match="ports"):
        compiler.emit_sync(clash, Hook.TC)


def test_damaged_bitcode_is_an_error(compiler, function):
    made = function("HANDLER(ingress) { return pcn_pass(pkt); }")
    (made.folder / "made.tc.bc").write_bytes(b"BC\xc0\xdenonsense")
    with pytest.raises(CompileError, match="cannot compile made for tc"):
        compiler.emit_sync(made, Hook.TC)
    assert compiler.emit_sync(HELLO, Hook.TC)


def test_a_process_without_work_ends_and_the_next_request_gets_a_new_one(monkeypatch):
    monkeypatch.setattr("polycube.compiler.process.IDLE", 0.0)  # of the owner: it takes no process for sure to be there
    with Compiler() as compiler:
        for started in (1, 2):
            compiler.emit_sync(HELLO, Hook.TC)
            assert compiler.started == started


def test_killed_between_two_requests(compiler):
    compiler.emit_sync(HELLO, Hook.TC)
    os.kill(compiler._process.pid, signal.SIGKILL)
    compiler._process.wait()
    assert compiler.emit_sync(HELLO, Hook.TC)
    assert compiler.started == 2


def test_a_process_that_hangs_is_ended():
    with Compiler() as compiler:
        compiler.emit_sync(HELLO, Hook.TC)
        pid = compiler._process.pid
        os.kill(pid, signal.SIGSTOP)
        patience, compiler.timeout = compiler.timeout, 1.0
        compiler._peer.settimeout(1.0)
        with pytest.raises(CompileError, match="no result after 1 s"):
            compiler.emit_sync(HELLO, Hook.XDP)
        compiler.timeout = patience
        assert compiler.emit_sync(HELLO, Hook.XDP)
        assert compiler._process.pid != pid


def test_it_ends_when_its_owner_is_gone():
    code = (
        "import os, sys, signal; from polycube.compiler.process import *; from polycube.compiler.function import *\n"
        "c = Compiler(); c.emit_sync(Function('helloworld', PACKAGE / 'cubes' / 'helloworld'), Hook.TC)\n"
        "print(c._process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    pid = int(run.stdout)
    for _ in range(600):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if "State:\tZ" in Path(f"/proc/{pid}/status").read_text():
            return
        time.sleep(0.05)
    pytest.fail("the compiler process outlived its owner")


def test_it_ends_in_the_middle_of_work_too():
    code = (
        "import socket, sys, time; from polycube.compiler import combine, process\n"
        "combine.combine = lambda blobs: (print('at work', flush=True), time.sleep(1000))\n"
        "process.serve(socket.socket(fileno=int(sys.argv[1])))"
    )
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-c", code, str(theirs.fileno())]
        run = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE, text=True)
    try:
        with ours:
            ours.sendall(LENGTH.pack(1) + blob(COMBINE))
            assert run.stdout.readline() == "at work\n"
        assert run.wait(30) == 0
    finally:
        run.kill()
        run.communicate()


def test_asynchronous_requests_do_not_block_the_loop(compiler):
    async def main():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        ticker = asyncio.create_task(tick())
        objects = await asyncio.gather(*(compiler.emit(HELLO, hook) for hook in Hook))
        ticker.cancel()
        return objects, ticks

    objects, ticks = asyncio.run(main())
    assert len(objects) == 2 and ticks > 3
    assert compiler.started == 1


def test_the_cache_answers_without_a_process(tmp_path):
    cache = ObjectCache(tmp_path)
    with Compiler(cache) as compiler:
        first = compiler.emit_sync(HELLO, Hook.TC)
    with Compiler(cache) as compiler:
        assert compiler.emit_sync(HELLO, Hook.TC) == first
        assert compiler.started == 0


def test_what_is_expected_has_a_process_started_unless_the_cache_will_answer(tmp_path):
    with Compiler(ObjectCache(tmp_path)) as compiler:
        spec = UnitSpec(HELLO, Hook.TC)
        compiler.expect([])
        assert compiler.started == 0
        compiler.expect([spec])
        assert (compiler.started, compiler.requests) == (1, 0)
        compiler.emit_spec_sync(spec)
        assert (compiler.started, compiler.requests) == (1, 1)
    with Compiler(ObjectCache(tmp_path)) as compiler:
        compiler.expect([spec])
        compiler.expect([UnitSpec(Function("missing", tmp_path), Hook.TC)])
        assert compiler.started == 0
