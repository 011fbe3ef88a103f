/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Known flows of classify.h: what was found for them, a cache for each CPU, of sets of PCN_WAYS places. Included by it only. */
#pragma once

/* The fields as they are remembered: a flow of IPv6 takes two places. */
static __always_inline void pcn_flow_key(struct pcn_scratch *scratch, int wide)
{
	const struct pcn_fields *f = &scratch->fields;
	__u64 *one = scratch->flow[0], *other = scratch->flow[1];

	if (wide) {
		one[0] = f->src[0];
		one[1] = f->src[1];
		one[2] = f->ports;
		other[0] = f->dst[0];
		other[1] = f->dst[1];
		other[2] = f->rest;
		if (PCN_HAS_MACS) {
			one[3] = f->smac;
			one[4] = f->dmac;
			other[3] = other[4] = 0;
		}
		return;
	}
	one[0] = f->src[0] | f->dst[0] << 32;
	one[1] = f->ports;
	one[2] = f->rest;
	if (PCN_HAS_MACS) {
		one[3] = f->smac;
		one[4] = f->dmac;
	}
}

/*
 * Sums of products of pairs (Lemire, Kaser: Strongly universal string hashing is fast, Computer Journal 57, 2014): no product waits for
 * another. The numbers are digits of pi, odd.
 */
static __always_inline __u64 pcn_hash_of(const __u64 *word)
{
	__u64 hash = (word[0] + 0x243f6a8885a308d3ULL) * (word[1] + 0x13198a2e03707345ULL);

	hash += (word[2] + 0xa4093822299f31d1ULL) * 0x082efa98ec4e6c89ULL;
	if (PCN_HAS_MACS)
		hash += (word[3] + 0x452821e638d01377ULL) * (word[4] + 0xbe5466cf34e90c6dULL);
	return hash;
}

/* 1 for what is not 0. Without a branch, as all that follows: each would have the verifier look at the rest of the chain once more. */
static __always_inline __u64 pcn_nonzero(__u64 number)
{
	number |= -number;
	asm volatile("" : "+r"(number));
	return number >> 63;
}

/* The number of the first place whose flag is 0, or PCN_WAYS. */
static __always_inline __u32 pcn_first_zero(const __u64 *flag)
{
	return flag[0] + (flag[0] & flag[1]) + (flag[0] & flag[1] & flag[2]) + (flag[0] & flag[1] & flag[2] & flag[3]);
}

/* Where a set has a flow, or PCN_WAYS. Wide ones begin at even places. */
static __always_inline __u32 pcn_known_flow(const struct pcn_flows *set, const struct pcn_scratch *scratch, __u32 stamp)
{
	__u64 differs[PCN_WAYS], wide = -(__u64)(stamp & 1);

	_Pragma("clang loop unroll(full)") for (int i = 0; i < PCN_WAYS; i++) {
		const __u64 *word = scratch->flow[i & stamp & 1];

		differs[i] = set->way[i].stamp ^ stamp;
		_Pragma("clang loop unroll(full)") for (int j = 0; j < PCN_KEY_WORDS; j++)
			differs[i] |= set->way[i].word[j] ^ word[j];
	}
	_Pragma("clang loop unroll(full)") for (int i = 0; i < PCN_WAYS; i += 2) {
		differs[i] = pcn_nonzero(differs[i] | (differs[i + 1] & wide));
		differs[i + 1] = pcn_nonzero(differs[i + 1] | wide);
	}
	return pcn_first_zero(differs);
}

/* A flow's stamp: of which table, in which generation, and whether it is wide. 0 is none's. */
static __always_inline __u32 pcn_stamp_of(__u32 number, __u32 generation, __u32 wide)
{
	return (generation * PCN_TABLES + number + 1) << 1 | wide;
}

/*
 * Remembers what was found for a flow, in place of one of a former generation. One that finds all places taken drives out always the same
 * one, so that of many that share a set most stay.
 */
static __always_inline int pcn_remember(struct pcn_flows *set, struct pcn_scratch *scratch, __u32 stamp, __u32 slot)
{
	__u64 taken[PCN_WAYS] = {};
	__u32 at, number;

	for (number = 0; number < PCN_TABLES; number++) {
		__u32 key = number, *generation = bpf_map_lookup_elem(&cls_tables, &key);

		if (!generation)
			return -1;
		_Pragma("clang loop unroll(full)") for (int i = 0; i < PCN_WAYS; i++)
			taken[i] |= 1 ^ pcn_nonzero((set->way[i].stamp ^ pcn_stamp_of(number, *generation, 0)) >> 1);
	}
	if (stamp & 1)
		taken[1] = taken[3] = 1;
	at = pcn_first_zero(taken);
	if (at > PCN_WAYS - 1)
		at = PCN_WAYS - 2;
	memcpy(set->way[at].word, scratch->flow[0], sizeof(scratch->flow[0]));
	set->way[at].stamp = stamp;
	set->way[at].slot = slot;
	if (stamp & 1) {
		at = (at + 1) & (PCN_WAYS - 1);
		memcpy(set->way[at].word, scratch->flow[1], sizeof(scratch->flow[1]));
		set->way[at].stamp = stamp;
	}
	return 0;
}
