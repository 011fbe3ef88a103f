/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Connection tracking: what a packet says of its session. Included by conntrack.h only. */
#pragma once

enum pcn_ct_tcp_flag {
	PCN_CT_TCP_FIN = 1,
	PCN_CT_TCP_SYN = 2,
	PCN_CT_TCP_RST = 4,
	PCN_CT_TCP_ACK = 16,
};

/* <linux/icmp.h> draws in the C library. */
struct pcn_icmp {
	__u8 type;
	__u8 code;
	__u16 check;
	__be16 id; /* of an echo */
	__be16 sequence;
};

enum pcn_icmp_type { PCN_ICMP_ECHO_REPLY, PCN_ICMP_UNREACHABLE = 3, PCN_ICMP_QUENCH, PCN_ICMP_ECHO = 8, PCN_ICMP_EXCEEDED = 11, PCN_ICMP_PARAMETER };
enum pcn_icmpv6_type { PCN_ICMPV6_ECHO = 128, PCN_ICMPV6_ECHO_REPLY };

#define PCN_CT_UNSCALED 15
#define PCN_CT_FRAGMENT_LIFE 30 /* seconds: what hosts wait for the rest of a packet (RFC 791: 15, RFC 8200: 60) */
#define PCN_CT_MAPPED 0xffff    /* third word of an IPv4 address in a tuple */

struct pcn_ct_fragment {
	__be16 port[2]; /* source, destination */
	__u32 expires;
};

/*
 * Ports of packets whose first fragment went by. LRU: an entry is of use for moments, and a flood of first fragments may cost other packets
 * their fragments but never the memory.
 */
MAP(ct_fragments, LRU_HASH, struct pcn_ct_fragment_key, struct pcn_ct_fragment, 4096);

/* IPv6, or IPv4: `from` points to four bytes then. */
static __always_inline void pcn_ct_set_address(void *to, const void *from, int ipv6)
{
	__u32 *words = to;

	words[0] = ipv6 ? pcn_word(from) : 0;
	words[1] = ipv6 ? pcn_word(from + 4) : 0;
	words[2] = ipv6 ? pcn_word(from + 8) : bpf_htonl(PCN_CT_MAPPED);
	words[3] = ipv6 ? pcn_word(from + 12) : pcn_word(from);
}

/* Whether endpoint (a, port_a) comes behind (b, port_b). Any order will do; words that differ most often are looked at first. */
static __always_inline int pcn_ct_behind(const void *a, const void *b, __be16 port_a, __be16 port_b, int ipv6)
{
	int i;

	if (!ipv6)
		return pcn_word(a) != pcn_word(b) ? pcn_word(a) > pcn_word(b) : port_a > port_b;
	for (i = 12; i >= 0; i -= 4)
		if (pcn_word(a + i) != pcn_word(b + i))
			return pcn_word(a + i) > pcn_word(b + i);
	return port_a > port_b;
}

/* Fills in a tuple from a source and a destination, which point into a frame or are addresses of a tuple. Returns whether they are swapped. */
static __always_inline int pcn_ct_set_tuple(struct pcn_ct_tuple *tuple, const void *from, const void *to, __be16 sport, __be16 dport, __u8 proto,
					    int ipv6)
{
	int swapped = pcn_ct_behind(from, to, sport, dport, ipv6);

	if (swapped) {
		pcn_ct_set_address(tuple->address[0], to, ipv6);
		pcn_ct_set_address(tuple->address[1], from, ipv6);
	} else {
		pcn_ct_set_address(tuple->address[0], from, ipv6);
		pcn_ct_set_address(tuple->address[1], to, ipv6);
	}
	tuple->port[0] = swapped ? dport : sport;
	tuple->port[1] = swapped ? sport : dport;
	tuple->proto = proto;
	tuple->pad = 0;
	tuple->zone = 0;
	return swapped;
}

static __always_inline int pcn_ct_is_error(__u8 proto, __u8 type)
{
	if (proto == IPPROTO_ICMP)
		return type == PCN_ICMP_UNREACHABLE || type == PCN_ICMP_EXCEEDED || type == PCN_ICMP_PARAMETER || type == PCN_ICMP_QUENCH;
	return type && type < 128 /* RFC 4443, 2.1 */;
}

/* Neighbour discovery, multicast listeners and their like (RFC 4861, 2710, 3810, 4286): of a link, of no session. */
static __always_inline int pcn_ct_is_link_talk(__u8 proto, __u8 type)
{
	return proto == IPPROTO_ICMPV6 && ((type >= 130 && type <= 137) || type == 143 || (type >= 141 && type <= 142) || (type >= 151 && type <= 153));
}

static __always_inline int pcn_ct_is_echo(__u8 proto, __u8 type, int *request)
{
	if (proto == IPPROTO_ICMP) {
		*request = type == PCN_ICMP_ECHO;
		return type == PCN_ICMP_ECHO || type == PCN_ICMP_ECHO_REPLY;
	}
	*request = type == PCN_ICMPV6_ECHO;
	return type == PCN_ICMPV6_ECHO || type == PCN_ICMPV6_ECHO_REPLY;
}

/* The window scale that a SYN offers, `len` bytes of options at `at`; 14, the largest there is, when they are more than are looked at. */
static __noinline __u8 pcn_ct_tcp_scale(struct pcn_ctx *ctx, struct pcn_ct_packet *p, __u32 at, __u32 len)
{
	__u32 i, next = 0;

	if (len < 4 || len > 40)
		return PCN_CT_UNSCALED;
#ifdef PCN_XDP
	if (bpf_xdp_load_bytes(ctx, at, p->options, len))
#else
	if (bpf_skb_load_bytes(ctx, at, p->options, len))
#endif
		return PCN_CT_UNSCALED;
	for (i = 0; i < 12; i++) {
		__u32 here = next & 63; /* the same range each time: the verifier need not go round for each */
		__u8 kind = p->options[here], size = p->options[here + 1];

		if (next + 2 > len || !kind) /* one byte may be left, which is padding */
			return PCN_CT_UNSCALED;
		if (kind == 3 && size == 3 && next + 3 <= len)
			return p->options[here + 2] > 14 ? 14 : p->options[here + 2];
		next = here + (kind == 1 ? 1 : size);
		if (kind != 1 && size < 2)
			return PCN_CT_UNSCALED;
	}
	return 14;
}

static __always_inline int pcn_ct_read_tcp(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct pcn_ct_packet *p, __be16 *sport, __be16 *dport)
{
	struct tcphdr *tcp = pcn_at(ctx, pkt->l4, sizeof(*tcp));
	__u32 options;
	__u8 flags;

	if (!tcp)
		return PCN_DROP_MALFORMED;
	flags = ((__u8 *)tcp)[13];
	options = tcp->doff * 4;
	*sport = tcp->source;
	*dport = tcp->dest;
	p->flags = flags & (PCN_CT_TCP_FIN | PCN_CT_TCP_SYN | PCN_CT_TCP_RST | PCN_CT_TCP_ACK);
	p->seq = bpf_ntohl(tcp->seq);
	p->ack = bpf_ntohl(tcp->ack_seq);
	p->window = bpf_ntohs(tcp->window);
	p->end = p->seq + (pkt->end - pkt->l4 - options) + !!(flags & PCN_CT_TCP_SYN) + !!(flags & PCN_CT_TCP_FIN);
	p->scale = PCN_CT_UNSCALED;
	switch (p->flags) {
	case PCN_CT_TCP_SYN:
		p->kind = PCN_CT_KIND_OPENS;
		break;
	case PCN_CT_TCP_SYN | PCN_CT_TCP_ACK:
	case PCN_CT_TCP_ACK:
	case PCN_CT_TCP_FIN | PCN_CT_TCP_ACK:
	case PCN_CT_TCP_RST:
	case PCN_CT_TCP_RST | PCN_CT_TCP_ACK:
		p->kind = PCN_CT_KIND_FLOW;
		break;
	default:
		p->kind = PCN_CT_KIND_BAD;
		break;
	}
	if (p->flags & PCN_CT_TCP_SYN && options > sizeof(*tcp))
		p->scale = pcn_ct_tcp_scale(ctx, p, pkt->l4 + sizeof(*tcp), options - sizeof(*tcp));
	return 0;
}

static __always_inline int pcn_ct_read_icmp(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct pcn_ct_packet *p, __be16 *id)
{
	struct pcn_icmp *icmp = pcn_at(ctx, pkt->l4, sizeof(*icmp));
	int request;

	if (!icmp)
		return PCN_DROP_MALFORMED;
	if (pcn_ct_is_echo(pkt->l4_proto, icmp->type, &request)) {
		p->kind = request ? PCN_CT_KIND_OPENS : PCN_CT_KIND_FLOW;
		*id = icmp->id;
	} else if (pcn_ct_is_error(pkt->l4_proto, icmp->type)) {
		p->kind = PCN_CT_KIND_ERROR;
	} else {
		p->kind = pcn_ct_is_link_talk(pkt->l4_proto, icmp->type) ? PCN_CT_KIND_NONE : PCN_CT_KIND_BAD;
	}
	return 0;
}

/*
 * The packet that an ICMP error is about. It quotes at least 8 bytes behind the IP header (RFC 792, 4443), so the ports are there; what can't be
 * told (a later fragment, IPv6 extension headers, a protocol that ICMP says nothing of) is PCN_CT_KIND_BAD. So is an error that goes to
 * somebody else than the packet came from.
 */
static __always_inline int pcn_ct_read_error(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct pcn_ct_packet *p, int ipv6)
{
	__u32 at = pkt->l4 + sizeof(struct pcn_icmp), header = ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr), outer[4] = {};
	__be16 port[2] = {};
	struct ipv6hdr *ip6;
	struct iphdr *ip;
	int request, i;
	__u8 proto;

	p->kind = PCN_CT_KIND_BAD;
	if (ipv6) {
		ip6 = pcn_at(ctx, pkt->l3, sizeof(*ip6));
		if (!ip6)
			return PCN_DROP_MALFORMED;
		for (i = 0; i < 4; i++)
			outer[i] = ip6->daddr.in6_u.u6_addr32[i];
		ip6 = pcn_at(ctx, at, sizeof(*ip6));
		if (!ip6 || ip6->version != 6)
			return PCN_DROP_MALFORMED;
		proto = ip6->nexthdr;
	} else {
		ip = pcn_at(ctx, pkt->l3, sizeof(*ip));
		if (!ip)
			return PCN_DROP_MALFORMED;
		outer[0] = ip->daddr;
		ip = pcn_at(ctx, at, sizeof(*ip));
		if (!ip || ip->version != 4 || ip->ihl < 5)
			return PCN_DROP_MALFORMED;
		if (ip->frag_off & bpf_htons(0x1fff))
			return 0;
		header = ip->ihl * 4;
		proto = ip->protocol;
	}
	p->inner_l3 = at;
	p->inner_l4 = at + header;
	if (p->inner_l4 + 8 > pkt->end)
		return PCN_DROP_MALFORMED;
	if (proto == IPPROTO_TCP || proto == IPPROTO_UDP) {
		struct udphdr *udp = pcn_at(ctx, p->inner_l4, 8);

		if (!udp)
			return PCN_DROP_MALFORMED;
		port[0] = udp->source;
		port[1] = udp->dest;
	} else if (proto == (ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP)) {
		struct pcn_icmp *icmp = pcn_at(ctx, p->inner_l4, 8);

		if (!icmp)
			return PCN_DROP_MALFORMED;
		if (!pcn_ct_is_echo(proto, icmp->type, &request))
			return 0;
		port[0] = port[1] = icmp->id;
	} else if (ipv6 && (proto == IPPROTO_HOPOPTS || proto == IPPROTO_ROUTING || proto == IPPROTO_FRAGMENT || proto == IPPROTO_DSTOPTS)) {
		return 0;
	}
	if (ipv6) {
		ip6 = pcn_at(ctx, at, sizeof(*ip6));
		if (!ip6)
			return PCN_DROP_MALFORMED;
		for (i = 0; i < 4; i++)
			if (outer[i] != ip6->saddr.in6_u.u6_addr32[i])
				return 0;
		p->swapped = !pcn_ct_set_tuple(&p->tuple, &ip6->saddr, &ip6->daddr, port[0], port[1], proto, 1);
	} else {
		ip = pcn_at(ctx, at, sizeof(*ip));
		if (!ip)
			return PCN_DROP_MALFORMED;
		if (outer[0] != ip->saddr)
			return 0;
		p->swapped = !pcn_ct_set_tuple(&p->tuple, &ip->saddr, &ip->daddr, port[0], port[1], proto, 0);
	}
	p->kind = PCN_CT_KIND_ERROR;
	return 0;
}

/*
 * Ports of fragments: those of a first one are remembered, later ones get them. Returns -1 if there is none to be had: the first went another
 * way, comes later, or was long ago.
 */
static __always_inline int pcn_ct_fragment_ports(struct pcn_packet *pkt, struct pcn_ct_packet *p, const void *from, const void *to, __be16 *sport,
						 __be16 *dport, int ipv6, __u32 now)
{
	struct pcn_ct_fragment fragment = {.port = {*sport, *dport}, .expires = now + PCN_CT_FRAGMENT_LIFE}, *known;

	p->fragment.id = pkt->fragment_id;
	p->fragment.proto = pkt->l4_proto;
	pcn_ct_set_address(p->fragment.address[0], from, ipv6);
	pcn_ct_set_address(p->fragment.address[1], to, ipv6);
	if (pkt->fragment == PCN_FRAGMENT_FIRST) {
		bpf_map_update_elem(&ct_fragments, &p->fragment, &fragment, BPF_ANY);
		return 0;
	}
	known = bpf_map_lookup_elem(&ct_fragments, &p->fragment);
	if (!known || (__s32)(now - known->expires) >= 0)
		return -1;
	*sport = known->port[0];
	*dport = known->port[1];
	return 0;
}

/* The tuple of a packet whose ports are known, unless it is a later fragment. */
static __always_inline int pcn_ct_read_flow(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct pcn_ct_packet *p, __be16 sport, __be16 dport,
					    int ipv6, __u32 now)
{
	void *from = pcn_at(ctx, pkt->l3 + (ipv6 ? __builtin_offsetof(struct ipv6hdr, saddr) : __builtin_offsetof(struct iphdr, saddr)), ipv6 ? 32 : 8);
	void *to = from + (ipv6 ? 16 : 4);

	if (!from)
		return PCN_DROP_MALFORMED;
	if (pkt->fragment != PCN_FRAGMENT_NONE && pcn_ct_fragment_ports(pkt, p, from, to, &sport, &dport, ipv6, now)) {
		p->kind = PCN_CT_KIND_BAD;
		return 0;
	}
	p->swapped = pcn_ct_set_tuple(&p->tuple, from, to, sport, dport, pkt->l4_proto, ipv6);
	return 0;
}

/*
 * Sends what the parser found through memory. The verifier follows each way through the parser with the constants that it leads to, and would
 * look at all that comes behind once for each of them: 80,000 instructions instead of 15,000.
 */
static __always_inline void pcn_ct_unlearn(struct pcn_packet *pkt, struct pcn_ct_packet *p)
{
	volatile __u64 *words = p->parsed;

	words[0] = pkt->l3 | (__u64)pkt->l4 << 16 | (__u64)pkt->end << 32;
	words[1] = pkt->proto | (__u64)pkt->l4_proto << 16 | (__u64)pkt->fragment << 24 | (__u64)pkt->fragment_id << 32;
	pkt->l3 = words[0];
	pkt->l4 = words[0] >> 16;
	pkt->end = words[0] >> 32;
	pkt->proto = words[1];
	pkt->l4_proto = words[1] >> 16;
	pkt->fragment = words[1] >> 24;
	pkt->fragment_id = words[1] >> 32;
}

/*
 * What a packet says of its session. Returns 0, or a drop reason for one that is malformed. A later fragment whose ports can't be had is
 * PCN_CT_KIND_BAD.
 */
static __always_inline int pcn_ct_read(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct pcn_ct_packet *p, __u32 now)
{
	int reason = pcn_parse(ctx, pkt), ipv6;
	__be16 sport = 0, dport = 0;

	p->kind = PCN_CT_KIND_NONE;
	p->swapped = 0;
	p->flags = 0;
	if (reason)
		return reason;
	pcn_ct_unlearn(pkt, p);
	ipv6 = pkt->proto == bpf_htons(ETH_P_IPV6);
	if (!ipv6 && pkt->proto != bpf_htons(ETH_P_IP))
		return 0;
	p->kind = PCN_CT_KIND_OPENS;
	if (pkt->l4) {
		switch (pkt->l4_proto) {
		case IPPROTO_TCP:
			reason = pcn_ct_read_tcp(ctx, pkt, p, &sport, &dport);
			break;
		case IPPROTO_UDP: {
			struct udphdr *udp = pcn_at(ctx, pkt->l4, sizeof(*udp));

			if (!udp)
				return PCN_DROP_MALFORMED;
			sport = udp->source;
			dport = udp->dest;
			break;
		}
		case IPPROTO_ICMP:
		case IPPROTO_ICMPV6:
			if ((pkt->l4_proto == IPPROTO_ICMPV6) != ipv6) {
				p->kind = PCN_CT_KIND_BAD;
				return 0;
			}
			reason = pcn_ct_read_icmp(ctx, pkt, p, &sport);
			dport = sport;
			if (p->kind == PCN_CT_KIND_ERROR)
				return reason ? reason : pcn_ct_read_error(ctx, pkt, p, ipv6);
			break;
		}
		if (reason)
			return reason;
	}
	return ipv6 ? pcn_ct_read_flow(ctx, pkt, p, sport, dport, 1, now) : pcn_ct_read_flow(ctx, pkt, p, sport, dport, 0, now);
}
