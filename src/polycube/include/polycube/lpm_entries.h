/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Longest-prefix match for tables whose prefixes each have a state of their own (counters, an expiry), and count under a condition: where
 * the longest does not (it has expired, say), the next one does. The control plane writes them through EntryTable:
 *
 *	LPM4_IF(sources, struct my_entry, 65536, my_condition);
 *	...
 *	struct my_entry *entry = pcn_lpm4_if(sources, ip->saddr, now);
 *
 * A hash of all prefixes, and a filter with four bits for each level and what an address has above it: which of the four lengths there
 * are (lpm_filter.h). A look-up reads them for the levels in use, then asks the hash for those lengths, the longest first. So the cost
 * hardly depends on the number of prefixes.
 */
#pragma once

#include <polycube/lpm_filter.h>

/* Bits beyond `len` are zero. */
struct pcn_lpm4_prefix {
	__u32 len;
	__u8 address[4];
};

struct pcn_lpm6_prefix {
	__u32 len;
	__u8 address[16];
};

/* The sizes are defaults: EntryTable.sizes says what they have to be for a number of prefixes. */
#define PCN_LPM_ENTRIES(_name, _prefix, _value, _max)											\
	MAP_FLAGS(_name, HASH, _prefix, _value, _max, BPF_F_NO_PREALLOC);								\
	MAP(_name##_filter, ARRAY, __u32, struct pcn_lpm_filter, 1 + (_max) / 16)

/* Says of a value whether its prefix counts; `argument` is what the look-up was given, such as the time. */
typedef int (*pcn_lpm_condition)(const void *value, __u64 argument);

/* A table of prefixes. */
#define LPM4_IF(_name, _value, _max, _condition)											\
	PCN_LPM_ENTRIES(_name, struct pcn_lpm4_prefix, _value, _max);										\
	static __always_inline int _name##_if(const void *value, __u64 argument)							\
	{																\
		return value && _condition(value, argument);										\
	}																\
																	\
	static long _name##_next(__u32 i, struct pcn_lpm4_search *search)								\
	{																\
		return pcn_lpm4_more(&_name, search, _name##_if);									\
	}																\
	struct pcn_lpm4_search

#define LPM6_IF(_name, _value, _max, _condition)											\
	PCN_LPM_ENTRIES(_name, struct pcn_lpm6_prefix, _value, _max);										\
	static __always_inline int _name##_if(const void *value, __u64 argument)							\
	{																\
		return value && _condition(value, argument);										\
	}																\
																	\
	static long _name##_next(__u32 i, struct pcn_lpm6_search *search)								\
	{																\
		return pcn_lpm6_more(&_name, search, _name##_if);									\
	}																\
	struct pcn_lpm6_search

/* The value of the longest prefix that counts and an address (network byte order) is in, or NULL. `_argument`: what the condition is told. */
#define pcn_lpm4_if(_name, _address, _argument) pcn_lpm4_find_if(&_name, &_name##_filter, _name##_next, _name##_if, _address, _argument)

/* The same of the IPv6 address at a pointer. */
#define pcn_lpm6_if(_name, _address, _argument) pcn_lpm6_find_if(&_name, &_name##_filter, _name##_next, _name##_if, _address, _argument)

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

/* Which lengths of a level there may be around an address. */
static __always_inline __u64 pcn_lpm_lengths(void *filter, __u64 upper, __u64 lower, __u32 level, __u32 mask)
{
	return pcn_lpm_cell(filter, upper, lower, level, mask, PCN_LPM_LENGTHS) & 15;
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
	for (i = 0; i < PCN_LPM_LEVELS4 && i < (__u32)first->words[PCN_LPM_COUNTS]; i++) {
		level = pcn_lpm_level(first, PCN_LPM_LIST, i) & 7;
		search->candidates |= pcn_lpm_lengths(filter, (__u64)search->address >> (level + 1) * PCN_LPM_LENGTHS, 0, level,
						      first->words[PCN_LPM_MASK]) << level * PCN_LPM_LENGTHS;
	}
}

static __always_inline void *pcn_lpm4_find_if(void *prefixes, void *filter, pcn_lpm4_step next, pcn_lpm_condition condition, __u32 address,
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
	for (i = 0; i < PCN_LPM_LEVELS6 && i < (__u32)first->words[PCN_LPM_COUNTS]; i++) {
		level = pcn_lpm_level(first, PCN_LPM_LIST, i);
		lengths = pcn_lpm_lengths(filter, search->upper, pcn_lpm6_above(search->lower, level), level, mask);
		search->candidates[0] |= lengths << level * PCN_LPM_LENGTHS;
	}
	for (i = 0; i < PCN_LPM_LEVELS6 && i < first->words[PCN_LPM_COUNTS] >> 32; i++) {
		level = pcn_lpm_level(first, PCN_LPM_UPPER_LIST, i);
		lengths = pcn_lpm_lengths(filter, pcn_lpm6_above(search->upper, level), 0, level + 16, mask);
		search->candidates[1] |= lengths << level * PCN_LPM_LENGTHS;
	}
}

static __always_inline void *pcn_lpm6_find_if(void *prefixes, void *filter, pcn_lpm6_step next, pcn_lpm_condition condition, const void *address,
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
