/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Neighbour Discovery (RFC 4861). The ordinary solicitation for an address of the port (one option, the sender's MAC) becomes the
 * advertisement in place: both have the same length. All other solicitations and all advertisements go up.
 */
#pragma once

#include "router.h"

#include <linux/icmpv6.h>

#define ND_SOLICITATION 135
#define ND_ADVERTISEMENT 136
#define ND_SOURCE_MAC 1
#define ND_TARGET_MAC 2
#define ND_ROUTER_SOLICITED_OVERRIDE 0xe0

struct router_nd {
	struct icmp6hdr icmp; /* the first word of an advertisement's data holds its flags */
	__u8 target[16];
	__u8 option;
	__u8 option_len; /* in units of 8 bytes */
	__u8 mac[6];
};

struct router_nd_packet {
	struct ipv6hdr ip;
	struct router_nd nd;
};

/* The sum of RFC 1071 over pseudo-header and message: 0xffff if the checksum in it is right. Only the payload length's position differs. */
static __always_inline __u16 nd_sum(const struct router_nd_packet *packet)
{
	const __u32 *words = (const __u32 *)((const __u8 *)packet + 8); /* from the addresses on */
	__u64 sum = bpf_htonl(sizeof(packet->nd)) + (__u64)bpf_htonl(IPPROTO_ICMPV6);
	int i;

#pragma unroll
	for (i = 0; i < (sizeof(*packet) - 8) / 4; i++)
		sum += words[i];
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* As learn4. Any link-local address is directly connected. */
static __always_inline void learn6(__u32 port, struct router_interface *in, const __u8 *address, const __u8 *mac)
{
	struct router_neighbour6_key key = {.interface = in->number};
	struct router_neighbour *known, entry = {};

	copy_address6(key.address, address);
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
		return same_address6(target, in->link_local);
	route = pcn_lpm6_host(routes6, target);
	return route && route->kind == ROUTER_LOCAL && route->interface == in->number;
}

/*
 * A sum over the whole packet that the NIC gave stays right in TC: header and message together sum to the same whatever the addresses and
 * the message are, as long as the message's checksum is right.
 */
static __always_inline int nd_answer(struct pcn_packet *pkt, struct router_interface *in, struct ethhdr *eth,
				     struct router_nd_packet *packet)
{
	struct router_nd *nd = &packet->nd;

	copy_address6(&packet->ip.daddr, &packet->ip.saddr);
	copy_address6(&packet->ip.saddr, nd->target);
	nd->icmp.icmp6_type = ND_ADVERTISEMENT;
	nd->icmp.icmp6_cksum = 0;
	nd->icmp.icmp6_dataun.un_data32[0] = bpf_htonl((__u32)ND_ROUTER_SOLICITED_OVERRIDE << 24);
	nd->option = ND_TARGET_MAC;
	copy_mac(nd->mac, in->mac);
	nd->icmp.icmp6_cksum = ~nd_sum(packet);
	copy_mac(eth->h_dest, eth->h_source);
	copy_mac(eth->h_source, in->mac);
	return leave(pkt, in);
}

/* A solicitation with the sender's MAC and nothing else: the only kind that is answered here. */
static __always_inline int nd_is_ordinary(const struct router_nd_packet *packet)
{
	return packet->nd.icmp.icmp6_type == ND_SOLICITATION && packet->ip.payload_len == bpf_htons(sizeof(packet->nd)) &&
	       !packet->nd.icmp.icmp6_code && packet->nd.option == ND_SOURCE_MAC && packet->nd.option_len == 1 &&
	       !(packet->nd.mac[0] & 1) && word(&packet->ip.saddr);
}

/* A solicitation or advertisement. Hop limit 255 proves that it comes from the link (RFC 4861 7.1). */
static __always_inline int nd_input(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct router_interface *in, __u8 hop_limit)
{
	struct ethhdr *eth = pcn_at(ctx, 0, sizeof(*eth) + sizeof(struct router_nd_packet));
	struct router_nd_packet *packet = (void *)(eth + 1);

	if (hop_limit != 255)
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	if (!eth || !nd_is_ordinary(packet))
		return hand_up(pkt, in, ROUTER_CONTROL, ROUTER_UP_ND, CONTROL_LIMIT, 0, 0);
	if (nd_sum(packet) != 0xffff)
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	if (same_address6(&packet->ip.saddr, in->link_local) || own6(&packet->ip.saddr))
		return pcn_drop(pkt, ADDRESS_CONFLICT);
	if (!nd_target_is_ours(in, packet->nd.target))
		return pcn_drop(pkt, ARP_IGNORED);
	learn6(pkt->in_port, in, (const __u8 *)&packet->ip.saddr, packet->nd.mac);
	return nd_answer(pkt, in, eth, packet);
}
