// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * What somebody would write who needs just these functions in a row, as one XDP program: FUNCTIONS times "count what comes in and what
 * goes out, send it out of the other port", and a redirect at the end. The counters are those of the cubes: packets and bytes by port.
 */
#include "handwritten.h"

TABLE(devices, DEVMAP, __u32, __u32, 2, 0);
TABLE(side_of, ARRAY, __u32, __u32, 65536, 0); /* ifindex -> 1 or 2 */

SEC("xdp.frags") int chain(struct xdp_md *ctx)
{
	__u32 len = ctx->data_end - ctx->data, ifindex = ctx->ingress_ifindex;
	__u32 *side = bpf_map_lookup_elem(&side_of, &ifindex);
	int i;

	if (!side || !*side)
		return drop(1);
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
