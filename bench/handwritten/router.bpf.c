// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * What somebody who needs just this one router would write for XDP: the yardstick for cubes/router. The same tables, checks (lengths,
 * header checksum, martian and own sources, link-local, MTU), use marks and counters of ports and drops; no framework. What the cube hands
 * to its control plane is passed to the stack.
 */
#include "handwritten.h"
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>

struct interface {
	__u8 mac[6];
	__u8 up, pad;
	__u32 mtu;
	__u8 link_local[16];
};

struct key4 {
	__u32 first; /* prefix length (routes), port (neighbours) */
	__u32 address;
};

struct key6 {
	__u32 first;
	__u32 address[4];
};

struct route4 {
	__u32 port, kind, gateway;
};

struct route6 {
	__u32 port, kind, connected, gateway[4];
};

struct neighbour {
	__u8 mac[6];
	__u8 permanent, pad;
	__u32 used;
};

struct filter {
	__u64 ipv4[16], ipv6[16];
};

TABLE(interfaces, ARRAY, __u32, struct interface, 128, 0);
TABLE(routes4, LPM_TRIE, struct key4, struct route4, 16384, BPF_F_NO_PREALLOC);
TABLE(routes6, LPM_TRIE, struct key6, struct route6, 16384, BPF_F_NO_PREALLOC);
TABLE(neighbours4, HASH, struct key4, struct neighbour, 4096, 0);
TABLE(neighbours6, HASH, struct key6, struct neighbour, 4096, 0);
TABLE(filters, ARRAY, __u32, struct filter, 1, 0);
TABLE(port_of, ARRAY, __u32, __u32, 1024, 0);
TABLE(devices, DEVMAP, __u32, __u32, 128, 0);

/* As code: what bench/router.py fills in. */
static __always_inline struct interface *interface_of(const __u32 *port)
{
#ifdef ADDRESSES_AS_CODE
	static const struct interface own[] = {
		{.mac = {2, 0, 0, 0, 0, 0xa0}, .up = 1, .mtu = 1500, .link_local = {0xfe, 0x80, [15] = 1}},
		{.mac = {2, 0, 0, 0, 0, 0xa1}, .up = 1, .mtu = 1500, .link_local = {0xfe, 0x80, [15] = 2}},
	};

	return (struct interface *)(*port ? &own[1] : &own[0]);
#else
	return bpf_map_lookup_elem(&interfaces, port);
#endif
}

static __always_inline int send(struct ethhdr *eth, struct interface *out, struct neighbour *neighbour, __u32 port, __u32 len)
{
	__u32 tick = bpf_jiffies64() >> 8;

	if (neighbour->used != tick)
		neighbour->used = tick;
	*(__u32 *)eth->h_dest = *(__u32 *)neighbour->mac;
	*(__u16 *)(eth->h_dest + 4) = *(__u16 *)(neighbour->mac + 4);
	*(__u32 *)eth->h_source = *(__u32 *)out->mac;
	*(__u16 *)(eth->h_source + 4) = *(__u16 *)(out->mac + 4);
	count(port, len, 1);
	return bpf_redirect_map(&devices, port, XDP_ABORTED);
}

static __always_inline int route_ipv4(struct ethhdr *eth, void *end, __u32 len)
{
	struct iphdr *ip = (void *)(eth + 1);
	__u32 *words = (void *)ip, zero = 0, check, total, bit;
	struct key4 key = {.first = 32};
	struct neighbour *neighbour;
	struct interface *out;
	struct filter *filter;
	struct route4 *route;
	__u64 sum;

	if ((void *)(ip + 1) > end)
		return drop(2);
	total = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || ip->ihl < 5 || total < ip->ihl * 4 || total > len - ETH_HLEN)
		return drop(2);
	if (ip->ihl > 5)
		return XDP_PASS;
	sum = (__u64)words[0] + words[1] + words[2] + words[3] + words[4];
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	if ((sum & 0xffff) + (sum >> 16) != 0xffff)
		return drop(3);
	if (!(__u8)ip->daddr || (__u8)ip->daddr == 127 || (__u8)ip->daddr >= 224)
		return drop(4);
	if (!(__u8)ip->saddr || (__u8)ip->saddr == 127 || (__u8)ip->saddr >= 224)
		return drop(4);
	filter = bpf_map_lookup_elem(&filters, &zero);
	bit = ip->saddr * 0x9e3779b1u >> 22;
	if (!filter || filter->ipv4[bit / 64] >> bit % 64 & 1)
		return drop(4);
	key.address = ip->daddr;
	route = bpf_map_lookup_elem(&routes4, &key);
	if (!route || route->kind)
		return XDP_PASS;
	if ((ip->daddr & 0xffff) == 0xfea9 || (ip->saddr & 0xffff) == 0xfea9)
		return drop(5);
	if (ip->ttl <= 1)
		return XDP_PASS;
	out = interface_of(&route->port);
	if (!out || !out->up)
		return drop(1);
	if (total > out->mtu)
		return XDP_PASS;
	key.first = route->port;
	if (route->gateway)
		key.address = route->gateway;
	neighbour = bpf_map_lookup_elem(&neighbours4, &key);
	if (!neighbour)
		return XDP_PASS;
	check = ip->check + bpf_htons(0x0100);
	ip->check = check + (check >= 0xffff);
	ip->ttl--;
	return send(eth, out, neighbour, route->port, len);
}

static __always_inline int route_ipv6(struct ethhdr *eth, void *end, struct interface *in, __u32 len)
{
	struct ipv6hdr *ip = (void *)(eth + 1);
	struct key6 key = {.first = 128};
	struct neighbour *neighbour;
	struct interface *out;
	struct filter *filter;
	struct route6 *route;
	__u32 zero = 0, *from, *to, *own = (void *)in->link_local, total, bit;

	if ((void *)(ip + 1) > end)
		return drop(2);
	total = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (ip->version != 6 || total > len - ETH_HLEN)
		return drop(2);
	from = (void *)&ip->saddr;
	to = (void *)&ip->daddr;
	if ((__u8)from[0] == 0xff || (__u8)to[0] == 0xff)
		return drop(4);
	if (!(to[0] | to[1] | to[2] | (to[3] & ~bpf_htonl(1))) || !(from[0] | from[1] | from[2] | (from[3] & ~bpf_htonl(1))))
		return drop(4);
	if (from[0] == own[0] && from[1] == own[1] && from[2] == own[2] && from[3] == own[3])
		return drop(4);
	filter = bpf_map_lookup_elem(&filters, &zero);
	bit = (from[0] ^ from[1] ^ from[2] ^ from[3]) * 0x9e3779b1u >> 22;
	if (!filter || filter->ipv6[bit / 64] >> bit % 64 & 1)
		return drop(4);
	if ((to[0] & 0xc0ff) == 0x80fe || (from[0] & 0xc0ff) == 0x80fe)
		return drop(5);
	__builtin_memcpy(key.address, to, 16);
	route = bpf_map_lookup_elem(&routes6, &key);
	if (!route || route->kind)
		return XDP_PASS;
	if (ip->hop_limit <= 1)
		return XDP_PASS;
	out = interface_of(&route->port);
	if (!out || !out->up)
		return drop(1);
	if (total > out->mtu)
		return XDP_PASS;
	key.first = route->port;
	if (!route->connected)
		__builtin_memcpy(key.address, route->gateway, 16);
	neighbour = bpf_map_lookup_elem(&neighbours6, &key);
	if (!neighbour)
		return XDP_PASS;
	ip->hop_limit--;
	return send(eth, out, neighbour, route->port, len);
}

SEC("xdp") int router(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 ifindex = ctx->ingress_ifindex, number, len = end - data;
	struct ethhdr *eth = data;
	struct interface *in;
	__u32 *port;

	if ((void *)(eth + 1) > end)
		return drop(0);
	port = bpf_map_lookup_elem(&port_of, &ifindex);
	if (!port || !*port)
		return drop(1);
	number = *port - 1;
	count(number, len, 0);
	in = interface_of(&number);
	if (!in || !in->up)
		return drop(1);
	if (eth->h_dest[0] & 1)
		return XDP_PASS;
	if (*(__u32 *)eth->h_dest != *(__u32 *)in->mac || *(__u16 *)(eth->h_dest + 4) != *(__u16 *)(in->mac + 4))
		return drop(0);
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		return route_ipv4(eth, end, len);
	if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		return route_ipv6(eth, end, in, len);
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
