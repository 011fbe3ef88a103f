// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * A VLAN bridge (IEEE 802.1Q). A frame is put into a VLAN where it comes in, by its tag or its port's. One that goes to a single port is left
 * as it came; copies are tagged before they are made, so that they say themselves which VLAN they belong to. Where a frame goes out, the
 * egress handler gives it the form that the port wants. The same handler filters: flood domains only spare the copies that it would drop.
 * Frames of the control plane are tagged, too.
 */
#include "snooping.h"

static __always_inline int bridge_is_member(const struct bridge_port *port, __u16 vlan)
{
	return port->vlans[(vlan & BRIDGE_VID) >> 3] >> (vlan & 7) & 1;
}

/* The VLAN a frame belongs to, into pkt->carry. Returns 0 or a drop reason. */
static __always_inline int bridge_classify(struct pcn_ctx *ctx, struct pcn_packet *pkt, const struct bridge_port *port, const struct ethhdr *eth)
{
	__u16 tci;
	int tagged = pcn_vlan_outer(ctx, eth, &tci);

	if (tagged < 0)
		return PCN_DROP_MALFORMED;
	pkt->carry = BRIDGE_CLASSIFIED | (tagged ? BRIDGE_TAGGED : 0) | (tci & BRIDGE_VID);
	if (tagged && tci & BRIDGE_VID)
		return port->tagged && bridge_is_member(port, tci) ? 0 : NOT_MEMBER;
	if (!port->pvid)
		return NO_VLAN;
	pkt->carry |= port->pvid;
	/* A tag with a priority only: from here on it is one with a VLAN. */
	if (tagged && pcn_vlan_set(ctx, pkt, tci | port->pvid))
		return PCN_DROP_MALFORMED;
	return 0;
}

/* Out of all ports of the VLAN. */
static __always_inline int bridge_flood(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	__u32 vlan = pkt->carry & BRIDGE_VID, *domain = bpf_map_lookup_elem(&bridge_domains, &vlan);

	if (!(pkt->carry & BRIDGE_TAGGED) && pcn_vlan_push(ctx, pkt, ETH_P_8021Q, vlan))
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	pkt->carry |= BRIDGE_TAGGED;
	return pcn_flood(pkt, domain ? *domain : 0);
}

/* To group addresses. */
static __always_inline int bridge_multicast(struct pcn_ctx *ctx, struct pcn_packet *pkt, const struct ethhdr *eth, __u32 now)
{
	__u32 beat;

	if (pcn_is_link_local(eth->h_dest) && (eth->h_dest[5] || stp))
		return pcn_drop(pkt, LINK_LOCAL);
	if (snooping && (eth->h_dest[0] == 0x01 || eth->h_dest[0] == 0x33) && bridge_is_snooped(ctx, pkt) &&
	    !bridge_is_silent(now, &beat))
		return pcn_slowpath(pkt, BRIDGE_SNOOPED, pkt->carry & BRIDGE_VID, 0, 0);
	return bridge_flood(ctx, pkt);
}

HANDLER(ingress)
{
	struct ethhdr *eth = pcn_at(ctx, 0, sizeof(*eth));
	__u32 now = pcn_now(), number = pkt->in_port;
	struct bridge_port *port = bpf_map_lookup_elem(&bridge_ports, &number);
	int reason, silent, state = BRIDGE_FORWARDING;
	struct pcn_station *station;
	struct pcn_fdb_key key;
	__u16 vlan;

	if (!port)
		return pcn_drop(pkt, PCN_DROP_NO_PORT);
	if (!eth)
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	reason = bridge_classify(ctx, pkt, port, eth);
	if (reason)
		return pcn_drop(pkt, reason);
	vlan = pkt->carry & BRIDGE_VID;
	eth = pcn_at(ctx, 0, sizeof(*eth));
	if (!eth)
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	if (stp) {
		struct bridge_tree *tree = bpf_map_lookup_elem(&bridge_trees, &number);

		if (!tree)
			return pcn_drop(pkt, PCN_DROP_NO_PORT);
		if (bridge_is_bpdu(eth->h_dest)) {
			bridge_hear(ctx, pkt, eth, vlan, now);
			return pcn_slowpath(pkt, BRIDGE_BPDU, vlan, 0, 0);
		}
		state = bridge_state_of(tree, number, vlan, now, &silent);
		if (state == BRIDGE_DISCARDING)
			return pcn_drop(pkt, silent ? SILENT : BLOCKED);
	}
	pcn_fdb_read(&key, eth->h_source, vlan);
	if (key.address[0] & 1 || !(*(__u32 *)key.address | *(__u16 *)(key.address + 4)))
		return pcn_drop(pkt, BAD_SOURCE);
	pcn_fdb_learn(pkt, &key, now);
	if (state == BRIDGE_LEARNING)
		return pcn_drop(pkt, BLOCKED);
	if (eth->h_dest[0] & 1)
		return bridge_multicast(ctx, pkt, eth, now);
	pcn_fdb_read(&key, eth->h_dest, vlan);
	station = pcn_fdb_find(&key, now);
	if (!station)
		return bridge_flood(ctx, pkt);
	if (stp && bridge_is_void(station, vlan, now))
		return bridge_flood(ctx, pkt);
	if (station->port == number)
		return pcn_drop(pkt, SAME_PORT);
	return pcn_forward(pkt, station->port);
}

/* The form a port wants. Returns 0 or -1. */
static __always_inline int bridge_dress(struct pcn_ctx *ctx, struct pcn_packet *pkt, const struct bridge_port *port)
{
	__u16 vlan = pkt->carry & BRIDGE_VID;

	if (vlan == port->pvid)
		return pkt->carry & BRIDGE_TAGGED ? pcn_vlan_pop(ctx, pkt) : 0;
	return pkt->carry & BRIDGE_TAGGED ? 0 : pcn_vlan_push(ctx, pkt, ETH_P_8021Q, vlan);
}

HANDLER(egress)
{
	__u32 number = pkt->out_port, now = stp || snooping ? pcn_now() : 0;
	struct bridge_port *port = bpf_map_lookup_elem(&bridge_ports, &number);
	struct ethhdr *eth;
	__u16 tci;
	int silent;

	if (!port)
		return pcn_drop(pkt, PCN_DROP_NO_PORT);
	if (!(pkt->carry & BRIDGE_CLASSIFIED)) {
		eth = pcn_at(ctx, 0, sizeof(*eth));
		if (!eth || pcn_vlan_outer(ctx, eth, &tci) <= 0)
			return pcn_drop(pkt, PCN_DROP_MALFORMED);
		pkt->carry = BRIDGE_CLASSIFIED | BRIDGE_TAGGED | (tci & BRIDGE_VID);
	}
	if (!bridge_is_member(port, pkt->carry))
		return pcn_drop(pkt, NOT_MEMBER);
	if (stp || snooping) {
		eth = pcn_at(ctx, 0, sizeof(*eth));
		if (!eth)
			return pcn_drop(pkt, PCN_DROP_MALFORMED);
		if (stp && !bridge_is_bpdu(eth->h_dest)) {
			struct bridge_tree *tree = bpf_map_lookup_elem(&bridge_trees, &number);

			if (!tree)
				return pcn_drop(pkt, PCN_DROP_NO_PORT);
			if (bridge_state_of(tree, number, pkt->carry, now, &silent) != BRIDGE_FORWARDING)
				return pcn_drop(pkt, silent ? SILENT : BLOCKED);
		}
		if (snooping && eth->h_dest[0] & 1 && !bridge_is_wanted(ctx, pkt, pkt->carry & BRIDGE_VID, number, now))
			return pcn_drop(pkt, NO_LISTENER);
	}
	return bridge_dress(ctx, pkt, port) ? pcn_drop(pkt, PCN_DROP_MALFORMED) : pcn_pass(pkt);
}
