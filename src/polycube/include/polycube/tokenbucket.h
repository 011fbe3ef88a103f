/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Token buckets: so many packets or bytes a second, and a burst. The bucket is one word, the moment at which it will be full again, which
 * is the virtual scheduling form of the generic cell rate algorithm (ITU-T I.371, annex A): equivalent to counting tokens, but with
 * nothing to refill and nothing to lock. The word lives in any map value (not in a per-CPU one, or each CPU would have a bucket of its
 * own) and is changed by compare-and-swap, so all CPUs share one bucket and together never pass more than it holds:
 *
 *	MAP(limits, HASH, __u32, struct { struct pcn_rate rate; struct pcn_tokenbucket bucket; }, 1024);
 *
 *	if (!pcn_tokens_take(&limit->bucket, &limit->rate, 1, bpf_ktime_get_ns()))
 *		return pcn_drop(pkt, RATE_EXCEEDED);
 *
 * A bucket of zeros is full. So is one whose moment has passed, which makes its entry as good as none: it may be deleted at any time.
 *
 * The price of a token is counted in 2^-12 ns, that of a packet or frame rounded to 1/16 ns. So a rate is kept to 0.1 % up to 10 million
 * packets or 1.25 GB (10 Gbit) a second, and to 1 % up to 100 million packets or 12.5 GB (100 Gbit), frames of 64 bytes and more.
 * polycube.toolkit.tokenbucket makes a rate from figures.
 */
#pragma once

#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#define PCN_TICK_SHIFT 4          /* ticks of 1/16 ns: 18 years before the clock wraps */
#define PCN_PRICE_SHIFT 8         /* a price is in 1/256 ticks */
#define PCN_MAX_TOKENS (1U << 20) /* one packet can't ask for more: longer than any frame, and the product below fits 64 bits */
#define PCN_TOKEN_TRIES 4         /* another CPU was faster: look again */

/* What a bucket allows; written by the control plane. Zeros: everything. */
struct pcn_rate {
	__u64 price; /* time that a token takes to come, in 1/256 ticks */
	__u64 burst; /* time that the bucket takes to fill, in ticks: what it holds, in tokens, times the price */
};

struct pcn_tokenbucket {
	__u64 full; /* when it is full again, in ticks of the clock of bpf_ktime_get_ns() */
};

static __always_inline __u64 pcn_token_ticks(const struct pcn_rate *rate, __u32 tokens)
{
	return (rate->price * tokens + (1 << (PCN_PRICE_SHIFT - 1))) >> PCN_PRICE_SHIFT;
}

/*
 * Takes `tokens` (1 for a packet, its length for bytes) out of the bucket at the time `now`, in ns: 1, or 0 if there are not as many, and
 * then takes none. While many CPUs fight for one bucket, each that has found enough tokens PCN_TOKEN_TRIES times in a row takes them
 * unseen: the bucket may owe for a moment what they carry, a packet each, and pays before anybody else gets some. The rate holds all the same.
 */
static __always_inline int pcn_tokens_take(struct pcn_tokenbucket *bucket, const struct pcn_rate *rate, __u32 tokens, __u64 now)
{
	__u64 ticks = pcn_token_ticks(rate, tokens);
	int i;

	if (!rate->price)
		return 1;
	now <<= PCN_TICK_SHIFT;
	for (i = 0; i < PCN_TOKEN_TRIES; i++) {
		__u64 full = *(volatile __u64 *)&bucket->full;
		__u64 from = (__s64)(full - now) > 0 ? full : now;

		if (tokens > PCN_MAX_TOKENS || from + ticks - now > rate->burst)
			return 0;
		if (__sync_val_compare_and_swap(&bucket->full, full, from + ticks) == full)
			return 1;
	}
	__sync_fetch_and_add(&bucket->full, ticks);
	return 1;
}

/* Puts tokens back that were taken for what was not sent in the end. */
static __always_inline void pcn_tokens_return(struct pcn_tokenbucket *bucket, const struct pcn_rate *rate, __u32 tokens)
{
	__sync_fetch_and_sub(&bucket->full, pcn_token_ticks(rate, tokens));
}
