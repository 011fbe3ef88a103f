/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Longest-prefix match that stays fast with many prefixes: a hash of all prefixes, and a filter that says which lengths to ask it for.
 * LPM4 and LPM6 declare a table (three maps; the control plane writes it through toolkit/lpm.py), pcn_lpm4 and pcn_lpm6 look up:
 *
 *	LPM4(routes, struct my_route, 16384);
 *	...
 *	struct my_route *route = pcn_lpm4(routes, ip->daddr);
 *
 * Four lengths make a level (32 to 29, 28 to 25, ...). The filter has four bits for a level and the bits of the address above it, found
 * by a hash: which of the four lengths there are. A look-up reads them for the levels in use, then asks the hash of prefixes for those
 * lengths, the longest first. So asking in vain is rare, and the cost hardly depends on the number of prefixes; the kernel's LPM_TRIE walks one node for each bit that
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

/*
 * Words of the first line: levels in use, the longest in the lowest bit; number of fours less 1; a zero that the verifier does not know to
 * be one, for what it would otherwise look at with each combination of bits that it could know; and the levels again as a list of bytes,
 * the longest first, behind their number. IPv6 has a list for each half of the address, the lower one first.
 */
enum { PCN_LPM_LEVELS, PCN_LPM_MASK, PCN_LPM_ZERO, PCN_LPM_COUNTS, PCN_LPM_LIST, PCN_LPM_UPPER_LIST = 6 };
#define PCN_LPM_DEFAULT 32 /* level of the prefix of no bits */

/* The sizes are defaults: toolkit/lpm.py says what they have to be for a number of prefixes. */
#define PCN_LPM(_name, _prefix, _value, _max)                                                                                        \
	MAP_FLAGS(_name, HASH, _prefix, _value, _max, BPF_F_NO_PREALLOC);                                                            \
	MAP(_name##_filter, ARRAY, __u32, struct pcn_lpm_filter, 1 + (_max) / 16);                                                   \
	MAP_FLAGS(_name##_counts, HASH, __u32, __u32, (_max) + 32, BPF_F_NO_PREALLOC)

/* Says of a value whether its prefix counts; `argument` is what the look-up was given, such as the time. */
typedef int (*pcn_lpm_condition)(const void *value, __u64 argument);

/* A table of prefixes. `_counts` is of use to the control plane only: for how many prefixes a bit is set. */
#define LPM4(_name, _value, _max) LPM4_IF(_name, _value, _max, 0)
#define LPM6(_name, _value, _max) LPM6_IF(_name, _value, _max, 0)

/* A table whose prefixes count under a condition: where the longest does not (it has expired, say), the next one does. */
#define LPM4_IF(_name, _value, _max, _condition)											\
	PCN_LPM(_name, struct pcn_lpm4_prefix, _value, _max);										\
	static __always_inline int _name##_if(const void *value, __u64 argument)							\
	{																\
		pcn_lpm_condition condition = _condition;										\
																	\
		return value && (!condition || condition(value, argument));								\
	}																\
																	\
	static long _name##_next(__u32 i, struct pcn_lpm4_search *search)								\
	{																\
		return pcn_lpm4_more(&_name, search, _name##_if);									\
	}																\
	struct pcn_lpm4_search

#define LPM6_IF(_name, _value, _max, _condition)											\
	PCN_LPM(_name, struct pcn_lpm6_prefix, _value, _max);										\
	static __always_inline int _name##_if(const void *value, __u64 argument)							\
	{																\
		pcn_lpm_condition condition = _condition;										\
																	\
		return value && (!condition || condition(value, argument));								\
	}																\
																	\
	static long _name##_next(__u32 i, struct pcn_lpm6_search *search)								\
	{																\
		return pcn_lpm6_more(&_name, search, _name##_if);									\
	}																\
	struct pcn_lpm6_search

/* The value of the longest prefix that an address (network byte order) is in, or NULL. */
#define pcn_lpm4(_name, _address) pcn_lpm4_if(_name, _address, 0)

/* The same of the IPv6 address at a pointer. */
#define pcn_lpm6(_name, _address) pcn_lpm6_if(_name, _address, 0)

/* The same of a table with a condition, and what this is told. */
#define pcn_lpm4_if(_name, _address, _argument) pcn_lpm4_find(&_name, &_name##_filter, _name##_next, _name##_if, _address, _argument)
#define pcn_lpm6_if(_name, _address, _argument) pcn_lpm6_find(&_name, &_name##_filter, _name##_next, _name##_if, _address, _argument)

/* The value of an address itself, as a prefix of all its bits, or NULL: one look-up. */
#define pcn_lpm4_host(_name, _address) pcn_lpm4_get(&_name, bpf_ntohl(_address), 0)
#define pcn_lpm6_host(_name, _address) pcn_lpm6_get(&_name, pcn_lpm6_half(_address, 0), pcn_lpm6_half(_address, 1), 0)

/*
 * A look-up on its way. `candidates`: bits of the address behind which a prefix may end, the longest prefix in the lowest bit (IPv6: [0] of
 * the lower half of the address, then [1]). `beyond`: the one that was asked for last.
 */
struct pcn_lpm4_search {
	__u64 candidates;
	__u64 argument;
	__u32 address;
	__u32 beyond;
	__u32 found;
	__u32 has_default;
};

struct pcn_lpm6_search {
	__u64 candidates[2];
	__u64 argument;
	__u64 upper;
	__u64 lower;
	__u64 beyond;
	__u32 found;
	__u32 has_default;
};

typedef long (*pcn_lpm4_step)(__u32, struct pcn_lpm4_search *);
typedef long (*pcn_lpm6_step)(__u32, struct pcn_lpm6_search *);

#define PCN_LPM_UNROLLED 4 /* so many times are asked here, more in a call, or the verifier would look at every one of 128 */

static __always_inline __u64 pcn_is_set(__u64 bits)
{
	return (bits | pcn_opaque(-bits)) >> 63;
}

/* Number of the lowest bit that is set. BPF has no instruction for it; without branches, each of which doubles what the verifier looks at. */
static __always_inline __u32 pcn_lowest_bit(__u64 bits)
{
	bits &= -bits;
	return pcn_is_set(bits & 0xffffffff00000000) << 5 | pcn_is_set(bits & 0xffff0000ffff0000) << 4 |
	       pcn_is_set(bits & 0xff00ff00ff00ff00) << 3 | pcn_is_set(bits & 0xf0f0f0f0f0f0f0f0) << 2 |
	       pcn_is_set(bits & 0xcccccccccccccccc) << 1 | pcn_is_set(bits & 0xaaaaaaaaaaaaaaaa);
}

/* Whether there is any prefix in a table. */
#define pcn_lpm_any(_name) pcn_lpm_levels(&_name##_filter)

static __always_inline __u64 pcn_lpm_levels(void *filter)
{
	__u32 zero = 0;
	struct pcn_lpm_filter *first = bpf_map_lookup_elem(filter, &zero);

	return first ? first->words[PCN_LPM_LEVELS] : 0;
}

/* The four bits of a level and what an address has above it. The mixing steps are those of splitmix64 (Steele, Lea, Flood, 2014). */
static __always_inline __u64 pcn_lpm_lengths(void *filter, __u64 upper, __u64 lower, __u32 level, __u32 mask)
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

static __always_inline void *pcn_lpm4_get(void *prefixes, __u32 address, __u32 beyond)
{
	struct pcn_lpm4_prefix key = {.len = 32 - beyond};

	*(__u32 *)key.address = bpf_htonl((__u32)((__u64)address >> beyond << beyond));
	return bpf_map_lookup_elem(prefixes, &key);
}

/* The next candidate. */
static __always_inline void *pcn_lpm4_ask(void *prefixes, struct pcn_lpm4_search *search)
{
	search->beyond = pcn_lowest_bit(search->candidates);
	search->candidates &= search->candidates - 1;
	return pcn_lpm4_get(prefixes, search->address, search->beyond);
}

/* One step of the loop over the rest: 1 ends it. */
static __always_inline long pcn_lpm4_more(void *prefixes, struct pcn_lpm4_search *search, pcn_lpm_condition condition)
{
	if (!search->candidates)
		return 1;
	search->found = condition(pcn_lpm4_ask(prefixes, search), search->argument);
	return search->found;
}

static __always_inline void pcn_lpm4_filter(void *filter, struct pcn_lpm4_search *search)
{
	__u32 zero = 0, level, i;
	struct pcn_lpm_filter *first = bpf_map_lookup_elem(filter, &zero);

	if (!first)
		return;
	search->has_default = first->words[PCN_LPM_LEVELS] >> PCN_LPM_DEFAULT;
	search->candidates = first->words[PCN_LPM_ZERO];
	for (i = 0; i < 8 && i < (__u32)first->words[PCN_LPM_COUNTS]; i++) {
		level = first->words[PCN_LPM_LIST] >> i * 8 & 7;
		search->candidates |= pcn_lpm_lengths(filter, (__u64)search->address >> (level + 1) * PCN_LPM_LENGTHS, 0, level,
						      first->words[PCN_LPM_MASK]) << level * PCN_LPM_LENGTHS;
	}
}

static __always_inline void *pcn_lpm4_find(void *prefixes, void *filter, pcn_lpm4_step next, pcn_lpm_condition condition, __u32 address,
					   __u64 argument)
{
	struct pcn_lpm4_search search = {.argument = argument, .address = bpf_ntohl(address)};
	void *value;
	int i;

	pcn_lpm4_filter(filter, &search);
	for (i = 0; i < PCN_LPM_UNROLLED && search.candidates; i++) {
		value = pcn_lpm4_ask(prefixes, &search);
		if (condition(value, argument))
			return value;
	}
	if (search.candidates) {
		struct pcn_lpm4_search rest = search;

		rest.found = 0;
		bpf_loop(32, next, &rest, 0);
		if (rest.found)
			return pcn_lpm4_get(prefixes, search.address, rest.beyond & 31);
	}
	if (!search.has_default)
		return 0;
	value = pcn_lpm4_get(prefixes, 0, 32);
	return condition(value, argument) ? value : 0;
}

/* 64 bits of an address, host byte order. */
static __always_inline __u64 pcn_lpm6_half(const void *address, int half)
{
	const __u32 *words = address;

	return (__u64)bpf_ntohl(words[2 * half]) << 32 | bpf_ntohl(words[2 * half + 1]);
}

static __always_inline void *pcn_lpm6_get(void *prefixes, __u64 upper, __u64 lower, __u32 beyond)
{
	struct pcn_lpm6_prefix key = {.len = 128 - beyond};
	__u32 *words = (void *)key.address;

	words[0] = bpf_htonl(upper >> 32);
	words[1] = bpf_htonl((__u32)upper);
	words[2] = bpf_htonl(lower >> 32);
	words[3] = bpf_htonl((__u32)lower);
	return bpf_map_lookup_elem(prefixes, &key);
}

/* The prefix of an address without the last bits. */
static __always_inline void *pcn_lpm6_cut(void *prefixes, const struct pcn_lpm6_search *search, __u64 beyond)
{
	if (beyond < 64)
		return pcn_lpm6_get(prefixes, search->upper, search->lower >> beyond << beyond, beyond);
	return pcn_lpm6_get(prefixes, search->upper >> (beyond - 64) << (beyond - 64), 0, beyond);
}

static __always_inline void *pcn_lpm6_ask(void *prefixes, struct pcn_lpm6_search *search)
{
	__u64 upper = search->upper, lower = 0;

	if (search->candidates[0]) {
		search->beyond = pcn_lowest_bit(search->candidates[0]);
		search->candidates[0] &= search->candidates[0] - 1;
		lower = search->lower >> search->beyond << search->beyond;
	} else {
		search->beyond = pcn_lowest_bit(search->candidates[1]);
		search->candidates[1] &= search->candidates[1] - 1;
		upper = upper >> search->beyond << search->beyond;
		search->beyond += 64;
	}
	return pcn_lpm6_get(prefixes, upper, lower, search->beyond);
}

static __always_inline long pcn_lpm6_more(void *prefixes, struct pcn_lpm6_search *search, pcn_lpm_condition condition)
{
	if (!(search->candidates[0] | search->candidates[1]))
		return 1;
	search->found = condition(pcn_lpm6_ask(prefixes, search), search->argument);
	return search->found;
}

/* Half an address without what is in or behind a level. */
static __always_inline __u64 pcn_lpm6_above(__u64 half, __u32 level)
{
	return half >> level * PCN_LPM_LENGTHS >> PCN_LPM_LENGTHS << PCN_LPM_LENGTHS << level * PCN_LPM_LENGTHS;
}

static __always_inline void pcn_lpm6_filter(void *filter, struct pcn_lpm6_search *search)
{
	__u32 zero = 0, level, i;
	struct pcn_lpm_filter *first = bpf_map_lookup_elem(filter, &zero);
	__u64 mask, lengths;

	if (!first)
		return;
	mask = first->words[PCN_LPM_MASK];
	search->has_default = first->words[PCN_LPM_LEVELS] >> PCN_LPM_DEFAULT;
	search->candidates[0] = search->candidates[1] = first->words[PCN_LPM_ZERO];
	for (i = 0; i < 16 && i < (__u32)first->words[PCN_LPM_COUNTS]; i++) {
		level = first->words[PCN_LPM_LIST + i / 8] >> i % 8 * 8 & 15;
		lengths = pcn_lpm_lengths(filter, search->upper, pcn_lpm6_above(search->lower, level), level, mask);
		search->candidates[0] |= lengths << level * PCN_LPM_LENGTHS;
	}
	for (i = 0; i < 16 && i < first->words[PCN_LPM_COUNTS] >> 32; i++) {
		level = first->words[PCN_LPM_UPPER_LIST + i / 8] >> i % 8 * 8 & 15;
		lengths = pcn_lpm_lengths(filter, pcn_lpm6_above(search->upper, level), 0, level + 16, mask);
		search->candidates[1] |= lengths << level * PCN_LPM_LENGTHS;
	}
}

static __always_inline void *pcn_lpm6_find(void *prefixes, void *filter, pcn_lpm6_step next, pcn_lpm_condition condition, const void *address,
					   __u64 argument)
{
	struct pcn_lpm6_search search = {.argument = argument, .upper = pcn_lpm6_half(address, 0), .lower = pcn_lpm6_half(address, 1)};
	void *value;
	int i;

	pcn_lpm6_filter(filter, &search);
	for (i = 0; i < PCN_LPM_UNROLLED && search.candidates[0] | search.candidates[1]; i++) {
		value = pcn_lpm6_ask(prefixes, &search);
		if (condition(value, argument))
			return value;
	}
	if (search.candidates[0] | search.candidates[1]) {
		struct pcn_lpm6_search rest = search;

		rest.found = 0;
		bpf_loop(128, next, &rest, 0);
		if (rest.found)
			return pcn_lpm6_cut(prefixes, &search, rest.beyond);
	}
	if (!search.has_default)
		return 0;
	value = pcn_lpm6_get(prefixes, 0, 0, 128);
	return condition(value, argument) ? value : 0;
}
