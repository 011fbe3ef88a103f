/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * ARP (RFC 826). Requests for the port's addresses are answered here, so that neighbours keep the router while the control plane is
 * away; their senders are learnt. Replies go up: packets may be waiting for them.
 */
#pragma once

#include "router.h"

/*
 * Notes who has an address. Entries that exist follow a new MAC; new ones are made for directly connected addresses only, and not without
 * limit. A full table is no error: whoever is not in it is asked for when needed.
 */
static __always_inline void learn4(__u32 port, struct router_interface *in, __u32 address, const __u8 *mac, int create)
{
	struct router_neighbour4_key key = {.interface = in->number};
	struct router_neighbour *known, entry = {};

	*(__u32 *)key.address = address;
	known = bpf_map_lookup_elem(&neighbours4, &key);
	if (known && (known->permanent || same_mac(known->mac, mac)))
		return;
	if (!known) {
		if (!create || router_route4_says(address) != ROUTER_SAYS(ROUTER_UNICAST, in->number, 0))
			return;
		if (!allowed(port, ROUTER_CONTROL))
			return;
	} else {
		entry.used = known->used;
	}
	copy_mac(entry.mac, mac);
	if (bpf_map_update_elem(&neighbours4, &key, &entry, BPF_ANY))
		count_learn_failure();
}

static __always_inline int arp_input(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct router_interface *in)
{
	struct router_route4 *route;
	struct pcn_arp *arp;
	__u32 sender;
	int ours;

	pkt->proto = bpf_htons(ETH_P_ARP);
	pkt->l3 = ETH_HLEN;
	arp = pcn_arp_at(ctx, pkt);
	if (!arp || arp->sender_mac[0] & 1)
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	sender = pcn_word(arp->sender);
	if (sender && own4(sender))
		return pcn_drop(pkt, ADDRESS_CONFLICT);
	if (arp->operation == bpf_htons(PCN_ARP_REPLY))
		return hand_up(pkt, in, ROUTER_CONTROL, ROUTER_UP_ARP, CONTROL_LIMIT, 0, 0);
	route = pcn_lpm4_host(routes4, pcn_word(arp->target));
	ours = route && route->kind == ROUTER_LOCAL && route->interface == in->number;
	if (sender)
		learn4(pkt->in_port, in, sender, arp->sender_mac, ours);
	if (!ours || arp->operation != bpf_htons(PCN_ARP_REQUEST))
		return pcn_drop(pkt, ARP_IGNORED);
	return answered(pkt, in, pcn_arp_answer(ctx, pkt, in->mac));
}
