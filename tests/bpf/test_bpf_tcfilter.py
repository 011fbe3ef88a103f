# SPDX-License-Identifier: Apache-2.0
"""The fallback without TCX: a filter of ours on clsact, beside those of others."""

import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from bpflab import Load, Veth

from polycube.bpf import AttachType, BpfError, HookBusy, Map, tcfilter, u32

SOURCE = """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32); __type(value, __u64); } hits SEC(".maps");
#define HIT(n) __u32 at = n; __u64 *hit = bpf_map_lookup_elem(&hits, &at); if (hit) __sync_fetch_and_add(hit, 1)
SEC("tc") int zero(struct __sk_buff *ctx) { HIT(0); return TC_ACT_OK; }
SEC("tc") int one(struct __sk_buff *ctx) { HIT(1); return TC_ACT_OK; }
SEC("tc") int foreign(struct __sk_buff *ctx) { HIT(2); return TC_ACT_UNSPEC; }
"""
FRAME = b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5" + bytes(50)
INGRESS, EGRESS = AttachType.TCX_INGRESS, AttachType.TCX_EGRESS
MakeVeth = Callable[[], Veth]


def tc(*words: str) -> list[dict[str, object]]:
    run = subprocess.run(["tc", "-j", *words], check=True, capture_output=True, text=True)
    found: list[dict[str, object]] = json.loads(run.stdout or "[]")
    return found


def has_clsact(pair: Veth) -> bool:
    return any(qdisc["kind"] == "clsact" for qdisc in tc("qdisc", "show", "dev", pair.near_name))


def send(ifname: str, number: int) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((ifname, 0))
        for _ in range(number):
            wire.send(FRAME)


def hits(made: Map) -> list[int]:
    return [int.from_bytes(made.get(u32(i)) or b"", "little") for i in range(3)]


@pytest.mark.parametrize("point", [INGRESS, EGRESS])
def test_a_filter_is_attached_replaced_and_detached(load: Load, veth: MakeVeth, soon: Callable[..., bool], point: AttachType) -> None:
    loaded, pair = load(SOURCE), veth()
    sender = pair.far_name if point == INGRESS else pair.near_name
    with loaded.program("zero") as zero, loaded.program("one") as one, loaded.map("hits") as seen:
        assert tcfilter.query(pair.near, point) == 0
        tcfilter.attach(zero, pair.near, point)
        assert tcfilter.query(pair.near, point) == zero.info.id
        assert tcfilter.query(pair.near, EGRESS if point == INGRESS else INGRESS) == 0
        send(sender, 3)
        assert soon(lambda: hits(seen) == [3, 0, 0])
        tcfilter.attach(one, pair.near, point)
        assert tcfilter.query(pair.near, point) == one.info.id
        send(sender, 2)
        assert soon(lambda: hits(seen) == [3, 2, 0])
        tcfilter.detach(pair.near, point)
        assert tcfilter.query(pair.near, point) == 0 and not has_clsact(pair)
        tcfilter.detach(pair.near, point)


def test_replacing_loses_no_frame(load: Load, veth: MakeVeth, soon: Callable[..., bool]) -> None:
    loaded, pair = load(SOURCE), veth()
    with loaded.program("zero") as zero, loaded.program("one") as one, loaded.map("hits") as seen:
        tcfilter.attach(zero, pair.near, INGRESS)
        for turn in range(50):
            send(pair.far_name, 10)
            tcfilter.attach(one if turn % 2 else zero, pair.near, INGRESS)
            send(pair.far_name, 10)
        assert soon(lambda: sum(hits(seen)) == 1000) and min(hits(seen)[:2]) > 0


def test_the_qdisc_stays_as_long_as_the_other_direction_is_in_use(load: Load, veth: MakeVeth) -> None:
    loaded, pair = load(SOURCE), veth()
    with loaded.program("zero") as zero:
        tcfilter.attach(zero, pair.near, INGRESS)
        tcfilter.attach(zero, pair.near, EGRESS)
        tcfilter.detach(pair.near, INGRESS)
        assert has_clsact(pair) and tcfilter.query(pair.near, EGRESS) == zero.info.id
        tcfilter.detach(pair.near, EGRESS)
        assert not has_clsact(pair)


@pytest.mark.parametrize("direction", ["ingress", "egress"])
@pytest.mark.parametrize("what", ["bpf", "matchall"])
def test_filters_of_others_are_left_alone(
    load: Load, veth: MakeVeth, pins: Path, soon: Callable[..., bool], direction: str, what: str
) -> None:
    loaded, pair = load(SOURCE), veth()
    with loaded.program("zero") as zero, loaded.program("foreign") as foreign, loaded.map("hits") as seen:
        foreign.pin(pins / "foreign")
        how = ["bpf", "direct-action", "pinned", str(pins / "foreign")] if what == "bpf" else ["matchall", "action", "continue"]
        subprocess.run(["tc", "qdisc", "add", "dev", pair.near_name, "clsact"], check=True)
        try:
            subprocess.run(["tc", "filter", "add", "dev", pair.near_name, direction, "prio", "7", *how], check=True, capture_output=True)
        except subprocess.CalledProcessError:
            pytest.skip(f"this kernel has no {what} filters")
        before = tc("filter", "show", "dev", pair.near_name, direction)
        tcfilter.attach(zero, pair.near, INGRESS)
        send(pair.far_name, 2)
        assert soon(lambda: hits(seen)[0] == 2)
        tcfilter.detach(pair.near, INGRESS)
        assert has_clsact(pair) and tc("filter", "show", "dev", pair.near_name, direction) == before
        assert tcfilter.query(pair.near, INGRESS) == 0


def test_a_priority_taken_by_another_kind_of_filter_is_a_busy_hook(load: Load, veth: MakeVeth, pins: Path) -> None:
    loaded, pair = load(SOURCE), veth()
    with loaded.program("zero") as zero, loaded.program("foreign") as foreign:
        foreign.pin(pins / "foreign")
        subprocess.run(["tc", "qdisc", "add", "dev", pair.near_name, "clsact"], check=True)
        words = ["protocol", "ip", "prio", "1", "bpf", "direct-action", "pinned", str(pins / "foreign")]
        subprocess.run(["tc", "filter", "add", "dev", pair.near_name, "ingress", *words], check=True)
        with pytest.raises(HookBusy, match=f"TC hook of netdev {pair.near}.*priority 1"):
            tcfilter.attach(zero, pair.near, INGRESS)
        tcfilter.detach(pair.near, INGRESS)
        assert len(tc("filter", "show", "dev", pair.near_name, "ingress")) > 0


def test_an_ingress_qdisc_of_somebody_else_is_a_busy_hook(load: Load, veth: MakeVeth) -> None:
    loaded, pair = load(SOURCE), veth()
    with loaded.program("zero") as zero:
        subprocess.run(["tc", "qdisc", "add", "dev", pair.near_name, "ingress"], check=True)
        for point in (INGRESS, EGRESS):  # the kernel would put an egress filter onto ingress without a word
            with pytest.raises(HookBusy, match="an ingress qdisc"):
                tcfilter.attach(zero, pair.near, point)
            assert tcfilter.query(pair.near, point) == 0
            tcfilter.detach(pair.near, point)
        assert any(qdisc["kind"] == "ingress" for qdisc in tc("qdisc", "show", "dev", pair.near_name))


def test_a_netdev_that_is_gone_has_no_filters(load: Load, veth: MakeVeth) -> None:
    loaded, pair = load(SOURCE), veth()
    with loaded.program("zero") as zero:
        tcfilter.attach(zero, pair.near, INGRESS)
        subprocess.run(["ip", "link", "del", pair.near_name], check=True)
        assert tcfilter.query(pair.near, INGRESS) == 0
        tcfilter.detach(pair.near, INGRESS)
        with pytest.raises(BpfError, match=f"netdev {pair.near}"):
            tcfilter.attach(zero, pair.near, INGRESS)
