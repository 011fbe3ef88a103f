/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Which port a frame leaves by, translated or not; ARP and Neighbour Discovery, which pass, but for clients whose addresses are rewritten. */
#pragma once

#include "lbrp.h"

static __always_inline int is_group(struct pcn_ctx *ctx)
{
	__u8 *mac = pcn_at(ctx, 0, ETH_ALEN);

	return mac && mac[0] & 1;
}

/* Out of the backend port; or to whoever has the address (MULTI: all of them, if a group is meant), or out of the one frontend. */
static __always_inline int onward(struct pcn_ctx *ctx, struct pcn_packet *pkt, const void *address)
{
	struct pcn_address key;
	__u32 *port;

	if (pkt->in_port != settings.backend)
		return pcn_forward(pkt, settings.backend);
	if (!settings.multi)
		return pcn_forward(pkt, settings.frontend);
	pcn_copy_address(&key, address);
	port = bpf_map_lookup_elem(&frontends, &key);
	if (port)
		return pcn_forward(pkt, *port);
	return is_group(ctx) ? pcn_flood(pkt, 0) : pcn_drop(pkt, NO_FRONTEND);
}

/* The destination of an IP packet. 0 or -1. */
static __always_inline int destination(struct pcn_ctx *ctx, const struct pcn_packet *pkt, struct pcn_address *to)
{
	if (pkt->proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));

		if (!ip)
			return -1;
		pcn_ct_set_address(to, &ip->daddr, 1);
	} else {
		struct iphdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));

		if (!ip)
			return -1;
		pcn_ct_set_address(to, &ip->daddr, 0);
	}
	return 0;
}

/* The MAC of the client that backends know by this address: -1 if it is not of the new range, 1 if nobody has it. */
static __always_inline int client_mac(const struct pcn_address *address, __u8 *mac)
{
	struct lbrp_mac *client;

	if (!rewrite.on || !in_range(address->bytes, &rewrite.new_range))
		return -1;
	client = bpf_map_lookup_elem(&clients, address);
	if (!client)
		return 1;
	memcpy(mac, client->bytes, ETH_ALEN);
	return 0;
}

/* ARP from the backend port: a question goes to whom it is about, an answer to whom it is for. */
static __always_inline int arp(struct pcn_ctx *ctx, struct pcn_packet *pkt, const struct pcn_arp *message)
{
	__u16 operation = message->operation;
	struct pcn_address target;
	__u8 mac[ETH_ALEN];
	int unknown;

	pcn_ct_set_address(&target, message->target, 0);
	if (operation == bpf_htons(PCN_ARP_REQUEST)) {
		unknown = client_mac(&target, mac);
		if (!unknown)
			return pcn_arp_answer(ctx, pkt, mac);
		if (unknown > 0)
			return pcn_drop(pkt, UNKNOWN_CLIENT);
	}
	return onward(ctx, pkt, target.bytes);
}

/* The same of Neighbour Discovery. */
static __always_inline int solicitation(struct pcn_ctx *ctx, struct pcn_packet *pkt, const struct in6_addr *asked)
{
	struct pcn_address target;
	__u8 mac[ETH_ALEN];
	int unknown;

	pcn_ct_set_address(&target, asked, 1);
	unknown = client_mac(&target, mac);
	if (!unknown)
		return pcn_nd_answer(ctx, pkt, mac, PCN_ND_FROM_HOST, UNKNOWN_CLIENT);
	return unknown > 0 ? pcn_drop(pkt, UNKNOWN_CLIENT) : onward(ctx, pkt, target.bytes);
}

/* What is not IP, or is talk of a link. */
static __always_inline int link_talk(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	const struct in6_addr *asked;
	const struct pcn_arp *message;
	struct pcn_address to = {};

	if (pkt->in_port != settings.backend)
		return pcn_forward(pkt, settings.backend);
	message = pcn_arp_at(ctx, pkt);
	if (message)
		return arp(ctx, pkt, message);
	asked = pcn_nd_request(ctx, pkt);
	if (asked)
		return solicitation(ctx, pkt, asked);
	if (pkt->proto == bpf_htons(ETH_P_IPV6) && destination(ctx, pkt, &to))
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	return settings.multi && pkt->proto != bpf_htons(ETH_P_IPV6) ? pcn_flood(pkt, 0) : onward(ctx, pkt, to.bytes);
}
