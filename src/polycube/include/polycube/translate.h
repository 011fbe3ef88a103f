/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Gives a packet another source and destination: addresses, ports, and all checksums. An ICMP error is translated with the packet in it,
 * which went the other way (RFC 5508, 4.2): who gets the error must recognise what it had sent.
 *
 *	struct pcn_translation t = {...};     from and to: what source and destination shall be (what they are, where that stays)
 *
 *	if (pcn_translate(ctx, pkt, &p, &t))  p: what pcn_ct_read() said of the packet
 *		return pcn_drop(pkt, PCN_DROP_MALFORMED);
 */
#pragma once

#include <polycube/conntrack.h>
#include <polycube/csum.h>

struct pcn_endpoint {
	__u8 address[16] __attribute__((aligned(4))); /* IPv4 ones mapped, as in a tuple */
	__be16 port; /* of an echo: its identifier is the port of `from` */
	__u16 pad;
};

struct pcn_translation {
	struct pcn_endpoint from;
	struct pcn_endpoint to;
	__u32 hides; /* an error comes from `from` whoever reports it, since nobody on its side may be seen; else a router keeps its address */
};

static __always_inline void pcn_set_endpoint(struct pcn_endpoint *end, const void *address, __be16 port)
{
	pcn_ct_set_address(end->address, address, 1);
	end->port = port;
}

/* What the sum of words changes by. */
static __always_inline __u32 pcn_csum_diff(const __u32 *from, const __u32 *to, int words)
{
	__u32 sum = 0;
	int i;

#pragma unroll
	for (i = 0; i < words; i++)
		sum = pcn_csum_add(sum, pcn_csum_add(~from[i], to[i]));
	return sum;
}

/* Changes a checksum by what the bytes that it covers have changed by; see pcn_l4_csum_replace() for `flags`. 0 or -1. */
static __always_inline int pcn_l4_csum_add(struct pcn_ctx *ctx, __u32 offset, __u32 diff, __u32 flags)
{
	return pcn_l4_csum_replace(ctx, offset, 0, diff, PCN_CSUM_DIFF, flags);
}

static __always_inline int pcn_has_ports(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP;
}

static __always_inline int pcn_is_icmp(__u8 proto)
{
	return proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6;
}

/*
 * The word of a transport header that tells flows apart, of protocols that have one: the ports, or identifier and sequence number of an echo.
 * Offset in the header, and what it becomes; what an error quotes went the other way.
 */
static __always_inline __u32 pcn_flow_offset(__u8 proto)
{
	return pcn_is_icmp(proto) ? __builtin_offsetof(struct pcn_icmp, id) : 0;
}

static __always_inline __u32 pcn_flow_word(__u8 proto, __u32 old, const struct pcn_translation *t, int quoted)
{
	if (pcn_is_icmp(proto))
		return (old & 0xffff0000) | t->from.port;
	return quoted ? t->to.port | (__u32)t->from.port << 16 : t->from.port | (__u32)t->to.port << 16;
}

/* A transport checksum: the pseudo header changes by `addresses`, the header by `header`. Only TC has to tell the two apart. */
static __always_inline int pcn_l4_csum_follow(struct pcn_ctx *ctx, __u32 check, __u32 addresses, __u32 header, __u32 flags)
{
#ifdef PCN_TC
	return pcn_l4_csum_add(ctx, check, addresses, flags | PCN_CSUM_PSEUDO) || pcn_l4_csum_add(ctx, check, header, flags);
#else
	return pcn_l4_csum_add(ctx, check, pcn_csum_add(addresses, header), flags);
#endif
}

/* The transport's part: `addresses` is what the pseudo header changes by. */
static __always_inline int pcn_translate_l4(struct pcn_ctx *ctx, const struct pcn_packet *pkt, const struct pcn_translation *t, __u32 addresses)
{
	__u32 flags, check = pcn_l4_csum_offset(pkt, &flags), offset = pkt->l4 + pcn_flow_offset(pkt->l4_proto), *at, old, new;

	if (!check)
		return 0;
	at = pcn_at(ctx, offset, sizeof(*at));
	if (!at)
		return -1;
	old = *at;
	new = pcn_flow_word(pkt->l4_proto, old, t, 0);
	if (pkt->l4_proto == IPPROTO_ICMP)
		addresses = 0; /* no pseudo header */
	if (pcn_l4_csum_follow(ctx, check, addresses, pcn_csum_add(~old, new), flags))
		return -1;
	return pcn_store_covered(ctx, offset, &new, sizeof(new));
}

static __always_inline int pcn_translate_ipv4(struct pcn_ctx *ctx, const struct pcn_packet *pkt, const struct pcn_translation *t)
{
	__u32 new[2] = {pcn_word(t->from.address + 12), pcn_word(t->to.address + 12)}, old[2], diff;
	struct iphdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));

	if (!ip)
		return -1;
	old[0] = ip->saddr;
	old[1] = ip->daddr;
	diff = pcn_csum_diff(old, new, 2);
	if (pcn_l3_csum_replace(ctx, pkt->l3 + __builtin_offsetof(struct iphdr, check), 0, diff, PCN_CSUM_DIFF) ||
	    pcn_store_covered(ctx, pkt->l3 + __builtin_offsetof(struct iphdr, saddr), new, sizeof(new)))
		return -1;
	return pcn_translate_l4(ctx, pkt, t, diff);
}

static __always_inline int pcn_translate_ipv6(struct pcn_ctx *ctx, const struct pcn_packet *pkt, const struct pcn_translation *t)
{
	struct ipv6hdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));
	__u32 new[8], old[8];

	if (!ip)
		return -1;
	memcpy(old, &ip->saddr, sizeof(old));
	memcpy(new, t->from.address, 16);
	memcpy(new + 4, t->to.address, 16);
	if (pcn_translate_l4(ctx, pkt, t, pcn_csum_diff(old, new, 8)))
		return -1;
	return pcn_store(ctx, pkt->l3 + __builtin_offsetof(struct ipv6hdr, saddr), new, sizeof(new));
}

/*
 * The transport's part of the packet that an error is about, and its checksum if the error quotes as much. `addresses` is what its pseudo
 * header changes by. Returns by what all this changes the sum of the error's bytes.
 */
static __always_inline int pcn_translate_quoted(struct pcn_ctx *ctx, const struct pcn_packet *pkt, const struct pcn_ct_packet *p,
						const struct pcn_translation *t, __u32 addresses, __u32 *diff)
{
	__u8 proto = p->tuple.proto;
	__u32 offset = p->inner_l4 + pcn_flow_offset(proto), check = p->inner_l4 + (proto == IPPROTO_TCP ? 16 : proto == IPPROTO_UDP ? 6 : 2);
	__u32 *at, old, word;
	__u16 *field, sum, new;

	*diff = 0;
	if (!pcn_has_ports(proto) && !pcn_is_icmp(proto))
		return 0;
	at = pcn_at(ctx, offset, sizeof(*at));
	if (!at)
		return -1;
	old = *at;
	word = pcn_flow_word(proto, old, t, 1);
	*diff = pcn_csum_add(~old, word);
	if (pcn_store_covered(ctx, offset, &word, sizeof(word)))
		return -1;
	if (check + 2 > pkt->end)
		return 0;
	field = pcn_at(ctx, check, sizeof(*field));
	if (!field || (proto == IPPROTO_UDP && !*field))
		return 0;
	sum = *field;
	new = pcn_csum_fold(pcn_csum_add((__u16)~sum, pcn_csum_add(proto == IPPROTO_ICMP ? 0 : addresses, *diff)));
	*diff = pcn_csum_add(*diff, pcn_csum_add(~(__u32)sum, new));
	return pcn_store_covered(ctx, check, &new, sizeof(new));
}

static __always_inline int pcn_translate_error4(struct pcn_ctx *ctx, const struct pcn_packet *pkt, const struct pcn_ct_packet *p,
						const struct pcn_translation *t)
{
	__u32 new[2] = {pcn_word(t->to.address + 12), pcn_word(t->from.address + 12)}, old[2], addresses, diff;
	struct iphdr *ip = pcn_at(ctx, p->inner_l3, sizeof(*ip));
	__u32 reporter;
	__u16 check;

	if (!ip)
		return -1;
	old[0] = ip->saddr;
	old[1] = ip->daddr;
	addresses = pcn_csum_diff(old, new, 2);
	/* The header of the quoted packet sums to the same as before, so the error's checksum has nothing to follow */
	check = pcn_csum_fold(pcn_csum_add((__u16)~ip->check, addresses));
	if (pcn_store_covered(ctx, p->inner_l3 + __builtin_offsetof(struct iphdr, check), &check, sizeof(check)) ||
	    pcn_store_covered(ctx, p->inner_l3 + __builtin_offsetof(struct iphdr, saddr), new, sizeof(new)) ||
	    pcn_translate_quoted(ctx, pkt, p, t, addresses, &diff) || pcn_l4_csum_add(ctx, pkt->l4 + 2, diff, 0))
		return -1;
	ip = pcn_at(ctx, pkt->l3, sizeof(*ip));
	if (!ip)
		return -1;
	reporter = ip->saddr;
	if ((t->hides || reporter == old[1]) && pcn_ipv4_set_address(ctx, pkt, __builtin_offsetof(struct iphdr, saddr), new[1]))
		return -1;
	return pcn_ipv4_set_address(ctx, pkt, __builtin_offsetof(struct iphdr, daddr), new[0]);
}

static __always_inline int pcn_translate_error6(struct pcn_ctx *ctx, const struct pcn_packet *pkt, const struct pcn_ct_packet *p,
						const struct pcn_translation *t)
{
	struct ipv6hdr *ip = pcn_at(ctx, p->inner_l3, sizeof(*ip));
	__u32 new[8], old[8], addresses, diff;
	int same;

	if (!ip)
		return -1;
	memcpy(old, &ip->saddr, sizeof(old));
	memcpy(new, t->to.address, 16);
	memcpy(new + 4, t->from.address, 16);
	addresses = pcn_csum_diff(old, new, 8);
	if (pcn_store_covered(ctx, p->inner_l3 + __builtin_offsetof(struct ipv6hdr, saddr), new, sizeof(new)) ||
	    pcn_translate_quoted(ctx, pkt, p, t, addresses, &diff) || pcn_l4_csum_add(ctx, pkt->l4 + 2, pcn_csum_add(diff, addresses), 0))
		return -1;
	ip = pcn_at(ctx, pkt->l3, sizeof(*ip));
	if (!ip)
		return -1;
	same = !memcmp(&ip->saddr, old + 4, 16);
	if ((t->hides || same) && pcn_ipv6_set_address(ctx, pkt, __builtin_offsetof(struct ipv6hdr, saddr), (const struct in6_addr *)(new + 4)))
		return -1;
	return pcn_ipv6_set_address(ctx, pkt, __builtin_offsetof(struct ipv6hdr, daddr), (const struct in6_addr *)new);
}

/* Errors are rare and long: not a second time for each hook of a program. */
static __noinline int pcn_translate_error(struct pcn_ctx *ctx, const struct pcn_packet *pkt, const struct pcn_ct_packet *p,
					  const struct pcn_translation *t)
{
	return pkt->proto == bpf_htons(ETH_P_IPV6) ? pcn_translate_error6(ctx, pkt, p, t) : pcn_translate_error4(ctx, pkt, p, t);
}

/* The translation of the packet, in place. Fragments without a transport header get their addresses. 0 or -1. */
static __always_inline int pcn_translate(struct pcn_ctx *ctx, const struct pcn_packet *pkt, const struct pcn_ct_packet *p,
					 const struct pcn_translation *t)
{
	if (p->kind == PCN_CT_KIND_ERROR)
		return pcn_translate_error(ctx, pkt, p, t);
	return pkt->proto == bpf_htons(ETH_P_IPV6) ? pcn_translate_ipv6(ctx, pkt, t) : pcn_translate_ipv4(ctx, pkt, t);
}
