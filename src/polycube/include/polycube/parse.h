/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The parser: fills in what struct pcn_packet says of the headers, once, as far as it is asked to. Both hooks give the same answers: a
 * tag in the skb's metadata counts as the outermost. All functions return 0 or a drop reason:
 *
 *	int reason = pcn_parse(ctx, pkt);
 *
 *	if (reason)
 *		return pcn_drop(pkt, reason);
 *	if (pkt->proto == bpf_htons(ETH_P_IP)) {
 *		struct iphdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));
 *
 * What is not IP or ARP is no error: proto says what it is, l3 where it begins, l4 is 0. After a push or a pull pkt->parsed is 0, and the
 * next call parses again.
 */
#pragma once

#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <polycube/cube.h>

#define PCN_MAX_EXTENSIONS 8
#define PCN_ARP_LEN 28 /* Ethernet and IPv4 */

enum pcn_parsed {
	PCN_PARSED_L2 = 1, /* vlans, vlan, proto, l3 */
	PCN_PARSED_L3 = 2, /* fragment, end, l4_proto, l4 (of a header that may be cut off) */
	PCN_PARSED_L4 = 4, /* the transport header is there whole, if l4 is not 0 */
};

enum pcn_fragment {
	PCN_FRAGMENT_NONE,
	PCN_FRAGMENT_FIRST, /* has the transport header */
	PCN_FRAGMENT_LATER, /* has none: l4 is 0 */
};

struct pcn_vlan_header {
	__be16 tci;
	__be16 proto;
};

struct pcn_ipv6_extension {
	__u8 next;
	__u8 length;
	__be16 fragment; /* of a fragment header: offset in units of 8 bytes << 3 | more */
};

struct pcn_ipv6_fragment {
	struct pcn_ipv6_extension header;
	__be32 id;
};

static __always_inline int pcn_is_vlan(__be16 proto)
{
	return proto == bpf_htons(ETH_P_8021Q) || proto == bpf_htons(ETH_P_8021AD);
}

static __always_inline int pcn_parse_l2(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	struct pcn_vlan_header *tag;
	struct ethhdr *eth;
	__u16 tci, proto;

	if (pkt->parsed & PCN_PARSED_L2)
		return 0;
	eth = pcn_at(ctx, 0, sizeof(*eth));
	if (!eth)
		return PCN_DROP_MALFORMED;
	pkt->proto = eth->h_proto;
	pkt->l3 = sizeof(*eth);
	pkt->vlans = 0;
	pkt->vlan[0] = pkt->vlan[1] = 0;
	if (pcn_hw_vlan(ctx, &tci, &proto))
		pkt->vlan[pkt->vlans++] = tci;
	else if (pcn_is_vlan(pkt->proto)) {
		tag = pcn_at(ctx, sizeof(*eth), sizeof(*tag));
		if (!tag)
			return PCN_DROP_MALFORMED;
		pkt->vlan[pkt->vlans++] = bpf_ntohs(tag->tci);
		pkt->proto = tag->proto;
		pkt->l3 += sizeof(*tag);
	}
	if (pkt->vlans && pcn_is_vlan(pkt->proto)) {
		tag = pcn_at(ctx, pkt->l3, sizeof(*tag));
		if (!tag)
			return PCN_DROP_MALFORMED;
		pkt->vlan[1] = bpf_ntohs(tag->tci);
		pkt->vlans = 2;
		pkt->proto = tag->proto;
		pkt->l3 += sizeof(*tag);
	}
	pkt->parsed |= PCN_PARSED_L2;
	return 0;
}

static __always_inline int pcn_parse_ipv4(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	struct iphdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));
	__u32 header, total, fragment;

	if (!ip)
		return PCN_DROP_MALFORMED;
	header = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
#ifdef PCN_TC
	if (!total && ctx->gso_size) /* more than the field holds, until the kernel cuts it into segments (BIG TCP) */
		total = pkt->len - pkt->l3;
#endif
	if (ip->version != 4 || header < sizeof(*ip) || total < header || pkt->l3 + total > pkt->len)
		return PCN_DROP_MALFORMED;
	fragment = bpf_ntohs(ip->frag_off);
	pkt->fragment_id = ip->id;
	pkt->end = pkt->l3 + total;
	pkt->l4_proto = ip->protocol;
	pkt->l4 = pkt->l3 + header;
	if (fragment & 0x1fff) {
		pkt->fragment = PCN_FRAGMENT_LATER;
		pkt->l4 = 0;
	} else if (fragment & 0x2000) {
		pkt->fragment = PCN_FRAGMENT_FIRST;
	}
	return 0;
}

static __always_inline int pcn_parse_ipv6(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	struct ipv6hdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));
	struct pcn_ipv6_extension *extension;
	__u32 at = pkt->l3 + sizeof(*ip);
	__u8 next;
	int i;

	if (!ip || ip->version != 6 || at + bpf_ntohs(ip->payload_len) > pkt->len)
		return PCN_DROP_MALFORMED;
	pkt->end = at + bpf_ntohs(ip->payload_len);
	if (!ip->payload_len && ip->nexthdr == IPPROTO_HOPOPTS && pkt->len > 0xffff) /* a jumbogram (RFC 2675): BIG TCP */
		pkt->end = pkt->len;
	next = ip->nexthdr;
	for (i = 0; i <= PCN_MAX_EXTENSIONS; i++) {
		__u32 length;

		switch (next) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_MH:
		case IPPROTO_FRAGMENT:
		case IPPROTO_AH:
			break;
		case IPPROTO_NONE:
			at = 0;
			/* fallthrough */
		default:
			pkt->l4_proto = next;
			pkt->l4 = at;
			return 0;
		}
		if (i == PCN_MAX_EXTENSIONS || at > PCN_MAX_OFFSET)
			return PCN_DROP_EXTENSIONS;
		extension = pcn_at(ctx, at, sizeof(*extension));
		if (!extension)
			return PCN_DROP_MALFORMED;
		length = (extension->length + 1) * 8;
		if (next == IPPROTO_AH) {
			length = (extension->length + 2) * 4;
		} else if (next == IPPROTO_FRAGMENT) {
			struct pcn_ipv6_fragment *whole = pcn_at(ctx, at, sizeof(*whole));

			if (!whole)
				return PCN_DROP_MALFORMED;
			extension = &whole->header;
			pkt->fragment_id = whole->id;
			length = sizeof(*whole);
			if (at + length > pkt->end)
				return PCN_DROP_MALFORMED;
			if (extension->fragment & bpf_htons(0xfff8)) {
				pkt->fragment = PCN_FRAGMENT_LATER;
				pkt->l4_proto = extension->next;
				pkt->l4 = 0;
				return 0;
			}
			if (extension->fragment & bpf_htons(1))
				pkt->fragment = PCN_FRAGMENT_FIRST;
		}
		next = extension->next;
		at += length;
		if (at > pkt->end) /* the header says that it is longer than the packet */
			return PCN_DROP_MALFORMED;
	}
	return PCN_DROP_EXTENSIONS;
}

/* Up to where the transport header begins. */
static __always_inline int pcn_parse_l3(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	int reason = pcn_parse_l2(ctx, pkt);

	if (reason || pkt->parsed & PCN_PARSED_L3)
		return reason;
	pkt->fragment = PCN_FRAGMENT_NONE;
	pkt->fragment_id = 0;
	pkt->end = pkt->len;
	pkt->l4_proto = 0;
	pkt->l4 = 0;
	if (pkt->proto == bpf_htons(ETH_P_IP))
		reason = pcn_parse_ipv4(ctx, pkt);
	else if (pkt->proto == bpf_htons(ETH_P_IPV6))
		reason = pcn_parse_ipv6(ctx, pkt);
	else if (pkt->proto == bpf_htons(ETH_P_ARP) && !pcn_at(ctx, pkt->l3, PCN_ARP_LEN))
		reason = PCN_DROP_MALFORMED;
	if (!reason)
		pkt->parsed |= PCN_PARSED_L3;
	return reason;
}

/* All of it: TCP (with its options), UDP and ICMP headers are known to be whole. */
static __always_inline int pcn_parse(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	int reason = pcn_parse_l3(ctx, pkt);
	struct tcphdr *tcp;

	if (reason || pkt->parsed & PCN_PARSED_L4)
		return reason;
	if (pkt->l4) {
		switch (pkt->l4_proto) {
		case IPPROTO_TCP:
			tcp = pcn_at(ctx, pkt->l4, sizeof(*tcp));
			if (!tcp || tcp->doff < 5 || pkt->l4 + tcp->doff * 4 > pkt->end)
				return PCN_DROP_MALFORMED;
			break;
		case IPPROTO_UDP:
		case IPPROTO_ICMP:
		case IPPROTO_ICMPV6:
			/* the headers of ICMP have 8 bytes as well */
			if (!pcn_at(ctx, pkt->l4, sizeof(struct udphdr)) || pkt->l4 + sizeof(struct udphdr) > pkt->end)
				return PCN_DROP_MALFORMED;
			break;
		}
	}
	pkt->parsed |= PCN_PARSED_L4;
	return 0;
}
