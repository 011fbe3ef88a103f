/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Hashes of flows, for whoever spreads them: the same flow always gives the same number, other flows numbers that look random. Words are
 * taken in by xor, multiplication and shift (after Knuth's multiplicative hashing, TAOCP 3, 6.4); the end is the finaliser of splitmix64
 * (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014; constants: Stafford's mix 13), so that every bit of
 * the result is as good as any other: take `hash & mask`, or pcn_hash_below(). Not proof against an attacker who knows the seed.
 *
 *	__u32 hash = pcn_hash_flow(ctx, pkt, PCN_HASH_SYMMETRIC, seed);
 *
 * Functions in a row that each choose by a hash need seeds of their own, or the second one has nothing left to choose from.
 */
#pragma once

#include <polycube/parse.h>

enum pcn_hash_flag {
	PCN_HASH_SYMMETRIC = 1, /* both directions of a flow give the same */
	PCN_HASH_ADDRESSES = 2, /* addresses only: two hosts are one flow */
	PCN_HASH_SOURCE = 4,    /* source address only: a host is one flow */
};

static __always_inline __u64 pcn_hash_word(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 32;
}

static __always_inline __u32 pcn_hash_end(__u64 hash)
{
	hash = (hash ^ hash >> 30) * 0xbf58476d1ce4e5b9ULL;
	hash = (hash ^ hash >> 27) * 0x94d049bb133111ebULL;
	return (hash ^ hash >> 31) >> 32;
}

/* A number below `count` (up to 65536) out of a hash, without a division. */
static __always_inline __u32 pcn_hash_below(__u32 hash, __u32 count)
{
	return (__u64)hash * count >> 32;
}

/* Of an IPv4 flow; addresses and ports as they are in the frame. */
static __always_inline __u32 pcn_hash_ipv4(__be32 from, __be32 to, __be16 from_port, __be16 to_port, __u8 proto, __u32 flags, __u32 seed)
{
	__u64 ports = (__u64)from_port << 16 | to_port, hash = (__u64)seed << 8 | 4;

	if (flags & PCN_HASH_SOURCE)
		return pcn_hash_end(pcn_hash_word(hash, from));
	if (flags & PCN_HASH_ADDRESSES)
		ports = from_port = to_port = proto = 0;
	if (flags & PCN_HASH_SYMMETRIC) {
		__u64 one = pcn_hash_word(hash, (__u64)from << 16 | from_port), other = pcn_hash_word(hash, (__u64)to << 16 | to_port);

		return pcn_hash_end(pcn_hash_word(one + other, proto));
	}
	hash = pcn_hash_word(hash, (__u64)from << 32 | to);
	return pcn_hash_end(pcn_hash_word(hash, ports << 8 | proto));
}

static __always_inline __u64 pcn_hash_address6(__u64 hash, const struct in6_addr *address)
{
	const __u32 *words = address->in6_u.u6_addr32;

	hash = pcn_hash_word(hash, (__u64)words[0] << 32 | words[1]);
	return pcn_hash_word(hash, (__u64)words[2] << 32 | words[3]);
}

/* Of an IPv6 flow. The flow label does not count: hosts change it in the middle of a flow (Linux when it retransmits). */
static __always_inline __u32 pcn_hash_ipv6(const struct in6_addr *from, const struct in6_addr *to, __be16 from_port, __be16 to_port,
					   __u8 proto, __u32 flags, __u32 seed)
{
	__u64 hash = (__u64)seed << 8 | 6;

	if (flags & PCN_HASH_SOURCE)
		return pcn_hash_end(pcn_hash_address6(hash, from));
	if (flags & PCN_HASH_ADDRESSES)
		from_port = to_port = proto = 0;
	if (flags & PCN_HASH_SYMMETRIC) {
		__u64 one = pcn_hash_word(pcn_hash_address6(hash, from), from_port);
		__u64 other = pcn_hash_word(pcn_hash_address6(hash, to), to_port);

		return pcn_hash_end(pcn_hash_word(one + other, proto));
	}
	hash = pcn_hash_address6(pcn_hash_address6(hash, from), to);
	return pcn_hash_end(pcn_hash_word(hash, ((__u64)from_port << 16 | to_port) << 8 | proto));
}

/* What tells flows of a protocol between two hosts apart: ports, the identifier of an echo (in both directions the same), or nothing. */
static __always_inline void pcn_hash_ports(struct pcn_ctx *ctx, const struct pcn_packet *pkt, __be16 *from_port, __be16 *to_port)
{
	__be16 *words = pkt->l4 && !pkt->fragment ? pcn_at(ctx, pkt->l4, 8) : 0;

	*from_port = *to_port = 0;
	if (!words)
		return;
	switch (pkt->l4_proto) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_SCTP:
	case IPPROTO_DCCP:
		*from_port = words[0];
		*to_port = words[1];
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6: {
		__u8 type = *(__u8 *)words, request = pkt->l4_proto == IPPROTO_ICMP ? 8 : 128, reply = pkt->l4_proto == IPPROTO_ICMP ? 0 : 129;

		if (type == request || type == reply)
			*from_port = *to_port = words[2];
		break;
	}
	}
}

/*
 * Of the flow that a frame belongs to. Asks for pcn_parse(). All fragments of a datagram are one flow without ports. What is not IP is told
 * apart by its MAC addresses and protocol.
 */
static __always_inline __u32 pcn_hash_flow(struct pcn_ctx *ctx, const struct pcn_packet *pkt, __u32 flags, __u32 seed)
{
	__be16 from_port, to_port;

	pcn_hash_ports(ctx, pkt, &from_port, &to_port);
	if (pkt->proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));

		if (ip)
			return pcn_hash_ipv4(ip->saddr, ip->daddr, from_port, to_port, ip->protocol, flags, seed);
	} else if (pkt->proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));

		if (ip)
			return pcn_hash_ipv6(&ip->saddr, &ip->daddr, from_port, to_port, pkt->l4_proto, flags, seed);
	} else {
		__u16 *mac = pcn_at(ctx, 0, sizeof(struct ethhdr));

		if (mac) {
			struct in6_addr to = {.in6_u.u6_addr16 = {mac[0], mac[1], mac[2]}};
			struct in6_addr from = {.in6_u.u6_addr16 = {mac[3], mac[4], mac[5]}};

			return pcn_hash_ipv6(&from, &to, pkt->proto, pkt->proto, 0, flags, seed);
		}
	}
	return pcn_hash_end(seed);
}
