/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What lpm_blocks.h and lpm_entries.h have in common. Four lengths of prefixes make a level (32 to 29, 28 to 25, ...), and prefixes are found by
 * hashes of a level and the bits of the address above it (Waldvogel, Varghese, Turner, Plattner, "Scalable High Speed IP Routing Lookups",
 * SIGCOMM 1997). A filter says where to ask, so that asking in vain is rare (Dharmapurikar, Krishnamurthy, Taylor, "Longest Prefix Matching
 * Using Bloom Filters", SIGCOMM 2003). A bit of it too many (two places share it, a change is half made) costs a look-up, never a wrong answer.
 */
#pragma once

#include <linux/in6.h>

#include <polycube/cube.h>

#define PCN_LPM_LENGTHS 4 /* of a level */

/* A cache line of the filter. The first one says how it is to be read. */
struct pcn_lpm_filter {
	__u64 words[8];
};

/*
 * Words of the first line: levels in use, the longest in the lowest bit; number of cells less 1; a zero that the verifier does not know to
 * be one, for what it would otherwise look at with each combination of bits that it could know; and the levels again as a list of bytes,
 * the longest first, behind their number. IPv6 has a list for each half of the address, the lower one first.
 */
enum { PCN_LPM_LEVELS, PCN_LPM_MASK, PCN_LPM_ZERO, PCN_LPM_COUNTS, PCN_LPM_LIST, PCN_LPM_UPPER_LIST = 6 };
#define PCN_LPM_DEFAULT 32 /* level of the prefix of no bits */
#define PCN_LPM_LEVELS4 8
#define PCN_LPM_LEVELS6 16 /* of half an address */

/* Whether there is any prefix in a table. */
#define pcn_lpm_any(_name) pcn_lpm_levels(&_name##_filter)

static __always_inline __u64 pcn_lpm_levels(void *filter)
{
	__u64 zero = 0;
	struct pcn_lpm_filter *first = bpf_map_lookup_elem(filter, &zero);

	return first ? first->words[PCN_LPM_LEVELS] : 0;
}

/*
 * The cell, of `width` bits, of a level and what an address has above it; more bits than these are for the caller to cut off. The mixing
 * steps are those of splitmix64 (Steele, Lea, Flood, 2014).
 */
static __always_inline __u64 pcn_lpm_cell(void *filter, __u64 upper, __u64 lower, __u32 level, __u32 mask, __u32 width)
{
	__u64 hash = (upper ^ level) * 0xbf58476d1ce4e5b9;
	struct pcn_lpm_filter *line;
	__u64 index;
	__u32 bit;

	hash = (hash ^ hash >> 32 ^ lower) * 0x94d049bb133111eb;
	bit = ((hash >> 32) & mask) * width;
	index = 1 + (bit >> 9);
	line = bpf_map_lookup_elem(filter, &index);
	return line ? line->words[bit >> 6 & 7] >> (bit & 63) : 0;
}

/* The level that stands `at` some place in a list. */
static __always_inline __u32 pcn_lpm_level(const struct pcn_lpm_filter *first, __u32 list, __u32 at)
{
	return first->words[list + at / 8] >> at % 8 * 8 & 15;
}

/* 64 bits of an IPv6 address, host byte order. */
static __always_inline __u64 pcn_lpm6_half(const void *address, int half)
{
	const __u32 *words = address;

	return (__u64)bpf_ntohl(words[2 * half]) << 32 | bpf_ntohl(words[2 * half + 1]);
}

/* Half an IPv6 address without what is in or behind a level. */
static __always_inline __u64 pcn_lpm6_above(__u64 half, __u32 level)
{
	return half >> level * PCN_LPM_LENGTHS >> PCN_LPM_LENGTHS << PCN_LPM_LENGTHS << level * PCN_LPM_LENGTHS;
}
