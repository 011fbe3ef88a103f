/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * VLAN tags: in XDP they are moved in the bytes, in TC the kernel keeps the outermost beside them. All functions work on the outermost
 * tag, forget what was parsed (offsets move), and return 0 or -1. Pointers into the frame are void afterwards.
 */
#pragma once

#include <polycube/parse.h>

static __always_inline void pcn_vlan_changed(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	pkt->parsed = 0;
	pkt->len = pcn_len(ctx);
}

/*
 * The outermost tag, if it is one of 802.1Q: 1, and its TCI in host byte order; 0 if there is none (one of 802.1ad is somebody else's
 * business); -1 if it is cut off. For functions that look at nothing behind it: cheaper than the parser.
 */
static __always_inline int pcn_vlan_outer(struct pcn_ctx *ctx, const struct ethhdr *eth, __u16 *tci)
{
	struct pcn_vlan_header *tag;
	__u16 value, proto;

	if (pcn_hw_vlan(ctx, &value, &proto)) {
		*tci = proto == bpf_htons(ETH_P_8021Q) ? value : 0;
		return proto == bpf_htons(ETH_P_8021Q);
	}
	*tci = 0;
	if (eth->h_proto != bpf_htons(ETH_P_8021Q))
		return 0;
	tag = pcn_at(ctx, sizeof(*eth), sizeof(*tag));
	if (!tag)
		return -1;
	*tci = bpf_ntohs(tag->tci);
	return 1;
}

/* Puts a tag around the frame; `proto` is ETH_P_8021Q or ETH_P_8021AD in host byte order, `tci` has priority and VLAN. */
static __always_inline int pcn_vlan_push(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u16 proto, __u16 tci)
{
#ifdef PCN_TC
	if (bpf_skb_vlan_push(ctx, bpf_htons(proto), tci))
		return -1;
#else
	struct ethhdr eth, *at = pcn_at(ctx, 0, sizeof(*at));
	struct pcn_vlan_header *tag;

	if (!at)
		return -1;
	eth = *at;
	if (pcn_adjust_head(ctx, sizeof(*tag)))
		return -1;
	at = pcn_at(ctx, 0, sizeof(*at) + sizeof(*tag));
	if (!at)
		return -1;
	tag = (void *)(at + 1);
	tag->tci = bpf_htons(tci);
	tag->proto = eth.h_proto;
	eth.h_proto = bpf_htons(proto);
	*at = eth;
#endif
	pcn_vlan_changed(ctx, pkt);
	return 0;
}

/* Takes the outermost tag off; a frame without one stays as it is. */
static __always_inline int pcn_vlan_pop(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
#ifdef PCN_TC
	if (bpf_skb_vlan_pop(ctx))
		return -1;
#else
	struct ethhdr eth, *at = pcn_at(ctx, 0, sizeof(*at));
	struct pcn_vlan_header *tag;

	if (!at)
		return -1;
	eth = *at;
	if (!pcn_is_vlan(eth.h_proto))
		return 0;
	tag = pcn_at(ctx, sizeof(eth), sizeof(*tag));
	if (!tag)
		return -1;
	eth.h_proto = tag->proto;
	if (pcn_adjust_head(ctx, -(int)sizeof(*tag)))
		return -1;
	at = pcn_at(ctx, 0, sizeof(*at));
	if (!at)
		return -1;
	*at = eth;
#endif
	pcn_vlan_changed(ctx, pkt);
	return 0;
}

/* Rewrites the outermost tag, whose protocol stays; -1 if there is none. */
static __always_inline int pcn_vlan_set(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u16 tci)
{
#ifdef PCN_TC
	__u16 old, proto;

	if (pcn_hw_vlan(ctx, &old, &proto)) {
		/* Pop and push: a push onto a tag in the metadata would make two of them. */
		if (bpf_skb_vlan_pop(ctx) || bpf_skb_vlan_push(ctx, proto, tci))
			return -1;
		pcn_vlan_changed(ctx, pkt);
		return 0;
	}
#endif
	struct ethhdr *eth = pcn_at(ctx, 0, sizeof(*eth));
	__be16 value = bpf_htons(tci);

	if (!eth || !pcn_is_vlan(eth->h_proto) || pcn_store(ctx, sizeof(*eth), &value, sizeof(value)))
		return -1;
	pkt->parsed = 0;
	return 0;
}
