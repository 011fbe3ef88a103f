// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * An IPv4 and IPv6 router. One longest-prefix match says everything about a destination: that it is one of the router's own addresses,
 * or the out port and the gateway; the MAC of the next hop is found by port and address. What can't be settled here (unknown neighbours,
 * errors to report) goes to the control plane, within limits for each port. Everything else works without it.
 */
#include "local.h"
#include "arp.h"

/* Whether a packet whose length is above the MTU does not fit after all: what the kernel will still cut into segments may. */
static __always_inline int exceeds(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u32 mtu, __u32 header, __u8 proto)
{
	if (!mtu)
		return 0;
#ifdef PCN_TC
	pkt->l3 = ETH_HLEN;
	pkt->l4 = ETH_HLEN + header;
	pkt->l4_proto = proto;
	asm volatile("" : "+r"(ctx));
	return !pcn_fits(ctx, pkt, mtu);
#else
	return 1;
#endif
}

/* The packet's length by its header, 0 if that can't be. It is 0 in what the kernel will cut into segments and has over 64 kB (BIG TCP). */
static __always_inline __u32 packet_len(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u32 len, __u32 header)
{
	if (likely(len >= header && len <= pkt->len - ETH_HLEN))
		return len;
#ifdef PCN_TC
	if (ctx->gso_size && pkt->len > 0xffff && len <= header)
		return pkt->len - ETH_HLEN;
#endif
	return 0;
}

/* Sum of the option words behind an IPv4 header, whose length is above 5 words; -1 if the packet ends before them. */
static __always_inline __s64 options_sum(struct pcn_ctx *ctx, __u32 ihl)
{
	__u32 words[10] = {}, len = (ihl - 5) * 4, i;
	__s64 sum = 0;

	asm volatile("" : "+r"(len));
	if (len < 4 || len > sizeof(words))
		return -1;
#ifdef PCN_XDP
	if (bpf_xdp_load_bytes(ctx, ETH_HLEN + sizeof(struct iphdr), words, len))
		return -1;
#else
	if (bpf_skb_load_bytes(ctx, ETH_HLEN + sizeof(struct iphdr), words, len))
		return -1;
#endif
#pragma unroll
	for (i = 0; i < 10; i++)
		sum += words[i];
	return sum;
}

static __always_inline __u64 header_sum(const struct iphdr *ip)
{
	const __u32 *words = (const __u32 *)ip;

	return (__u64)words[0] + words[1] + words[2] + words[3] + words[4];
}

static __always_inline int sum_is_right(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ((sum & 0xffff) + (sum >> 16)) == 0xffff;
}

/* 169.254/16 */
static __always_inline int link_local4(__u32 address)
{
	return (address & bpf_htonl(0xffff0000)) == bpf_htonl(0xa9fe0000);
}

/* Rewrites what a hop changes: MACs, time to live, header checksum (RFC 1624: the sum loses 0x0100, its complement gains it). */
static __always_inline int send4(struct pcn_packet *pkt, struct ethhdr *eth, struct iphdr *ip, struct router_interface *out,
				 struct router_neighbour *neighbour, __u32 port)
{
	__u32 check = ip->check + bpf_htons(0x0100);

	mark_used(neighbour);
	ip->ttl--;
	ip->check = check + (check >= 0xffff);
	copy_mac(eth->h_dest, neighbour->mac);
	copy_mac(eth->h_source, out->mac);
	return pcn_forward(pkt, port);
}

/* Towards the next hop. The frame is good and for somebody else. */
static __always_inline int forward4(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct ethhdr *eth, struct iphdr *ip,
				    struct router_route4 *route, __u32 len)
{
	struct router_neighbour4_key key = {.port = route->port};
	struct router_neighbour *neighbour;
	struct router_interface *out;
	__u32 gateway = word(route->gateway);

	if (link_local4(ip->daddr) || link_local4(ip->saddr))
		return pcn_drop(pkt, LINK_LOCAL);
	if (unlikely(ip->ttl <= 1))
		return hand_up(pkt, ROUTER_ERRORS, ROUTER_UP_TTL, TTL_EXCEEDED, 0, 0);
	out = bpf_map_lookup_elem(&interfaces, &key.port);
	if (!out || !out->up)
		return pcn_drop(pkt, PCN_DROP_NO_PORT);
	if (unlikely(len > out->mtu)) {
		__u16 may_fragment = !(ip->frag_off & bpf_htons(0x4000));
		int larger = exceeds(ctx, pkt, out->mtu, ip->ihl * 4, ip->protocol);

		if (larger && may_fragment)
			return pcn_drop(pkt, NEEDS_FRAGMENTATION);
		if (larger)
			return hand_up(pkt, ROUTER_ERRORS, ROUTER_UP_TOO_BIG, TOO_BIG, key.port, out->mtu);
		eth = pcn_at(ctx, 0, ETH_HLEN + sizeof(*ip)); /* reading the transport header may have moved the data */
		if (!eth)
			return pcn_drop(pkt, PCN_DROP_MALFORMED);
		ip = (void *)(eth + 1);
	}
	*(__u32 *)key.address = gateway ? gateway : ip->daddr;
	neighbour = bpf_map_lookup_elem(&neighbours4, &key);
	if (unlikely(!neighbour))
		return hand_up(pkt, ROUTER_RESOLVE, ROUTER_UP_RESOLVE, UNRESOLVED, key.port, 0);
	return send4(pkt, eth, ip, out, neighbour, key.port);
}

/* 0/8, 127/8, 240/4: as a source also multicast (RFC 1122 3.2.1.3, RFC 1812 5.3.7). `first` is the first byte. */
static __always_inline int martian4(__u8 first)
{
	return !first || first == 127 || first >= 224;
}

static __always_inline int input4(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct router_interface *in, struct ethhdr *eth, int group)
{
	struct iphdr *ip = (void *)(eth + 1);
	__u32 len = packet_len(ctx, pkt, bpf_ntohs(ip->tot_len), ip->ihl * 4);
	struct router_route4 *route;
	__u64 sum = header_sum(ip);

	if (unlikely(ip->version != 4 || ip->ihl < 5 || !len))
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	if (unlikely(ip->ihl > 5)) {
		__s64 options = options_sum(ctx, ip->ihl);

		eth = pcn_at(ctx, 0, ETH_HLEN + sizeof(*ip));
		if (options < 0 || !eth)
			return pcn_drop(pkt, PCN_DROP_MALFORMED);
		ip = (void *)(eth + 1);
		sum += options;
	}
	if (unlikely(!sum_is_right(sum)))
		return pcn_drop(pkt, BAD_CHECKSUM);
	if (unlikely(martian4(ip->daddr)))
		return pcn_drop(pkt, (__u8)ip->daddr >> 4 == 14 || ip->daddr == 0xffffffff ? MULTICAST : MARTIAN_DESTINATION);
	if (unlikely(group))
		return pcn_drop(pkt, GROUP_MAC);
	if (unlikely(martian4(ip->saddr) || own4(ip->saddr)))
		return pcn_drop(pkt, MARTIAN_SOURCE);
	route = route4_of(ip->daddr);
	if (unlikely(!route))
		return hand_up(pkt, ROUTER_ERRORS, ROUTER_UP_NO_ROUTE, NO_ROUTE, 0, 0);
	if (likely(route->kind == ROUTER_UNICAST))
		return forward4(ctx, pkt, eth, ip, route, len);
	if (route->kind == ROUTER_LOCAL)
		return local4(ctx, pkt, in, ip->protocol, ip->ihl == 5, !!(ip->frag_off & bpf_htons(0x3fff)));
	return pcn_drop(pkt, BROADCAST);
}

/*
 * One hop less. It is covered by no checksum of the header, but in TC by the sum over the packet that the NIC may have given: the byte is the
 * upper half of its 16-bit word as a little-endian machine sums it. Five times cheaper than pcn_store().
 */
static __always_inline void decrement6(struct pcn_ctx *ctx, struct ipv6hdr *ip)
{
	ip->hop_limit--;
#ifdef PCN_TC
	bpf_csum_update(ctx, ~0x0100u);
#endif
}

static __always_inline int send6(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct ethhdr *eth, struct ipv6hdr *ip,
				 struct router_interface *out, struct router_neighbour *neighbour, __u32 port)
{
	mark_used(neighbour);
	decrement6(ctx, ip);
	copy_mac(eth->h_dest, neighbour->mac);
	copy_mac(eth->h_source, out->mac);
	return pcn_forward(pkt, port);
}

static __always_inline int forward6(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct ethhdr *eth, struct ipv6hdr *ip,
				    struct router_route6 *route, __u32 len)
{
	struct router_neighbour6_key key = {.port = route->port};
	struct router_neighbour *neighbour;
	struct router_interface *out;

	if (unlikely(ip->hop_limit <= 1))
		return hand_up(pkt, ROUTER_ERRORS, ROUTER_UP_TTL, TTL_EXCEEDED, 0, 0);
	out = bpf_map_lookup_elem(&interfaces, &key.port);
	if (!out || !out->up)
		return pcn_drop(pkt, PCN_DROP_NO_PORT);
	if (unlikely(len > out->mtu)) {
		if (exceeds(ctx, pkt, out->mtu, sizeof(*ip), ip->nexthdr))
			return hand_up(pkt, ROUTER_ERRORS, ROUTER_UP_TOO_BIG, TOO_BIG, key.port, out->mtu);
		eth = pcn_at(ctx, 0, ETH_HLEN + sizeof(*ip));
		if (!eth)
			return pcn_drop(pkt, PCN_DROP_MALFORMED);
		ip = (void *)(eth + 1);
	}
	if (route->connected)
		copy_address6(key.address, &ip->daddr);
	else
		copy_address6(key.address, route->gateway);
	neighbour = bpf_map_lookup_elem(&neighbours6, &key);
	if (unlikely(!neighbour))
		return hand_up(pkt, ROUTER_RESOLVE, ROUTER_UP_RESOLVE, UNRESOLVED, key.port, 0);
	return send6(ctx, pkt, eth, ip, out, neighbour, key.port);
}

/* :: and ::1 */
static __always_inline int martian6(const struct in6_addr *address)
{
	return !(word(address) | word((void *)address + 4) | word((void *)address + 8) |
		 (word((void *)address + 12) & ~bpf_htonl(1)));
}

static __always_inline int input6(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct router_interface *in, int group)
{
	struct ethhdr *eth = pcn_at(ctx, 0, ETH_HLEN + sizeof(struct ipv6hdr));
	struct router_route6 *route;
	struct ipv6hdr *ip;
	const __u8 *to, *from;
	__u32 len;

	if (unlikely(!eth))
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	ip = (void *)(eth + 1);
	len = packet_len(ctx, pkt, sizeof(*ip) + bpf_ntohs(ip->payload_len), sizeof(*ip));
	if (unlikely(ip->version != 6 || !len))
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	to = (void *)&ip->daddr;
	from = (void *)&ip->saddr;
	if (unlikely(from[0] == 0xff))
		return pcn_drop(pkt, MARTIAN_SOURCE);
	if (unlikely(to[0] == 0xff))
		return multicast6(ctx, pkt, in, ip->nexthdr, ip->hop_limit);
	if (unlikely(martian6(&ip->daddr)))
		return pcn_drop(pkt, MARTIAN_DESTINATION);
	if (unlikely(group))
		return pcn_drop(pkt, GROUP_MAC);
	if (unlikely(martian6(&ip->saddr) || own6(from) || same_address6(from, in->link_local)))
		return pcn_drop(pkt, MARTIAN_SOURCE);
	if (unlikely(link_local6(to))) {
		if (same_address6(to, in->link_local))
			return local6(ctx, pkt, in, ip->nexthdr, ip->hop_limit);
		return pcn_drop(pkt, LINK_LOCAL);
	}
	route = route6_of(to);
	if (route && route->kind == ROUTER_LOCAL)
		return local6(ctx, pkt, in, ip->nexthdr, ip->hop_limit);
	if (unlikely(link_local6(from)))
		return pcn_drop(pkt, LINK_LOCAL);
	if (unlikely(!route))
		return hand_up(pkt, ROUTER_ERRORS, ROUTER_UP_NO_ROUTE, NO_ROUTE, 0, 0);
	return forward6(ctx, pkt, eth, ip, route, len);
}

static __always_inline int has_tag(struct pcn_ctx *ctx)
{
	__u16 tci, proto;

	return pcn_hw_vlan(ctx, &tci, &proto);
}

/* A frame arrives at a port: for the port's MAC or a group, untagged, and then by its protocol. */
HANDLER(ingress)
{
	__u32 port = pkt->in_port;
	struct router_interface *in = bpf_map_lookup_elem(&interfaces, &port);
	struct ethhdr *eth = pcn_at(ctx, 0, ETH_HLEN + sizeof(struct iphdr));
	int group;

	if (unlikely(!eth))
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	if (unlikely(!in || !in->up))
		return pcn_drop(pkt, PCN_DROP_NO_PORT);
	group = eth->h_dest[0] & 1;
	if (unlikely(!group && !same_mac(eth->h_dest, in->mac)))
		return pcn_drop(pkt, OTHER_MAC);
	if (unlikely(has_tag(ctx)))
		return pcn_drop(pkt, TAGGED);
	switch (*(__be16 *)((__u8 *)eth + 2 * ETH_ALEN)) { /* by its name it would be read byte by byte: the struct is packed */
	case bpf_htons(ETH_P_IP):
		return input4(ctx, pkt, in, eth, group);
	case bpf_htons(ETH_P_IPV6):
		return input6(ctx, pkt, in, group);
	case bpf_htons(ETH_P_ARP):
		return arp_input(ctx, pkt, in);
	case bpf_htons(ETH_P_8021Q):
	case bpf_htons(ETH_P_8021AD):
		return pcn_drop(pkt, TAGGED);
	default:
		return pcn_drop(pkt, NOT_IP);
	}
}
