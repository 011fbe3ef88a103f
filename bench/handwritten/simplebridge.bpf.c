// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * What somebody who needs just this one bridge would write for XDP: the yardstick for cubes/simplebridge. The same table, ageing, learning
 * and counters of ports and drops; no framework. Flooding is a broadcast through a device map.
 */
#include "handwritten.h"

TABLE(fdb, HASH, struct mac, struct station, 65536, 0);
TABLE(port_of, ARRAY, __u32, __u32, 1024, 0);
TABLE(failures, PERCPU_ARRAY, __u32, __u64, 1, 0);
TABLE(devices, DEVMAP, __u32, __u32, 128, 0);
TABLE(broadcast, DEVMAP_HASH, __u32, __u32, 128, 0);

__u32 aging_time = 300;

SEC("xdp") int bridge(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 now = bpf_ktime_get_ns() / 1000000000ULL, ifindex = ctx->ingress_ifindex, in, out, zero = 0;
	struct ethhdr *eth = data;
	struct station *known;
	struct mac mac;
	__u32 *port;

	if ((void *)(eth + 1) > end)
		return drop(0);
	port = bpf_map_lookup_elem(&port_of, &ifindex);
	if (!port || !*port)
		return drop(1);
	in = *port - 1;
	count(in, end - data, 0);
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
	count(out, end - data, 1);
	return bpf_redirect_map(&devices, out, XDP_ABORTED);
}

char _license[] SEC("license") = "GPL";
