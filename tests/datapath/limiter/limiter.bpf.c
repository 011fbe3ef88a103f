// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Passes on what a token bucket allows; the time is what the frame says, or the clock. */
#include <polycube/cube.h>
#include <polycube/tokenbucket.h>

DROPS(EXCEEDED);

struct limiter_limit {
	struct pcn_rate rate;
	struct pcn_tokenbucket bucket;
	__u64 passed;
};

struct limiter_order {
	__u64 now;
	__u32 tokens;
	__u32 unused; /* tokens to put back if there were enough */
} __attribute__((packed));

MAP(limits, ARRAY, __u32, struct limiter_limit, 1);
CFG(__u32, by_clock);

HANDLER(ingress)
{
	struct limiter_order *order = pcn_at(ctx, ETH_HLEN, sizeof(*order));
	__u32 zero = 0;
	struct limiter_limit *limit = bpf_map_lookup_elem(&limits, &zero);
	__u32 unused;

	if (!order || !limit)
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	unused = order->unused;
	if (!pcn_tokens_take(&limit->bucket, &limit->rate, order->tokens, by_clock ? bpf_ktime_get_ns() : order->now))
		return pcn_drop(pkt, EXCEEDED);
	__sync_fetch_and_add(&limit->passed, 1);
	if (unused)
		pcn_tokens_return(&limit->bucket, &limit->rate, unused);
	return pcn_pass(pkt);
}
