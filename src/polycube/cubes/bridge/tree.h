/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The data plane's part in spanning tree: states by port and VLAN, and what happens when nobody speaks the protocol for this bridge. Its
 * neighbours forget a bridge that is silent, and open ports that they had closed for its sake. Before one of them does, it claims to be
 * the designated bridge of the link, in BPDUs, for twice the hello time at least (802.1D-2004, 17.29.3) and twice the forward delay in the
 * old protocol. Where such a claim is heard while the control plane has been silent for less than that, the port is blocked until the
 * control plane is back. Towards the root, claims are as usual: what they mean for the others is heard on their ports. So the tree
 * stands as long as nobody wants another one, and there is no loop whatever they want. Included by bridge.bpf.c only.
 */
#pragma once

#include "bridge.h"

#define BRIDGE_LLC 3  /* bytes of LLC in front of a BPDU; of SNAP there are 8 */
#define BRIDGE_SNAP 8
#define BRIDGE_BPDU_RST 2
#define BRIDGE_ROLE_DESIGNATED 0xc

/* Protocol, version, type and flags of a BPDU (802.1D-2004, 9.3). */
struct bridge_bpdu {
	__be16 protocol;
	__u8 version;
	__u8 type;
	__u8 flags;
} __attribute__((packed));

static __always_inline int bridge_is_silent(__u32 now, __u32 *beat)
{
	__u32 zero = 0;
	struct bridge_heartbeat *heart = bpf_map_lookup_elem(&bridge_heartbeats, &zero);

	if (!heart)
		return 0;
	*beat = heart->beat;
	return (__s32)(now - heart->beat) > (__s32)heart->limit;
}

/* Notes a BPDU by which another bridge claims to be the designated one: a configuration BPDU always does. */
static __always_inline void bridge_hear(struct pcn_ctx *ctx, struct pcn_packet *pkt, const struct ethhdr *eth, __u16 vlan, __u32 now)
{
	/* behind addresses, a tag in the bytes and the length */
	__u32 at = sizeof(*eth) + (eth->h_dest[1] == 0x80 ? BRIDGE_LLC : BRIDGE_SNAP) + (eth->h_proto == bpf_htons(ETH_P_8021Q) ? 4 : 0);
	struct bridge_place place = {.vlan = vlan, .port = pkt->in_port};
	struct bridge_bpdu *bpdu = pcn_at(ctx, at, sizeof(*bpdu));

	if (!bpdu || (bpdu->type && (bpdu->type != BRIDGE_BPDU_RST || (bpdu->flags & BRIDGE_ROLE_DESIGNATED) != BRIDGE_ROLE_DESIGNATED)))
		return;
	bpf_map_update_elem(&bridge_heard, &place, &now, BPF_ANY);
}

/* The state of a port in a VLAN. `silent` is set if it is blocked because nobody speaks the protocol. */
static __always_inline int bridge_state_of(const struct bridge_tree *tree, __u32 port, __u16 vlan, __u32 now, int *silent)
{
	int state = tree->states[(vlan & BRIDGE_VID) >> 2] >> (vlan & 3) * 2 & 3;
	struct bridge_place place = {.vlan = vlan & BRIDGE_VID, .port = port};
	__u32 *heard, beat;

	*silent = 0;
	if (state == BRIDGE_TOWARDS_ROOT)
		return BRIDGE_FORWARDING;
	if (state == BRIDGE_DISCARDING || !bridge_is_silent(now, &beat))
		return state;
	heard = bpf_map_lookup_elem(&bridge_heard, &place);
	if (!heard || (__s32)(*heard - beat) < 0)
		return state;
	*silent = 1;
	return BRIDGE_DISCARDING;
}

/* Whether a station may be elsewhere: the topology has changed since it was heard, or changes while nobody speaks the protocol. */
static __always_inline int bridge_is_void(const struct pcn_station *station, __u16 vlan, __u32 now)
{
	__u32 behind = station->port;
	struct bridge_tree *tree = bpf_map_lookup_elem(&bridge_trees, &behind);
	int silent;

	if (!tree || station->flags & PCN_STATION_STATIC)
		return 0;
	if (tree->flushed && (__s32)(station->seen - tree->flushed) <= 0)
		return 1;
	bridge_state_of(tree, behind, vlan, now, &silent);
	return silent;
}

/* 01:80:c2:00:00:00, or 01:00:0c:cc:cc:cd of per-VLAN trees */
static __always_inline int bridge_is_bpdu(const __u8 *address)
{
	__u32 high = *(const __u32 *)address;
	__u16 low = *(const __u16 *)(address + 4);

	return (high == bpf_htonl(0x0180c200) && !low) || (high == bpf_htonl(0x01000ccc) && low == bpf_htons(0xcccd));
}
