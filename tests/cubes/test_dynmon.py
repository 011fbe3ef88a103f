# SPDX-License-Identifier: Apache-2.0
"""dynmon: injected code in both hooks, its maps as data, swapping while packets come, refusals."""

import asyncio
import json
import threading

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether

from polycube.cubes.dynmon.cube import Dynmon, _paths
from polycube.cubes.dynmon.dialect import foreign
from polycube.cubes.dynmon.export import Entry, open_metrics
from polycube.cubes.dynmon.model import DynmonConfig, OpenMetricsMetadata
from polycube.model import ModelError, load
from polycube.testing.control import ControlPlane
from polycube.testing.harness import CodeError, Hook

ETHER = {"src": "02:00:00:00:00:0a", "dst": "02:00:00:00:00:0b"}
V4 = Ether(**ETHER) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1000, dport=53) / b"question"
V6 = Ether(**ETHER) / IPv6(src="2001:db8::1", dst="2001:db8::2") / TCP(sport=1000, dport=80)

FLOWS = """
#include <polycube/parse.h>

struct flow {
	union {
		__u32 words[4];
		__u8 bytes[16];
	} source;
	struct {
		__u16 l4;
		__u8 padding[2];
	} inner;
};
struct traffic {
	__u64 packets;
	__u64 bytes;
};
enum family { NONE, INET, INET6 };
struct last {
	enum family family;
	char note[8];
};

MAP(flows, HASH, struct flow, struct traffic, 64);
MAP(latest, ARRAY, __u32, struct last, 1);

HANDLER(monitor)
{
	struct traffic one = {1, pkt->len}, *seen;
	struct flow key = {};
	__u32 zero = 0;
	struct last *last = bpf_map_lookup_elem(&latest, &zero);

	if (pcn_parse(ctx, pkt) || !last)
		return pcn_drop(pkt, PCN_DROP_POLICY);
	last->family = pkt->proto == bpf_htons(ETH_P_IP) ? INET : pkt->proto == bpf_htons(ETH_P_IPV6) ? INET6 : NONE;
	memcpy(last->note, "seen", 5);
	if (last->family == INET) {
		struct iphdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));

		if (ip)
			key.source.words[0] = ip->saddr;
	} else if (last->family == INET6) {
		struct ipv6hdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));

		if (ip)
			memcpy(key.source.bytes, &ip->saddr, 16);
	}
	key.inner.l4 = pkt->l4_proto;
	seen = bpf_map_lookup_elem(&flows, &key);
	if (seen) {
		seen->packets++;
		seen->bytes += pkt->len;
	} else {
		bpf_map_update_elem(&flows, &key, &one, BPF_ANY);
	}
	return pcn_pass(pkt);
}
"""
TYPES = """
MAP(array, ARRAY, __u32, __u32, 2);
MAP(array_cpu, PERCPU_ARRAY, __u32, __u64, 1);
MAP(hash_cpu, PERCPU_HASH, __u32, __u64, 4);
MAP(lru, LRU_HASH, __u32, __s32, 4);
MAP(lru_cpu, LRU_PERCPU_HASH, __u32, __u64, 4);
MAP_KEYLESS(queue, QUEUE, __u32, 4);
MAP_KEYLESS(stack, STACK, __u32, 4);
MAP_RING(events, 4096);

HANDLER(monitor)
{
	__u32 zero = 0, one = 1, *count = bpf_map_lookup_elem(&array, &one);
	__u64 *cpu = bpf_map_lookup_elem(&array_cpu, &zero), first = 1;
	__s32 negative = -1;

	if (!count || !cpu)
		return pcn_pass(pkt);
	*count += 1;
	*cpu += 1;
	bpf_map_update_elem(&hash_cpu, count, &first, BPF_ANY);
	bpf_map_update_elem(&lru, count, &negative, BPF_ANY);
	bpf_map_update_elem(&lru_cpu, count, &first, BPF_ANY);
	bpf_map_push_elem(&queue, count, 0);
	bpf_map_push_elem(&stack, count, 0);
	return pcn_pass(pkt);
}
"""
COUNT = """
MAP(packets, ARRAY, __u32, __u64, 1);
MAP(sizes, HASH, __u32, __u64, 64);

HANDLER(monitor)
{
	__u32 zero = 0, size = pkt->len;
	__u64 *count = bpf_map_lookup_elem(&packets, &zero), *known = bpf_map_lookup_elem(&sizes, &size), one = 1;

	if (count)
		__sync_fetch_and_add(count, 1);
	if (known)
		__sync_fetch_and_add(known, 1);
	else
		bpf_map_update_elem(&sizes, &size, &one, BPF_NOEXIST);
	return pcn_pass(pkt);
}
"""
BCC = """
BPF_HASH(counter, u32, u64);

static int handle_rx(struct CTXTYPE *ctx, struct pkt_metadata *md) { // BPF_ARRAY( in a comment
	u32 key = 0;
	u64 *n = counter.lookup(&key);
	return RX_OK;
}
"""


def configured(**paths):
    return load(DynmonConfig, {"name": "mon1", **body_of(**paths)})


def body_of(**paths):
    """A configuration with code, and metrics {name: (map, options)} for each direction."""
    body = {}
    for direction, (code, metrics) in paths.items():
        configs = [
            {
                "name": name,
                "map-name": map,
                "extraction-options": options,
                "open-metrics-metadata": {"help": "Of a test.", "type": "Counter"},
            }
            for name, (map, options) in metrics.items()
        ]
        body[f"{direction}-path"] = {"name": "test", "code": code, "metric-configs": configs}
    return {"dataplane-config": body}


@pytest.fixture
def monitor(cube):
    """Makes a cube under test, and the service over its maps."""

    def make(**paths):
        under_test = cube(Dynmon.function_of(configured(**paths)))
        return under_test, ControlPlane(under_test, Dynmon, body_of(**paths), "mon1").service

    return make


def metrics(control, *path):
    """What a client reads: direction -> metric -> contents."""
    state = asyncio.run(control.state_at(("metrics", *path)))["metrics"]
    return {direction: {one["name"]: json.loads(one["value"]) for one in listed} for direction, listed in state.items()}


def open_text(control):
    return asyncio.run(control.state_at(("open-metrics",)))["open-metrics"]


def samples(text):
    return {(one.name, *sorted(one.labels.items())): one.value for family in text_string_to_metric_families(text) for one in family.samples}


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_nested_structs_unions_enums_and_text_become_data(monitor, direction):
    mon, control = monitor(**{direction: (FLOWS, {"flows": ("flows", {}), "latest": ("latest", {})})})
    for packet in (V4, V4, V6):
        mon.send(packet, direction=direction).forwarded(packet=packet)
    found = metrics(control)[f"{direction}-metrics"]
    by_protocol = {one["key"]["inner"]["l4"]: one for one in found["flows"]}
    assert by_protocol[17]["key"]["source"]["bytes"][:4] == [10, 0, 0, 1]
    assert by_protocol[17]["key"]["source"]["words"][0] == int.from_bytes(bytes([10, 0, 0, 1]), "little")
    assert by_protocol[17]["value"] == {"packets": 2, "bytes": 2 * len(V4)}
    assert by_protocol[6]["key"]["source"]["bytes"][:4] == [0x20, 0x01, 0x0D, 0xB8]
    assert found["latest"] == [{"family": "INET6", "note": "seen"}]


def test_the_code_decides_about_malformed_frames_and_tags(monitor):
    mon, control = monitor(ingress=(FLOWS, {"flows": ("flows", {})}))
    mon.send(Ether(**ETHER) / Dot1Q(vlan=7) / V4[IP]).forwarded()
    mon.send(Ether(**ETHER, type=0x0800) / b"\x45\x00").dropped("policy")
    mon.send(Ether(**ETHER, type=0x0800) / b"\x45\x00", direction="egress").forwarded()
    assert len(metrics(control)["ingress-metrics"]["flows"]) == 1


def test_all_types_of_maps_are_read_and_some_can_only_be_taken(monitor):
    names = ("array", "array_cpu", "hash_cpu", "lru", "lru_cpu", "queue", "stack")
    mon, control = monitor(ingress=(TYPES, {name: (name, {}) for name in names}))
    for _ in range(3):
        mon.send(V4).forwarded()
    found = metrics(control)["ingress-metrics"]
    assert found["array"] == [0, 3]
    assert sum(found["array_cpu"][0]) == 3
    assert sorted(one["key"] for one in found["hash_cpu"]) == [1, 2, 3]
    assert all(sum(one["value"]) == 1 for one in found["hash_cpu"])
    assert {one["key"]: one["value"] for one in found["lru"]} == {1: -1, 2: -1, 3: -1}
    assert sorted(one["key"] for one in found["lru_cpu"]) == [1, 2, 3]
    assert (found["queue"], found["stack"]) == ([1, 2, 3], [3, 2, 1])
    again = metrics(control)["ingress-metrics"]
    assert (again["array"], again["queue"], again["stack"]) == ([0, 3], [], [])


def test_what_is_read_and_emptied_is_empty(monitor):
    names = ("array", "array_cpu", "hash_cpu", "lru", "lru_cpu")
    mon, control = monitor(egress=(TYPES, {name: (name, {"empty-on-read": True}) for name in names}))
    mon.send(V4, direction="egress").forwarded()
    first, second = metrics(control)["egress-metrics"], metrics(control)["egress-metrics"]
    assert first["array"] == [0, 1]
    assert len(first["hash_cpu"]) == len(first["lru"]) == len(first["lru_cpu"]) == 1
    assert second["array"] == [0, 0]
    assert sum(second["array_cpu"][0]) == 0
    assert second["hash_cpu"] == second["lru"] == second["lru_cpu"] == []


def test_state_that_nobody_asks_for_empties_nothing(monitor):
    mon, control = monitor(ingress=(COUNT, {"packets": ("packets", {"empty-on-read": True})}))
    mon.send(V4)
    for state in (control.state(), asyncio.run(control.state_at(()))):
        assert [one["value"] for one in state["metrics"]["ingress-metrics"]] == ["[1]"]
        assert "packets_total 1" in state["open-metrics"]
    assert metrics(control, "ingress-metrics", "packets") == {"ingress-metrics": {"packets": [1]}}


def test_swapped_maps_lose_no_update_while_packets_come(monitor):
    swap = {"swap-on-read": True}
    mon, control = monitor(ingress=(COUNT, {"packets": ("packets", swap), "sizes": ("sizes", swap)}))
    program, burst = mon.program("ingress_tail" if mon.stage.hook == Hook.TC else "ingress"), 40_000
    frames = [bytes(V4) + bytes(extra) for extra in range(3)]
    enough, bursts = threading.Event(), 0

    def traffic():
        nonlocal bursts
        while not enough.is_set():
            program.test_run(frames[bursts % 3], repeat=burst)
            bursts += 1

    def read():
        found = metrics(control)["ingress-metrics"]
        return sum(found["packets"]), sum(one["value"] for one in found["sizes"])

    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        seen = []
        while thread.is_alive() and sum(packets > 0 for packets, _ in seen) < 15:
            seen.append(read())
    finally:
        enough.set()
        thread.join()
    seen += [read(), read()]  # both sets of maps
    assert [sum(column) for column in zip(*seen, strict=True)] == [bursts * burst] * 2


def test_what_is_not_read_in_a_swap_comes_with_its_next_reading(monitor):
    swap = {"swap-on-read": True}
    mon, control = monitor(ingress=(COUNT, {"packets": ("packets", swap), "sizes": ("sizes", swap)}))
    mon.send(V4)
    assert metrics(control, "ingress-metrics", "packets")["ingress-metrics"]["packets"] == [1]
    mon.send(V4)
    seen = [metrics(control)["ingress-metrics"]["sizes"] for _ in range(2)]
    assert sum(one["value"] for part in seen for one in part) == 2


def test_both_directions_have_maps_of_their_own(monitor):
    mon, control = monitor(ingress=(COUNT, {"in": ("packets", {})}), egress=(COUNT, {"out": ("packets", {})}))
    mon.send(V4)
    mon.send(V4, direction="egress")
    mon.send(V6, direction="egress")
    assert metrics(control) == {"ingress-metrics": {"in": [1]}, "egress-metrics": {"out": [2]}}


def test_open_metrics_is_what_prometheus_reads(monitor):
    mon, control = monitor(ingress=(FLOWS, {"flow": ("flows", {})}), egress=(COUNT, {"packets_total": ("packets", {})}))
    mon.send(V4)
    mon.send(V4, direction="egress")
    text = open_text(control)
    assert text.endswith("# EOF\n")
    found = samples(text)
    assert found["packets_total",] == 1
    key = (("inner_l4", "17"), ("inner_padding", "0.0"), ("source_bytes", "10.0.0.1" + ".0" * 12))
    words = (("source_words", f"{int.from_bytes(bytes([10, 0, 0, 1]), 'little')}.0.0.0"),)
    assert found["flow_total", *key[:2], ("member", "bytes"), *key[2:], *words] == len(V4)
    assert {name[0] for name in found} == {"flow_total", "packets_total"}


def test_a_metric_of_both_directions_is_told_apart(monitor):
    mon, control = monitor(ingress=(COUNT, {"packets": ("packets", {})}), egress=(COUNT, {"packets_total": ("packets", {})}))
    mon.send(V4)
    mon.send(V4, direction="egress")
    mon.send(V6, direction="egress")
    assert samples(open_text(control)) == {("packets_total", ("direction", "ingress")): 1, ("packets_total", ("direction", "egress")): 2}


def about(type, **labels):
    listed = [{"name": name, "value": value} for name, value in labels.items()]
    return OpenMetricsMetadata.model_validate({"help": 'What "it"\nmeans', "type": type, "labels": listed})


def test_types_of_open_metrics():
    entries = [Entry([[1, 2], [3, 4]], percpu=True, key={"a": 1, "b": [1, 2]})]
    text = open_metrics(
        [
            ("ingress", "calls_total", about("Counter", where="in"), [Entry([1, 2], percpu=True)]),
            ("ingress", "load", about("Gauge"), [Entry([1, 2], percpu=True)]),
            ("ingress", "table", about("Untyped"), entries),
            ("ingress", "sizes", about("Histogram"), [Entry([count], index=i) for i, count in enumerate((4, 0, 2))]),
            ("ingress", "times", about("Summary", where="in"), [Entry([{"sum": 10, "count": 4, "other": 1}])]),
        ]
    )
    found = samples(text)
    assert found == {
        ("calls_total", ("where", "in")): 3,
        ("load", ("cpu", "0")): 1,
        ("load", ("cpu", "1")): 2,
        ("table", ("a", "1"), ("b", "1.2"), ("element", "0")): 4,
        ("table", ("a", "1"), ("b", "1.2"), ("element", "1")): 6,
        ("sizes_bucket", ("le", "1.0")): 4,
        ("sizes_bucket", ("le", "2.0")): 4,
        ("sizes_bucket", ("le", "+Inf")): 6,
        ("times_count", ("where", "in")): 4,
        ("times_sum", ("where", "in")): 10,
    }


def test_upstreams_dialect_is_refused_line_by_line():
    said = [(one.line, one.message.split(" is ")[0]) for one in foreign(BCC)]
    assert said == [(2, "BPF_HASH"), (4, "handle_rx"), (4, "struct CTXTYPE"), (4, "struct pkt_metadata"), (6, "lookup"), (7, "RX_OK")]
    with pytest.raises(ModelError, match=r"code cannot be compiled: line 2, column 1: BPF_HASH is BCC's: write MAP\(name"):
        Dynmon.code(configured(ingress=(BCC, {})))


def test_metrics_need_a_map_that_can_be_read(cube):
    for name, said in (("arrray", "the code has no such map; did you mean array"), ("events", "of type RINGBUF, whose entries can't")):
        mon = cube(Dynmon.function_of(configured(ingress=(TYPES, {}))))
        with pytest.raises(ModelError, match=f"metric-configs/x/map-name cannot be {name}: .*{said}"):
            ControlPlane(mon, Dynmon, body_of(ingress=(TYPES, {"x": (name, {})})))


def test_swapping_needs_a_map_of_the_code(cube):
    config = configured(ingress=(COUNT, {"x": ("nothing", {"swap-on-read": True})}))
    assert dict(_paths(config))
    with pytest.raises(CodeError, match="it defines no map nothing"):
        cube(Dynmon.function_of(config))
