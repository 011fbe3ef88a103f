/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Frames for the control plane's own host behind a port (polycube.toolkit.vantage): what is sent to its MAC, and the questions for that MAC.
 * They go up by pcn_slowpath(), so many a second:
 *
 *	if (pcn_for_vantage(ctx, pkt))
 *		return pcn_vantage_up(pkt, REASON, CONTROL_LIMIT);
 */
#pragma once

#include <polycube/address.h>
#include <polycube/neighbour.h>
#include <polycube/tokenbucket.h>

struct pcn_vantage {
	__u8 mac[6];
	__u16 on;
	__u32 ipv4; /* network byte order; 0: none */
	struct in6_addr ipv6;
};

struct pcn_vantage_limit {
	struct pcn_rate rate;
	struct pcn_tokenbucket bucket;
};

CFG(struct pcn_vantage, vantage);
MAP(vantage_limit, ARRAY, __u32, struct pcn_vantage_limit, 1);

/* Whether a frame is for that host. Asks for pcn_parse(). */
static __always_inline int pcn_for_vantage(struct pcn_ctx *ctx, const struct pcn_packet *pkt)
{
	const struct in6_addr *target6;
	const void *target;
	struct ethhdr *eth;

	if (!vantage.on)
		return 0;
	eth = pcn_at(ctx, 0, sizeof(*eth));
	if (!eth)
		return 0;
	if (!(eth->h_dest[0] & 1)) {
		__u16 *mac = (void *)eth->h_dest, *own = (void *)vantage.mac;

		return !((mac[0] ^ own[0]) | (mac[1] ^ own[1]) | (mac[2] ^ own[2]));
	}
	target = pcn_arp_request(ctx, pkt);
	if (target)
		return *(const __u32 *)target == vantage.ipv4;
	target6 = pcn_nd_request(ctx, pkt);
	return target6 && pcn_same_address(target6, &vantage.ipv6);
}

/* Whether one more frame may go up. */
static __always_inline int pcn_vantage_allowed(void)
{
	__u32 zero = 0;
	struct pcn_vantage_limit *limit = bpf_map_lookup_elem(&vantage_limit, &zero);

	return limit && pcn_tokens_take(&limit->bucket, &limit->rate, 1, bpf_ktime_get_ns());
}

static __always_inline int pcn_vantage_up(struct pcn_packet *pkt, __u16 reason, __u16 too_many)
{
	return pcn_vantage_allowed() ? pcn_slowpath(pkt, reason, 0, 0, 0) : pcn_drop(pkt, too_many);
}
