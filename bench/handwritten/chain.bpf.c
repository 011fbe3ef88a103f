// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * What somebody would write who needs just these functions in a row, as one XDP program: FUNCTIONS times "count what comes in and what
 * goes out, send it out of the other port", and a redirect at the end. The counters are those of the cubes: packets and bytes by port.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct counter {
	__u64 rx_packets, rx_bytes, tx_packets, tx_bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 128);
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u32);
} side_of SEC(".maps"); /* ifindex -> 1 or 2 */

static __always_inline void count(__u32 port, __u32 len, int out)
{
	struct counter *counter = bpf_map_lookup_elem(&counters, &port);

	if (!counter)
		return;
	if (out) {
		counter->tx_packets++;
		counter->tx_bytes += len;
	} else {
		counter->rx_packets++;
		counter->rx_bytes += len;
	}
}

SEC("xdp.frags") int chain(struct xdp_md *ctx)
{
	__u32 len = ctx->data_end - ctx->data, ifindex = ctx->ingress_ifindex;
	__u32 *side = bpf_map_lookup_elem(&side_of, &ifindex);
	int i;

	if (!side || !*side)
		return XDP_DROP;
	if (*side == 1) {
#pragma unroll
		for (i = 0; i < FUNCTIONS; i++) {
			count(2 * i, len, 0);
			count(2 * i + 1, len, 1);
		}
		return bpf_redirect_map(&devices, 1, XDP_ABORTED);
	}
#pragma unroll
	for (i = FUNCTIONS - 1; i >= 0; i--) {
		count(2 * i + 1, len, 0);
		count(2 * i, len, 1);
	}
	return bpf_redirect_map(&devices, 0, XDP_ABORTED);
}

char _license[] SEC("license") = "GPL";
