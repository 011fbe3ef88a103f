/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Packet classification: the first of many rules that matches a frame. Bit vectors with aggregation (Baboescu, Varghese: Scalable Packet
 * Classification, SIGCOMM 2001), kept sparse: each field of the frame leads to a class of values, a class to a vector with one bit a
 * rule, and the AND of the vectors to the rules that match, in their order. polycube/toolkit/classify builds the tables; docs/design
 * says why this way and what it costs.
 *
 * A vector is stored as what differs (XOR) from that of the field's space, which has the bits of all rules that ask nothing of it. So a
 * rule touches the classes it names and no others. Each table stands twice: the control plane writes to the side nobody reads, then
 * changes the generation, whose parity is the side; before it writes to one
 * that was in use, it waits for programs that may still read it.
 *
 *	#define PCN_TABLES 2
 *	#define PCN_DIMS (PCN_IN(SRC) | PCN_IN(DST) | ...)
 *	#include <polycube/classify.h>
 *
 * and a definition of pcn_matched().
 */
#pragma once

#include <polycube/parse.h>

#include <polycube/classify_tables.h>

#define PCN_NO_RULE 0xffffffff
#define PCN_OWN_DIMS __builtin_popcount(PCN_DIMS)
#define PCN_AT(_dim) __builtin_popcount(PCN_DIMS & ((1 << (_dim)) - 1)) /* its place among those this function has */

/* A classification, and its result. */
struct pcn_classify {
	__u32 side;
	__u32 dims;
	__u32 rows;
	__u32 fallback; /* of the table */
	__u32 first;    /* of the table's slots in cls_rules */
	__u32 slot;     /* a rule, or PCN_NO_RULE */
	__u32 passing;  /* set by pcn_matched() when the result holds for this frame only, not for all of its flow */
	__u32 length;   /* of the frame */
	__u32 user;     /* pcn_matched()'s */
};

/* A search under way. */
struct pcn_search {
	struct pcn_classify *q;
	__u64 words; /* of the row in hand: those still to look at */
	__u64 found; /* of the word in hand: rules still to look at */
	struct pcn_class *class[PCN_OWN_DIMS];
	struct pcn_row *dense[PCN_OWN_DIMS];
	struct pcn_scratch *scratch;
};

/* Defined by who includes this: a rule matches. 1: that's it; 0: look for the next. */
static __always_inline int pcn_matched(struct pcn_classify *q, __u32 slot, struct pcn_rule *rule);

/* ---- fields ---- */

static __always_inline int pcn_has_ports(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP || proto == IPPROTO_DCCP || proto == IPPROTO_UDPLITE;
}

/* Fills in the fields a table asks for. The frame has been parsed. `f` must be 0. */
static __always_inline int pcn_fields_of(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u32 dims, struct pcn_fields *f)
{
	if (dims & PCN_DIMS & (PCN_IN(SMAC) | PCN_IN(DMAC))) {
		struct ethhdr *eth = pcn_at(ctx, 0, sizeof(*eth));

		if (!eth)
			return PCN_DROP_MALFORMED;
		if (dims & PCN_IN(SMAC))
			memcpy(f->smac, eth->h_source, ETH_ALEN);
		if (dims & PCN_IN(DMAC))
			memcpy(f->dmac, eth->h_dest, ETH_ALEN);
	}
	if (dims & PCN_IN(PROTO))
		f->proto = bpf_ntohs(pkt->proto);
	if (dims & PCN_DIMS & PCN_IN(VLAN))
		f->vlan = pkt->vlans ? pkt->vlan[0] & 0xfff : PCN_UNTAGGED;
	if (dims & PCN_DIMS & PCN_IN(IN_PORT))
		f->in_port = pkt->in_port;
	if (pkt->proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));

		if (!ip)
			return PCN_DROP_MALFORMED;
		f->version = 4;
		if (dims & PCN_IN(SRC))
			memcpy(f->src, &ip->saddr, 4);
		if (dims & PCN_IN(DST))
			memcpy(f->dst, &ip->daddr, 4);
	} else if (pkt->proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));

		if (!ip)
			return PCN_DROP_MALFORMED;
		f->version = 6;
		if (dims & PCN_IN(SRC))
			memcpy(f->src, &ip->saddr, 16);
		if (dims & PCN_IN(DST))
			memcpy(f->dst, &ip->daddr, 16);
	} else {
		return 0;
	}
	if (dims & PCN_IN(PROTO))
		f->proto = pkt->l4_proto;
	f->kind = PCN_DPORT_NONE;
	if (!pkt->l4 || !(dims & (PCN_IN(SPORT) | PCN_IN(DPORT) | (PCN_DIMS & PCN_IN(FLAGS)))))
		return 0;
	if (pcn_has_ports(pkt->l4_proto)) {
		__be16 *port = pcn_at(ctx, pkt->l4, 4);

		if (!port || pkt->l4 + 4 > pkt->end)
			return PCN_DROP_MALFORMED;
		f->kind = PCN_DPORT;
		if (dims & PCN_IN(SPORT))
			f->sport = bpf_ntohs(port[0]);
		if (dims & PCN_IN(DPORT))
			f->dport = bpf_ntohs(port[1]);
	} else if (pkt->l4_proto == (f->version == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6)) {
		__be16 *type = pcn_at(ctx, pkt->l4, sizeof(*type)); /* and code */

		if (!type)
			return PCN_DROP_MALFORMED;
		f->kind = f->version == 4 ? PCN_ICMP4 : PCN_ICMP6;
		if (dims & PCN_IN(DPORT))
			f->dport = bpf_ntohs(*type);
	}
	if (dims & PCN_DIMS & PCN_IN(FLAGS) && pkt->l4_proto == IPPROTO_TCP) {
		__u8 *flags = pcn_at(ctx, pkt->l4 + 13, 1);

		if (!flags)
			return PCN_DROP_MALFORMED;
		f->flags = *flags;
		f->kind |= PCN_TCP;
	}
	return 0;
}

/* ---- from values to classes ---- */

/* One place on the stack for the keys of all look-ups. */
union pcn_any_key {
	__u32 index;
	struct pcn_page_key page;
	struct pcn_class_key class;
	struct pcn_prefix_key prefix;
};

static __always_inline __u32 pcn_class_of_value(union pcn_any_key *key, __u32 side, __u32 space, __u32 value, int wide)
{
	__u64 at = (wide ? value >> 8 : value) & 0xff;
	struct pcn_top *top;
	__u32 class;

	key->index = side * PCN_SPACES + space;
	top = bpf_map_lookup_elem(&cls_tops, &key->index);
	if (!top)
		return 0;
	class = top->class[at];
	if (class != PCN_MIXED)
		return class;
	key->page.side = side;
	key->page.page = space << 8 | at;
	top = bpf_map_lookup_elem(&cls_pages, &key->page);
	return top ? top->class[value & 0xff] : 0;
}

static __always_inline __u32 pcn_class_of_address(union pcn_any_key *key, struct pcn_table *table, __u32 side, __u32 space,
						  const void *address, int size)
{
	__u32 *class;

	memset(key->prefix.address, 0, sizeof(key->prefix.address));
	memcpy(key->prefix.address, address, size);
	key->prefix.prefixlen = 160;
	key->prefix.space = side * PCN_SPACES + space;
	if (table->hosts & 1U << space) {
		class = bpf_map_lookup_elem(&cls_hosts, &key->prefix.space);
		if (class)
			return *class;
	}
	if (!(table->prefixes & 1U << space))
		return 0;
	class = bpf_map_lookup_elem(&cls_prefixes, &key->prefix);
	return class ? *class : 0;
}

/* The class of a field of the frame; writes down the space it is of. */
static __always_inline __u32 pcn_class_of(union pcn_any_key *key, struct pcn_table *table, __u32 side, struct pcn_scratch *scratch, int dim)
{
	const struct pcn_fields *f = &scratch->fields;
	__u8 kind = f->kind & ~PCN_TCP;
	const void *address = 0;
	__u32 space, value = 0;
	int wide = 1;

	switch (dim) {
	case PCN_DIM_SRC:
		space = f->version == 4 ? PCN_SRC4 : f->version == 6 ? PCN_SRC6 : PCN_SRC_NONE;
		address = f->src;
		break;
	case PCN_DIM_DST:
		space = f->version == 4 ? PCN_DST4 : f->version == 6 ? PCN_DST6 : PCN_DST_NONE;
		address = f->dst;
		break;
	case PCN_DIM_SPORT:
		space = kind == PCN_DPORT ? PCN_SPORT : PCN_SPORT_NONE;
		value = f->sport;
		break;
	case PCN_DIM_DPORT:
		space = kind ? kind : PCN_DPORT_NONE;
		value = f->dport;
		break;
	case PCN_DIM_PROTO:
		space = f->version ? PCN_PROTO : PCN_ETHERTYPE;
		value = f->version ? f->proto << 8 : f->proto;
		break;
	case PCN_DIM_FLAGS:
		space = f->kind & PCN_TCP ? PCN_FLAGS : PCN_FLAGS_NONE;
		value = f->flags;
		wide = 0;
		break;
	case PCN_DIM_STATE:
		space = PCN_STATE;
		value = f->state;
		wide = 0;
		break;
	case PCN_DIM_VLAN:
		space = f->vlan == PCN_UNTAGGED ? PCN_VLAN_NONE : PCN_VLAN;
		value = f->vlan;
		break;
	case PCN_DIM_IN_PORT:
		space = PCN_IN_PORT;
		value = f->in_port;
		break;
	case PCN_DIM_SMAC:
		space = PCN_SMAC;
		address = f->smac;
		break;
	default:
		space = PCN_DMAC;
		address = f->dmac;
	}
	scratch->space[dim] = side * PCN_SPACES + space;
	if (address)
		return pcn_class_of_address(key, table, side, space, address, dim < PCN_DIM_SPORT ? 16 : 8);
	return pcn_class_of_value(key, side, space, value, wide);
}

/* ---- from classes to rules ---- */

/* The dimensions some rule asks for, of those this function has. Unrolled: what it has not is no code. */
#define PCN_FOR_DIMS(_s, _dim)                                                                                                       \
	_Pragma("clang loop unroll(full)") for (int _dim = 0; _dim < PCN_DIM_COUNT; _dim++)                                          \
		if (PCN_DIMS & 1 << _dim && (_s)->q->dims & 1 << _dim)

static __always_inline struct pcn_base *pcn_base_of(struct pcn_search *s, int dim)
{
	__u32 key = s->scratch->space[dim];

	return bpf_map_lookup_elem(&cls_bases, &key);
}

static __always_inline __u64 pcn_difference(struct pcn_search *s, int dim, __u32 word)
{
	struct pcn_class *class = s->class[PCN_AT(dim)];

	if (class->dense)
		return s->dense[PCN_AT(dim)]->word[pcn_opaque(word) & (PCN_ROW_WORDS - 1)];
	if (class->index[0] == word)
		return class->word[0];
	if (class->index[1] == word)
		return class->word[1];
	if (class->index[2] == word)
		return class->word[2];
	return class->index[3] == word ? class->word[3] : 0;
}

/* Which words of the next row can hold a match; the words of dense classes are looked up. */
static __always_inline void pcn_next_row(struct pcn_search *s)
{
	struct pcn_row_key key = {.side = s->q->side, .row = s->scratch->row};
	__u64 words = ~0ULL;

	PCN_FOR_DIMS(s, dim) {
		struct pcn_base *base = pcn_base_of(s, dim);

		if (base)
			words &= base->any[s->scratch->row & (PCN_ROWS - 1)] | s->class[PCN_AT(dim)]->any[s->scratch->row & (PCN_ROWS - 1)];
	}
	s->words = words;
	if (!words)
		return;
	PCN_FOR_DIMS(s, dim) {
		struct pcn_row *row;

		if (!s->class[PCN_AT(dim)]->dense)
			continue;
		key.class = s->class[PCN_AT(dim)]->id;
		row = bpf_map_lookup_elem(&cls_rows, &key);
		if (row)
			s->dense[PCN_AT(dim)] = row;
	}
}

static __always_inline void pcn_next_word(struct pcn_search *s)
{
	__u32 word = (s->scratch->row - 1) * PCN_ROW_WORDS + __builtin_ctzll(s->words);
	__u64 found = ~0ULL;

	s->words &= s->words - 1;
	PCN_FOR_DIMS(s, dim) {
		struct pcn_base *base = pcn_base_of(s, dim);

		if (base)
			found &= base->word[word & (PCN_ROWS * PCN_ROW_WORDS - 1)] ^ pcn_difference(s, dim, word);
	}
	s->scratch->word = word;
	s->found = found;
}

/* A step of the search: a row, a word, and the first rule in it. 1: the end. */
static long pcn_classify_step(__u32 number, struct pcn_search *s)
{
	struct pcn_rule *rule;
	__u32 slot, key;

	if (!s->found) {
		if (!s->words) {
			if (s->scratch->row >= s->q->rows)
				return 1;
			pcn_next_row(s);
			s->scratch->row++;
			if (!s->words)
				return 0;
		}
		pcn_next_word(s);
		if (!s->found)
			return 0;
	}
	slot = s->scratch->word * 64 + __builtin_ctzll(s->found);
	s->found &= s->found - 1;
	key = s->q->first + slot;
	rule = bpf_map_lookup_elem(&cls_rules, &key);
	if (!rule)
		return 0;
	if (rule->expires) {
		s->q->passing = 1;
		if (rule->expires <= pcn_now())
			return 0;
	}
	return pcn_matched(s->q, slot, rule);
}

/* Looks for the first rule that matches the fields. 0, or -1: the tables are not there. A function: the stack has no room for it inlined. */
static __noinline int pcn_search(struct pcn_classify *q, struct pcn_table *table, struct pcn_scratch *scratch)
{
	union pcn_any_key key = {};
	struct pcn_search s = {.q = q, .scratch = scratch};
	struct pcn_class *none = bpf_map_lookup_elem(&cls_classes, &key);
	struct pcn_row *no_row = bpf_map_lookup_elem(&cls_rows, &key);

	if (!none || !no_row)
		return -1;
	_Pragma("clang loop unroll(full)") for (int dim = 0; dim < PCN_DIM_COUNT; dim++) {
		struct pcn_class *class;

		if (!(PCN_DIMS & 1 << dim))
			continue;
		s.class[PCN_AT(dim)] = none;
		s.dense[PCN_AT(dim)] = no_row;
		scratch->space[dim] = 0;
		if (!(q->dims & 1 << dim))
			continue;
		key.class.class = pcn_class_of(&key, table, q->side, scratch, dim);
		if (!key.class.class)
			continue;
		key.class.side = q->side;
		class = bpf_map_lookup_elem(&cls_classes, &key.class);
		if (class)
			s.class[PCN_AT(dim)] = class;
	}
	q->passing = 0;
	scratch->row = 0;
	bpf_loop(PCN_RULES + PCN_RULES / 64 + PCN_ROWS + 1, pcn_classify_step, &s, 0);
	return 0;
}

/* ---- flows ---- */

static __always_inline __u32 pcn_hash_of(const struct pcn_fields *fields, __u32 stamp)
{
	const __u64 *word = (const __u64 *)fields;
	__u64 hash = stamp;

	_Pragma("clang loop unroll(full)") for (int i = 0; i < PCN_FIELDS_WORDS; i++) {
		hash = (hash ^ word[i]) * 0x9e3779b97f4a7c15ULL; /* 2^64 by the golden ratio: Knuth, vol. 3, 6.4 */
		hash ^= hash >> 32;
		asm volatile("" : "+r"(hash) : : "memory");
	}
	return hash;
}

static __always_inline int pcn_is_flow(const struct pcn_flow *flow, const struct pcn_fields *fields, __u32 stamp)
{
	const __u64 *word = (const __u64 *)fields;
	__u64 different = flow->stamp ^ stamp;

	_Pragma("clang loop unroll(full)") for (int i = 0; i < PCN_FIELDS_WORDS; i++) {
		different |= flow->word[i] ^ word[i];
		asm volatile("" : "+r"(different) : : "memory"); /* one word after the other: there are few registers */
	}
	return !different;
}

/*
 * Where a flow is remembered, or is to be: one of two places. A flow that finds both taken drives out always the same one of them, so that
 * of many that share two places some stay.
 */
static __always_inline struct pcn_flow *pcn_flow_of(struct pcn_table *table, const struct pcn_fields *fields, __u32 stamp, int *known)
{
	__u32 hash = pcn_hash_of(fields, stamp), at = hash & (table->flows - 1);
	struct pcn_flow *one = bpf_map_lookup_elem(&cls_flows, &at), *other;

	*known = 1;
	if (one && pcn_is_flow(one, fields, stamp))
		return one;
	at ^= 1;
	other = bpf_map_lookup_elem(&cls_flows, &at);
	if (other && pcn_is_flow(other, fields, stamp))
		return other;
	*known = 0;
	if (!one || !other || one->stamp != stamp)
		return one;
	return other->stamp != stamp || hash >> 31 ? other : one;
}

/*
 * Classifies a parsed frame by a table: q->slot is the first rule for which pcn_matched() said so, or PCN_NO_RULE; q->side where it stands.
 * 0 or a drop reason. What was found for a flow is remembered until the table changes, on each CPU for itself.
 */
static __always_inline int pcn_classify(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u32 number, __u8 state, struct pcn_classify *q)
{
	__u32 zero = 0, *generation = bpf_map_lookup_elem(&cls_tables, &number);
	struct pcn_scratch *scratch = bpf_map_lookup_elem(&cls_scratch, &zero);
	struct pcn_flow *flow = 0;
	struct pcn_fields *fields;
	struct pcn_table *table;
	__u32 side, stamp;
	int reason, known;

	if (!generation || !scratch)
		return PCN_DROP_POLICY;
	side = number * PCN_SIDES + (*generation & 1);
	stamp = *generation * PCN_TABLES + number + 1;
	table = bpf_map_lookup_elem(&cls_sides, &side);
	if (!table)
		return PCN_DROP_POLICY;
	q->side = side;
	q->dims = table->dims;
	q->rows = table->rows;
	q->fallback = table->fallback;
	q->first = table->first;
	q->slot = PCN_NO_RULE;
	q->length = pkt->len;
	q->user = 0;
	fields = &scratch->fields;
	memset(fields, 0, sizeof(*fields));
	reason = pcn_fields_of(ctx, pkt, q->dims, fields);
	if (reason)
		return reason;
	if (PCN_DIMS & PCN_IN(STATE) && q->dims & PCN_IN(STATE))
		fields->state = state | pkt->fragment << 4;
	if (table->flows) {
		flow = pcn_flow_of(table, fields, stamp, &known);
		if (flow && known) {
			q->slot = flow->slot;
			return 0;
		}
	}
	if (pcn_search(q, table, scratch))
		return PCN_DROP_POLICY;
	if (flow && !q->passing) {
		memcpy(flow->word, fields, sizeof(flow->word));
		flow->stamp = stamp;
		flow->slot = q->slot;
	}
	return 0;
}
