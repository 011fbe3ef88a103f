# SPDX-License-Identifier: Apache-2.0
"""Links on real netdevs: who holds the hook, swaps, pins, and what is left of a link whose netdev is gone."""

import errno
import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from bpflab import Load, Veth

from polycube.bpf import AttachType, BpfError, HookBusy, Link, Map, NotSupported, Program, XdpMode, u32

SOURCE = """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32); __type(value, __u32); } order SEC(".maps");
#define NOTE(n) __u32 zero = 0, *at = bpf_map_lookup_elem(&order, &zero); if (at) *at = *at * 10 + n
SEC("xdp") int old(struct xdp_md *ctx) { NOTE(1); return XDP_PASS; }
SEC("xdp") int new(struct xdp_md *ctx) { NOTE(2); return XDP_PASS; }
SEC("tc") int first(struct __sk_buff *ctx) { NOTE(1); return -1; }
SEC("tc") int second(struct __sk_buff *ctx) { NOTE(2); return -1; }
SEC("tc") int third(struct __sk_buff *ctx) { NOTE(3); return -1; }
"""
FRAME = b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5" + bytes(50)
INGRESS, EGRESS = AttachType.TCX_INGRESS, AttachType.TCX_EGRESS
MakeVeth = Callable[[], Veth]
Soon = Callable[..., bool]


def shown(name: str) -> dict[str, object]:
    run = subprocess.run(["ip", "-j", "-d", "link", "show", name], check=True, capture_output=True)
    found: dict[str, object] = json.loads(run.stdout)[0]
    return found


def send(ifname: str) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((ifname, 0))
        wire.send(FRAME)


def noted(log: Map, soon: Soon, expected: int) -> bool:
    return soon(lambda: int.from_bytes(log.get(u32(0)) or b"", "little") == expected)


@pytest.mark.parametrize(("mode", "kernel_mode"), [(XdpMode.DRV, 1), (XdpMode.SKB, 2), (XdpMode.DEFAULT, 1)])
def test_xdp_attaches_in_the_mode_asked_for(load: Load, veth: MakeVeth, soon: Soon, mode: XdpMode, kernel_mode: int) -> None:
    loaded, pair = load(SOURCE), veth()
    with loaded.program("old") as program, loaded.map("order") as log, Link.xdp(program, pair.near, mode) as link:
        xdp = shown(pair.near_name)["xdp"]
        assert isinstance(xdp, dict) and xdp["mode"] == kernel_mode and xdp["prog"]["id"] == program.info.id
        info = link.info
        assert (info.type, info.prog_id, info.ifindex, info.attach_type) == (6, program.info.id, pair.near, AttachType.XDP) and info.id > 0
        send(pair.far_name)
        assert noted(log, soon, 1)
    assert "xdp" not in shown(pair.near_name)


def test_a_taken_xdp_hook_names_its_holder(load: Load, veth: MakeVeth) -> None:
    loaded, pair = load(SOURCE), veth()
    with loaded.program("old") as old, loaded.program("new") as new, Link.xdp(old, pair.near):
        for mode in (XdpMode.DEFAULT, XdpMode.SKB, XdpMode.DRV):
            with pytest.raises(HookBusy, match=f"taken by program old, id {old.info.id}") as caught:
                Link.xdp(new, pair.near, mode)
            assert caught.value.errno == errno.EBUSY


def test_a_program_put_there_by_iproute2_is_named_too(load: Load, veth: MakeVeth, pins: Path) -> None:
    loaded, pair = load(SOURCE), veth()
    with loaded.program("old") as old, loaded.program("new") as new:
        old.pin(pins / "old")
        subprocess.run(["ip", "link", "set", pair.near_name, "xdpgeneric", "pinned", str(pins / "old")], check=True)
        with pytest.raises(HookBusy, match=f"taken by program old, id {old.info.id}"):
            Link.xdp(new, pair.near, XdpMode.DRV)


def test_a_mode_the_driver_lacks_is_not_supported(load: Load) -> None:
    with load(SOURCE).program("old") as program, pytest.raises(NotSupported, match=r"attach XDP program to netdev lo.*no mode DRV"):
        Link.xdp(program, 1, XdpMode.DRV)


def test_a_netdev_that_is_not_there_is_an_error(load: Load) -> None:
    loaded = load(SOURCE)
    with loaded.program("old") as xdp, loaded.program("first") as tc:
        with pytest.raises(BpfError, match="attach XDP program to netdev 99999"):
            Link.xdp(xdp, 99999)
        with pytest.raises(BpfError, match="attach to TCX_INGRESS of netdev 99999: No such device"):
            Link.tcx(tc, 99999, INGRESS)


def test_a_program_of_the_wrong_type_is_not_taken_for_a_kernel_without_tcx(load: Load, veth: MakeVeth) -> None:
    with load(SOURCE).program("old") as xdp, pytest.raises(BpfError, match="Invalid argument") as caught:
        Link.tcx(xdp, veth().near, INGRESS)
    assert not isinstance(caught.value, NotSupported)


@pytest.mark.parametrize("hook", ["xdp", "tcx"])
def test_update_swaps_only_what_is_expected(load: Load, veth: MakeVeth, soon: Soon, hook: str) -> None:
    loaded, pair = load(SOURCE), veth()
    names = ("old", "new") if hook == "xdp" else ("first", "second")
    with loaded.program(names[0]) as old, loaded.program(names[1]) as new, loaded.map("order") as log:
        link = Link.xdp(old, pair.near) if hook == "xdp" else Link.tcx(old, pair.near, INGRESS)
        with link:
            with pytest.raises(BpfError, match="swap program: Operation not permitted"):
                link.update(new, expected=new)
            assert link.info.prog_id == old.info.id
            link.update(new, expected=old)
            assert link.info.prog_id == new.info.id
            send(pair.far_name)
            assert noted(log, soon, 2)
            link.update(old)
            assert link.info.prog_id == old.info.id


def test_a_pinned_link_outlives_its_owner(load: Load, veth: MakeVeth, pins: Path) -> None:
    loaded, pair = load(SOURCE), veth()
    with loaded.program("old") as program, Link.xdp(program, pair.near) as link:
        link.pin(pins / "link")
        info = link.info
    assert "xdp" in shown(pair.near_name)
    with Link.open(pins / "link") as again:
        assert again.info == info
        again.detach()
        assert "xdp" not in shown(pair.near_name) and again.info.ifindex == 0
        again.detach()


@pytest.mark.parametrize("hook", ["xdp", "tcx"])
def test_a_link_of_a_deleted_netdev_has_no_ifindex_and_takes_no_program(load: Load, veth: MakeVeth, hook: str) -> None:
    loaded, pair = load(SOURCE), veth()
    with (
        loaded.program("old" if hook == "xdp" else "first") as program,
        Link.xdp(program, pair.near) if hook == "xdp" else Link.tcx(program, pair.near, EGRESS) as link,
    ):
        assert link.info.ifindex == pair.near
        subprocess.run(["ip", "link", "del", pair.near_name], check=True)
        assert link.info.ifindex == 0
        with pytest.raises(BpfError) as caught:
            link.update(program)
        assert caught.value.errno == errno.ENOLINK
        link.detach()


@pytest.mark.parametrize("point", [INGRESS, EGRESS])
def test_tcx_programs_run_in_the_order_of_their_attachment(load: Load, veth: MakeVeth, soon: Soon, point: AttachType) -> None:
    loaded, pair = load(SOURCE), veth()
    sender = pair.far_name if point == INGRESS else pair.near_name
    with ExitStack() as stack:
        first, second, third = (stack.enter_context(loaded.program(name)) for name in ("first", "second", "third"))
        log = stack.enter_context(loaded.map("order"))
        link, middle, _ = (stack.enter_context(Link.tcx(program, pair.near, point)) for program in (first, second, third))
        info = link.info
        assert (info.type, info.ifindex, info.attach_type, info.prog_id) == (11, pair.near, point, first.info.id)
        send(sender)
        assert noted(log, soon, 123)
        log.set(u32(0), u32(0))
        middle.detach()
        send(sender)
        assert noted(log, soon, 13)


def test_one_program_serves_both_directions(load: Load, veth: MakeVeth, soon: Soon) -> None:
    loaded, pair = load(SOURCE), veth()
    with (
        loaded.program("first") as first,
        loaded.map("order") as log,
        Link.tcx(first, pair.near, INGRESS),
        Link.tcx(first, pair.near, EGRESS),
    ):
        send(pair.far_name)
        assert noted(log, soon, 1)
        send(pair.near_name)
        assert noted(log, soon, 11)


def test_a_pin_of_another_kind_is_refused(load: Load, veth: MakeVeth, pins: Path) -> None:
    loaded = load(SOURCE)
    with loaded.program("old") as program, Link.xdp(program, veth().near) as link, loaded.map("order") as log:
        for handle, name in ((program, "p"), (link, "l"), (log, "m")):
            handle.pin(pins / name)
        for kind, name in ((Map, "p"), (Map, "l"), (Program, "m"), (Program, "l"), (Link, "m"), (Link, "p")):
            for take in (kind.open, kind.find):
                with pytest.raises(BpfError, match=f"open pinned {kind.kind} .*it is a "):
                    take(pins / name)
        for kind, name in ((Map, "m"), (Program, "p"), (Link, "l")):
            with kind.open(pins / name) as again:
                assert again.info


def test_tcx_that_is_switched_off_is_not_supported(tmp_path: Path) -> None:
    code = """
    from polycube.testing.isolation import isolate
    isolate()
    from polycube.bpf import AttachType, Link, NotSupported, Program
    try:
        Link.tcx(Program(-1), 1, AttachType.TCX_INGRESS)
    except NotSupported as error:
        print(error)
    """
    environment = os.environ | {"POLYCUBE_DISABLE_FEATURES": "tcx", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True, check=True)
    assert "attach to TCX_INGRESS of netdev lo" in run.stdout and "no TCX in this kernel" in run.stdout
