/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Prefix translation, RFC 6296: without state, one to one, and with a word of the address changed so that sums over it stay. So no checksum
 * changes, not even of what an ICMPv6 error quotes.
 */
#pragma once

#include "nat.h"

/* Translates an address in place. Returns 0, or -1 if it has no counterpart. */
static __always_inline int nat_npt_address(__u8 *address, const struct nat_npt *to)
{
	__u32 *words = (__u32 *)address, length = to->length, at, sum;
	__u16 *shorts = (__u16 *)address;
	const __u32 *prefix = (const __u32 *)to->prefix;
	int i;

#pragma unroll
	for (i = 0; i < 4; i++) {
		__u32 bits = length > i * 32 ? length - i * 32 : 0;
		__u32 mask = bits >= 32 ? ~0u : bpf_htonl(~(bits ? ~0u >> bits : ~0u));

		words[i] = (words[i] & ~mask) | (prefix[i] & mask);
	}
	if (length <= 48) {
		at = 3;
	} else {
#pragma unroll
		for (at = 4; at < 7; at++)
			if (shorts[at] != 0xffff)
				break;
	}
	if (shorts[at & 7] == 0xffff)
		return -1;
	sum = shorts[at & 7] + to->adjustment;
	sum = (sum & 0xffff) + (sum >> 16);
	shorts[at & 7] = sum == 0xffff ? 0 : sum;
	return 0;
}

/* The address at an offset, if there is a rule for it. 1: there was; 0: there is none; -1: it has no counterpart. */
static __always_inline int nat_npt_at(struct pcn_ctx *ctx, struct nat_work *w, enum nat_end end, __u32 at)
{
	struct nat_npt *to;
	void *address = pcn_at(ctx, at, 16);

	if (!address)
		return 0;
	pcn_copy_address(w->prefix.address, address);
	to = pcn_lpm_rule(&translations, &w->prefix, end);
	if (!to)
		return 0;
	if (nat_npt_address(w->prefix.address, to))
		return -1;
	return pcn_store_covered(ctx, at, w->prefix.address, 16) ? -1 : 1;
}

/* An IPv6 packet. `end`: which of its addresses is the inside one. As nat_npt_at(). */
static __always_inline int nat_npt(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct nat_work *w, enum nat_end end)
{
	__u32 source = __builtin_offsetof(struct ipv6hdr, saddr), destination = __builtin_offsetof(struct ipv6hdr, daddr);
	int done = nat_npt_at(ctx, w, end, pkt->l3 + (end == NAT_SOURCE ? source : destination));
	struct pcn_icmp *icmp;

	if (done <= 0 || !pkt->l4 || pkt->l4_proto != IPPROTO_ICMPV6)
		return done;
	icmp = pcn_at(ctx, pkt->l4, sizeof(*icmp));
	if (icmp && icmp->type < 128)
		nat_npt_at(ctx, w, end, pkt->l4 + sizeof(*icmp) + (end == NAT_SOURCE ? destination : source));
	return done;
}
