// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * Watches TCP handshakes and lets everything pass. Counts SYN, SYN+ACK, ACK and RST, of all traffic and of each protected address, and
 * estimates how many connections are half open: a SYN opens one, the client's first ACK or a RST of either side closes it, and so does
 * time. Which end of a link the protected addresses are at does not matter: a segment is theirs by its addresses, not by its direction.
 *
 * Memory is bounded. Half-open connections are marks in sets of four, one word each (a fingerprint and the second of the SYN), found by a
 * hash: a mark that is too old is as good as none and is overwritten, so that nobody has to clean up, and a SYN whose set is full is
 * counted as untracked. How many there are is counted by the period of their SYN: a period that is too old is not added up any more.
 */
#include <polycube/hash.h>

#define SYNFLOOD_SETS 16384
#define SYNFLOOD_WAYS 4
#define SYNFLOOD_PERIODS 16
#define SYNFLOOD_PERIOD_SHIFT 3 /* periods of 8 s: SYNFLOOD_PERIODS of them are more than the longest time-out of 120 s */

/* Of a mark: the second of the SYN, a bit that is set in every mark, and the fingerprint. */
#define SYNFLOOD_SECONDS 0xffffffULL
#define SYNFLOOD_USED 0x1000000ULL
#define SYNFLOOD_FINGERPRINT (~(SYNFLOOD_SECONDS | SYNFLOOD_USED))

/* Of an address, or of all of them. */
struct synflood_counts {
	__u64 syn;
	__u64 syn_ack;
	__u64 ack;         /* from clients; of all traffic: of both sides */
	__u64 rst;         /* from clients; of all traffic: on its way in */
	__u64 rst_sent;    /* by the address; of all traffic: on its way out */
	__u64 opened;      /* connections: half open at some time */
	__u64 established; /* of these: completed */
	__u64 reset;       /* of these: ended by a RST; the others are half open or have timed out */
	__u64 half_open[SYNFLOOD_PERIODS]; /* period << 32 | number, which is negative on a CPU that closes what another one opened */
};

/* What upstream's ratios are made of, and what was not looked into. */
struct synflood_totals {
	__u64 received;  /* IP packets on their way in */
	__u64 delivered; /* of these: well formed */
	__u64 sent;      /* IP packets on their way out */
	__u64 malformed; /* in both directions */
	__u64 untracked; /* SYNs that found no place */
};

struct synflood_set {
	__u64 way[SYNFLOOD_WAYS];
};

MAP(addresses, PERCPU_HASH, struct in6_addr, struct synflood_counts, 1024); /* IPv4 addresses are mapped, ::ffff:a.b.c.d */
MAP(traffic, PERCPU_ARRAY, __u32, struct synflood_counts, 1);
MAP(totals, PERCPU_ARRAY, __u32, struct synflood_totals, 1);
MAP(half_open, ARRAY, __u32, struct synflood_set, SYNFLOOD_SETS);

CFG(__u32, any_address);    /* whether there are protected addresses */
CFG(__u32, timeout);        /* seconds after which a half-open connection counts no longer */
CFG(__u32, seed);

/* A connection as it is seen from its client, and whom it counts for. */
struct synflood_ends {
	struct in6_addr source;
	struct in6_addr destination;
	__u32 ports; /* as in the frame: source, destination */
};

static __always_inline __u64 synflood_hash(const struct in6_addr *client, const struct in6_addr *server, __u32 ports)
{
	__u64 hash = pcn_hash_address6(pcn_hash_address6((__u64)seed << 8 | 6, client), server);

	return pcn_hash_word(hash, ports);
}

static __always_inline void synflood_change(struct synflood_counts *counts, __u32 second, int by)
{
	__u32 period = second >> SYNFLOOD_PERIOD_SHIFT;
	__u64 *slot = &counts->half_open[period % SYNFLOOD_PERIODS];
	__u32 standing = *slot >> 32, number = standing == period ? (__u32)*slot : 0;

	if ((__s32)(period - standing) >= 0)
		*slot = (__u64)period << 32 | (__u32)(number + by);
}

static __always_inline void synflood_opened(struct synflood_counts *counts, __u32 now)
{
	if (!counts)
		return;
	counts->opened++;
	synflood_change(counts, now, 1);
}

static __always_inline void synflood_closed(struct synflood_counts *counts, __u32 since, int reset)
{
	if (!counts)
		return;
	if (reset)
		counts->reset++;
	else
		counts->established++;
	synflood_change(counts, since, -1);
}

static __always_inline struct synflood_set *synflood_set_of(__u64 hash)
{
	__u32 index = pcn_hash_below(pcn_hash_end(hash), SYNFLOOD_SETS);

	return bpf_map_lookup_elem(&half_open, &index);
}

static __always_inline __u32 synflood_age(__u64 mark, __u32 now)
{
	return (now - (__u32)mark) & SYNFLOOD_SECONDS;
}

static __always_inline int synflood_is(__u64 mark, __u64 hash)
{
	return !((mark ^ hash) & SYNFLOOD_FINGERPRINT);
}

/* A SYN: 1 if it opened a connection, 0 if it was seen before, -1 if there is no place. */
static __always_inline int synflood_open(__u64 hash, __u32 now)
{
	struct synflood_set *set = synflood_set_of(hash);
	__u64 old = 0, mark = (hash & SYNFLOOD_FINGERPRINT) | SYNFLOOD_USED | (now & SYNFLOOD_SECONDS);
	int i, place = -1;

	if (!set)
		return -1;
	for (i = 0; i < SYNFLOOD_WAYS; i++) {
		__u64 standing = set->way[i];

		if (standing && synflood_age(standing, now) <= timeout) {
			if (synflood_is(standing, hash))
				return 0;
		} else if (place < 0) {
			place = i;
			old = standing;
		}
	}
	for (i = 0; i < SYNFLOOD_WAYS; i++) {
		if (i == place)
			return __sync_val_compare_and_swap(&set->way[i], old, mark) == old ? 1 : -1;
	}
	return -1;
}

/* What ends the half-open state: 1 if there was one, whose SYN came at the second `*since`. */
static __always_inline int synflood_close(__u64 hash, __u32 now, __u32 *since)
{
	struct synflood_set *set = synflood_set_of(hash);
	int i;

	if (!set)
		return 0;
	for (i = 0; i < SYNFLOOD_WAYS; i++) {
		__u64 standing = set->way[i];

		if (!standing || !synflood_is(standing, hash))
			continue;
		*since = now - synflood_age(standing, now);
		return now - *since <= timeout && __sync_val_compare_and_swap(&set->way[i], standing, 0) == standing;
	}
	return 0;
}

static __always_inline struct synflood_counts *synflood_protected(const struct in6_addr *address)
{
	struct synflood_counts *own = any_address ? bpf_map_lookup_elem(&addresses, address) : 0;

	asm volatile("" : "+r"(own)); /* or the compiler asks `any_address` again instead, which tells the verifier of 6.1 nothing of it */
	return own;
}

static __always_inline void synflood_on_syn(struct synflood_counts *all, struct synflood_totals *totals, struct synflood_ends *ends,
					    __u32 now)
{
	struct synflood_counts *own = synflood_protected(&ends->destination);
	int opened = synflood_open(synflood_hash(&ends->source, &ends->destination, ends->ports), now);

	all->syn++;
	if (own)
		own->syn++;
	if (opened < 0)
		totals->untracked++;
	if (opened <= 0)
		return;
	synflood_opened(all, now);
	synflood_opened(own, now);
}

static __always_inline void synflood_on_ack(struct synflood_counts *all, struct synflood_ends *ends, __u32 now)
{
	struct synflood_counts *own = synflood_protected(&ends->destination);
	__u32 since;

	all->ack++;
	if (own)
		own->ack++;
	if (!synflood_close(synflood_hash(&ends->source, &ends->destination, ends->ports), now, &since))
		return;
	synflood_closed(all, since, 0);
	synflood_closed(own, since, 0);
}

/* Either side may send one: the connection is looked for from both ends. */
static __always_inline void synflood_on_rst(struct synflood_counts *all, struct synflood_ends *ends, __u32 now)
{
	struct synflood_counts *to = synflood_protected(&ends->destination), *from = synflood_protected(&ends->source), *own = to;
	__u32 since;

	if (to)
		to->rst++;
	if (from)
		from->rst_sent++;
	if (!synflood_close(synflood_hash(&ends->source, &ends->destination, ends->ports), now, &since)) {
		if (!synflood_close(synflood_hash(&ends->destination, &ends->source, ends->ports << 16 | ends->ports >> 16), now, &since))
			return;
		own = from;
	}
	synflood_closed(all, since, 1);
	synflood_closed(own, since, 1);
}

static __always_inline int synflood_read_ends(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct synflood_ends *ends)
{
	if (pkt->proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));

		if (!ip)
			return -1;
		ends->source.in6_u.u6_addr32[2] = ends->destination.in6_u.u6_addr32[2] = bpf_htonl(0xffff);
		ends->source.in6_u.u6_addr32[3] = ip->saddr;
		ends->destination.in6_u.u6_addr32[3] = ip->daddr;
	} else {
		struct ipv6hdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));

		if (!ip)
			return -1;
		ends->source = ip->saddr;
		ends->destination = ip->daddr;
	}
	return 0;
}

static __always_inline void synflood_segment(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct synflood_totals *totals)
{
	struct tcphdr *tcp = pcn_at(ctx, pkt->l4, sizeof(*tcp));
	__u32 zero = 0, now = pcn_now();
	struct synflood_counts *all = bpf_map_lookup_elem(&traffic, &zero);
	struct synflood_ends ends = {};
	struct synflood_counts *own;
	int syn, ack, rst;

	if (!tcp || !all)
		return;
	syn = tcp->syn;
	ack = tcp->ack;
	rst = tcp->rst;
	ends.ports = *(__u32 *)tcp;
	if (synflood_read_ends(ctx, pkt, &ends))
		return;
	if (rst) {
		if (pkt->in_port == PCN_EGRESS)
			all->rst_sent++;
		else
			all->rst++;
		synflood_on_rst(all, &ends, now);
	} else if (syn && ack) {
		all->syn_ack++;
		own = synflood_protected(&ends.source);
		if (own)
			own->syn_ack++;
	} else if (syn) {
		synflood_on_syn(all, totals, &ends, now);
	} else if (ack) {
		synflood_on_ack(all, &ends, now);
	}
}

static __always_inline int synflood_watch(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	int reason = pcn_parse_l2(ctx, pkt);
	struct synflood_totals *count;
	__u32 zero = 0;

	if (reason || (pkt->proto != bpf_htons(ETH_P_IP) && pkt->proto != bpf_htons(ETH_P_IPV6)))
		return pcn_pass(pkt);
	count = bpf_map_lookup_elem(&totals, &zero);
	if (!count)
		return pcn_pass(pkt);
	if (pkt->in_port == PCN_EGRESS)
		count->sent++;
	else
		count->received++;
	if (pcn_parse(ctx, pkt)) {
		count->malformed++;
		return pcn_pass(pkt);
	}
	if (pkt->in_port != PCN_EGRESS)
		count->delivered++;
	if (pkt->l4_proto == IPPROTO_TCP && pkt->l4)
		synflood_segment(ctx, pkt, count);
	return pcn_pass(pkt);
}

HANDLER(ingress)
{
	return synflood_watch(ctx, pkt);
}

HANDLER(egress)
{
	return synflood_watch(ctx, pkt);
}
