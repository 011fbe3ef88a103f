/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Longest-prefix match that stays fast with many prefixes and many addresses: for tables whose prefixes have few values between them, as
 * routes have few next hops. LPM4 and LPM6 declare a table, which the control plane writes through PrefixTable; pcn_lpm4 and pcn_lpm6 look
 * up:
 *
 *	LPM4(routes, struct my_route, 16384);
 *	...
 *	struct my_route *route = pcn_lpm4(routes, ip->daddr);
 *
 * Prefixes of one level (lpm_filter.h) that agree above it are in one block: 30 places for those of one to four bits more, in each the
 * number of a value. So neighbours in the address space are neighbours in memory, a look-up at a level is one for all its lengths, and a
 * thousand routes in a row need a few kilobytes of the processor's cache instead of some hundred (the idea of tree bitmaps: Eatherton,
 * Varghese, Dittia, CCR 2004, with the blocks found by hash instead of by pointers). A block is replaced as a whole: whatever the order
 * of writes, a prefix that stays is found at any time.
 */
#pragma once

#include <polycube/lpm_filter.h>

#define PCN_LPM_PLACES 30

/* Numbers of values by the four bits of the level (16 places), by the first three (8), two and one of them. 0: no such prefix. */
struct pcn_lpm_block {
	__u32 numbers[PCN_LPM_PLACES];
};

/* Where a block is: a level, and the address above it, zero from there on; host byte order. The default is one level further. */
struct pcn_lpm4_place {
	__u32 address;
	__u32 level;
};

struct pcn_lpm6_place {
	__u64 upper;
	__u64 lower;
	__u64 level;
};

/* What the control plane knows of a value: its number, and how many prefixes have it. */
struct pcn_lpm_use {
	__u32 number;
	__u32 prefixes;
};

/*
 * The sizes are defaults: PrefixTable.sizes says what they have to be for a number of prefixes. `_numbers` finds a value's number by what it
 * is, `_counts` for how many blocks a bit of the filter is set: of use to the control plane only.
 */
#define PCN_LPM(_name, _place, _value, _max)												\
	struct _name##_entry {														\
		__u32 taken;														\
		_value value;														\
	};																\
	struct _name##_block {														\
		struct pcn_lpm_block block;												\
		_value of[0]; /* with values of another layout it is another map, whose numbers are others */				\
	};																\
	MAP_FLAGS(_name, HASH, _place, struct _name##_block, _max, BPF_F_NO_PREALLOC);							\
	MAP(_name##_values, ARRAY, __u32, struct _name##_entry, 2 * (_max));								\
	MAP(_name##_filter, ARRAY, __u32, struct pcn_lpm_filter, 1 + (_max) / 32);							\
	MAP_FLAGS(_name##_numbers, HASH, struct _name##_entry, struct pcn_lpm_use, 2 * (_max), BPF_F_NO_PREALLOC);			\
	MAP_FLAGS(_name##_counts, HASH, __u32, __u32, (_max) + 32, BPF_F_NO_PREALLOC)

#define LPM4(_name, _value, _max) PCN_LPM(_name, struct pcn_lpm4_place, _value, _max)
#define LPM6(_name, _value, _max) PCN_LPM(_name, struct pcn_lpm6_place, _value, _max)

/* The value of the longest prefix that an address (network byte order) is in, or NULL. */
#define pcn_lpm4(_name, _address) PCN_LPM_VALUE(_name, pcn_lpm4_find(&_name, &_name##_filter, _address))

/* The same of the IPv6 address at a pointer. */
#define pcn_lpm6(_name, _address) PCN_LPM_VALUE(_name, pcn_lpm6_find(&_name, &_name##_filter, _address))

/* The value of an address itself, as a prefix of all its bits, or NULL. */
#define pcn_lpm4_host(_name, _address) PCN_LPM_VALUE(_name, pcn_lpm4_exactly(&_name, _address))
#define pcn_lpm6_host(_name, _address) PCN_LPM_VALUE(_name, pcn_lpm6_exactly(&_name, _address))

#define PCN_LPM_VALUE(_name, _number)													\
	({																\
		__u64 _key = _number;													\
		struct _name##_entry *_entry = _key ? bpf_map_lookup_elem(&_name##_values, &_key) : 0;					\
		typeof(&_entry->value) _found = 0;											\
																	\
		if (_entry) {														\
			asm volatile("" : "+r"(_entry)); /* or the compiler adds first and asks then */					\
			_found = &_entry->value;											\
		}															\
		_found;															\
	})

/* Of the prefixes of a block, the number of the longest. `bits`: those that the address has in the level. */
static __always_inline __u32 pcn_lpm_longest(const struct pcn_lpm_block *block, __u32 bits)
{
	__u32 number = block->numbers[bits & 15];

	if (!number)
		number = block->numbers[16 + (bits >> 1 & 7)];
	if (!number)
		number = block->numbers[24 + (bits >> 2 & 3)];
	return number ? number : block->numbers[28 + (bits >> 3 & 1)];
}

static __always_inline struct pcn_lpm_block *pcn_lpm4_block(void *blocks, __u32 address, __u32 level)
{
	__u32 beyond = (level + 1) * PCN_LPM_LENGTHS;
	struct pcn_lpm4_place place = {.address = (__u64)address >> beyond << beyond, .level = level};

	return bpf_map_lookup_elem(blocks, &place);
}

static __always_inline __u32 pcn_lpm4_exactly(void *blocks, __u32 address)
{
	struct pcn_lpm_block *block = pcn_lpm4_block(blocks, bpf_ntohl(address), 0);

	return block ? block->numbers[bpf_ntohl(address) & 15] : 0;
}

static __always_inline __u32 pcn_lpm4_find(void *blocks, void *filter, __u32 of)
{
	__u32 address = bpf_ntohl(of), number, level, i;
	__u64 zero = 0;
	struct pcn_lpm_filter *first = bpf_map_lookup_elem(filter, &zero);
	struct pcn_lpm4_place place = {.level = PCN_LPM_LEVELS4};
	struct pcn_lpm_block *block;

	if (!first)
		return 0;
	for (i = 0; i < PCN_LPM_LEVELS4 && i < (__u32)first->words[PCN_LPM_COUNTS]; i++) {
		level = pcn_lpm_level(first, PCN_LPM_LIST, i) & 7;
		if (!(pcn_lpm_cell(filter, (__u64)address >> (level + 1) * PCN_LPM_LENGTHS, 0, level, first->words[PCN_LPM_MASK], 1) & 1))
			continue;
		block = pcn_lpm4_block(blocks, address, level);
		number = block ? pcn_lpm_longest(block, address >> level * PCN_LPM_LENGTHS) : 0;
		if (number)
			return number;
	}
	block = first->words[PCN_LPM_LEVELS] >> PCN_LPM_DEFAULT ? bpf_map_lookup_elem(blocks, &place) : 0;
	return block ? block->numbers[0] : 0;
}

static __always_inline __u32 pcn_lpm6_exactly(void *blocks, const void *address)
{
	__u64 lower = pcn_lpm6_half(address, 1);
	struct pcn_lpm6_place place = {.upper = pcn_lpm6_half(address, 0), .lower = lower & ~15ull};
	struct pcn_lpm_block *block = bpf_map_lookup_elem(blocks, &place);

	return block ? block->numbers[lower & 15] : 0;
}

/* A level of half an address; `base`: 16 in the upper half, whose prefixes have nothing of the lower one. */
static __always_inline __u32 pcn_lpm6_at(void *blocks, void *filter, __u64 upper, __u64 lower, __u32 level, __u32 base, __u32 mask)
{
	struct pcn_lpm6_place place = {
		.upper = base ? pcn_lpm6_above(upper, level) : upper,
		.lower = base ? 0 : pcn_lpm6_above(lower, level),
		.level = base + level,
	};
	struct pcn_lpm_block *block;

	if (!(pcn_lpm_cell(filter, place.upper, place.lower, place.level, mask, 1) & 1))
		return 0;
	block = bpf_map_lookup_elem(blocks, &place);
	return block ? pcn_lpm_longest(block, (base ? upper : lower) >> level * PCN_LPM_LENGTHS) : 0;
}

static __always_inline __u32 pcn_lpm6_find(void *blocks, void *filter, const void *address)
{
	__u64 upper = pcn_lpm6_half(address, 0), lower = pcn_lpm6_half(address, 1);
	struct pcn_lpm6_place place = {.level = 2 * PCN_LPM_LEVELS6};
	__u32 number, mask, i;
	__u64 zero = 0;
	struct pcn_lpm_filter *first = bpf_map_lookup_elem(filter, &zero);
	struct pcn_lpm_block *block;

	if (!first)
		return 0;
	mask = first->words[PCN_LPM_MASK];
	for (i = 0; i < PCN_LPM_LEVELS6 && i < (__u32)first->words[PCN_LPM_COUNTS]; i++) {
		number = pcn_lpm6_at(blocks, filter, upper, lower, pcn_lpm_level(first, PCN_LPM_LIST, i), 0, mask);
		if (number)
			return number;
	}
	for (i = 0; i < PCN_LPM_LEVELS6 && i < first->words[PCN_LPM_COUNTS] >> 32; i++) {
		number = pcn_lpm6_at(blocks, filter, upper, lower, pcn_lpm_level(first, PCN_LPM_UPPER_LIST, i), PCN_LPM_LEVELS6, mask);
		if (number)
			return number;
	}
	block = first->words[PCN_LPM_LEVELS] >> PCN_LPM_DEFAULT ? bpf_map_lookup_elem(blocks, &place) : 0;
	return block ? block->numbers[0] : 0;
}
