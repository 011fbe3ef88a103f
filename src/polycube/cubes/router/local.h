/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Packets to the router itself. Echo requests are answered in place, back to the MAC they came from, whichever of the router's addresses
 * they ask for (RFC 792, RFC 4443 4.2); checksums change by the difference, hence wrong ones stay wrong. The rest is for the namespace of a
 * shadow router and what runs there, else for the control plane.
 */
#pragma once

#include "nd.h"

static __always_inline void turn_back(struct ethhdr *eth, struct router_interface *in)
{
	copy_mac(eth->h_dest, eth->h_source);
	copy_mac(eth->h_source, in->mac);
}

/* The kernel's own header needs the C library's. */
#define ICMP_ECHOREPLY 0
#define ICMP_ECHO 8

struct router_icmp {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__u32 rest;
};

struct router_echo4 {
	struct ethhdr eth;
	struct iphdr ip;
	struct router_icmp icmp;
} __attribute__((packed));

/* In TC a sum over the whole packet, if the NIC gave one, stays right: every change comes with that of a checksum inside. */
static __always_inline int echo4(struct pcn_packet *pkt, struct router_interface *in, struct router_echo4 *echo)
{
	struct iphdr *ip = (void *)echo + ETH_HLEN;
	__u32 from = ip->saddr;
	__u16 old = *(__u16 *)&ip->ttl, new;

	ip->saddr = ip->daddr;
	ip->daddr = from;
	ip->ttl = ROUTER_HOP_LIMIT;
	new = *(__u16 *)&ip->ttl;
	ip->check = pcn_csum_update(ip->check, old, new);
	echo->icmp.type = ICMP_ECHOREPLY;
	echo->icmp.checksum = pcn_csum_update(echo->icmp.checksum, ICMP_ECHO, ICMP_ECHOREPLY); /* the type is the first byte of its word */
	turn_back(&echo->eth, in);
	return leave(pkt, in);
}

static __always_inline int local4(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct router_interface *in, __u8 proto, int plain, int fragment)
{
	struct router_echo4 *echo;

	if (fragment)
		return pcn_has_shadow() ? pcn_shadow(pkt) : pcn_drop(pkt, LOCAL_IGNORED);
	if (proto == IPPROTO_ICMP && plain) {
		echo = pcn_at(ctx, 0, sizeof(*echo));
		if (!echo)
			return pcn_drop(pkt, PCN_DROP_MALFORMED);
		if (echo->icmp.type == ICMP_ECHO && !echo->icmp.code)
			return echo4(pkt, in, echo);
		return pcn_has_shadow() ? pcn_shadow(pkt) : pcn_drop(pkt, LOCAL_IGNORED);
	}
	if (pcn_has_shadow())
		return pcn_shadow(pkt);
	return hand_up(pkt, in, ROUTER_ERRORS, ROUTER_UP_LOCAL, LOCAL, 0, 0);
}

struct router_echo6 {
	struct ethhdr eth;
	struct ipv6hdr ip;
	struct icmp6hdr icmp;
} __attribute__((packed));

/* The hop limit is covered by no checksum of the packet, hence pcn_store. */
static __always_inline int echo6(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct router_interface *in, struct router_echo6 *echo)
{
	struct in6_addr from;
	__u8 hop_limit = ROUTER_HOP_LIMIT;

	memcpy(&from, &echo->ip.saddr, sizeof(from));
	memcpy(&echo->ip.saddr, &echo->ip.daddr, sizeof(from));
	memcpy(&echo->ip.daddr, &from, sizeof(from));
	echo->icmp.icmp6_type = ICMPV6_ECHO_REPLY;
	echo->icmp.icmp6_cksum = pcn_csum_update(echo->icmp.icmp6_cksum, ICMPV6_ECHO_REQUEST, ICMPV6_ECHO_REPLY);
	turn_back(&echo->eth, in);
	pcn_store(ctx, __builtin_offsetof(struct router_echo6, ip.hop_limit), &hop_limit, 1);
	return leave(pkt, in);
}

static __always_inline int local6(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct router_interface *in, __u8 proto, __u8 hop_limit)
{
	struct router_echo6 *echo;

	if (proto != IPPROTO_ICMPV6)
		return pcn_has_shadow() ? pcn_shadow(pkt) : hand_up(pkt, in, ROUTER_ERRORS, ROUTER_UP_LOCAL, LOCAL, 0, 0);
	echo = pcn_at(ctx, 0, sizeof(*echo));
	if (!echo)
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	if (echo->icmp.icmp6_type == PCN_ND_SOLICITATION || echo->icmp.icmp6_type == PCN_ND_ADVERTISEMENT)
		return nd_input(ctx, pkt, in, hop_limit);
	if (echo->icmp.icmp6_type != ICMPV6_ECHO_REQUEST || echo->icmp.icmp6_code)
		return pcn_has_shadow() ? pcn_shadow(pkt) : pcn_drop(pkt, LOCAL_IGNORED);
	return echo6(ctx, pkt, in, echo);
}

/* To a group, or to all: nothing for the router itself, but routing daemons live on it. */
static __always_inline int multicast(struct pcn_packet *pkt)
{
	return pcn_has_shadow() ? pcn_shadow(pkt) : pcn_drop(pkt, MULTICAST);
}

/* Of multicast packets the router itself takes Neighbour Discovery only. */
static __always_inline int multicast6(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct router_interface *in, __u8 proto, __u8 hop_limit)
{
	struct router_echo6 *echo = proto == IPPROTO_ICMPV6 ? pcn_at(ctx, 0, sizeof(*echo)) : 0;

	if (echo && (echo->icmp.icmp6_type == PCN_ND_SOLICITATION || echo->icmp.icmp6_type == PCN_ND_ADVERTISEMENT))
		return nd_input(ctx, pkt, in, hop_limit);
	return multicast(pkt);
}
