/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Whether a frame fits. In TC a frame may stand for many segments (GSO): each of them has to fit, not the whole. */
#pragma once

#include <polycube/parse.h>

/* Bytes behind the Ethernet header and its tags, of the largest frame this one becomes on the wire. Asks for pcn_parse(). */
static __always_inline __u32 pcn_l3_len(struct pcn_ctx *ctx, const struct pcn_packet *pkt)
{
#ifdef PCN_TC
	if (ctx->gso_size && pkt->l4) {
		__u32 headers = pkt->l4 - pkt->l3 + sizeof(struct udphdr);

		if (pkt->l4_proto == IPPROTO_TCP) {
			struct tcphdr *tcp = pcn_at(ctx, pkt->l4, sizeof(*tcp));

			headers = pkt->l4 - pkt->l3 + (tcp ? tcp->doff * 4 : sizeof(*tcp));
		}
		return headers + ctx->gso_size;
	}
#endif
	return pkt->len - pkt->l3;
}

/* Whether it fits an MTU that the function knows itself. */
static __always_inline int pcn_fits(struct pcn_ctx *ctx, const struct pcn_packet *pkt, __u32 mtu)
{
	return pcn_l3_len(ctx, pkt) <= mtu;
}

/*
 * Whether it fits a netdev, grown by `more` bytes; `mtu` is set to the netdev's. The kernel counts segments if there are some. An ifindex
 * of no netdev: it does not fit, mtu 0.
 */
static __always_inline int pcn_fits_netdev(struct pcn_ctx *ctx, __u32 ifindex, int more, __u32 *mtu)
{
	long result;

#ifdef PCN_TC
	*mtu = 0;
	result = bpf_check_mtu(ctx, ifindex, mtu, more, BPF_MTU_CHK_SEGS);
#else
	*mtu = pcn_len(ctx) - ETH_HLEN; /* left to itself, the kernel looks at the linear part only */
	result = bpf_check_mtu(ctx, ifindex, mtu, more, 0);
#endif
	if (result < 0)
		*mtu = 0;
	return !result;
}
