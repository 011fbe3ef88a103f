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
#include <polycube/classify_flows.h>

#define PCN_OWN_DIMS __builtin_popcount(PCN_DIMS)
#define PCN_AT(_dim) __builtin_popcount(PCN_DIMS & ((1 << (_dim)) - 1)) /* its place among those this function has */

/* A search under way: what has to stand on the stack, where pointers can. */
struct pcn_search {
	struct pcn_class *class[PCN_OWN_DIMS];
	struct pcn_row *dense[PCN_OWN_DIMS];
	struct pcn_scratch *scratch;
};

/*
 * Defined by who includes this: a rule matches. 1: that's it, and q->found is what the caller wants to know of it: its slot, for instance, or
 * what it does; 0: look for the next.
 */
static __always_inline int pcn_matched(struct pcn_classify *q, __u32 slot, struct pcn_rule *rule);

/* ---- fields ---- */

static __always_inline int pcn_has_ports(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP || proto == IPPROTO_DCCP || proto == IPPROTO_UDPLITE;
}

/* The first six bytes as a word. */
static __always_inline __u64 pcn_mac_of(const void *at)
{
	__u64 mac = 0;

	memcpy(&mac, at, ETH_ALEN);
	return mac;
}

/* Fills in the fields a table asks for. The frame has been parsed. */
static __always_inline int pcn_fields_of(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u32 dims, __u8 state, struct pcn_fields *f)
{
	__u16 proto = dims & PCN_IN(PROTO) ? bpf_ntohs(pkt->proto) : 0, sport = 0, dport = 0, vlan = 0, in_port = 0;
	__u8 flags = 0, version = 0, kind = 0;

	f->src[0] = f->src[1] = f->dst[0] = f->dst[1] = 0;
	if (PCN_HAS_MACS)
		f->smac = f->dmac = 0;
	if (dims & PCN_DIMS & (PCN_IN(SMAC) | PCN_IN(DMAC))) {
		struct ethhdr *eth = pcn_at(ctx, 0, sizeof(*eth));

		if (!eth)
			return PCN_DROP_MALFORMED;
		if (dims & PCN_IN(SMAC))
			f->smac = pcn_mac_of(eth->h_source);
		if (dims & PCN_IN(DMAC))
			f->dmac = pcn_mac_of(eth->h_dest);
	}
	if (dims & PCN_DIMS & PCN_IN(VLAN))
		vlan = pkt->vlans ? pkt->vlan[0] & 0xfff : PCN_UNTAGGED;
	if (dims & PCN_DIMS & PCN_IN(IN_PORT))
		in_port = pkt->in_port;
	if (!(PCN_DIMS & PCN_IN(STATE) && dims & PCN_IN(STATE)))
		state = 0;
	else
		state |= pkt->fragment << 4;
	if (pkt->proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));

		if (!ip)
			return PCN_DROP_MALFORMED;
		version = 4;
		if (dims & PCN_IN(SRC))
			f->src[0] = ip->saddr;
		if (dims & PCN_IN(DST))
			f->dst[0] = ip->daddr;
	} else if (pkt->proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));

		if (!ip)
			return PCN_DROP_MALFORMED;
		version = 6;
		if (dims & PCN_IN(SRC))
			memcpy(f->src, &ip->saddr, 16);
		if (dims & PCN_IN(DST))
			memcpy(f->dst, &ip->daddr, 16);
	}
	if (version) {
		proto = dims & PCN_IN(PROTO) ? pkt->l4_proto : 0;
		kind = PCN_DPORT_NONE;
	}
	if (version && pkt->l4 && dims & (PCN_IN(SPORT) | PCN_IN(DPORT) | (PCN_DIMS & PCN_IN(FLAGS)))) {
		if (pcn_has_ports(pkt->l4_proto)) {
			__be16 *port = pcn_at(ctx, pkt->l4, 4);

			if (!port || pkt->l4 + 4 > pkt->end)
				return PCN_DROP_MALFORMED;
			kind = PCN_DPORT;
			if (dims & PCN_IN(SPORT))
				sport = bpf_ntohs(port[0]);
			if (dims & PCN_IN(DPORT))
				dport = bpf_ntohs(port[1]);
		} else if (pkt->l4_proto == (version == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6)) {
			__be16 *type = pcn_at(ctx, pkt->l4, sizeof(*type)); /* and code */

			if (!type)
				return PCN_DROP_MALFORMED;
			kind = version == 4 ? PCN_ICMP4 : PCN_ICMP6;
			if (dims & PCN_IN(DPORT))
				dport = bpf_ntohs(*type);
		}
		if (dims & PCN_DIMS & PCN_IN(FLAGS) && pkt->l4_proto == IPPROTO_TCP) {
			__u8 *at = pcn_at(ctx, pkt->l4 + 13, 1);

			if (!at)
				return PCN_DROP_MALFORMED;
			flags = *at;
			kind |= PCN_TCP;
		}
	}
	f->ports = PCN_PORTS_WORD(sport, dport, proto, vlan);
	f->rest = PCN_REST_WORD(in_port, flags, state, version, kind);
	return 0;
}

/* ---- from values to classes ---- */

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

static __always_inline __u32 pcn_class_of_address(union pcn_any_key *key, const struct pcn_classify *q, __u32 side, __u32 space,
						  const __u64 *address, int ip)
{
	__u32 *class, short_address = address[0];

	memcpy(key->prefix.address, address, 8);
	memset(key->prefix.address + 8, 0, 8);
	if (ip == 4) {
		memset(key->prefix.address, 0, 8);
		memcpy(key->prefix.address, &short_address, 4);
	} else if (ip) {
		memcpy(key->prefix.address + 8, address + 1, 8);
	}
	key->prefix.table = side * PCN_SPACES + space;
	if (q->hosts & 1U << space) {
		class = bpf_map_lookup_elem(&cls_hosts, &key->prefix.table);
		if (class)
			return *class;
	}
	if (!(q->prefixes & 1U << space))
		return 0;
	class = pcn_lpm_rule(&cls_prefixes, &key->prefix, key->prefix.table);
	return class ? *class : 0;
}

/* The class of a field of the frame; writes down the space it is of. */
static __always_inline __u32 pcn_class_of(union pcn_any_key *key, __u32 side, struct pcn_scratch *scratch, int dim)
{
	const struct pcn_fields *f = &scratch->fields;
	__u8 version = PCN_VERSION_OF(f), kind = PCN_KIND_OF(f) & ~PCN_TCP;
	const __u64 *address = 0;
	__u32 space, value = 0;
	int wide = 1;

	switch (dim) {
	case PCN_DIM_SRC:
		space = version == 4 ? PCN_SRC4 : version == 6 ? PCN_SRC6 : PCN_SRC_NONE;
		address = f->src;
		break;
	case PCN_DIM_DST:
		space = version == 4 ? PCN_DST4 : version == 6 ? PCN_DST6 : PCN_DST_NONE;
		address = f->dst;
		break;
	case PCN_DIM_SPORT:
		space = kind == PCN_DPORT ? PCN_SPORT : PCN_SPORT_NONE;
		value = PCN_SPORT_OF(f);
		break;
	case PCN_DIM_DPORT:
		space = kind ? kind : PCN_DPORT_NONE;
		value = PCN_DPORT_OF(f);
		break;
	case PCN_DIM_PROTO:
		space = version ? PCN_PROTO : PCN_ETHERTYPE;
		value = version ? PCN_PROTO_OF(f) << 8 : PCN_PROTO_OF(f);
		break;
	case PCN_DIM_FLAGS:
		space = PCN_KIND_OF(f) & PCN_TCP ? PCN_FLAGS : PCN_FLAGS_NONE;
		value = PCN_FLAGS_OF(f);
		wide = 0;
		break;
	case PCN_DIM_STATE:
		space = PCN_STATE;
		value = PCN_STATE_OF(f);
		wide = 0;
		break;
	case PCN_DIM_VLAN:
		space = PCN_VLAN_OF(f) == PCN_UNTAGGED ? PCN_VLAN_NONE : PCN_VLAN;
		value = PCN_VLAN_OF(f);
		break;
	case PCN_DIM_IN_PORT:
		space = PCN_IN_PORT;
		value = PCN_IN_PORT_OF(f);
		break;
	case PCN_DIM_SMAC:
		space = PCN_SMAC;
		address = &f->smac;
		break;
	default:
		space = PCN_DMAC;
		address = &f->dmac;
	}
	scratch->space[dim] = side * PCN_SPACES + space;
	if (address)
		return pcn_class_of_address(key, &scratch->q, side, space, address, dim < PCN_DIM_SPORT ? version : 0);
	return pcn_class_of_value(key, side, space, value, wide);
}

/* ---- from classes to rules ---- */

/* The dimensions some rule asks for, of those this function has. Unrolled: what it has not is no code. */
#define PCN_FOR_DIMS(_s, _dim)                                                                                                       \
	_Pragma("clang loop unroll(full)") for (int _dim = 0; _dim < PCN_DIM_COUNT; _dim++)                                          \
		if (PCN_DIMS & 1 << _dim && (_s)->scratch->q.dims & 1 << _dim)

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
	struct pcn_row_key *key = &s->scratch->key.row;
	__u64 words = ~0ULL;

	PCN_FOR_DIMS(s, dim) {
		struct pcn_base *base = pcn_base_of(s, dim);

		if (base)
			words &= base->any[s->scratch->row & (PCN_ROWS - 1)] | s->class[PCN_AT(dim)]->any[s->scratch->row & (PCN_ROWS - 1)];
	}
	s->scratch->words = words;
	if (!words)
		return;
	key->side = s->scratch->q.side;
	key->row = s->scratch->row;
	PCN_FOR_DIMS(s, dim) {
		struct pcn_row *row;

		if (!s->class[PCN_AT(dim)]->dense)
			continue;
		key->class = s->class[PCN_AT(dim)]->id;
		row = bpf_map_lookup_elem(&cls_rows, key);
		if (row)
			s->dense[PCN_AT(dim)] = row;
	}
}

static __always_inline void pcn_next_word(struct pcn_search *s)
{
	__u32 word = (s->scratch->row - 1) * PCN_ROW_WORDS + __builtin_ctzll(s->scratch->words);
	__u64 found = ~0ULL;

	s->scratch->words &= s->scratch->words - 1;
	PCN_FOR_DIMS(s, dim) {
		struct pcn_base *base = pcn_base_of(s, dim);

		if (base)
			found &= base->word[word & (PCN_ROWS * PCN_ROW_WORDS - 1)] ^ pcn_difference(s, dim, word);
	}
	s->scratch->word = word;
	s->scratch->found = found;
}

/* A step of the search: a row, a word, and the first rule in it. 1: the end. */
static long pcn_classify_step(__u32 number, struct pcn_search *s)
{
	struct pcn_rule *rule;
	__u32 slot, key;

	if (!s->scratch->found) {
		if (!s->scratch->words) {
			if (s->scratch->row >= s->scratch->q.rows)
				return 1;
			pcn_next_row(s);
			s->scratch->row++;
			if (!s->scratch->words)
				return 0;
		}
		pcn_next_word(s);
		if (!s->scratch->found)
			return 0;
	}
	slot = s->scratch->word * 64 + __builtin_ctzll(s->scratch->found);
	s->scratch->found &= s->scratch->found - 1;
	key = s->scratch->q.first + slot;
	rule = bpf_map_lookup_elem(&cls_rules, &key);
	if (!rule)
		return 0;
	if (rule->expires) {
		s->scratch->q.passing = 1;
		if (rule->expires <= pcn_now())
			return 0;
	}
	return pcn_matched(&s->scratch->q, slot, rule);
}

/* ---- the search ---- */

/*
 * Looks for the first rule that matches the fields in pcn_scratch; the result is in pcn_scratch, too. 0, or -1: the tables are not there. Not
 * static: the verifier looks at it once, whatever calls it with whatever it knows then, where it would look at a static function again for
 * each way that leads to it.
 */
__noinline int pcn_search(__u32 side, __u32 length)
{
	__u32 zero = 0;
	struct pcn_search s = {};
	struct pcn_table *table = bpf_map_lookup_elem(&cls_sides, &side);
	struct pcn_scratch *scratch = bpf_map_lookup_elem(&cls_scratch, &zero);
	union pcn_any_key *key;
	struct pcn_classify *q;
	struct pcn_class *none;
	struct pcn_row *no_row;

	if (!table || !scratch)
		return -1;
	key = &scratch->key;
	memset(key, 0, sizeof(*key));
	none = bpf_map_lookup_elem(&cls_classes, key);
	no_row = bpf_map_lookup_elem(&cls_rows, key);
	if (!none || !no_row)
		return -1;
	q = &scratch->q;
	q->found = PCN_NO_RULE;
	q->first = table->first;
	q->side = side;
	q->dims = table->dims;
	q->rows = table->rows;
	q->hosts = table->hosts;
	q->prefixes = table->prefixes;
	q->passing = 0;
	q->length = length;
	q->user = 0;
	s.scratch = scratch;
	_Pragma("clang loop unroll(full)") for (int dim = 0; dim < PCN_DIM_COUNT; dim++) {
		struct pcn_class *class;
		__u32 number;

		if (!(PCN_DIMS & 1 << dim))
			continue;
		s.class[PCN_AT(dim)] = none;
		s.dense[PCN_AT(dim)] = no_row;
		scratch->space[dim] = 0;
		if (!(q->dims & 1 << dim))
			continue;
		number = pcn_class_of(key, side, scratch, dim);
		if (!number)
			continue;
		key->class.side = side;
		key->class.class = number;
		class = bpf_map_lookup_elem(&cls_classes, &key->class);
		if (class)
			s.class[PCN_AT(dim)] = class;
	}
	scratch->row = 0;
	scratch->words = scratch->found = 0;
	bpf_loop(PCN_RULES + PCN_RULES / 64 + PCN_ROWS + 1, pcn_classify_step, &s, 0);
	return 0;
}

/*
 * Classifies a parsed frame by a table: q->found is what pcn_matched() says of the first rule that is it, or PCN_NO_RULE.
 * 0 or a drop reason. What was found for a flow is remembered until the table changes, on each CPU for itself.
 */
static __always_inline int pcn_classify(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u32 number, __u8 state, struct pcn_classify *q)
{
	__u32 zero = 0, side, *generation = bpf_map_lookup_elem(&cls_tables, &number);
	struct pcn_scratch *scratch = bpf_map_lookup_elem(&cls_scratch, &zero);
	struct pcn_table *table;
	__u64 found = PCN_UNKNOWN;
	int reason;

	q->found = PCN_NO_RULE;
	q->user = q->first = q->fallback = 0;
	if (!generation || !scratch)
		return PCN_DROP_POLICY;
	side = number * PCN_SIDES + (*generation & 1);
	table = bpf_map_lookup_elem(&cls_sides, &side);
	if (!table)
		return PCN_DROP_POLICY;
	q->fallback = table->fallback;
	q->first = table->first;
	if (!table->rows) /* there is no rule */
		return 0;
	reason = pcn_fields_of(ctx, pkt, table->dims, state, &scratch->fields);
	if (reason)
		return reason;
	scratch->stamp = table->flows ? pcn_stamp_of(number, *generation, PCN_VERSION_OF(&scratch->fields) == 6) : 0;
	if (table->flows)
		found = pcn_known(scratch, table->flows);
	if (found == PCN_UNKNOWN) {
		if (pcn_search(side, pkt->len))
			return PCN_DROP_POLICY;
		found = scratch->q.found;
		q->user = scratch->q.user;
		if (scratch->stamp && !scratch->q.passing)
			pcn_remember(found);
	}
	q->found = found;
	return 0;
}
