/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Multicast snooping (RFC 4541), the data plane's part: IGMP and MLD go to the control plane, which knows who listens and passes them on
 * itself; copies for ports without a listener are dropped on their way out. Everybody gets everything of groups of the link (224.0.0.0/24,
 * ff01::/16, ff02::/16), in VLANs where nobody asks for listeners, and while the control plane is dead. Included by bridge.bpf.c only.
 */
#pragma once

#include "tree.h"

#define BRIDGE_MLD_QUERY 130
#define BRIDGE_MLD_DONE 132
#define BRIDGE_MLD2_REPORT 143

/* Whether the frame is one of the protocols by which listeners are known. What is malformed is not: it is passed on like anything else. */
static __always_inline int bridge_is_snooped(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	__u8 *type;

	if (pcn_parse_l3(ctx, pkt) || !pkt->l4)
		return 0;
	if (pkt->proto == bpf_htons(ETH_P_IP))
		return pkt->l4_proto == IPPROTO_IGMP;
	if (pkt->l4_proto != IPPROTO_ICMPV6)
		return 0;
	type = pcn_at(ctx, pkt->l4, sizeof(*type));
	return type && ((*type >= BRIDGE_MLD_QUERY && *type <= BRIDGE_MLD_DONE) || *type == BRIDGE_MLD2_REPORT);
}

/* The group a frame is sent to: 0 if it is one that everybody gets. */
static __always_inline int bridge_group_of(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct bridge_group *group)
{
	if (pcn_parse_l2(ctx, pkt))
		return 0;
	if (pkt->proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));

		if (!ip || (bpf_ntohl(ip->daddr) & 0xf0000000) != 0xe0000000 ||
		    (bpf_ntohl(ip->daddr) & 0xffffff00) == 0xe0000000)
			return 0;
		group->address[10] = group->address[11] = 0xff;
		memcpy(group->address + 12, &ip->daddr, sizeof(ip->daddr));
		return 1;
	}
	if (pkt->proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));

		if (!ip || ip->daddr.s6_addr[0] != 0xff || (ip->daddr.s6_addr[1] & 0xf) <= 2)
			return 0;
		memcpy(group->address, &ip->daddr, sizeof(ip->daddr));
		return 1;
	}
	return 0;
}

static __always_inline int bridge_listens(const struct bridge_group *group, __u32 now)
{
	__u32 *until = bpf_map_lookup_elem(&bridge_groups, group);

	return until && (__s32)(*until - now) > 0;
}

/* Whether a copy may leave by a port. */
static __always_inline int bridge_is_wanted(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u32 vlan, __u32 port, __u32 now)
{
	__u32 *until = bpf_map_lookup_elem(&bridge_queriers, &vlan), beat;
	struct bridge_group group = {.vlan = vlan, .port = port};

	if (!until || (__s32)(*until - now) <= 0 || !bridge_group_of(ctx, pkt, &group) || bridge_is_silent(now, &beat))
		return 1;
	if (bridge_listens(&group, now))
		return 1;
	memset(group.address, 0, sizeof(group.address));
	if (bridge_listens(&group, now))
		return 1;
	return bridge_is_snooped(ctx, pkt); /* the control plane's, which has chosen the port */
}
