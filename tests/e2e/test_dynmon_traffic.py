# SPDX-License-Identifier: Apache-2.0
"""Code injected into a running daemon: metrics of real traffic, errors that leave what runs alone, deaths, and life without clang."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scenes import bridge

from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host, Lab

CODE = """
MAP(echoes, HASH, __u32, __u64, 16);
MAP(frames, ARRAY, __u32, __u64, 1);

HANDLER(monitor)
{
	__u32 zero = 0, key = 0;
	__u64 one = 1, *count = bpf_map_lookup_elem(&frames, &zero);
	struct ethhdr *eth = pcn_at(ctx, 0, sizeof(*eth));
	struct iphdr *ip = pcn_at(ctx, sizeof(*eth), sizeof(*ip));

	if (count)
		__sync_fetch_and_add(count, 1);
	if (!ip || ip->version != 4 || ip->protocol != IPPROTO_ICMP)
		return pcn_pass(pkt);
	key = bpf_ntohl(ip->saddr);
	count = bpf_map_lookup_elem(&echoes, &key);
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		bpf_map_update_elem(&echoes, &key, &one, BPF_NOEXIST);
	return pcn_pass(pkt);
}
"""
HEADERS = "#include <linux/in.h>\n#include <linux/ip.h>\n"
SWAPPED = {"name": "echoes_total", "map-name": "echoes", "extraction-options": {"swap-on-read": True}}
METRICS = [SWAPPED, {"name": "frames_total", "map-name": "frames", "open-metrics-metadata": {"help": "All frames", "type": "Counter"}}]
PATH = "dynmon/mon1/dataplane-config/ingress-path"


@pytest.fixture
def scene(daemon: Daemon, lab: Lab) -> Iterator[tuple[Daemon, Host, Host]]:
    """Two hosts on a bridge, a monitor on the first one's port."""
    yield arranged(daemon, lab)
    if not daemon.running:
        daemon.start()
    daemon.delete("simplebridge/br1")
    daemon.delete("dynmon/mon1")


def arranged(daemon: Daemon, lab: Lab) -> tuple[Daemon, Host, Host]:
    one, two = lab.some(2)
    bridge(daemon, "br1", [one, two])
    daemon.post("dynmon/mon1", {"type": "TC"})
    daemon.post("attach", {"cube": "mon1", "port": "br1:p1"})
    return daemon, one, two


def inject(daemon: Daemon, code: str) -> Any:
    return daemon.rest("PUT", PATH, {"name": "echo", "code": HEADERS + code, "metric-configs": METRICS})


def read(daemon: Daemon, name: str) -> Any:
    return json.loads(daemon.get(f"dynmon/mon1/metrics/ingress-metrics/{name}")["value"])


def echoes(daemon: Daemon, host: Host) -> int:
    key = int.from_bytes(bytes(map(int, host.ipv4.split("."))), "big")
    return sum(one["value"] for one in read(daemon, "echoes_total") if one["key"] == key)


def test_injected_code_counts_and_a_swap_hands_over_each_packet_once(scene: tuple[Daemon, Host, Host]) -> None:
    daemon, one, two = scene
    assert inject(daemon, CODE).status in (200, 201)
    assert one.ping(two, count=5).received == 5
    assert echoes(daemon, one) == 5
    assert echoes(daemon, one) == 0
    assert one.ping(two, count=2).received == 2
    assert echoes(daemon, one) == 2
    assert read(daemon, "frames_total")[0] >= 7
    assert "frames_total " in daemon.get("dynmon/mon1/open-metrics")
    assert daemon.get("dynmon/mon1")["dataplane-config"]["ingress-path"]["name"] == "echo"


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (CODE.replace("count = bpf_map", "count = map", 1), "cannot be compiled: line 10, column"),
        (CODE.replace("!ip ||", ""), "cannot be loaded for tc: line 16: R"),
        (CODE.replace("HANDLER(monitor)", "int handle_rx(struct CTXTYPE *ctx)"), "line 7, column 5: handle_rx is upstream's"),
        (CODE.replace("(frames,", "(other,").replace("&frames", "&other"), "metric-configs/frames_total/map-name cannot be frames"),
    ],
)
def test_an_error_is_answered_and_what_runs_goes_on(scene: tuple[Daemon, Host, Host], broken: str, said: str) -> None:
    daemon, one, two = scene
    inject(daemon, CODE)
    answer = inject(daemon, broken)
    assert answer.status == 400
    errors = answer.data["ietf-restconf:errors"]["error"]
    assert any(said in error["error-message"] for error in errors), errors
    assert all(error["error-path"].startswith("/mon1/dataplane-config/ingress-path") for error in errors)
    assert one.ping(two, count=3).received == 3
    assert echoes(daemon, one) == 3
    assert daemon.get(PATH)["code"] == HEADERS + CODE


@pytest.fixture
def no_clang(daemon: Daemon) -> Iterator[None]:
    """From its next start on, the daemon finds no clang."""
    daemon.environment["CLANG"] = "no-such-clang"
    yield
    del daemon.environment["CLANG"]
    daemon.restart()


def test_counters_go_on_after_a_kill_and_restored_code_needs_no_clang(scene: tuple[Daemon, Host, Host], no_clang: None) -> None:
    daemon, one, two = scene
    inject(daemon, CODE)
    assert one.ping(two, count=3).received == 3
    daemon.kill()
    assert one.ping(two, count=2).received == 2  # nobody is there, and it is counted
    daemon.start()
    assert echoes(daemon, one) == 5
    answer = inject(daemon, CODE + "\n")
    assert answer.status == 400
    assert "needs no-such-clang, which is not on this machine: install the package clang" in answer.text
    daemon.stop()
    daemon.wipe()  # as a reboot does
    daemon.start()
    assert one.ping(two, count=2).received == 2
    assert echoes(daemon, one) == 2


def test_without_its_cache_and_clang_the_rest_of_the_cube_is_restored(
    scene: tuple[Daemon, Host, Host], no_clang: None, tmp_path: Path
) -> None:
    daemon, one, two = scene
    inject(daemon, CODE)
    daemon.kill()
    kept, daemon.cache = daemon.cache, tmp_path
    daemon.start()
    daemon.cache = kept
    assert "its own code is left out: mon1/dataplane-config/ingress-path/code cannot be compiled" in daemon.log()
    assert one.ping(two, count=2).received == 2
    assert daemon.get(PATH)["code"] == HEADERS + CODE


def test_code_that_goes_takes_its_maps_along(scene: tuple[Daemon, Host, Host]) -> None:
    daemon, one, two = scene
    inject(daemon, CODE)
    assert any(pin.endswith("/ingress_echoes_swap") for pin in daemon.pins())
    daemon.delete(PATH)
    assert not any("/ingress_echoes" in pin for pin in daemon.pins())
    assert daemon.get("dynmon/mon1/metrics").get("ingress-metrics") is None
    assert one.ping(two, count=1).received == 1
