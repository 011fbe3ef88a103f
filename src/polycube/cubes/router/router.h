/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What the router's data plane and control plane share: tables, reasons, limits. Addresses are bytes in network order. */
#pragma once

#include <polycube/address.h>
#include <polycube/csum.h>
#include <polycube/hash.h>
#include <polycube/lpm.h>
#include <polycube/mtu.h>
#include <polycube/neighbour.h>
#include <polycube/tokenbucket.h>
#include <polycube/vlan.h>

#define likely(_x) __builtin_expect(!!(_x), 1)
#define unlikely(_x) __builtin_expect(!!(_x), 0)

#define ROUTER_PORTS PCN_PORTS
#define ROUTER_HOP_LIMIT 64

enum router_urpf { ROUTER_URPF_NONE, ROUTER_URPF_LOOSE, ROUTER_URPF_STRICT };

/* A port, or a VLAN of one: its number is VLAN << 16 | port. Written by the control plane only. */
struct router_interface {
	__u8 mac[6];
	__u8 up;   /* 0: there is no such interface */
	__u8 urpf; /* enum router_urpf (RFC 3704) */
	__u32 mtu; /* largest IP packet that fits; 0: no limit is known */
	__u32 number;
	__u16 port;
	__u16 vlan; /* 0: frames have no tag */
	__u8 link_local[16];
};

enum router_kind {
	ROUTER_UNICAST,
	ROUTER_LOCAL,     /* an address of the router, on `interface` */
	ROUTER_BROADCAST, /* the broadcast address of a connected network */
	ROUTER_MULTIPATH, /* by one of the next hops of `group` */
	ROUTER_BLACKHOLE,
	ROUTER_UNREACHABLE,
	ROUTER_PROHIBIT,
};

struct router_route4 {
	__u32 interface;
	__u32 kind;      /* enum router_kind */
	__u8 gateway[4]; /* zero: directly connected */
	__u32 group;
};

struct router_route6 {
	__u32 interface;
	__u32 kind;
	__u32 connected; /* directly connected: `gateway` does not count */
	__u32 group;
	__u8 gateway[16];
};

/* Next hops of equal cost, shared by all routes that have the same ones. */
#define ROUTER_PATHS 16
#define ROUTER_SLOTS 256
struct router_path {
	__u32 interface;
	__u8 gateway[16]; /* IPv4: the first four bytes */
};

struct router_group {
	__u8 slots[ROUTER_SLOTS]; /* of a flow's hash: index of its path (Maglev's table: few flows move when paths come and go) */
	struct router_path paths[ROUTER_PATHS]; /* behind the last one: interface 0xffffffff */
};

struct router_neighbour4_key {
	__u32 interface;
	__u8 address[4];
};

struct router_neighbour6_key {
	__u32 interface;
	__u8 address[16];
};

struct router_neighbour {
	__u8 mac[6];
	__u8 permanent; /* configured: never overwritten by what is heard */
	__u8 pad;
	__u32 used; /* a coarse clock at the last packet sent there; the control plane looks whether it has changed */
};

/*
 * One bit a hash of each own address. A source whose bit is clear is not ours, which spares almost every packet a second route lookup
 * to find out.
 */
#define ROUTER_FILTER_BITS 1024
struct router_filter {
	__u64 ipv4[ROUTER_FILTER_BITS / 64];
	__u64 ipv6[ROUTER_FILTER_BITS / 64];
};

/*
 * Why a frame goes to the control plane. Metadata: where it would leave (path << 28 | interface), the MTU there, the interface it came by,
 * whose tag is off already.
 */
enum router_reason {
	ROUTER_UP_ARP = 1,
	ROUTER_UP_ND,
	ROUTER_UP_RESOLVE,
	ROUTER_UP_NO_ROUTE,
	ROUTER_UP_TTL,
	ROUTER_UP_TOO_BIG,
	ROUTER_UP_LOCAL,
	ROUTER_UP_FRAGMENT,
	ROUTER_UP_UNREACHABLE,
	ROUTER_UP_PROHIBITED,
};

enum router_class { ROUTER_ERRORS, ROUTER_RESOLVE, ROUTER_CONTROL, ROUTER_FRAGMENTS, ROUTER_CLASSES };

DROPS(OTHER_MAC,           /* to a MAC that is not the port's */
      GROUP_MAC,           /* unicast packet in a broadcast or multicast frame (RFC 1812 5.3.4) */
      TAGGED,              /* with a VLAN tag that no interface of the port has */
      NOT_IP,              /* neither IPv4 nor IPv6 nor ARP */
      BAD_CHECKSUM,        /* of the IPv4 header (RFC 1812 5.2.2) */
      MARTIAN_SOURCE,      /* a source no host may use, or one of the router's own (RFC 1812 5.3.7) */
      MARTIAN_DESTINATION, /* 0/8, 127/8, 240/4, ::, ::1 */
      MULTICAST,           /* multicast and limited broadcast are not forwarded */
      BROADCAST,           /* nor are directed broadcasts (RFC 2644) */
      LINK_LOCAL,          /* 169.254/16, fe80::/10: not forwarded (RFC 3927 2.7, RFC 4291 2.5.6) */
      NO_ROUTE,            /* beyond the limit of ICMP errors; so are the next two */
      TTL_EXCEEDED,
      TOO_BIG,
      NEEDS_FRAGMENTATION, /* larger than the out port's MTU, may be fragmented: beyond the limit of what the control plane cuts */
      UNRESOLVED,          /* next hop's MAC unknown, and too many such packets a second */
      LOCAL,               /* to the router, beyond the limit of answers */
      LOCAL_IGNORED,       /* to the router: nothing to answer (ICMP other than echo requests, fragments) */
      ARP_IGNORED,         /* ARP or ND that is not for the router */
      CONTROL_LIMIT,       /* ARP or ND beyond the limit */
      ADDRESS_CONFLICT,    /* ARP or ND in which somebody else claims an address of the router */
      REVERSE_PATH,        /* the way back to the source is another one (strict), or there is none (loose) */
      BLACKHOLE,           /* by a route that says so */
      UNREACHABLE,         /* the same, and answered, but for those beyond the limit of ICMP errors; so is the next one */
      PROHIBITED);

MAP(interfaces, ARRAY, __u32, struct router_interface, ROUTER_PORTS);
MAP_FLAGS(subinterfaces, HASH, __u32, struct router_interface, 16384, BPF_F_NO_PREALLOC);
LPM4(routes4, struct router_route4, 16384);
LPM6(routes6, struct router_route6, 16384);
MAP_FLAGS(groups, HASH, __u32, struct router_group, 4096, BPF_F_NO_PREALLOC);
MAP(neighbours4, HASH, struct router_neighbour4_key, struct router_neighbour, 4096);
MAP(neighbours6, HASH, struct router_neighbour6_key, struct router_neighbour, 4096);
MAP(filters, ARRAY, __u32, struct router_filter, 1);
MAP(buckets, ARRAY, __u32, struct pcn_tokenbucket, ROUTER_PORTS * ROUTER_CLASSES);
MAP(rates, ARRAY, __u32, struct pcn_rate, ROUTER_CLASSES);
MAP(learn_failures, ARRAY, __u32, __u64, 1); /* neighbours that found no room */
CFG(__u32, hash_seed);

static __always_inline int same_mac(const __u8 *a, const __u8 *b)
{
	return pcn_word(a) == pcn_word(b) && *(const __u16 *)(a + 4) == *(const __u16 *)(b + 4);
}

static __always_inline void copy_mac(__u8 *to, const __u8 *from)
{
	*(__u32 *)to = pcn_word(from);
	*(__u16 *)(to + 4) = *(const __u16 *)(from + 4);
}

static __always_inline int link_local6(const __u8 *address)
{
	return (*(const __u16 *)address & bpf_htons(0xffc0)) == bpf_htons(0xfe80);
}

/* A clock that is one load: the kernel's tick counter, in units of 0.25 to 2.6 s. Only its changes are looked at. */
static __always_inline void mark_used(struct router_neighbour *neighbour)
{
	__u32 tick = bpf_jiffies64() >> 8;

	if (neighbour->used != tick)
		neighbour->used = tick;
}

static __always_inline struct router_interface *interface_of(__u32 number)
{
	struct router_interface *interface;
	__u64 key = number;

	if (number < ROUTER_PORTS) {
		interface = bpf_map_lookup_elem(&interfaces, &key);
		asm volatile("" : "+r"(interface)); /* or both look-ups become one call, which the kernel does not inline */
		return interface;
	}
	return bpf_map_lookup_elem(&subinterfaces, &key);
}

/* Out of an interface; the handler turns its number into port and tag. */
static __always_inline int leave(struct pcn_packet *pkt, const struct router_interface *out)
{
	return pcn_forward(pkt, out->number);
}

/* Back out of the interface that it came by, if a library's function has made an answer of it. */
static __always_inline int answered(struct pcn_packet *pkt, const struct router_interface *in, int verdict)
{
	return verdict == PCN_FORWARD ? leave(pkt, in) : verdict;
}

/*
 * What a route says, in one word, for what is asked now and then: its kind + 1 (0: no route), its interface, and the group of next hops or
 * whether there is one at all. Functions of their own, and not static, since the verifier looks at such ones once.
 */
#define ROUTER_SAYS(_kind, _interface, _group) ((__u64)((_kind) + 1) << 60 | (__u64)(_interface) << 32 | (_group))

__noinline __u64 router_route4_says(__u32 address)
{
	struct router_route4 *route = pcn_lpm4(routes4, address);

	if (!route)
		return 0;
	return ROUTER_SAYS(route->kind, route->interface, route->kind == ROUTER_MULTIPATH ? route->group : !!pcn_word(route->gateway));
}

__noinline __u64 router_route6_says(struct in6_addr *address)
{
	struct router_route6 *route;

	asm volatile("" : "+r"(address)); /* the compiler knows that it is never NULL, the verifier doesn't */
	route = address ? pcn_lpm6(routes6, address) : 0;
	if (!route)
		return 0;
	return ROUTER_SAYS(route->kind, route->interface, route->kind == ROUTER_MULTIPATH ? route->group : !route->connected);
}

static __always_inline __u32 filter_bit(__u32 hash)
{
	return hash * 0x9e3779b1u >> 22;
}

/* Whether an IPv4 address is one of the router's. */
static __always_inline int own4(__u32 address)
{
	__u32 bit = filter_bit(address);
	__u64 zero = 0;
	struct router_filter *filter = bpf_map_lookup_elem(&filters, &zero);
	struct router_route4 *route;

	if (!filter || !(filter->ipv4[bit / 64] >> bit % 64 & 1))
		return 0;
	route = pcn_lpm4_host(routes4, address);
	return route && route->kind == ROUTER_LOCAL;
}

/* The same of an IPv6 address; link-local ones are each port's own affair. */
static __always_inline int own6(const void *address)
{
	__u32 bit = filter_bit(pcn_word(address) ^ pcn_word(address + 4) ^ pcn_word(address + 8) ^ pcn_word(address + 12));
	__u64 zero = 0;
	struct router_filter *filter = bpf_map_lookup_elem(&filters, &zero);
	struct router_route6 *route;

	if (!filter || !(filter->ipv6[bit / 64] >> bit % 64 & 1))
		return 0;
	route = pcn_lpm6_host(routes6, address);
	return route && route->kind == ROUTER_LOCAL;
}

static __always_inline void count_learn_failure(void)
{
	__u64 zero = 0, *failures = bpf_map_lookup_elem(&learn_failures, &zero);

	if (failures)
		__sync_fetch_and_add(failures, 1);
}

/* Whether a port may hand one more frame of a class to the control plane. */
static __always_inline int allowed(__u32 port, enum router_class class)
{
	__u64 key = port * ROUTER_CLASSES + class, number = class;
	struct pcn_tokenbucket *bucket = bpf_map_lookup_elem(&buckets, &key);
	struct pcn_rate *rate = bpf_map_lookup_elem(&rates, &number);

	return bucket && rate && pcn_tokens_take(bucket, rate, 1, bpf_ktime_get_ns());
}

/* To the control plane, or dropped for `drop` when there are too many. */
static __always_inline int hand_up(struct pcn_packet *pkt, struct router_interface *in, enum router_class class, __u16 reason, __u16 drop,
				   __u32 out, __u32 mtu)
{
	if (!allowed(pkt->in_port, class))
		return pcn_drop(pkt, drop);
	return pcn_slowpath(pkt, reason, out, mtu, in->number);
}
