/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Checksums, changed by what changed (RFC 1624). In TC the kernel's helpers do it, since only they know whether a sum in the frame is
 * finished (a locally sent frame's is left to the NIC) and keep the sum over the frame that a NIC computed. The rules that make both
 * hooks right, which the functions at the end of this file follow:
 *
 *	bytes of the IPv4 header:              pcn_store_covered() and pcn_l3_csum_replace()
 *	bytes of TCP, UDP, ICMP:               pcn_store_covered() and pcn_l4_csum_replace()
 *	an IPv4 address (pseudo header, too):  pcn_store_covered(), pcn_l3_csum_replace() and pcn_l4_csum_replace(PCN_CSUM_PSEUDO)
 *	an IPv6 address:                       pcn_store() and pcn_l4_csum_replace(PCN_CSUM_PSEUDO)
 *	the rest (hop limit, addresses of Ethernet and ARP): pcn_store()
 *
 * XDP can't tell an unfinished sum; XDP ports have checksum offload switched off.
 */
#pragma once

#include <polycube/parse.h>

enum pcn_csum_flag {
	PCN_CSUM_PSEUDO = 1, /* the changed bytes are part of the pseudo header */
	PCN_CSUM_UDP = 2,    /* 0 means that there is no checksum: it stays 0, and a sum of 0 is sent as 0xffff */
};

/* The one's complement sum of two checksums-in-the-making. */
static __always_inline __u32 pcn_csum_add(__u32 a, __u32 b)
{
	a += b;
	return a + (a < b);
}

static __always_inline __u16 pcn_csum_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* What a checksum field must be when `from` becomes `to` (both as they are in the frame; 2 bytes: in the low half). */
static __always_inline __u16 pcn_csum_update(__u16 check, __u32 from, __u32 to)
{
	return pcn_csum_fold(pcn_csum_add(pcn_csum_add((__u16)~check, ~from), to));
}

#define PCN_CSUM_DIFF 0 /* a `size`: `from` is 0, `to` is by what the sum of the bytes has changed (pcn_csum_diff()) */

/* The checksum of an IPv4 header at `offset`: `from` became `to`, `size` bytes (2 or 4, or PCN_CSUM_DIFF). Returns 0 or -1. */
static __always_inline int pcn_l3_csum_replace(struct pcn_ctx *ctx, __u32 offset, __u32 from, __u32 to, __u32 size)
{
#ifdef PCN_TC
	return bpf_l3_csum_replace(ctx, offset, from, to, size) ? -1 : 0;
#else
	__u16 *check = pcn_at(ctx, offset, sizeof(*check));

	if (!check)
		return -1;
	*check = pcn_csum_update(*check, from, to);
	return 0;
#endif
}

/* The same for a TCP, UDP or ICMP checksum. */
static __always_inline int pcn_l4_csum_replace(struct pcn_ctx *ctx, __u32 offset, __u32 from, __u32 to, __u32 size, __u32 flags)
{
#ifdef PCN_TC
	__u64 how = size;

	if (flags & PCN_CSUM_PSEUDO)
		how |= BPF_F_PSEUDO_HDR;
	if (flags & PCN_CSUM_UDP)
		how |= BPF_F_MARK_MANGLED_0;
	return bpf_l4_csum_replace(ctx, offset, from, to, how) ? -1 : 0;
#else
	__u16 *check = pcn_at(ctx, offset, sizeof(*check));

	if (!check)
		return -1;
	if (flags & PCN_CSUM_UDP && !*check)
		return 0;
	*check = pcn_csum_update(*check, from, to);
	if (flags & PCN_CSUM_UDP && !*check)
		*check = 0xffff;
	return 0;
#endif
}

/* Offset of the checksum of the transport header, or 0 if there is none; `flags` for pcn_l4_csum_replace(). Asks for pcn_parse_l3(). */
static __always_inline __u32 pcn_l4_csum_offset(const struct pcn_packet *pkt, __u32 *flags)
{
	*flags = 0;
	if (!pkt->l4)
		return 0;
	switch (pkt->l4_proto) {
	case IPPROTO_TCP:
		return pkt->l4 + __builtin_offsetof(struct tcphdr, check);
	case IPPROTO_UDP:
		*flags = PCN_CSUM_UDP;
		return pkt->l4 + __builtin_offsetof(struct udphdr, check);
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return pkt->l4 + 2;
	default:
		return 0;
	}
}

/* One hop less to live, IPv4. Asks for pcn_parse_l3(). Returns what is left; below 1 the frame must not be forwarded, and is unchanged. */
static __always_inline int pcn_ipv4_decrement_ttl(struct pcn_ctx *ctx, const struct pcn_packet *pkt)
{
	struct iphdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));
	__u8 ttl;

	if (!ip)
		return -1;
	ttl = ip->ttl;
	if (ttl <= 1)
		return 0;
	ttl--;
	/* The TTL is the first byte of its 16-bit word. A sum that changes with a byte in the frame needs no helper, in TC neither. */
	ip->ttl = ttl;
	ip->check = pcn_csum_update(ip->check, ttl + 1, ttl);
	return ttl;
}

/* The same for IPv6, where nothing is summed. */
static __always_inline int pcn_ipv6_decrement_hops(struct pcn_ctx *ctx, const struct pcn_packet *pkt)
{
	struct ipv6hdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));
	__u8 hops;

	if (!ip)
		return -1;
	hops = ip->hop_limit;
	if (hops <= 1)
		return 0;
	hops--;
	if (pcn_store(ctx, pkt->l3 + __builtin_offsetof(struct ipv6hdr, hop_limit), &hops, 1))
		return -1;
	return hops;
}

/* Changes an address of the IPv4 header (`field`: offset in struct iphdr), with both checksums. Asks for pcn_parse_l3(). 0 or -1. */
static __always_inline int pcn_ipv4_set_address(struct pcn_ctx *ctx, const struct pcn_packet *pkt, __u32 field, __be32 to)
{
	__u32 flags, sum = pcn_l4_csum_offset(pkt, &flags);
	__be32 *at = pcn_at(ctx, pkt->l3 + field, sizeof(*at));
	__be32 from;

	if (!at)
		return -1;
	from = *at;
	if (sum && pkt->l4_proto != IPPROTO_ICMP && pcn_l4_csum_replace(ctx, sum, from, to, 4, flags | PCN_CSUM_PSEUDO))
		return -1;
	if (pcn_l3_csum_replace(ctx, pkt->l3 + __builtin_offsetof(struct iphdr, check), from, to, 4))
		return -1;
	return pcn_store_covered(ctx, pkt->l3 + field, &to, sizeof(to));
}

/* Changes an address of the IPv6 header (`field`: offset in struct ipv6hdr), with the transport checksum. 0 or -1. */
static __always_inline int pcn_ipv6_set_address(struct pcn_ctx *ctx, const struct pcn_packet *pkt, __u32 field, const struct in6_addr *to)
{
	__u32 flags, sum = pcn_l4_csum_offset(pkt, &flags);
	struct in6_addr *at = pcn_at(ctx, pkt->l3 + field, sizeof(*at));
	struct in6_addr from;
	int i;

	if (!at)
		return -1;
	from = *at;
	if (sum) {
		for (i = 0; i < 4; i++) {
			__u32 a = from.in6_u.u6_addr32[i], b = to->in6_u.u6_addr32[i];

			if (a != b && pcn_l4_csum_replace(ctx, sum, a, b, 4, flags | PCN_CSUM_PSEUDO))
				return -1;
		}
	}
	return pcn_store(ctx, pkt->l3 + field, to, sizeof(*to));
}

/* Changes a port of TCP or UDP or an identifier of ICMP (`at`: offset in the frame), with the checksum. Asks for pcn_parse(). 0 or -1. */
static __always_inline int pcn_l4_set_word(struct pcn_ctx *ctx, const struct pcn_packet *pkt, __u32 at, __be16 to)
{
	__u32 flags, sum = pcn_l4_csum_offset(pkt, &flags);
	__be16 *word = pcn_at(ctx, at, sizeof(*word));

	if (!word)
		return -1;
	if (sum && pcn_l4_csum_replace(ctx, sum, *word, to, 2, flags))
		return -1;
	return pcn_store_covered(ctx, at, &to, sizeof(to));
}
