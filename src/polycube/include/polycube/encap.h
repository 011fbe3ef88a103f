/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Puts a packet into another one: IP in IP (RFC 2003, RFC 2473), or GUE, variant 1: the packet is the payload of UDP, without a header of
 * its own (draft-ietf-intarea-gue-09, 4). Either version in either. The frame keeps its Ethernet header; tags in the bytes are not taken.
 * In TC the kernel is told, so that what it will cut into segments becomes segments in packets of their own.
 */
#pragma once

#include <polycube/csum.h>

#define PCN_ENCAP_TTL 64

struct pcn_encap {
	__u8 from[16]; /* IPv4: the first 4 bytes */
	__u8 to[16];
	__u8 ipv6;     /* the outer packet is */
	__u8 udp;      /* GUE */
	__be16 sport;
	__be16 dport;
};

static __always_inline __u32 pcn_encap_size(int ipv6, int udp)
{
	return (ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) + (udp ? sizeof(struct udphdr) : 0);
}

/* Room for `size` bytes (constant) between the Ethernet header, which moves, and the packet. 0 or -1. */
static __always_inline int pcn_encap_room(struct pcn_ctx *ctx, __u32 size, int ipv6, int udp)
{
#ifdef PCN_TC
	__u64 flags = (ipv6 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV4) | (udp ? BPF_F_ADJ_ROOM_ENCAP_L4_UDP : 0);

	return bpf_skb_adjust_room(ctx, size, BPF_ADJ_ROOM_MAC, flags) ? -1 : 0;
#else
	struct ethhdr *eth = pcn_at(ctx, 0, sizeof(*eth)), copy;

	if (!eth)
		return -1;
	copy = *eth;
	if (pcn_adjust_head(ctx, size))
		return -1;
	eth = pcn_at(ctx, 0, sizeof(*eth));
	if (!eth)
		return -1;
	*eth = copy;
	return 0;
#endif
}

/* `inner6`, `tos` and `len` are those of the packet inside. The Ethernet header is given the outer packet's protocol. 0 or -1. */
static __always_inline int pcn_encap_write(struct pcn_ctx *ctx, const struct pcn_encap *encap, int ipv6, int udp, int inner6, __u8 tos, __u32 len)
{
	__u32 size = pcn_encap_size(ipv6, udp), at = ETH_HLEN + size - sizeof(struct udphdr);
	__be16 proto = ipv6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	__u8 next = udp ? IPPROTO_UDP : inner6 ? IPPROTO_IPV6 : IPPROTO_IPIP;

	if (pcn_encap_room(ctx, size, ipv6, udp))
		return -1;
	if (ipv6) {
		struct ipv6hdr ip = {.version = 6, .priority = tos >> 4, .flow_lbl = {tos << 4}, .nexthdr = next, .hop_limit = PCN_ENCAP_TTL};

		ip.payload_len = bpf_htons(len + size - sizeof(ip));
		memcpy(&ip.saddr, encap->from, sizeof(ip.saddr));
		memcpy(&ip.daddr, encap->to, sizeof(ip.daddr));
		if (pcn_store(ctx, ETH_HLEN, &ip, sizeof(ip)))
			return -1;
	} else {
		struct iphdr ip = {.version = 4, .ihl = 5, .tos = tos, .ttl = PCN_ENCAP_TTL, .protocol = next};
		const __u16 *words = (const void *)&ip;
		__u32 sum = 0;
		int i;

		ip.tot_len = bpf_htons(len + size);
		memcpy(&ip.saddr, encap->from, sizeof(ip.saddr));
		memcpy(&ip.daddr, encap->to, sizeof(ip.daddr));
#pragma unroll
		for (i = 0; i < (int)(sizeof(ip) / 2); i++)
			sum += words[i];
		ip.check = pcn_csum_fold(sum);
		if (pcn_store(ctx, ETH_HLEN, &ip, sizeof(ip)))
			return -1;
	}
	if (udp) {
		/* Without a checksum, in IPv6 as well: the packet inside has one (RFC 6935, RFC 6936) */
		struct udphdr header = {.source = encap->sport, .dest = encap->dport, .len = bpf_htons(len + sizeof(header))};

		if (pcn_store(ctx, at, &header, sizeof(header)))
			return -1;
	}
	return pcn_store(ctx, 2 * ETH_ALEN, &proto, sizeof(proto));
}

/* DSCP and ECN are copied (RFC 6040, 4.1). Asks for pcn_parse(); forgets what was parsed. 0 or -1, e.g. for a tag in the bytes. */
static __always_inline int pcn_encap(struct pcn_ctx *ctx, struct pcn_packet *pkt, const struct pcn_encap *encap)
{
	int inner6 = pkt->proto == bpf_htons(ETH_P_IPV6), error;
	__u32 len = pkt->end - pkt->l3;
	__u8 *head = pcn_at(ctx, pkt->l3, 2), tos;

	if (!head || pkt->l3 != ETH_HLEN)
		return -1;
	tos = inner6 ? head[0] << 4 | head[1] >> 4 : head[1];
	if (encap->ipv6)
		error = encap->udp ? pcn_encap_write(ctx, encap, 1, 1, inner6, tos, len) : pcn_encap_write(ctx, encap, 1, 0, inner6, tos, len);
	else
		error = encap->udp ? pcn_encap_write(ctx, encap, 0, 1, inner6, tos, len) : pcn_encap_write(ctx, encap, 0, 0, inner6, tos, len);
	pkt->parsed = 0;
	pkt->len = pcn_len(ctx);
	return error;
}
