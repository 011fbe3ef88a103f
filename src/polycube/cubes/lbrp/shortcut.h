/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Shortcuts, for flows of UDP: what became of a packet of theirs. The way to a session are several places anywhere in memory, of which each is
 * known by the one before only, and that is what a packet waits for; a shortcut is one place. Each CPU has its own.
 *
 * It holds for the epoch of 64 ticks (64 to 640 ms) in which it was made, so that each flow is looked for in the table at least as often, which
 * keeps its session there; and no longer than until the control plane takes sessions out of the table (`removals`). Of two flows that share a place
 * with others, the first one keeps it: so of more flows than there are places, some still have theirs.
 */
#pragma once

#include "lbrp.h"

/* What a shortcut is found by. */
struct lbrp_flow {
	__u64 address[4]; /* source and destination as they are in the packet: IPv4 one word, IPv6 four */
	__u32 ports;
	__u32 epoch;
	__u32 removals;
};

MAP(removals, ARRAY, __u32, __u32, 1); /* a number that changes when sessions are removed */

/* The word pairs of a flow are multiplied (as in classify_flows.h): no product waits for another. */
static __always_inline __u64 shortcut_hash(const struct lbrp_flow *flow, int words)
{
	__u64 hash = (flow->address[0] + 0x243f6a8885a308d3ULL) * (flow->ports + 0x13198a2e03707345ULL);

	if (words > 1) {
		hash += (flow->address[1] + 0xa4093822299f31d1ULL) * (flow->address[3] + 0x082efa98ec4e6c89ULL);
		hash += flow->address[2] * 0x452821e638d01377ULL;
	}
	return hash;
}

/*
 * Those of an IP version, whose addresses are so many words: 1 << _bits places for each CPU. Not in a per-CPU map, whose values may begin
 * anywhere: here two places of IPv4 are one line of the cache. Defines shortcut4_find(): the way of a flow, or NULL; and shortcut4_make().
 */
#define SHORTCUTS(_version, _words, _bits)                                                                                           \
	struct lbrp_shortcut##_version {                                                                                             \
		__u64 address[_words];                                                                                               \
		__u64 becomes[_words];                                                                                               \
		__u32 ports;                                                                                                         \
		__u32 become;                                                                                                        \
		__u32 epoch;                                                                                                         \
		__u32 removals;                                                                                                      \
	};                                                                                                                           \
                                                                                                                                     \
	struct lbrp_shortcuts##_version {                                                                                            \
		struct lbrp_shortcut##_version place[1 << (_bits)];                                                                  \
	};                                                                                                                           \
                                                                                                                                     \
	MAP_FLAGS(shortcuts##_version, ARRAY, __u32, struct lbrp_shortcuts##_version, 16, BPF_F_MMAPABLE);                           \
                                                                                                                                     \
	/* The first of its two places. */                                                                                           \
	static __always_inline struct lbrp_shortcut##_version *shortcut##_version##_place(const struct lbrp_flow *flow)              \
	{                                                                                                                            \
		__u64 number = pcn_opaque(shortcut_hash(flow, _words) >> (64 - (_bits)) & ~1ULL);                                    \
		__u32 cpu = bpf_get_smp_processor_id();                                                                              \
		struct lbrp_shortcuts##_version *own = bpf_map_lookup_elem(&shortcuts##_version, &cpu);                              \
                                                                                                                                     \
		return own && number < (1 << (_bits)) - 1 ? &own->place[number] : 0;                                                 \
	}                                                                                                                            \
                                                                                                                                     \
	static __always_inline int shortcut##_version##_stands(const struct lbrp_shortcut##_version *at,                             \
							       const struct lbrp_flow *flow)                                         \
	{                                                                                                                            \
		return !((at->epoch ^ flow->epoch) | (at->removals ^ flow->removals));                                             \
	}                                                                                                                            \
                                                                                                                                     \
	static __always_inline const struct lbrp_shortcut##_version *shortcut##_version##_find(const struct lbrp_flow *flow)         \
	{                                                                                                                            \
		const struct lbrp_shortcut##_version *at = shortcut##_version##_place(flow);                                         \
		__u64 other = 0;                                                                                                     \
		int i;                                                                                                               \
                                                                                                                                     \
		if (!at || !shortcut##_version##_stands(at, flow))                                                                   \
			return 0;                                                                                                    \
		for (i = 0; i < (_words); i++)                                                                                       \
			other |= at->address[i] ^ flow->address[i];                                                                  \
		if (!(other | (at->ports ^ flow->ports)))                                                                            \
			return at;                                                                                                   \
		at++;                                                                                                                \
		other = at->ports ^ flow->ports;                                                                                     \
		for (i = 0; i < (_words); i++)                                                                                       \
			other |= at->address[i] ^ flow->address[i];                                                                  \
		return other || !shortcut##_version##_stands(at, flow) ? 0 : at;                                                     \
	}                                                                                                                            \
                                                                                                                                     \
	static __always_inline void shortcut##_version##_make(const struct lbrp_flow *flow, const __u64 *becomes, __u32 become)      \
	{                                                                                                                            \
		struct lbrp_shortcut##_version *at = shortcut##_version##_place(flow);                                               \
		int i;                                                                                                               \
                                                                                                                                     \
		if (!at)                                                                                                             \
			return;                                                                                                      \
		if (shortcut##_version##_stands(at, flow))                                                                           \
			at++;                                                                                                        \
		for (i = 0; i < (_words); i++) {                                                                                     \
			at->address[i] = flow->address[i];                                                                           \
			at->becomes[i] = becomes[i];                                                                                 \
		}                                                                                                                    \
		at->ports = flow->ports;                                                                                             \
		at->become = become;                                                                                                 \
		at->epoch = flow->epoch;                                                                                           \
		at->removals = flow->removals;                                                                                       \
	}

SHORTCUTS(4, 1, 14)
SHORTCUTS(6, 4, 12)

/* Whether shortcuts are for packets like this one, and what its flow is. */
static __always_inline int shortcut_flow(struct pcn_ctx *ctx, const struct pcn_packet *pkt, struct lbrp_flow *flow)
{
	__u32 zero = 0, *removed = bpf_map_lookup_elem(&removals, &zero), *ports, ipv6 = pkt->proto == bpf_htons(ETH_P_IPV6);
	__u64 *address;

	if (pkt->l4_proto != IPPROTO_UDP || pkt->fragment != PCN_FRAGMENT_NONE || !removed)
		return 0;
	ports = pcn_at(ctx, pkt->l4, sizeof(*ports));
	if (!ports)
		return 0;
	flow->ports = *ports;
	flow->epoch = bpf_jiffies64() >> 6; /* a load, where the time is two calls */
	flow->removals = *removed; /* before the session is looked for: if that is removed meanwhile, the shortcut never holds */
	if (ipv6) {
		address = pcn_at(ctx, pkt->l3 + __builtin_offsetof(struct ipv6hdr, saddr), 32);
		if (!address)
			return 0;
		flow->address[1] = address[1];
		flow->address[2] = address[2];
		flow->address[3] = address[3];
	} else {
		address = pcn_at(ctx, pkt->l3 + __builtin_offsetof(struct iphdr, saddr), 8);
		if (!address)
			return 0;
	}
	flow->address[0] = address[0];
	return 1;
}

/* What the packet has to become, if there is a shortcut: 1, or 0. */
static __always_inline int shortcut(const struct pcn_packet *pkt, const struct lbrp_flow *flow, struct pcn_translation *ends)
{
	const struct lbrp_shortcut4 *found4;
	const struct lbrp_shortcut6 *found6;

	if (pkt->proto == bpf_htons(ETH_P_IPV6)) {
		found6 = shortcut6_find(flow);
		if (!found6)
			return 0;
		pcn_set_endpoint(&ends->from, found6->becomes, found6->become);
		pcn_set_endpoint(&ends->to, found6->becomes + 2, found6->become >> 16);
		return 1;
	}
	found4 = shortcut4_find(flow);
	if (!found4)
		return 0;
	pcn_ct_set_address(ends->from.address, found4->becomes, 0);
	pcn_ct_set_address(ends->to.address, (const void *)found4->becomes + 4, 0);
	ends->from.port = found4->become;
	ends->to.port = found4->become >> 16;
	return 1;
}

static __always_inline void make_shortcut(const struct pcn_packet *pkt, const struct lbrp_flow *flow, const struct pcn_translation *ends)
{
	__u32 become = ends->from.port | (__u32)ends->to.port << 16;
	__u64 becomes[4];

	if (pkt->proto == bpf_htons(ETH_P_IPV6)) {
		memcpy(becomes, ends->from.address, 16);
		memcpy(becomes + 2, ends->to.address, 16);
		shortcut6_make(flow, becomes, become);
	} else {
		becomes[0] = pcn_word(ends->from.address + 12) | (__u64)pcn_word(ends->to.address + 12) << 32;
		shortcut4_make(flow, becomes, become);
	}
}
