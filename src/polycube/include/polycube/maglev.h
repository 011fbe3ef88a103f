/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Consistent choice of a backend (Eisenbud et al., Maglev, NSDI 2016). The tables are made by polycube.toolkit.maglev. A table never changes:
 * the control plane writes another one beside it and then the service's entry, which holds a struct pcn_maglev, so that every packet
 * meets a table that is whole:
 *
 *	struct service { struct pcn_maglev maglev; ... };
 *	MAP(members, HASH, struct pcn_maglev_member, struct backend, 65536);    what stands behind the numbers in the tables
 *
 *	struct pcn_maglev_member key = pcn_maglev_pick(&service->maglev, pcn_hash_flow(ctx, pkt, 0, seed));
 *	struct backend *backend = bpf_map_lookup_elem(&members, &key);          NULL: there is none
 */
#pragma once

#include <polycube/hash.h>

#define PCN_MAGLEV_ROW 448 /* slots: with what the kernel adds, an entry fills 1 KB */
#define PCN_MAGLEV_EMPTY 0xffff

struct pcn_maglev {
	__u32 table;
	__u32 size;   /* slots */
	__u32 digest; /* of what it was made from, for the control plane */
};

struct pcn_maglev_key {
	__u32 table;
	__u32 row;
};

struct pcn_maglev_row {
	__u16 backend[PCN_MAGLEV_ROW];
};

struct pcn_maglev_member {
	__u32 table;
	__u32 backend; /* number in the table */
};

MAP_FLAGS(maglev_rows, HASH, struct pcn_maglev_key, struct pcn_maglev_row, 131072, BPF_F_NO_PREALLOC);

/* The member that a flow with this hash belongs to; PCN_MAGLEV_EMPTY, which is in no map, if the table is empty. */
static __always_inline struct pcn_maglev_member pcn_maglev_pick(const struct pcn_maglev *maglev, __u32 hash)
{
	__u32 slot = pcn_hash_below(hash, maglev->size);
	struct pcn_maglev_key key = {.table = maglev->table, .row = slot / PCN_MAGLEV_ROW};
	struct pcn_maglev_member member = {.table = maglev->table, .backend = PCN_MAGLEV_EMPTY};
	struct pcn_maglev_row *row = bpf_map_lookup_elem(&maglev_rows, &key);
	__u64 column = pcn_opaque(slot % PCN_MAGLEV_ROW);

	if (row && column < PCN_MAGLEV_ROW)
		member.backend = row->backend[column];
	return member;
}
