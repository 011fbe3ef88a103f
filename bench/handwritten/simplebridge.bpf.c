// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * What somebody who needs just this one bridge would write for XDP: the yardstick for cubes/simplebridge. The same table, ageing, learning
 * and counters of ports and drops; no framework. Flooding is a broadcast through a device map.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_helpers.h>

struct mac {
	__u32 high;
	__u32 low;
};

struct station {
	__u32 seen;
	__u16 port;
	__u16 flags;
};

struct counter {
	__u64 rx_packets, rx_bytes, tx_packets, tx_bytes;
};

#define TABLE(_name, _type, _key, _value, _max)                                                                                      \
	struct {                                                                                                                     \
		__uint(type, BPF_MAP_TYPE_##_type);                                                                                  \
		__uint(max_entries, _max);                                                                                           \
		__type(key, _key);                                                                                                   \
		__type(value, _value);                                                                                               \
	} _name SEC(".maps")

TABLE(fdb, HASH, struct mac, struct station, 65536);
TABLE(port_of, ARRAY, __u32, __u32, 1024);
TABLE(counters, PERCPU_ARRAY, __u32, struct counter, 128);
TABLE(drops, PERCPU_ARRAY, __u32, __u64, 8);
TABLE(failures, PERCPU_ARRAY, __u32, __u64, 1);
TABLE(devices, DEVMAP, __u32, __u32, 128);
TABLE(broadcast, DEVMAP_HASH, __u32, __u32, 128);

__u32 aging_time = 300;

static __always_inline int drop(__u32 reason)
{
	__u64 *count = bpf_map_lookup_elem(&drops, &reason);

	if (count)
		(*count)++;
	return XDP_DROP;
}

SEC("xdp") int bridge(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 now = bpf_ktime_get_ns() / 1000000000ULL, ifindex = ctx->ingress_ifindex, in, out, zero = 0;
	struct ethhdr *eth = data;
	struct station *known;
	struct counter *counter;
	struct mac mac;
	__u32 *port;

	if ((void *)(eth + 1) > end)
		return drop(0);
	port = bpf_map_lookup_elem(&port_of, &ifindex);
	if (!port || !*port)
		return drop(1);
	in = *port - 1;
	counter = bpf_map_lookup_elem(&counters, &in);
	if (counter) {
		counter->rx_packets++;
		counter->rx_bytes += end - data;
	}
	if (!(eth->h_source[0] & 1)) {
		mac.high = *(__u32 *)eth->h_source;
		mac.low = *(__u16 *)(eth->h_source + 4);
		known = bpf_map_lookup_elem(&fdb, &mac);
		if (!known) {
			struct station station = {.seen = now, .port = in};

			if (bpf_map_update_elem(&fdb, &mac, &station, BPF_NOEXIST) == -7) {
				__u64 *failed = bpf_map_lookup_elem(&failures, &zero);

				if (failed)
					(*failed)++;
			}
		} else if (!(known->flags & 1) && (known->port != in || known->seen != now)) {
			known->port = in;
			known->seen = now;
		}
	}
	if (eth->h_dest[0] & 1)
		return bpf_redirect_map(&broadcast, 0, BPF_F_BROADCAST | BPF_F_EXCLUDE_INGRESS);
	mac.high = *(__u32 *)eth->h_dest;
	mac.low = *(__u16 *)(eth->h_dest + 4);
	known = bpf_map_lookup_elem(&fdb, &mac);
	if (!known || (!(known->flags & 1) && now - known->seen > aging_time))
		return bpf_redirect_map(&broadcast, 0, BPF_F_BROADCAST | BPF_F_EXCLUDE_INGRESS);
	out = known->port;
	if (out == in)
		return drop(2);
	counter = bpf_map_lookup_elem(&counters, &out);
	if (counter) {
		counter->tx_packets++;
		counter->tx_bytes += end - data;
	}
	return bpf_redirect_map(&devices, out, XDP_ABORTED);
}

char _license[] SEC("license") = "GPL";
