# SPDX-License-Identifier: Apache-2.0
"""Programs: what the kernel says of them, and test runs."""

import json
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable

import pytest
from bpflab import Compile, Load, Veth

from polycube.bpf import BpfError, Map, Object, Program, XdpMode, grace, quiesce, sk_buff, u32, xdp_md
from polycube.bpf.lib import check, lib
from polycube.bpf.link import Link

SOURCE = """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); } one SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); } two SEC(".maps");
SEC("xdp") int with_maps(struct xdp_md *ctx)
{
	__u32 k = 0;
	return bpf_map_lookup_elem(&one, &k) && bpf_map_lookup_elem(&two, &k) ? XDP_PASS : XDP_DROP;
}
SEC("xdp") int without_maps(struct xdp_md *ctx) { return XDP_TX; }
SEC("tc") int a_name_of_many_letters(struct __sk_buff *ctx) { return TC_ACT_SHOT; }
"""
CONTEXTS = """
SEC("xdp") int meta(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end, *meta = (void *)(long)ctx->data_meta;
	if (meta + 4 > data || data + 14 > end)
		return 99;
	return meta[0] == 0xAA && data[0] == 0xBB ? ctx->ingress_ifindex * 100 + (__u32)((__u64)end - (__u64)data) : 98;
}
SEC("xdp") int grow(struct xdp_md *ctx)
{
	if (bpf_xdp_adjust_head(ctx, -4))
		return 99;
	__u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	if (data + 4 > end)
		return 98;
	data[0] = data[1] = data[2] = data[3] = 7;
	return XDP_PASS;
}
SEC("tc") int skb(struct __sk_buff *ctx)
{
	int right = ctx->mark == 1 && ctx->priority == 2 && ctx->ingress_ifindex == 3 && ctx->cb[0] == 4 && ctx->cb[4] == 5
		&& ctx->gso_segs == 6 && ctx->gso_size == 7;
	ctx->mark = 77;
	ctx->priority = ctx->ifindex;
	ctx->cb[2] = 88;
	return right;
}
"""
REDIRECT = """
struct { __uint(type, BPF_MAP_TYPE_DEVMAP); __uint(max_entries, 1); __type(key, __u32); __type(value, __u32); } ports SEC(".maps");
SEC("xdp") int send(struct xdp_md *ctx) { return bpf_redirect_map(&ports, 0, 0); }
SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }
"""
FRAME = bytes(64)


def bpftool(*words: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(subprocess.run(["bpftool", "-j", *words], check=True, capture_output=True).stdout)
    return found


@pytest.mark.parametrize(
    ("name", "type", "kernel_type"), [("with_maps", 6, "xdp"), ("without_maps", 6, "xdp"), ("a_name_of_many_letters", 3, "sched_cls")]
)
def test_the_info_is_what_bpftool_says(load: Load, name: str, type: int, kernel_type: str) -> None:
    with load(SOURCE).program(name) as program:
        info, truth = program.info, bpftool("prog", "show", "id", str(program.info.id))
        keys = ("id", "tag", "bytes_jited", "bytes_xlated")
        assert (info.id, info.tag, info.jited_len, info.xlated_len) == tuple(truth[key] for key in keys)
        assert name.startswith(info.name) and len(info.name) == min(len(name), 15)
        assert info.type == type and truth["type"] == kernel_type
        assert list(info.map_ids) == truth.get("map_ids", [])
        assert abs(info.load_time / 1e9 - time.clock_gettime(time.CLOCK_BOOTTIME)) < 120
        with open(f"/proc/self/fdinfo/{program.fd}") as lines:
            assert info.verified_insns == int(next(line.split()[1] for line in lines if line.startswith("verified_insns")))


def test_map_ids_are_those_of_the_maps(load: Load) -> None:
    loaded = load(SOURCE)
    with loaded.program("with_maps") as program, loaded.map("one") as one, loaded.map("two") as two:
        assert set(program.info.map_ids) == {one.info.id, two.info.id}


def test_runs_are_counted_while_statistics_are_on(load: Load) -> None:
    with load(SOURCE).program("with_maps") as program:
        fd = check(lib.bpf_enable_stats(0), "statistics")
        with Map(fd):  # any owner of a file descriptor
            program.test_run(FRAME, repeat=1000)
        info = program.info
        assert info.run_cnt in (0, 1000)  # some kernels count test runs
        assert (info.run_time_ns > 0) == (info.run_cnt > 0)


def test_a_program_is_found_by_its_id(load: Load) -> None:
    with load(SOURCE).program("without_maps") as program, Program.by_id(program.info.id) as same:
        assert same.info == program.info
    with pytest.raises(BpfError, match="program with id 4294967295: No such file"):
        Program.by_id(0xFFFFFFFF)


def test_a_test_run_gives_verdict_packet_and_time(load: Load) -> None:
    with load(CONTEXTS).program("grow") as program:
        run = program.test_run(FRAME)
        assert (run.retval, run.data) == (2, b"\7" * 4 + FRAME)
        assert run.context == b""
    with load(SOURCE).program("without_maps") as program:
        run = program.test_run(bytes(range(60)), repeat=10000)
        assert (run.retval, run.data) == (3, bytes(range(60))) and run.duration_ns >= 0


def test_an_xdp_context_carries_metadata_and_the_netdev(load: Load) -> None:
    with load(CONTEXTS).program("meta") as program:
        frame = b"\xaa\0\0\0" + b"\xbb" + bytes(63)
        run = program.test_run(frame, context=xdp_md(len(frame), ingress_ifindex=1, meta=4))
        assert run.retval == 164
        data, end = struct.unpack_from("<2I", run.context)
        assert (data, end, len(run.context)) == (4, 68, 24) and run.data == frame


def test_an_skb_context_goes_in_and_comes_out(load: Load) -> None:
    with load(CONTEXTS).program("skb") as program:
        context = sk_buff(mark=1, priority=2, ingress_ifindex=3, ifindex=1, cb=(4, 0, 0, 0, 5), gso_segs=6, gso_size=7)
        run = program.test_run(FRAME, context=context)
        assert run.retval == 1 and len(run.context) == 192
        assert struct.unpack_from("<I", run.context, 8) == (77,) and struct.unpack_from("<I", run.context, 32) == (1,)
        assert struct.unpack_from("<5I", run.context, 48) == (4, 0, 88, 0, 5)
        assert program.test_run(FRAME, context=sk_buff(mark=2)).retval == 0


def test_a_context_the_kernel_refuses_is_an_error(load: Load) -> None:
    with load(CONTEXTS).program("meta") as program, pytest.raises(BpfError, match="test run"):
        program.test_run(FRAME, context=xdp_md(4000))


def test_a_packet_too_short_is_an_error(load: Load) -> None:
    with load(SOURCE).program("without_maps") as program, pytest.raises(BpfError, match="test run"):
        program.test_run(b"abc")


def test_live_frames_are_really_redirected(load: Load, veth: Callable[[], Veth], soon: Callable[..., bool]) -> None:
    loaded, source, target = load(REDIRECT), veth(), veth()
    with (
        loaded.program("send") as send,
        loaded.program("pass") as passing,
        loaded.map("ports") as ports,
        Link.xdp(passing, target.far, XdpMode.DRV),  # a veth takes redirected frames only if its other end has NAPI
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as wire,
    ):
        wire.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE: each frame lies in a page of its own
        wire.bind((target.far_name, 0))
        wire.setblocking(False)
        ports.set(u32(0), u32(target.near))
        frame = b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5" + b"polycube" * 8
        run = send.test_run(frame, context=xdp_md(len(frame), ingress_ifindex=source.near), repeat=100, live=True, batch_size=8)
        assert run.data == b"" and run.context == b""
        got: list[bytes] = []

        def arrived() -> bool:
            try:
                while True:
                    got.append(wire.recv(2048))
            except BlockingIOError:
                return len(got) >= 100

        assert soon(arrived) and got == [frame] * 100


VMLINUX = "bpftool btf dump file /sys/kernel/btf/vmlinux format c"


@pytest.fixture(scope="module")
def kernel(compile: Compile) -> Callable[[str], dict[str, int]]:
    """Offsets of a struct's members, as the running kernel's BTF has them."""
    header = subprocess.run(VMLINUX.split(), check=True, capture_output=True, text=True).stdout
    structs = ["bpf_map_info", "bpf_prog_info", "bpf_link_info", "__sk_buff"]
    source = "\n".join(f"volatile struct {name} it_{name};" for name in structs)
    body = "+".join(f"*(volatile int *)&it_{name}" for name in structs)
    source += f'\n__attribute__((section("xdp"), used)) int p(void *ctx) {{ return {body}; }}'
    # 1-bit members, which layouts refuse, become what they lie in
    header = header.replace("__u32 gpl_compatible: 1;", "__u32 gpl_compatible;")
    data = compile(source, "clang", header)

    def offsets(name: str) -> dict[str, int]:
        with Object.open(data, "kernel") as opened:
            layout = opened.maps[".bss"].variables()[f"it_{name}"][1]
        found = {field.name: field.offset for field in layout.fields}
        for field in layout.fields:
            found.update({f"{field.name}.{inner.name}": field.offset + inner.offset for inner in field.layout.fields})
        return found

    return offsets


def test_offsets_in_the_code_are_those_of_the_running_kernel(kernel: Callable[[str], dict[str, int]]) -> None:
    from polycube.bpf import link, map, program

    tables = {"bpf_map_info": map._INFO, "bpf_prog_info": program._INFO, "bpf_link_info": link._INFO, "__sk_buff": program._SK_BUFF}
    for name, used in tables.items():
        truth = kernel(name)
        assert used == {member: truth[member] for member in used}, name


def test_large_frames_come_back_whole(load: Load) -> None:
    with load(SOURCE).program("without_maps") as program:
        assert len(program.test_run(bytes(3000)).data) == 3000


def test_waiting_for_programs_leaves_the_thread_as_it_was() -> None:
    def state() -> tuple[object, ...]:
        return os.sched_getaffinity(0), os.sched_getscheduler(0), os.sched_getparam(0), os.getpriority(os.PRIO_PROCESS, 0)

    before = state()
    quiesce()
    grace()
    assert state() == before
