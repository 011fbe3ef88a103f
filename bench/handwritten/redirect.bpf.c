// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* From one netdev to another, and nothing else: what no function in XDP can be faster than. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps"); /* by where a frame came from */

SEC("xdp") int redirect(struct xdp_md *ctx)
{
	return bpf_redirect_map(&devices, ctx->ingress_ifindex, XDP_ABORTED);
}

char _license[] SEC("license") = "GPL";
