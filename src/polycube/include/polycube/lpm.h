/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Longest-prefix match that stays fast with many prefixes: a hash of all prefixes, and a filter that says which lengths to ask it for.
 * LPM4 and LPM6 declare a table (three maps; the control plane writes it through toolkit/lpm.py), pcn_lpm4 and pcn_lpm6 look up:
 *
 *	LPM4(routes, struct my_route, 16384);
 *	...
 *	struct my_route *route = pcn_lpm4(routes, ip->daddr);
 *
 * Four lengths make a level (32 to 29, 28 to 25, ...). A look-up goes through the levels in use, the longest first. The filter has four
 * bits for a level and the bits of the address above it, found by a hash: which of the four lengths there are. So a hash look-up that
 * finds nothing is rare, and the cost hardly depends on the number of prefixes; the kernel's LPM_TRIE walks one node for each bit that
 * tells prefixes apart, most of them not in the cache when there are 100,000. A bit too many (two blocks share four bits, a change is half
 * made) costs a look-up, never a wrong answer. Hashes by length: Waldvogel, Varghese, Turner, Plattner, "Scalable High Speed IP Routing
 * Lookups", SIGCOMM 1997; filters in front of them: Dharmapurikar, Krishnamurthy, Taylor, "Longest Prefix Matching Using Bloom Filters",
 * SIGCOMM 2003.
 */
#pragma once

#include <linux/in6.h>

#include <polycube/cube.h>

#define PCN_LPM_LENGTHS 4 /* of a level */

/* Bits beyond `len` are zero. */
struct pcn_lpm4_prefix {
	__u32 len;
	__u8 address[4];
};

struct pcn_lpm6_prefix {
	__u32 len;
	__u8 address[16];
};

/* A cache line of the filter: 128 times four bits. The first line says how it is to be read. */
struct pcn_lpm_filter {
	__u64 words[8];
};

enum { PCN_LPM_LEVELS, PCN_LPM_MASK }; /* words of the first line: levels in use, the longest in the lowest bit; number of fours less 1 */
#define PCN_LPM_DEFAULT 32             /* level of the prefix of no bits */

/* The sizes are defaults: toolkit/lpm.py says what they have to be for a number of prefixes. */
#define PCN_LPM(_name, _prefix, _value, _max)                                                                                        \
	MAP_FLAGS(_name, HASH, _prefix, _value, _max, BPF_F_NO_PREALLOC);                                                            \
	MAP(_name##_filter, ARRAY, __u32, struct pcn_lpm_filter, 1 + (_max) / 8);                                                    \
	MAP_FLAGS(_name##_counts, HASH, __u32, __u32, (_max) + 32, BPF_F_NO_PREALLOC)

/* A table of prefixes. What it stands for by the `_counts` is of use to the control plane only: how many prefixes a bit was set for. */
#define LPM4(_name, _value, _max) PCN_LPM(_name, struct pcn_lpm4_prefix, _value, _max)
#define LPM6(_name, _value, _max) PCN_LPM(_name, struct pcn_lpm6_prefix, _value, _max)

/* Says of a value whether its prefix counts; `argument` is what the look-up was given, such as the time. */
typedef int (*pcn_lpm_counts)(const void *value, __u64 argument);

/* The value of the longest prefix that an address (network byte order) is in, or NULL. */
#define pcn_lpm4(_name, _address) pcn_lpm4_find(&_name, &_name##_filter, _address, 0, 0)

/* The same of the IPv6 address at a pointer. */
#define pcn_lpm6(_name, _address) pcn_lpm6_find(&_name, &_name##_filter, _address, 0, 0)

/* The same of those prefixes that count: where the longest does not (it has expired, say), the next one does. */
#define pcn_lpm4_if(_name, _address, _counts, _argument) pcn_lpm4_find(&_name, &_name##_filter, _address, _counts, _argument)
#define pcn_lpm6_if(_name, _address, _counts, _argument) pcn_lpm6_find(&_name, &_name##_filter, _address, _counts, _argument)

/* The four bits of a level and what an address has above it. The mixing steps are those of splitmix64 (Steele, Lea, Flood, 2014). */
static __always_inline __u32 pcn_lpm_lengths(void *filter, __u64 upper, __u64 lower, __u32 level, __u32 mask)
{
	__u64 hash = (upper ^ level) * 0xbf58476d1ce4e5b9;
	struct pcn_lpm_filter *line;
	__u32 four, index;

	hash = (hash ^ hash >> 32 ^ lower) * 0x94d049bb133111eb;
	four = (hash >> 32) & mask;
	index = 1 + (four >> 7);
	line = bpf_map_lookup_elem(filter, &index);
	return line ? line->words[four >> 4 & 7] >> (four & 15) * 4 & 15 : 0;
}

static __always_inline void *pcn_lpm_found(void *prefixes, const void *key, pcn_lpm_counts counts, __u64 argument)
{
	void *value = bpf_map_lookup_elem(prefixes, key);

	return value && (!counts || counts(value, argument)) ? value : 0;
}

static __always_inline void *pcn_lpm4_find(void *prefixes, void *filter, __u32 address, pcn_lpm_counts counts, __u64 argument)
{
	__u32 host = bpf_ntohl(address), zero = 0, mask, level, lengths, j;
	struct pcn_lpm_filter *first = bpf_map_lookup_elem(filter, &zero);
	struct pcn_lpm4_prefix key;
	__u64 levels;
	void *value;

	if (!first)
		return 0;
	levels = first->words[PCN_LPM_LEVELS];
	mask = first->words[PCN_LPM_MASK];
	for (level = 0; level < 32 / PCN_LPM_LENGTHS && (__u32)levels >> level; level++) {
		if (!(levels >> level & 1))
			continue;
		lengths = pcn_lpm_lengths(filter, (__u64)host >> (level + 1) * PCN_LPM_LENGTHS, 0, level, mask);
		for (j = 0; j < PCN_LPM_LENGTHS && lengths >> j; j++) {
			__u32 beyond = level * PCN_LPM_LENGTHS + j;

			if (!(lengths >> j & 1))
				continue;
			key.len = 32 - beyond;
			*(__u32 *)key.address = bpf_htonl(host >> beyond << beyond);
			value = pcn_lpm_found(prefixes, &key, counts, argument);
			if (value)
				return value;
		}
	}
	if (!(levels >> PCN_LPM_DEFAULT))
		return 0;
	key.len = 0;
	*(__u32 *)key.address = 0;
	return pcn_lpm_found(prefixes, &key, counts, argument);
}

/* What is left of 128 bits without the last ones. */
static __always_inline void pcn_lpm6_cut(__u64 *upper, __u64 *lower, __u32 beyond)
{
	if (beyond >= 64) {
		*lower = 0;
		*upper = beyond == 128 ? 0 : *upper >> (beyond - 64) << (beyond - 64);
	} else {
		*lower = *lower >> beyond << beyond;
	}
}

static __always_inline void *pcn_lpm6_find(void *prefixes, void *filter, const void *address, pcn_lpm_counts counts, __u64 argument)
{
	const __u32 *words = address;
	__u64 upper = (__u64)bpf_ntohl(words[0]) << 32 | bpf_ntohl(words[1]), up;
	__u64 lower = (__u64)bpf_ntohl(words[2]) << 32 | bpf_ntohl(words[3]), low;
	__u32 zero = 0, mask, level, lengths, j;
	struct pcn_lpm_filter *first = bpf_map_lookup_elem(filter, &zero);
	struct pcn_lpm6_prefix key;
	__u32 *to = (void *)key.address;
	__u64 levels;
	void *value;

	if (!first)
		return 0;
	levels = first->words[PCN_LPM_LEVELS];
	mask = first->words[PCN_LPM_MASK];
	for (level = 0; level < 128 / PCN_LPM_LENGTHS && (__u32)levels >> level; level++) {
		if (!(levels >> level & 1))
			continue;
		up = upper;
		low = lower;
		pcn_lpm6_cut(&up, &low, (level + 1) * PCN_LPM_LENGTHS);
		lengths = pcn_lpm_lengths(filter, up, low, level, mask);
		for (j = 0; j < PCN_LPM_LENGTHS && lengths >> j; j++) {
			__u32 beyond = level * PCN_LPM_LENGTHS + j;

			if (!(lengths >> j & 1))
				continue;
			key.len = 128 - beyond;
			up = upper;
			low = lower;
			pcn_lpm6_cut(&up, &low, beyond);
			to[0] = bpf_htonl(up >> 32);
			to[1] = bpf_htonl((__u32)up);
			to[2] = bpf_htonl(low >> 32);
			to[3] = bpf_htonl((__u32)low);
			value = pcn_lpm_found(prefixes, &key, counts, argument);
			if (value)
				return value;
		}
	}
	if (!(levels >> PCN_LPM_DEFAULT))
		return 0;
	key.len = 0;
	to[0] = to[1] = to[2] = to[3] = 0;
	return pcn_lpm_found(prefixes, &key, counts, argument);
}
