// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * What somebody would write who needs just this chain, as one XDP program: a bridge, a filter, another bridge and a forwarder by table, from
 * the first netdev to the second, with the tables and counters of the cubes. Variants show what specialising could gain at most: entries of
 * tables that are code (ACTIONS_AS_CODE, STATIONS_AS_CODE, DEVICES_AS_CODE: the ifindex), the likely way straight on (LAYOUT); and what is
 * lost when each function looks at the frame anew (READ_EACH).
 */
#include "handwritten.h"

#ifdef LAYOUT
#define likely(_condition) __builtin_expect(!!(_condition), 1)
#else
#define likely(_condition) (_condition)
#endif

#ifdef ACTIONS_AS_ARRAY
#define ACTIONS_TYPE ARRAY
#else
#define ACTIONS_TYPE HASH
#endif

struct action {
	__u32 verb, port;
};

TABLE(fdb1, HASH, struct mac, struct station, 65536, BPF_F_NO_PREALLOC);
TABLE(fdb2, HASH, struct mac, struct station, 65536, BPF_F_NO_PREALLOC);
TABLE(actions, ACTIONS_TYPE, __u32, struct action, 1024, 0);
TABLE(side_of, ARRAY, __u32, __u32, 65536, 0); /* ifindex -> 1 or 2 */
TABLE(devices, DEVMAP, __u32, __u32, 2, 0);

struct frame {
	void *data, *end;
};

static __always_inline struct frame read(struct xdp_md *ctx)
{
	__u64 data = *(volatile __u32 *)&ctx->data, end = *(volatile __u32 *)&ctx->data_end;

	return (struct frame){(void *)data, (void *)end};
}

#ifdef READ_EACH
#define LOOK(_frame) (_frame) = read(ctx)
#else
#define LOOK(_frame)
#endif

/* Whether a frame from port 0 goes out of port 1. */
static __always_inline int bridge(void *fdb, const struct frame *frame)
{
	struct station *known, first = {.seen = bpf_ktime_get_ns() / 1000000000ULL};
	struct ethhdr *eth = frame->data;
	struct mac mac;

	if (!likely((void *)(eth + 1) <= frame->end))
		return 0;
	if (likely(!(eth->h_source[0] & 1))) {
		mac.high = *(__u32 *)eth->h_source;
		mac.low = *(__u16 *)(eth->h_source + 4);
		known = bpf_map_lookup_elem(fdb, &mac);
		if (!likely(known)) {
			bpf_map_update_elem(fdb, &mac, &first, BPF_NOEXIST);
		} else if (!likely(known->flags & 1 || (known->port == 0 && known->seen == first.seen))) {
			known->port = 0;
			known->seen = first.seen;
		}
	}
	if (!likely(!(eth->h_dest[0] & 1)))
		return 0;
	mac.high = *(__u32 *)eth->h_dest;
	mac.low = *(__u16 *)(eth->h_dest + 4);
#ifdef STATIONS_AS_CODE
	return mac.high == 0x00000002 && mac.low == 0x020b;
#else
	known = bpf_map_lookup_elem(fdb, &mac);
	return likely(known && (known->flags & 1 || (__s32)(first.seen - known->seen) <= 300) && known->port == 1);
#endif
}

SEC("xdp.frags") int mixture(struct xdp_md *ctx)
{
	__u32 ifindex = ctx->ingress_ifindex, len;
	__u32 *side = bpf_map_lookup_elem(&side_of, &ifindex);
	struct frame frame = read(ctx);

	if (!likely(side && *side == 1))
		return drop(1);
	len = frame.end - frame.data;
	count(0, len, 0);
	if (!likely(bridge(&fdb1, &frame)))
		return drop(2);
	count(1, len, 1);
	count(2, len, 0);
	count(3, len, 1);
	count(4, len, 0);
	LOOK(frame);
	if (!likely(bridge(&fdb2, &frame)))
		return drop(2);
	count(5, len, 1);
	count(6, len, 0);
#ifndef ACTIONS_AS_CODE
	{
		__u32 in = 0;
		struct action *action = bpf_map_lookup_elem(&actions, &in);

		if (!likely(action && action->verb == 2 && action->port == 1))
			return drop(3);
	}
#endif
	count(7, len, 1);
#ifdef DEVICES_AS_CODE
	return bpf_redirect(DEVICES_AS_CODE, 0);
#else
	return bpf_redirect_map(&devices, 1, XDP_ABORTED);
#endif
}

char _license[] SEC("license") = "GPL";
