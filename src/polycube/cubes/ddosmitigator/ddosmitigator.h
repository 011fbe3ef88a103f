/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Tables of ddosmitigator, and what its parts share. */
#pragma once

#include <polycube/lpm.h>
#include <polycube/tokenbucket.h>

enum ddosmitigator_kind {
	DDOSMITIGATOR_BLOCK,        /* dropped */
	DDOSMITIGATOR_TRUST,        /* passes, whatever else is known of it */
	DDOSMITIGATOR_LIMIT_SHARED, /* all addresses of the prefix together have a rate */
	DDOSMITIGATOR_LIMIT_EACH,   /* each of them has */
};

/* What is to be done about a prefix. */
struct ddosmitigator_entry {
	__u64 dropped; /* packets */
	__u32 expires; /* second from which it does not count any more; 0: never */
	__u16 limit;   /* slot in `limits`; another one when the rate changes */
	__u16 kind;    /* enum ddosmitigator_kind */
	__u32 load;    /* 0: configured; else which load it came with */
	__u32 pad;
};

struct ddosmitigator_limit {
	struct pcn_rate packets;
	struct pcn_rate bytes;
	struct pcn_tokenbucket packet_bucket; /* of all together; if each has its own: of those for whom there is no room */
	struct pcn_tokenbucket byte_bucket;
};

/* An address that has a rate of its own. */
struct ddosmitigator_address {
	struct in6_addr address; /* IPv4 ones are mapped, ::ffff:a.b.c.d */
	__u32 limit;             /* slot in `limits` */
};

struct ddosmitigator_buckets {
	struct pcn_tokenbucket packets;
	struct pcn_tokenbucket bytes;
};

/* A source that was found to send too much. */
struct ddosmitigator_hitter {
	__u64 dropped;
	__u64 rate;    /* units a second when it was found */
	__u32 expires;
	__u32 since;
};

struct ddosmitigator_stats {
	__u64 dropped_src;   /* packets of blacklisted sources */
	__u64 dropped_dst;   /* to blacklisted destinations */
	__u64 dropped_rate;  /* beyond a rate */
	__u64 dropped_heavy; /* of heavy hitters */
	__u64 dropped_bytes; /* of all of these */
	__u64 unlisted;      /* packets of addresses that found no room for a bucket of their own */
	__u64 unblocked;     /* heavy hitters that found no room */
};

static __always_inline int ddosmitigator_stands(const void *value, __u64 seconds)
{
	const struct ddosmitigator_entry *entry = value;

	return !entry->expires | (entry->expires > seconds);
}

LPM4_IF(sources4, struct ddosmitigator_entry, 65536, ddosmitigator_stands);
LPM6_IF(sources6, struct ddosmitigator_entry, 65536, ddosmitigator_stands);
LPM4_IF(targets4, struct ddosmitigator_entry, 65536, ddosmitigator_stands);
LPM6_IF(targets6, struct ddosmitigator_entry, 65536, ddosmitigator_stands);
MAP(limits, ARRAY, __u32, struct ddosmitigator_limit, 2048);
MAP_FLAGS(buckets, HASH, struct ddosmitigator_address, struct ddosmitigator_buckets, 65536, BPF_F_NO_PREALLOC);
MAP_FLAGS(hitters, HASH, struct in6_addr, struct ddosmitigator_hitter, 65536, BPF_F_NO_PREALLOC);
MAP(stats, PERCPU_ARRAY, __u32, struct ddosmitigator_stats, 1);

DROPS(BLACKLISTED_SOURCE, BLACKLISTED_DESTINATION, RATE_EXCEEDED, HEAVY_HITTER);

/* A packet, as far as it matters here. */
struct ddosmitigator_packet {
	struct in6_addr source;
	struct in6_addr destination;
	__u32 version;
	__u32 packets; /* that it stands for: in TC the kernel may still have to cut it */
	__u32 bytes;
	__u32 seconds;
	__u64 now; /* ns */
};
