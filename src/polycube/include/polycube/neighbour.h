/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Answers in the place of somebody: an ARP request (RFC 826) or a neighbour solicitation (RFC 4861) becomes its own answer and goes back
 * where it came from. Who is asked for is the caller's to look at:
 *
 *	const void *target = pcn_arp_request(ctx, pkt);
 *
 *	if (target && ours(target))
 *		return pcn_arp_answer(ctx, pkt, mac);
 */
#pragma once

#include <linux/icmpv6.h>

#include <polycube/csum.h>

#define PCN_ARP_REQUEST 1
#define PCN_ARP_REPLY 2
#define PCN_ND_SOLICITATION 135
#define PCN_ND_ADVERTISEMENT 136
#define PCN_ND_LEN 32 /* of a solicitation or advertisement with one MAC in it */
#define PCN_ND_FROM_HOST 0x60000000 /* flags of an advertisement: solicited, override */
#define PCN_ND_FROM_ROUTER 0xe0000000

struct pcn_arp {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_len;
	__u8 protocol_len;
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender[4];
	__u8 target_mac[6];
	__u8 target[4];
} __attribute__((packed));

struct pcn_nd {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__be32 flags;
	struct in6_addr target;
	__u8 option;
	__u8 option_len; /* in units of 8 bytes */
	__u8 mac[6];
};

struct pcn_nd_packet {
	struct ipv6hdr ip;
	struct pcn_nd nd;
};

/* The message of an ARP frame about IPv4 over Ethernet, or NULL. Asks for pcn_parse(). */
static __always_inline struct pcn_arp *pcn_arp_at(struct pcn_ctx *ctx, const struct pcn_packet *pkt)
{
	struct pcn_arp *arp;

	if (pkt->proto != bpf_htons(ETH_P_ARP))
		return 0;
	arp = pcn_at(ctx, pkt->l3, sizeof(*arp));
	if (!arp || arp->hardware != bpf_htons(1) || arp->protocol != bpf_htons(ETH_P_IP) || arp->hardware_len != 6 || arp->protocol_len != 4)
		return 0;
	return arp;
}

/* The IPv4 address that an ARP request asks for, or NULL if the frame is none. Asks for pcn_parse(). */
static __always_inline const void *pcn_arp_request(struct pcn_ctx *ctx, const struct pcn_packet *pkt)
{
	struct pcn_arp *arp = pcn_arp_at(ctx, pkt);

	return arp && arp->operation == bpf_htons(PCN_ARP_REQUEST) ? arp->target : 0;
}

/* Back to `to`, from `mac`: the Ethernet header of an answer. 0 or -1. */
static __always_inline int pcn_turn_back(struct pcn_ctx *ctx, const __u8 *to, const __u8 *mac)
{
	__u8 addresses[12];

	memcpy(addresses, to, 6);
	memcpy(addresses + 6, mac, 6);
	return pcn_store(ctx, 0, addresses, sizeof(addresses));
}

/* The verdict for an ARP request whose target has `mac` (constant memory, not of the frame). */
static __always_inline int pcn_arp_answer(struct pcn_ctx *ctx, struct pcn_packet *pkt, const __u8 *mac)
{
	struct pcn_arp *at = pcn_at(ctx, pkt->l3, sizeof(*at)), arp;

	if (!at)
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	memcpy(&arp, at, sizeof(arp));
	memcpy(arp.target_mac, arp.sender_mac, 6);
	memcpy(arp.sender_mac, mac, 6);
	arp.operation = bpf_htons(PCN_ARP_REPLY);
	memcpy(arp.sender, at->target, 4);
	memcpy(arp.target, at->sender, 4);
	if (pcn_store(ctx, pkt->l3, &arp, sizeof(arp)) || pcn_turn_back(ctx, arp.target_mac, mac))
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	return pcn_forward(pkt, pkt->in_port);
}

/* A neighbour solicitation or advertisement (`type`), or NULL; hop limit 255 proves that it comes from the link. Asks for pcn_parse(). */
static __always_inline struct pcn_nd *pcn_nd_at(struct pcn_ctx *ctx, const struct pcn_packet *pkt, __u8 type)
{
	struct ipv6hdr *ip;
	struct pcn_nd *nd;

	if (pkt->proto != bpf_htons(ETH_P_IPV6) || pkt->l4_proto != IPPROTO_ICMPV6 || pkt->l4 != pkt->l3 + sizeof(*ip))
		return 0;
	ip = pcn_at(ctx, pkt->l3, sizeof(*ip));
	if (!ip || ip->hop_limit != 255)
		return 0;
	nd = pcn_at(ctx, pkt->l4, __builtin_offsetof(struct pcn_nd, option));
	return nd && nd->type == type && !nd->code ? nd : 0;
}

/* The IPv6 address that a solicitation asks for, or NULL if the frame is none. Asks for pcn_parse(). */
static __always_inline const struct in6_addr *pcn_nd_request(struct pcn_ctx *ctx, const struct pcn_packet *pkt)
{
	struct pcn_nd *nd = pcn_nd_at(ctx, pkt, PCN_ND_SOLICITATION);

	return nd ? &nd->target : 0;
}

/* RFC 1071 over the pseudo header and a message of PCN_ND_LEN; 0 if the checksum in it is right. */
static __always_inline __u16 pcn_nd_checksum(const struct in6_addr *from, const struct in6_addr *to, const struct pcn_nd *nd)
{
	const __u32 *words = (const void *)nd;
	__u64 sum = bpf_htonl(PCN_ND_LEN) + (__u64)bpf_htonl(IPPROTO_ICMPV6);
	int i;

#pragma unroll
	for (i = 0; i < 4; i++)
		sum += (__u64)from->in6_u.u6_addr32[i] + to->in6_u.u6_addr32[i];
#pragma unroll
	for (i = 0; i < PCN_ND_LEN / 4; i++)
		sum += words[i];
	sum = (sum & 0xffffffff) + (sum >> 32);
	return pcn_csum_fold(pcn_csum_add(sum, sum >> 32));
}

/*
 * A solicitation of the kind that pcn_nd_answer() answers, with its IPv6 header, or NULL: one with the sender's MAC and nothing else, and
 * not for duplicate address detection. Asks for pcn_parse().
 */
static __always_inline struct pcn_nd_packet *pcn_nd_ordinary(struct pcn_ctx *ctx, const struct pcn_packet *pkt)
{
	struct pcn_nd_packet *packet;

	if (!pcn_nd_at(ctx, pkt, PCN_ND_SOLICITATION))
		return 0;
	packet = pcn_at(ctx, pkt->l3, sizeof(*packet));
	if (!packet || packet->ip.payload_len != bpf_htons(PCN_ND_LEN) || packet->nd.option != 1 || packet->nd.option_len != 1 ||
	    packet->nd.mac[0] & 1)
		return 0;
	return packet->ip.saddr.in6_u.u6_addr32[0] | packet->ip.saddr.in6_u.u6_addr32[3] ? packet : 0;
}

/*
 * The verdict for a solicitation whose target has `mac`, which is a host or a router (`flags`: PCN_ND_FROM_…). Those that are not ordinary
 * get no answer: NO_ANSWER is counted.
 */
static __always_inline int pcn_nd_answer(struct pcn_ctx *ctx, struct pcn_packet *pkt, const __u8 *mac, __u32 flags, __u16 no_answer)
{
	struct pcn_nd_packet *packet = pcn_nd_ordinary(ctx, pkt);
	struct in6_addr from, to;
	struct pcn_nd nd;
	__u8 back[6];

	if (!packet)
		return pcn_drop(pkt, no_answer);
	memcpy(&to, &packet->ip.saddr, sizeof(to));
	memcpy(back, packet->nd.mac, sizeof(back));
	memcpy(&from, &packet->nd.target, sizeof(from));
	memset(&nd, 0, sizeof(nd));
	nd.type = PCN_ND_ADVERTISEMENT;
	nd.flags = bpf_htonl(flags);
	memcpy(&nd.target, &from, sizeof(from));
	nd.option = 2;
	nd.option_len = 1;
	memcpy(nd.mac, mac, 6);
	nd.checksum = pcn_nd_checksum(&from, &to, &nd);
	if (pcn_store(ctx, pkt->l4, &nd, sizeof(nd)) ||
	    pcn_store(ctx, pkt->l3 + __builtin_offsetof(struct ipv6hdr, saddr), &from, sizeof(from)) ||
	    pcn_store(ctx, pkt->l3 + __builtin_offsetof(struct ipv6hdr, daddr), &to, sizeof(to)) || pcn_turn_back(ctx, back, mac))
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	return pcn_forward(pkt, pkt->in_port);
}
