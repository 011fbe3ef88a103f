/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The tables of classify.h: what polycube/toolkit/classify/layout.py writes. Included by it only. */
#pragma once

#include <polycube/lpm.h>

#define PCN_SIDES 2
#define PCN_RULES 16384 /* slots of a table: a multiple of the rules in a row, 4096 */
#define PCN_ROW_WORDS 64
#define PCN_ROWS (PCN_RULES / 64 / PCN_ROW_WORDS)
#define PCN_SPARSE 4 /* words a class holds itself */
#define PCN_UNTAGGED 0xffff
#define PCN_TCP 0x80
#define PCN_NO_RULE 0xffffffff
#define PCN_UNKNOWN (1ULL << 32) /* beside what can be found */

/* What of a frame can be asked for. */
enum pcn_dim {
	PCN_DIM_SRC,
	PCN_DIM_DST,
	PCN_DIM_SPORT,
	PCN_DIM_DPORT,
	PCN_DIM_PROTO,
	PCN_DIM_FLAGS,
	PCN_DIM_STATE,
	PCN_DIM_VLAN,
	PCN_DIM_IN_PORT,
	PCN_DIM_SMAC,
	PCN_DIM_DMAC,
	PCN_DIM_COUNT,
};

#define PCN_IN(_dim) (1 << PCN_DIM_##_dim)

/* What a field's value may be: an address of either version or none at all. Each space has values and a vector of its own. */
enum pcn_space {
	PCN_SRC_NONE,
	PCN_SRC4,
	PCN_SRC6,
	PCN_DST_NONE,
	PCN_DST4,
	PCN_DST6,
	PCN_SPORT_NONE,
	PCN_SPORT, /* TCP, UDP, UDP-Lite, SCTP, DCCP */
	PCN_DPORT_NONE,
	PCN_DPORT,
	PCN_ICMP4, /* type << 8 | code */
	PCN_ICMP6,
	PCN_ETHERTYPE, /* not IP */
	PCN_PROTO,     /* IP */
	PCN_FLAGS_NONE,
	PCN_FLAGS, /* of TCP */
	PCN_STATE, /* of the connection, and enum pcn_fragment << 4 */
	PCN_VLAN_NONE,
	PCN_VLAN,
	PCN_IN_PORT,
	PCN_SMAC,
	PCN_DMAC,
	PCN_SPACES,
};

/*
 * The fields of a frame; those that no rule asks for are 0. Whole words, written and read as such: a word that is read after parts of it
 * were written has the processor wait until these are in its cache.
 */
struct pcn_fields {
	__u64 src[2]; /* as on the wire; IPv4: a 32-bit number as it was read */
	__u64 dst[2];
	__u64 ports; /* PCN_PORTS_WORD() */
	__u64 rest;  /* PCN_REST_WORD() */
	__u64 smac;  /* as on the wire, six bytes */
	__u64 dmac;
};

#define PCN_PORTS_WORD(_sport, _dport, _proto, _vlan) ((__u64)(_sport) | (__u64)(_dport) << 16 | (__u64)(_proto) << 32 | (__u64)(_vlan) << 48)
#define PCN_SPORT_OF(_f) ((__u16)(_f)->ports)
#define PCN_DPORT_OF(_f) ((__u16)((_f)->ports >> 16)) /* ICMP: type << 8 | code */
#define PCN_PROTO_OF(_f) ((__u16)((_f)->ports >> 32)) /* of IP, or the EtherType */
#define PCN_VLAN_OF(_f) ((__u16)((_f)->ports >> 48))

#define PCN_REST_WORD(_in_port, _flags, _state, _version, _kind)                                                                          \
	((__u64)(_in_port) | (__u64)(_flags) << 16 | (__u64)(_state) << 24 | (__u64)(_version) << 32 | (__u64)(_kind) << 40)
#define PCN_IN_PORT_OF(_f) ((__u16)(_f)->rest)
#define PCN_FLAGS_OF(_f) ((__u8)((_f)->rest >> 16))
#define PCN_STATE_OF(_f) ((__u8)((_f)->rest >> 24)) /* of the connection (the caller's business), and enum pcn_fragment << 4 */
#define PCN_VERSION_OF(_f) ((__u8)((_f)->rest >> 32)) /* 4, 6, or 0: not IP */
#define PCN_KIND_OF(_f) ((__u8)((_f)->rest >> 40))    /* space of dport; PCN_TCP: flags are known */

/* A table at one side. */
struct pcn_table {
	__u32 dims;     /* fields that some rule asks for */
	__u32 hosts;    /* spaces that have whole addresses listed */
	__u32 prefixes; /* spaces that have shorter ones listed */
	__u32 rows;     /* of vectors, in use */
	__u32 fallback; /* what holds when no rule matches: the caller's business */
	__u32 flows;    /* known flows are remembered in so many entries of cls_flows, a power of two */
	__u32 first;    /* of its slots in cls_rules */
};

struct pcn_base {
	__u64 any[PCN_ROWS]; /* which words are not 0 */
	__u64 word[PCN_ROWS * PCN_ROW_WORDS];
};

struct pcn_top {
	__u32 class[256]; /* by the upper byte of the value, or by the whole of one that has a byte */
};

#define PCN_MIXED 0x80000000 /* the values of this upper byte are of several classes, see pages */

struct pcn_page_key {
	__u32 side;
	__u32 page; /* space << 8 | upper byte */
};

struct pcn_host_key {
	__u32 space; /* side * PCN_SPACES + space */
	__u8 address[16];
};

struct pcn_class_key {
	__u32 side;
	__u32 class;
};

struct pcn_class {
	__u64 any[PCN_ROWS];
	__u32 id;
	__u32 dense; /* its words are in rows */
	__u16 index[PCN_SPARSE];
	__u64 word[PCN_SPARSE];
};

struct pcn_row_key {
	__u32 side;
	__u32 class;
	__u64 row;
};

struct pcn_row {
	__u64 word[PCN_ROW_WORDS];
};

/* What a rule does. Only `counter` has a meaning for the control plane's library: it is the rule's as long as the rule lives. */
struct pcn_rule {
	__u8 action;
	__u8 flags;
	__u16 data;
	__u32 counter;
	__u32 expires; /* pcn_now() from which on it does not match any more; 0: never */
	__u32 limit;
};

#define PCN_HAS_MACS (PCN_DIMS & (1 << PCN_DIM_SMAC | 1 << PCN_DIM_DMAC))
#define PCN_KEY_WORDS (PCN_HAS_MACS ? 5 : 3)
#define PCN_WAYS 4

/* A known flow, or half of one of IPv6, whose other half is the next. */
struct pcn_flow {
	__u64 word[PCN_KEY_WORDS];
	__u32 stamp; /* table, generation and kind it was classified by */
	__u32 found;
};

/* Where a flow may be: a set of an associative cache. */
struct pcn_flows {
	struct pcn_flow way[PCN_WAYS];
};

/* A classification, and its result. */
struct pcn_classify {
	__u32 found;    /* what pcn_matched() says of the rule, or PCN_NO_RULE */
	__u32 first;    /* of the table's slots in cls_rules */
	__u32 fallback; /* of the table */
	__u32 side;
	__u32 dims;
	__u32 rows;
	__u32 hosts;
	__u32 prefixes;
	__u32 passing; /* set by pcn_matched() when the result holds for this frame only, not for all of its flow */
	__u32 length;  /* of the frame */
	__u32 user;    /* pcn_matched()'s */
};

/* One place for the keys of all look-ups. */
union pcn_any_key {
	__u32 index;
	struct pcn_page_key page;
	struct pcn_class_key class;
	struct pcn_lpm_rule prefix;
	struct pcn_row_key row;
};

/*
 * Of the frame in hand. Here and not on the stack, where there is no room, and where the verifier would
 * tell every number from any other.
 */
struct pcn_scratch {
	struct pcn_fields fields;
	struct pcn_classify q;
	union pcn_any_key key;
	__u64 flow[2][PCN_KEY_WORDS]; /* the fields as struct pcn_flow has them */
	__u32 space[PCN_DIM_COUNT];   /* side * PCN_SPACES + space of each field: index in cls_bases */
	__u64 words;                  /* of the row in hand: those still to look at */
	__u64 found;                  /* of the word in hand: rules still to look at */
	__u32 row;                    /* of the vectors: the next one to look at */
	__u32 word;                   /* the one in hand */
	__u32 stamp;                  /* of the flow; 0: it is not to be remembered */
	__u32 at;                     /* the flow's set in cls_flows */
	__u32 place;                  /* its place in the set, where it is looked for first */
};

MAP(cls_tables, ARRAY, __u32, __u32, PCN_TABLES); /* generation */
MAP(cls_sides, ARRAY, __u32, struct pcn_table, PCN_TABLES *PCN_SIDES);
MAP(cls_rules, ARRAY, __u32, struct pcn_rule, PCN_TABLES *PCN_SIDES *PCN_RULES); /* side's first + slot */
MAP(cls_bases, ARRAY, __u32, struct pcn_base, PCN_TABLES *PCN_SIDES *PCN_SPACES);
MAP(cls_tops, ARRAY, __u32, struct pcn_top, PCN_TABLES *PCN_SIDES *PCN_SPACES);
MAP_FLAGS(cls_pages, HASH, struct pcn_page_key, struct pcn_top, 8192, BPF_F_NO_PREALLOC);
MAP_FLAGS(cls_hosts, HASH, struct pcn_host_key, __u32, 131072, BPF_F_NO_PREALLOC);
LPM_RULES(cls_prefixes, __u32, 131072); /* a table for each space of a side, as in cls_hosts */
MAP_FLAGS(cls_classes, HASH, struct pcn_class_key, struct pcn_class, 262144, BPF_F_NO_PREALLOC);
MAP_FLAGS(cls_rows, HASH, struct pcn_row_key, struct pcn_row, 524288, BPF_F_NO_PREALLOC);
MAP(cls_flows, PERCPU_ARRAY, __u32, struct pcn_flows, 8192);
MAP(cls_scratch, PERCPU_ARRAY, __u32, struct pcn_scratch, 1);
