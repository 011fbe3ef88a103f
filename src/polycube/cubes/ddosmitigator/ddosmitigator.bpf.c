// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * Drops what is blacklisted, what exceeds a rate, and what comes from heavy hitters, on its way in; all else passes. In this order:
 *
 *	1. the longest prefix of the source: blocked, or trusted (nothing more is asked), or limited;
 *	2. that of the destination: blocked, or limited;
 *	3. heavy hitters: those that are blocked, then those that are found to be some;
 *	4. the rates that 1 and 2 found.
 *
 * What has expired does not count, whether or not the control plane has removed it yet: the next shorter prefix does. Everything works
 * without the control plane but the removal of what is of no use any more.
 */
#include "ddosmitigator.h"
#include "limit.h"
#include "sketch.h"

CFG(__u64, threshold);   /* units a second from which a source is a heavy hitter; 0: nobody is */
CFG(__u32, count_bytes); /* units are bytes, not packets */
CFG(__u32, block_time);  /* seconds */
CFG(struct in6_addr, mask4); /* what of a source is told apart, mapped form */
CFG(struct in6_addr, mask6);

/*
 * Look-ups, which are made only if there is anything in the table. That of destinations is a function, not inlined: the verifier would follow
 * each way out of it through all that comes behind, for each outcome of the one before. A call costs some 10 ns, which drops by source spare.
 */
#define FIND(_table, _inline)                                                                                                        \
	static _inline struct ddosmitigator_entry *_table##_search(const struct in6_addr *address, __u64 version, __u64 seconds)     \
	{                                                                                                                            \
		if (version == 4)                                                                                                    \
			return pcn_lpm4_if(_table##4, address->in6_u.u6_addr32[3], seconds);                                         \
		return pcn_lpm6_if(_table##6, address, seconds);                                                                     \
	}                                                                                                                            \
                                                                                                                                     \
	static __always_inline struct ddosmitigator_entry *_table##_find(const struct in6_addr *address,                             \
									 const struct ddosmitigator_packet *packet)                  \
	{                                                                                                                            \
		if (!(packet->version == 4 ? pcn_lpm_any(_table##4) : pcn_lpm_any(_table##6)))                                       \
			return 0;                                                                                                    \
		return _table##_search(address, packet->version, packet->seconds);                                                   \
	}

FIND(sources, __always_inline)
FIND(targets, __noinline)

static __always_inline int ddosmitigator_drop(struct pcn_packet *pkt, const struct ddosmitigator_packet *packet,
					      struct ddosmitigator_stats *count, __u64 *reason_count, __u64 *own_count, __u16 reason)
{
	*reason_count += packet->packets;
	count->dropped_bytes += packet->bytes;
	if (own_count)
		__sync_fetch_and_add(own_count, packet->packets);
	return pcn_drop(pkt, reason);
}

/* Blocks a source from now on; a table that is full leaves it at what is over the threshold in each second. */
static __always_inline void ddosmitigator_block(const struct in6_addr *source, const struct ddosmitigator_packet *packet, __u64 rate,
						struct ddosmitigator_stats *count)
{
	struct ddosmitigator_hitter hitter = {
		.dropped = packet->packets,
		.rate = rate,
		.expires = packet->seconds + block_time,
		.since = packet->seconds,
	};

	if (bpf_map_update_elem(&hitters, source, &hitter, BPF_ANY))
		count->unblocked++;
}

/* Whether the source is blocked as a heavy hitter, or has just become one. */
static __always_inline int ddosmitigator_is_heavy(const struct ddosmitigator_packet *packet, struct ddosmitigator_stats *count)
{
	const struct in6_addr mask = packet->version == 4 ? mask4 : mask6;
	struct ddosmitigator_hitter *hitter;
	struct in6_addr source;
	__u64 rate;
	int i;

	for (i = 0; i < 4; i++)
		source.in6_u.u6_addr32[i] = packet->source.in6_u.u6_addr32[i] & mask.in6_u.u6_addr32[i];
	hitter = bpf_map_lookup_elem(&hitters, &source);
	if (hitter && hitter->expires > packet->seconds) {
		__sync_fetch_and_add(&hitter->dropped, packet->packets);
		return 1;
	}
	rate = sketch_add(&source, packet->seconds, count_bytes ? packet->bytes : packet->packets);
	if (rate <= threshold)
		return 0;
	ddosmitigator_block(&source, packet, rate, count);
	return 1;
}

static __always_inline int ddosmitigator_judge(struct pcn_packet *pkt, const struct ddosmitigator_packet *packet)
{
	struct ddosmitigator_entry *from, *to;
	struct ddosmitigator_stats *count;
	__u32 zero = 0;

	count = bpf_map_lookup_elem(&stats, &zero);
	if (!count)
		return pcn_pass(pkt);
	from = sources_find(&packet->source, packet);
	if (from && from->kind == DDOSMITIGATOR_BLOCK)
		return ddosmitigator_drop(pkt, packet, count, &count->dropped_src, &from->dropped, BLACKLISTED_SOURCE);
	if (from && from->kind == DDOSMITIGATOR_TRUST)
		return pcn_pass(pkt);
	to = targets_find(&packet->destination, packet);
	if (to && to->kind == DDOSMITIGATOR_BLOCK)
		return ddosmitigator_drop(pkt, packet, count, &count->dropped_dst, &to->dropped, BLACKLISTED_DESTINATION);
	if (threshold && ddosmitigator_is_heavy(packet, count))
		return ddosmitigator_drop(pkt, packet, count, &count->dropped_heavy, 0, HEAVY_HITTER);
	if (from && !limit_allows(from, &packet->source, packet, count))
		return ddosmitigator_drop(pkt, packet, count, &count->dropped_rate, &from->dropped, RATE_EXCEEDED);
	if (to && !limit_allows(to, &packet->destination, packet, count))
		return ddosmitigator_drop(pkt, packet, count, &count->dropped_rate, &to->dropped, RATE_EXCEEDED);
	return pcn_pass(pkt);
}

/* Addresses and version. 0, or -1 for a header that is not one. */
static __always_inline int ddosmitigator_read(struct pcn_ctx *ctx, const struct pcn_packet *pkt, struct ddosmitigator_packet *packet)
{
	if (pkt->proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));

		if (!ip || ip->version != 4 || ip->ihl < 5)
			return -1;
		packet->version = 4;
		packet->source.in6_u.u6_addr32[2] = packet->destination.in6_u.u6_addr32[2] = bpf_htonl(0xffff);
		packet->source.in6_u.u6_addr32[3] = ip->saddr;
		packet->destination.in6_u.u6_addr32[3] = ip->daddr;
	} else {
		struct ipv6hdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));

		if (!ip || ip->version != 6)
			return -1;
		packet->version = 6;
		packet->source = ip->saddr;
		packet->destination = ip->daddr;
	}
	return 0;
}

HANDLER(ingress)
{
	struct ddosmitigator_packet packet = {.packets = 1};
	int reason = pcn_parse_l2(ctx, pkt);

	if (reason)
		return pcn_drop(pkt, reason);
	if (pkt->proto != bpf_htons(ETH_P_IP) && pkt->proto != bpf_htons(ETH_P_IPV6))
		return pcn_pass(pkt);
	if (ddosmitigator_read(ctx, pkt, &packet))
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
#ifdef PCN_TC
	if (ctx->gso_segs > 1)
		packet.packets = ctx->gso_segs;
#endif
	packet.bytes = pkt->len;
	packet.now = bpf_ktime_get_ns();
	packet.seconds = packet.now / 1000000000ULL;
	return ddosmitigator_judge(pkt, &packet);
}
