/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Neighbour Discovery (RFC 4861). The ordinary solicitation for an address of the port (one option, the sender's MAC) becomes the
 * advertisement in place: both have the same length. All other solicitations and all advertisements go up.
 */
#pragma once

#include "router.h"

/* As learn4. Any link-local address is directly connected. */
static __always_inline void learn6(__u32 port, struct router_interface *in, const __u8 *address, const __u8 *mac)
{
	struct router_neighbour6_key key = {.interface = in->number};
	struct router_neighbour *known, entry = {};

	pcn_copy_address(key.address, address);
	known = bpf_map_lookup_elem(&neighbours6, &key);
	if (known && (known->permanent || same_mac(known->mac, mac)))
		return;
	if (!known) {
		if (!link_local6(key.address) && router_route6_says((void *)key.address) != ROUTER_SAYS(ROUTER_UNICAST, in->number, 0))
			return;
		if (!allowed(port, ROUTER_CONTROL))
			return;
	} else {
		entry.used = known->used;
	}
	copy_mac(entry.mac, mac);
	if (bpf_map_update_elem(&neighbours6, &key, &entry, BPF_ANY))
		count_learn_failure();
}

static __always_inline int nd_target_is_ours(struct router_interface *in, const __u8 *target)
{
	struct router_route6 *route;

	if (link_local6(target))
		return pcn_same_address(target, in->link_local);
	route = pcn_lpm6_host(routes6, target);
	return route && route->kind == ROUTER_LOCAL && route->interface == in->number;
}

/* A solicitation or advertisement right behind the IPv6 header. Hop limit 255 proves that it comes from the link (RFC 4861 7.1). */
static __always_inline int nd_input(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct router_interface *in, __u8 hop_limit)
{
	struct pcn_nd_packet *packet;

	if (hop_limit != 255)
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	pkt->proto = bpf_htons(ETH_P_IPV6);
	pkt->l3 = ETH_HLEN;
	pkt->l4 = ETH_HLEN + sizeof(struct ipv6hdr);
	pkt->l4_proto = IPPROTO_ICMPV6;
	packet = pcn_nd_ordinary(ctx, pkt);
	if (!packet)
		return hand_up(pkt, in, ROUTER_CONTROL, ROUTER_UP_ND, CONTROL_LIMIT, 0, 0);
	if (pcn_nd_checksum(&packet->ip.saddr, &packet->ip.daddr, &packet->nd))
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	if (pcn_same_address(&packet->ip.saddr, in->link_local) || own6(&packet->ip.saddr))
		return pcn_drop(pkt, ADDRESS_CONFLICT);
	if (!nd_target_is_ours(in, (const __u8 *)&packet->nd.target))
		return pcn_drop(pkt, ARP_IGNORED);
	learn6(pkt->in_port, in, (const __u8 *)&packet->ip.saddr, packet->nd.mac);
	return answered(pkt, in, pcn_nd_answer(ctx, pkt, in->mac, PCN_ND_FROM_ROUTER, ARP_IGNORED));
}
