/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Who sends too much, found in a fixed amount of memory: a count-min sketch (Cormode, Muthukrishnan, "An Improved Data Stream Summary: The
 * Count-Min Sketch and its Applications", Journal of Algorithms 55, 2005). Each of four rows counts a source in the cell that its hash
 * names, together with all others of that cell; the least of the four is the estimate. It is never too small. It is too large by more than
 * e / 16384 of all that was counted in the second with a probability below e^-4. The rows' hashes are made of two (Kirsch, Mitzenmacher, "Less
 * Hashing, Same Performance", ESA 2006). A cell knows the second that it counts, and begins at zero with the next: nothing is ever cleared.
 */
#pragma once

#include <polycube/hash.h>

#define SKETCH_ROWS 4
#ifndef SKETCH_CELLS
#define SKETCH_CELLS 16384
#endif
#define SKETCH_COUNT_BITS 40 /* of a cell; the rest is the second, modulo 194 days */
#define SKETCH_COUNT ((1ULL << SKETCH_COUNT_BITS) - 1)

struct sketch_row {
	__u64 cells[SKETCH_CELLS];
};

MAP(sketch, ARRAY, __u32, struct sketch_row, SKETCH_ROWS);

CFG(__u32, seed);

/* Adds to a cell and returns what it holds. */
static __always_inline __u64 sketch_add_cell(__u64 *cell, __u64 second, __u32 units)
{
	__u64 standing = *(volatile __u64 *)cell;

	if (standing >> SKETCH_COUNT_BITS != second) {
		__u64 begun = second << SKETCH_COUNT_BITS | units;

		if (__sync_val_compare_and_swap(cell, standing, begun) == standing)
			return units;
	}
	return (__sync_fetch_and_add(cell, units) + units) & SKETCH_COUNT;
}

/* Counts `units` of a source in this second, and estimates how many it has had. */
static __always_inline __u64 sketch_add(const struct in6_addr *source, __u32 seconds, __u32 units)
{
	__u64 hash = pcn_hash_address6((__u64)seed << 8 | 6, source), least = SKETCH_COUNT;
	__u32 first = pcn_hash_end(hash), step = pcn_hash_end(~hash) | 1, i;

	for (i = 0; i < SKETCH_ROWS; i++) {
		struct sketch_row *row;
		__u32 number = i;
		__u64 count;

		row = bpf_map_lookup_elem(&sketch, &number);
		if (!row)
			return 0;
		count = sketch_add_cell(&row->cells[(first + i * step) % SKETCH_CELLS], seconds & 0xffffff, units);
		if (count < least)
			least = count;
	}
	return least;
}
