/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Changes addresses and ports of a packet, and of the packet that an ICMP error quotes, with all checksums. */
#pragma once

#include "nat.h"

enum nat_end { NAT_SOURCE, NAT_DESTINATION };

static __always_inline int nat_set_address(struct pcn_ctx *ctx, const struct pcn_packet *pkt, enum nat_end end, const void *address, int ipv6)
{
	struct in6_addr to;

	if (!ipv6)
		return pcn_ipv4_set_address(
			ctx, pkt, end == NAT_SOURCE ? __builtin_offsetof(struct iphdr, saddr) : __builtin_offsetof(struct iphdr, daddr), pcn_ct_word(address + 12));
	nat_copy_address(&to, address);
	return pcn_ipv6_set_address(
		ctx, pkt, end == NAT_SOURCE ? __builtin_offsetof(struct ipv6hdr, saddr) : __builtin_offsetof(struct ipv6hdr, daddr), &to);
}

/* One end of a packet. Later fragments have an address only. Returns 0 or -1. */
static __always_inline int nat_rewrite(struct pcn_ctx *ctx, const struct pcn_packet *pkt, enum nat_end end, const void *address, __be16 port)
{
	int ipv6 = pkt->proto == bpf_htons(ETH_P_IPV6);

	if (ipv6 ? nat_set_address(ctx, pkt, end, address, 1) : nat_set_address(ctx, pkt, end, address, 0))
		return -1;
	if (!pkt->l4)
		return 0;
	if (nat_has_ports(pkt->l4_proto))
		return pcn_l4_set_word(ctx, pkt, pkt->l4 + (end == NAT_SOURCE ? 0 : 2), port);
	if (nat_is_icmp(pkt->l4_proto))
		return pcn_l4_set_word(ctx, pkt, pkt->l4 + __builtin_offsetof(struct pcn_icmp, id), port);
	return 0;
}

/* Changes bytes in the payload of an ICMP error, whose checksum is at `sum`. `size`: 2 or 4. */
static __always_inline int nat_patch(struct pcn_ctx *ctx, __u32 sum, __u32 at, __u32 from, __u32 to, __u32 size)
{
	__u16 half = to;

	if (from == to)
		return 0;
	if (pcn_l4_csum_replace(ctx, sum, from, to, size, 0))
		return -1;
	return size == 2 ? pcn_store_covered(ctx, at, &half, 2) : pcn_store_covered(ctx, at, &to, 4);
}

/* The checksum of the quoted transport header, if it is quoted so far and there is one. It covers what the caller says became what. */
static __always_inline int nat_patch_inner_sum(struct pcn_ctx *ctx, __u32 sum, const struct pcn_packet *pkt, const struct pcn_ct_packet *p, __u32 from,
					       __u32 to)
{
	__u8 proto = p->tuple.proto;
	__u32 at = p->inner_l4 + (proto == IPPROTO_TCP ? 16 : proto == IPPROTO_UDP ? 6 : 2);
	__u16 *check, old, new;

	if (at + 2 > pkt->end || (proto != IPPROTO_TCP && proto != IPPROTO_UDP && !nat_is_icmp(proto)))
		return 0;
	check = pcn_at(ctx, at, 2);
	if (!check)
		return 0;
	old = *check;
	if (proto == IPPROTO_UDP && !old)
		return 0;
	new = pcn_csum_update(old, from, to);
	return nat_patch(ctx, sum, at, old, new, 2);
}

/*
 * The packet that an error quotes, at its end `end`: address, port, and their checksums as far as they are quoted (RFC 5508, 4.2; for ICMPv6
 * likewise).
 */
static __always_inline int nat_rewrite_inner(struct pcn_ctx *ctx, struct pcn_packet *pkt, const struct pcn_ct_packet *p, enum nat_end end,
					     const void *address, __be16 port)
{
	int ipv6 = pkt->proto == bpf_htons(ETH_P_IPV6), i;
	__u32 sum = pkt->l4 + 2, at, from, to;
	__u8 proto = p->tuple.proto;
	__be16 *old_port;

	if (ipv6) {
		at = p->inner_l3 + (end == NAT_SOURCE ? __builtin_offsetof(struct ipv6hdr, saddr) : __builtin_offsetof(struct ipv6hdr, daddr));
		for (i = 0; i < 16; i += 4) {
			__u32 *word = pcn_at(ctx, at + i, 4);

			if (!word)
				return -1;
			from = *word;
			to = pcn_ct_word(address + i);
			if (nat_patch(ctx, sum, at + i, from, to, 4) || nat_patch_inner_sum(ctx, sum, pkt, p, from, to))
				return -1;
		}
	} else {
		__u32 *word;
		__u16 *check, old, new;

		at = p->inner_l3 + (end == NAT_SOURCE ? __builtin_offsetof(struct iphdr, saddr) : __builtin_offsetof(struct iphdr, daddr));
		word = pcn_at(ctx, at, 4);
		if (!word)
			return -1;
		from = *word;
		to = pcn_ct_word(address + 12);
		check = pcn_at(ctx, p->inner_l3 + __builtin_offsetof(struct iphdr, check), 2);
		if (!check)
			return -1;
		old = *check;
		new = pcn_csum_update(old, from, to);
		if (nat_patch(ctx, sum, at, from, to, 4) ||
		    nat_patch(ctx, sum, p->inner_l3 + __builtin_offsetof(struct iphdr, check), old, new, 2))
			return -1;
		if (!nat_is_icmp(proto) && nat_patch_inner_sum(ctx, sum, pkt, p, from, to))
			return -1;
	}
	if (!nat_has_ports(proto) && !nat_is_icmp(proto))
		return 0;
	at = p->inner_l4 + (nat_is_icmp(proto) ? __builtin_offsetof(struct pcn_icmp, id) : end == NAT_SOURCE ? 0 : 2);
	old_port = pcn_at(ctx, at, 2);
	if (!old_port)
		return -1;
	from = *old_port;
	to = port;
	return nat_patch(ctx, sum, at, from, to, 2) || nat_patch_inner_sum(ctx, sum, pkt, p, from, to) ? -1 : 0;
}

/*
 * An error about a packet of a session. On its way out it comes from the inside end or before it, so its source becomes the external address, as
 * does the destination of what it quotes; on its way in, the other way round.
 */
static __noinline int nat_rewrite_error(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct pcn_ct_packet *p, const void *address, __u32 port_and_way)
{
	enum nat_end end = port_and_way >> 16 ? NAT_DESTINATION : NAT_SOURCE;
	int failed;

	if (!p)
		return -1;
	if (end == NAT_SOURCE)
		failed = nat_rewrite_inner(ctx, pkt, p, NAT_DESTINATION, address, port_and_way);
	else
		failed = nat_rewrite_inner(ctx, pkt, p, NAT_SOURCE, address, port_and_way);
	if (failed)
		return -1;
	if (pkt->proto == bpf_htons(ETH_P_IPV6))
		return nat_set_address(ctx, pkt, end, address, 1);
	return nat_set_address(ctx, pkt, end, address, 0);
}
