// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * An IPv4 and IPv6 router. One longest-prefix match says everything about a destination: that it is one of the router's own addresses,
 * or the out port and the gateway; the MAC of the next hop is found by port and address. What can't be settled here (unknown neighbours,
 * errors to report) goes to the control plane, within limits for each port. Everything else works without it.
 */
#include "local.h"
#include "arp.h"
#include "path.h"

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
static __always_inline int send4(struct pcn_packet *pkt, struct ethhdr *eth, struct iphdr *ip,
				 struct router_interface *out, struct router_neighbour *neighbour)
{
	__u32 check = ip->check + bpf_htons(0x0100);

	mark_used(neighbour);
	ip->ttl--;
	ip->check = check + (check >= 0xffff);
	copy_mac(eth->h_dest, neighbour->mac);
	copy_mac(eth->h_source, out->mac);
	return leave(pkt, out);
}

/* Towards the next hop. The frame is good and for somebody else. */
static __always_inline int forward4(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct router_interface *in, struct ethhdr *eth,
				    struct iphdr *ip, struct router_route4 *route, __u32 len)
{
	struct router_neighbour4_key key = {.interface = route->interface};
	struct router_neighbour *neighbour;
	struct router_interface *out;
	__u32 gateway = pcn_word(route->gateway), path = 0;

	if (link_local4(ip->daddr) || link_local4(ip->saddr))
		return pcn_drop(pkt, LINK_LOCAL);
	if (unlikely(ip->ttl <= 1))
		return hand_up(pkt, in, ROUTER_ERRORS, ROUTER_UP_TTL, TTL_EXCEEDED, 0, 0);
	if (unlikely(route->kind == ROUTER_MULTIPATH)) {
		struct router_path *chosen = path_of(route->group, flow4(ctx, pkt, ip), &path);

		eth = pcn_at(ctx, 0, ETH_HLEN + sizeof(*ip));
		if (!chosen || !eth)
			return pcn_drop(pkt, PCN_DROP_NO_PORT);
		ip = (void *)(eth + 1);
		key.interface = chosen->interface;
		gateway = pcn_word(chosen->gateway);
	}
	out = interface_of(key.interface);
	if (!out || !out->up)
		return pcn_drop(pkt, PCN_DROP_NO_PORT);
	if (unlikely(len > out->mtu)) {
		__u16 may_fragment = !(ip->frag_off & bpf_htons(0x4000));
		int larger = exceeds(ctx, pkt, out->mtu, ip->ihl * 4, ip->protocol);

		if (larger && may_fragment)
			return hand_up(pkt, in, ROUTER_FRAGMENTS, ROUTER_UP_FRAGMENT, NEEDS_FRAGMENTATION, path << 28 | key.interface, out->mtu);
		if (larger)
			return hand_up(pkt, in, ROUTER_ERRORS, ROUTER_UP_TOO_BIG, TOO_BIG, key.interface, out->mtu);
		eth = pcn_at(ctx, 0, ETH_HLEN + sizeof(*ip)); /* reading the transport header may have moved the data */
		if (!eth)
			return pcn_drop(pkt, PCN_DROP_MALFORMED);
		ip = (void *)(eth + 1);
	}
	*(__u32 *)key.address = gateway ? gateway : ip->daddr;
	neighbour = bpf_map_lookup_elem(&neighbours4, &key);
	if (unlikely(!neighbour))
		return hand_up(pkt, in, ROUTER_RESOLVE, ROUTER_UP_RESOLVE, UNRESOLVED, path << 28 | key.interface, 0);
	return send4(pkt, eth, ip, out, neighbour);
}

/* By a route that leads nowhere. */
static __always_inline int refuse(struct pcn_packet *pkt, struct router_interface *in, __u32 kind)
{
	switch (kind) {
	case ROUTER_UNREACHABLE:
		return hand_up(pkt, in, ROUTER_ERRORS, ROUTER_UP_UNREACHABLE, UNREACHABLE, 0, 0);
	case ROUTER_PROHIBIT:
		return hand_up(pkt, in, ROUTER_ERRORS, ROUTER_UP_PROHIBITED, PROHIBITED, 0, 0);
	case ROUTER_BLACKHOLE:
		return pcn_drop(pkt, BLACKHOLE);
	default:
		return pcn_drop(pkt, BROADCAST);
	}
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
		return (__u8)ip->daddr >> 4 == 14 || ip->daddr == 0xffffffff ? multicast(pkt) : pcn_drop(pkt, MARTIAN_DESTINATION);
	if (unlikely(group))
		return pcn_drop(pkt, GROUP_MAC);
	if (unlikely(martian4(ip->saddr) || own4(ip->saddr)))
		return pcn_drop(pkt, MARTIAN_SOURCE);
	if (unlikely(in->urpf && !reverse4(in, ip->saddr)))
		return pcn_drop(pkt, REVERSE_PATH);
	route = pcn_lpm4(routes4, ip->daddr);
	if (unlikely(!route))
		return hand_up(pkt, in, ROUTER_ERRORS, ROUTER_UP_NO_ROUTE, NO_ROUTE, 0, 0);
	if (likely(route->kind == ROUTER_UNICAST || route->kind == ROUTER_MULTIPATH))
		return forward4(ctx, pkt, in, eth, ip, route, len);
	if (route->kind == ROUTER_LOCAL)
		return local4(ctx, pkt, in, ip->protocol, ip->ihl == 5, !!(ip->frag_off & bpf_htons(0x3fff)));
	return refuse(pkt, in, route->kind);
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
				 struct router_interface *out, struct router_neighbour *neighbour)
{
	mark_used(neighbour);
	decrement6(ctx, ip);
	copy_mac(eth->h_dest, neighbour->mac);
	copy_mac(eth->h_source, out->mac);
	return leave(pkt, out);
}

static __always_inline int forward6(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct router_interface *in, struct ethhdr *eth,
				    struct ipv6hdr *ip, struct router_route6 *route, __u32 len)
{
	struct router_neighbour6_key key = {.interface = route->interface};
	struct router_neighbour *neighbour;
	struct router_interface *out;
	struct router_path *chosen = 0;
	__u32 path = 0;

	if (unlikely(ip->hop_limit <= 1))
		return hand_up(pkt, in, ROUTER_ERRORS, ROUTER_UP_TTL, TTL_EXCEEDED, 0, 0);
	if (unlikely(route->kind == ROUTER_MULTIPATH)) {
		chosen = path_of(route->group, flow6(ctx, pkt, ip), &path);
		eth = pcn_at(ctx, 0, ETH_HLEN + sizeof(*ip));
		if (!chosen || !eth)
			return pcn_drop(pkt, PCN_DROP_NO_PORT);
		ip = (void *)(eth + 1);
		key.interface = chosen->interface;
	}
	out = interface_of(key.interface);
	if (!out || !out->up)
		return pcn_drop(pkt, PCN_DROP_NO_PORT);
	if (unlikely(len > out->mtu)) {
		if (exceeds(ctx, pkt, out->mtu, sizeof(*ip), ip->nexthdr))
			return hand_up(pkt, in, ROUTER_ERRORS, ROUTER_UP_TOO_BIG, TOO_BIG, key.interface, out->mtu);
		eth = pcn_at(ctx, 0, ETH_HLEN + sizeof(*ip));
		if (!eth)
			return pcn_drop(pkt, PCN_DROP_MALFORMED);
		ip = (void *)(eth + 1);
	}
	if (unlikely(chosen))
		pcn_copy_address(key.address, chosen->gateway);
	else if (route->connected)
		pcn_copy_address(key.address, &ip->daddr);
	else
		pcn_copy_address(key.address, route->gateway);
	neighbour = bpf_map_lookup_elem(&neighbours6, &key);
	if (unlikely(!neighbour))
		return hand_up(pkt, in, ROUTER_RESOLVE, ROUTER_UP_RESOLVE, UNRESOLVED, path << 28 | key.interface, 0);
	return send6(ctx, pkt, eth, ip, out, neighbour);
}

/* :: and ::1 */
static __always_inline int martian6(const struct in6_addr *address)
{
	return !(pcn_word(address) | pcn_word((void *)address + 4) | pcn_word((void *)address + 8) |
		 (pcn_word((void *)address + 12) & ~bpf_htonl(1)));
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
	if (unlikely(martian6(&ip->saddr) || own6(from) || pcn_same_address(from, in->link_local)))
		return pcn_drop(pkt, MARTIAN_SOURCE);
	if (unlikely(link_local6(to))) {
		if (pcn_same_address(to, in->link_local))
			return local6(ctx, pkt, in, ip->nexthdr, ip->hop_limit);
		return pcn_drop(pkt, LINK_LOCAL);
	}
	if (unlikely(in->urpf && !reverse6(in, from)))
		return pcn_drop(pkt, REVERSE_PATH);
	route = pcn_lpm6(routes6, to);
	if (route && route->kind == ROUTER_LOCAL)
		return local6(ctx, pkt, in, ip->nexthdr, ip->hop_limit);
	if (unlikely(link_local6(from)))
		return pcn_drop(pkt, LINK_LOCAL);
	if (unlikely(!route))
		return hand_up(pkt, in, ROUTER_ERRORS, ROUTER_UP_NO_ROUTE, NO_ROUTE, 0, 0);
	if (unlikely(route->kind != ROUTER_UNICAST && route->kind != ROUTER_MULTIPATH))
		return refuse(pkt, in, route->kind);
	return forward6(ctx, pkt, in, eth, ip, route, len);
}

static __always_inline __be16 ethertype(const struct ethhdr *eth)
{
	return *(__be16 *)((__u8 *)eth + 2 * ETH_ALEN); /* by its name it would be read byte by byte: the struct is packed */
}

/* TCI of the outer 802.1Q tag; 0: there is none, -1: one of another kind. */
static __always_inline int tag_of(struct pcn_ctx *ctx, struct ethhdr *eth, __u16 *tci)
{
	struct pcn_vlan_header *header = (void *)(eth + 1);
	__u16 proto;

	if (unlikely(pcn_hw_vlan(ctx, tci, &proto)))
		return proto == bpf_htons(ETH_P_8021Q) ? 1 : -1;
	if (likely(!pcn_is_vlan(ethertype(eth))))
		return 0;
	if (ethertype(eth) != bpf_htons(ETH_P_8021Q))
		return -1;
	*tci = bpf_ntohs(header->tci);
	return 1;
}

/* Behind Ethernet header and tag. */
static __always_inline int input(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct router_interface *in, struct ethhdr *eth, int group)
{
	switch (ethertype(eth)) {
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

/* What is forwarded gets the tag of the interface it leaves by; what goes to the router's namespace gets back the one it came with. */
static __always_inline int output(struct pcn_ctx *ctx, struct pcn_packet *pkt, int verdict, __u16 tci)
{
	__u32 number = pkt->out_port;

	if (unlikely(verdict == PCN_SHADOW && tci))
		return pcn_vlan_push(ctx, pkt, ETH_P_8021Q, tci) ? pcn_drop(pkt, PCN_DROP_MALFORMED) : PCN_SHADOW;
	if (likely(verdict != PCN_FORWARD || number < ROUTER_PORTS))
		return verdict;
	pkt->out_port = number & 0xffff;
	return pcn_vlan_push(ctx, pkt, ETH_P_8021Q, number >> 16) ? pcn_drop(pkt, PCN_DROP_MALFORMED) : PCN_FORWARD;
}

/* A frame arrives: at a port, or by its tag at one of the port's VLANs (VLAN 0 is none, IEEE 802.1Q 6.9.1); for its MAC or a group. */
HANDLER(ingress)
{
	struct ethhdr *eth = pcn_at(ctx, 0, ETH_HLEN + sizeof(struct iphdr));
	struct router_interface *in;
	__u32 number = pkt->in_port;
	__u16 tci = 0, proto;
	int group, tag;

	if (unlikely(!eth))
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	tag = tag_of(ctx, eth, &tci);
	if (unlikely(tag < 0))
		return pcn_drop(pkt, TAGGED);
	number |= (tci & 0xfff) << 16;
	in = interface_of(number);
	if (unlikely(!in || !in->up))
		return pcn_drop(pkt, number < ROUTER_PORTS ? PCN_DROP_NO_PORT : TAGGED);
	group = eth->h_dest[0] & 1;
	if (unlikely(!group && !same_mac(eth->h_dest, in->mac)))
		return pcn_drop(pkt, OTHER_MAC);
	if (unlikely(tag)) {
		if (pcn_vlan_pop(ctx, pkt))
			return pcn_drop(pkt, PCN_DROP_MALFORMED);
		if (pcn_hw_vlan(ctx, &tci, &proto)) /* in TC, the kernel moves a second one out of the bytes */
			return pcn_drop(pkt, TAGGED);
		eth = pcn_at(ctx, 0, ETH_HLEN + sizeof(struct iphdr));
		if (!eth)
			return pcn_drop(pkt, PCN_DROP_MALFORMED);
	}
	return output(ctx, pkt, input(ctx, pkt, in, eth, group), tag ? tci : 0);
}
