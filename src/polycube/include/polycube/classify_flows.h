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

/* A flow's stamp: of which table, in which generation, and whether it is wide. 0 is none's. */
static __always_inline __u32 pcn_stamp_of(__u32 number, __u32 generation, __u32 wide)
{
	return (generation * PCN_TABLES + number + 1) << 1 | wide;
}

/* Whether a flow, the one of the fields in pcn_scratch, is in a place; a wide one in this, an even one, and the next. */
static __always_inline int pcn_is_flow(const struct pcn_flows *set, __u32 place, const struct pcn_scratch *scratch, __u32 stamp)
{
	__u64 differs = set->way[place].stamp ^ stamp, next = (pcn_opaque(place) + 1) & (PCN_WAYS - 1);

	_Pragma("clang loop unroll(full)") for (int i = 0; i < PCN_KEY_WORDS; i++)
		differs |= set->way[place].word[i] ^ scratch->flow[0][i];
	if (stamp & 1)
		_Pragma("clang loop unroll(full)") for (int i = 0; i < PCN_KEY_WORDS; i++)
			differs |= set->way[next].word[i] ^ scratch->flow[1][i];
	return !differs;
}

/* What was found for a flow that is not in its own place: its set is looked through. Not static: see pcn_search(). */
__noinline __u64 pcn_known_elsewhere(void)
{
	__u32 zero = 0;
	struct pcn_scratch *scratch = bpf_map_lookup_elem(&cls_scratch, &zero);
	struct pcn_flows *set = scratch ? bpf_map_lookup_elem(&cls_flows, &scratch->at) : 0;

	if (!scratch || !set)
		return PCN_UNKNOWN;
	for (int place = 0; place < PCN_WAYS; place += 1 + (scratch->stamp & 1))
		if (pcn_is_flow(set, place & (PCN_WAYS - 1), scratch, scratch->stamp))
			return set->way[place & (PCN_WAYS - 1)].found;
	return PCN_UNKNOWN;
}

/* What was found for the flow of the fields in pcn_scratch, or PCN_UNKNOWN. It has a place of its own in its set, where it mostly is. */
static __always_inline __u64 pcn_known(struct pcn_scratch *scratch, __u32 flows)
{
	__u32 stamp = scratch->stamp, wide = stamp & 1, place;
	struct pcn_flows *set;
	__u64 hash;

	pcn_flow_key(scratch, wide);
	hash = pcn_hash_of(scratch->flow[0]);
	if (wide)
		hash = hash * 0x9e3779b97f4a7c15ULL + pcn_hash_of(scratch->flow[1]);
	hash = (hash ^ hash >> 32) * 0x9e3779b97f4a7c15ULL; /* 2^64 by the golden ratio: Knuth, vol. 3, 6.4 */
	place = hash & (PCN_WAYS - 1) & ~wide;
	scratch->at = hash >> 32 & (flows - 1);
	scratch->place = place;
	set = bpf_map_lookup_elem(&cls_flows, &scratch->at);
	if (set && pcn_is_flow(set, place, scratch, stamp))
		return set->way[place].found;
	return pcn_known_elsewhere();
}

/*
 * Remembers what was found for a flow, in place of one of a former generation, in its own place if it can be. One that finds all places taken
 * drives out always the same one, so that of many that share a set most stay.
 */
__noinline int pcn_remember(__u32 found)
{
	__u32 zero = 0, at = PCN_WAYS - 2, number, stamp, taken;
	struct pcn_scratch *scratch = bpf_map_lookup_elem(&cls_scratch, &zero);
	struct pcn_flows *set = scratch ? bpf_map_lookup_elem(&cls_flows, &scratch->at) : 0;

	if (!scratch || !set)
		return -1;
	stamp = scratch->stamp;
	taken = stamp & 1 ? 0xaaaa : 0;
	for (number = 0; number < PCN_TABLES; number++) {
		__u32 key = number, *generation = bpf_map_lookup_elem(&cls_tables, &key);

		if (!generation)
			return -1;
		for (int i = 0; i < PCN_WAYS; i++)
			taken |= ((set->way[i].stamp ^ pcn_stamp_of(number, *generation, 0)) < 2) << i;
	}
	for (int i = PCN_WAYS - 1; i >= 0; i--)
		if (!(taken >> i & 1))
			at = i;
	if (!(taken >> scratch->place & 1))
		at = scratch->place & (PCN_WAYS - 1);
	memcpy(set->way[at].word, scratch->flow[0], sizeof(scratch->flow[0]));
	set->way[at].stamp = stamp;
	set->way[at].found = found;
	if (stamp & 1) {
		at = (at + 1) & (PCN_WAYS - 1);
		memcpy(set->way[at].word, scratch->flow[1], sizeof(scratch->flow[1]));
		set->way[at].stamp = stamp;
	}
	return 0;
}
