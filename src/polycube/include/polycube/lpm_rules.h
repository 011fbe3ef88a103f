/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Longest-prefix match for rules: few prefixes, of both IP versions, in any number of tables of which the map is one: a program may have
 * but 64. It is the kernel's trie, which is the fastest for few prefixes and the slowest for many (docs/design/0006).
 *
 *	LPM_RULES(sources, struct my_rule, 4096);
 *	...
 *	struct pcn_lpm_rule key;
 *
 *	memcpy(key.address, &ip->saddr, 16);
 *	rule = pcn_lpm_rule(&sources, &key, MY_TABLE);
 */
#pragma once

#include <polycube/cube.h>

/* A key. Bits of the address beyond the length are zero. */
struct pcn_lpm_rule {
	__u32 length; /* 32 for the table included */
	__u32 table;
	__u8 address[16];
};

#define LPM_RULES(_name, _value, _max) MAP_FLAGS(_name, LPM_TRIE, struct pcn_lpm_rule, _value, _max, BPF_F_NO_PREALLOC)

/* The value of the longest prefix in a table that the key's address is in, or NULL. */
static __always_inline void *pcn_lpm_rule(void *rules, struct pcn_lpm_rule *key, __u32 table)
{
	key->length = 160;
	key->table = table;
	return bpf_map_lookup_elem(rules, key);
}
