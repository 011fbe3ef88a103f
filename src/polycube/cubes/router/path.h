/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Which of several next hops a flow takes, and whether a source would be answered by the way its packet came (RFC 3704). */
#pragma once

#include "router.h"

/* Of a packet's flow: addresses, protocol, and ports if they are in the packet, and in IPv6 not behind extension headers. */
static __always_inline __u32 flow4(struct pcn_ctx *ctx, struct pcn_packet *pkt, const struct iphdr *ip)
{
	__be32 from = ip->saddr, to = ip->daddr;
	__be16 from_port, to_port;

	pkt->l4 = ip->frag_off & bpf_htons(0x3fff) ? 0 : ETH_HLEN + ip->ihl * 4;
	pkt->l4_proto = ip->protocol;
	pkt->fragment = PCN_FRAGMENT_NONE;
	pcn_hash_ports(ctx, pkt, &from_port, &to_port);
	return pcn_hash_ipv4(from, to, from_port, to_port, pkt->l4_proto, 0, hash_seed);
}

static __always_inline __u32 flow6(struct pcn_ctx *ctx, struct pcn_packet *pkt, const struct ipv6hdr *ip)
{
	struct in6_addr from = ip->saddr, to = ip->daddr;
	__be16 from_port, to_port;

	pkt->l4 = ETH_HLEN + sizeof(*ip);
	pkt->l4_proto = ip->nexthdr;
	pkt->fragment = PCN_FRAGMENT_NONE;
	pcn_hash_ports(ctx, pkt, &from_port, &to_port);
	return pcn_hash_ipv6(&from, &to, from_port, to_port, pkt->l4_proto, 0, hash_seed);
}

/* The next hop of a flow, and its number in the group; the next packet of the flow gets the same (RFC 2992). */
static __always_inline struct router_path *path_of(__u32 group, __u32 hash, __u32 *number)
{
	struct router_group *paths = bpf_map_lookup_elem(&groups, &group);
	__u64 index;

	if (!paths)
		return 0;
	index = pcn_opaque(paths->slots[pcn_opaque(hash) % ROUTER_SLOTS]);
	if (index >= ROUTER_PATHS)
		return 0;
	*number = index;
	return &paths->paths[index];
}

/* Whether a route (as `router_route4_says` has it) leads out of the interface a packet came by; in loose mode out of any. */
static __always_inline int reverse(const struct router_interface *in, __u64 says)
{
	__u32 kind = (says >> 60) - 1, interface = says >> 32 & 0xfffffff, group = says;
	struct router_group *paths;
	int i;

	if (kind != ROUTER_UNICAST && kind != ROUTER_MULTIPATH)
		return 0;
	if (in->urpf == ROUTER_URPF_LOOSE)
		return 1;
	if (kind == ROUTER_UNICAST)
		return interface == in->number;
	paths = bpf_map_lookup_elem(&groups, &group);
	for (i = 0; paths && i < ROUTER_PATHS; i++)
		if (paths->paths[i].interface == in->number)
			return 1;
	return 0;
}

static __always_inline int reverse4(const struct router_interface *in, __u32 source)
{
	return reverse(in, router_route4_says(source));
}

/* Link-local sources are on the link, whatever the routes say. */
static __always_inline int reverse6(const struct router_interface *in, const __u8 *source)
{
	struct in6_addr copy;

	if (link_local6(source))
		return 1;
	pcn_copy_address(&copy, source);
	return reverse(in, router_route6_says(&copy));
}
