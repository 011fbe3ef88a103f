/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Firewall: a chain of rules for each direction, of which the first that matches decides, and sessions. What belongs to a session that
 * was accepted is accepted without a look at the rules, if so configured.
 */
#include <polycube/cube.h>

#define PCN_TABLES 2
#define PCN_DIMS                                                                                                                     \
	(PCN_IN(SRC) | PCN_IN(DST) | PCN_IN(SPORT) | PCN_IN(DPORT) | PCN_IN(PROTO) | PCN_IN(FLAGS) | PCN_IN(STATE) | PCN_IN(VLAN))
#include <polycube/classify.h>
#include <polycube/conntrack.h>
#include <polycube/tokenbucket.h>

#define FIREWALL_LABEL 0xff
#define FIREWALL_KNOWN 0x100 /* beside the label: of a session in the table */
#define FIREWALL_MALFORMED 0x10000
#define FIREWALL_LOGGED 128 /* bytes of a frame that get into the log */
#define FIREWALL_FOUND(_action, _counter) ((_action) << 24 | (_counter)) /* what is remembered of a rule */

DROPS(RULE, DEFAULT, REJECT_RATE);

enum firewall_action { FIREWALL_ACCEPT, FIREWALL_DROP, FIREWALL_REJECT, FIREWALL_LOG };
enum firewall_flag { FIREWALL_LIMITED = 1 };

/* Counters before those of the rules, by chain. */
enum firewall_counter {
	FIREWALL_BY_DEFAULT,
	FIREWALL_BY_SESSION = FIREWALL_BY_DEFAULT + PCN_TABLES,
	FIREWALL_NOT_LOGGED = FIREWALL_BY_SESSION + PCN_TABLES, /* for want of room in the queue */
	FIREWALL_COUNTERS = 8,
};

/* What the chain's fallback says: an action for IP and one for the rest. */
#define FIREWALL_FALLBACK(_table, _ip) ((_ip) ? (_table) & 0xff : (_table) >> 8)

struct firewall_count {
	__u64 packets;
	__u64 bytes;
};

struct firewall_limit {
	struct pcn_rate rate;
	struct pcn_tokenbucket bucket;
};

struct firewall_session {
	struct pcn_ct ct;
};

/*
 * Of the packet in hand. The stack has no room for a session in the making; and the verifier, which knows nothing of what stands here, looks
 * at what follows once instead of once for each label.
 */
struct firewall_scratch {
	struct firewall_session fresh;
	__u32 known; /* its label, and FIREWALL_KNOWN or FIREWALL_MALFORMED */
};

/* A frame that a LOG rule matched. */
struct firewall_line {
	__u32 counter; /* of the rule */
	__u32 len;
	__u16 caplen;
	__u16 chain;
	__u8 frame[FIREWALL_LOGGED];
};

PCN_SESSIONS(sessions, struct firewall_session, 65536);
MAP(scratch, PERCPU_ARRAY, __u32, struct firewall_scratch, 1);
MAP(counters, PERCPU_ARRAY, __u32, struct firewall_count, FIREWALL_COUNTERS + PCN_TABLES * PCN_RULES);
MAP_FLAGS(limits, HASH, __u32, struct firewall_limit, 32768, BPF_F_NO_PREALLOC); /* by counter of the rule */
MAP(rejects, ARRAY, __u32, struct firewall_limit, 1);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} logs SEC(".maps");

CFG(__u32, conntrack);
CFG(__u32, accept_established);

static __always_inline void firewall_count(__u32 counter, __u32 len)
{
	struct firewall_count *count = bpf_map_lookup_elem(&counters, &counter);

	if (count) {
		count->packets++;
		count->bytes += len;
	}
}

/* A rule matches, but its rate may be used up, and LOG decides nothing. */
static __always_inline int pcn_matched(struct pcn_classify *q, __u32 slot, struct pcn_rule *rule)
{
	if (rule->flags & FIREWALL_LIMITED) {
		struct firewall_limit *limit = bpf_map_lookup_elem(&limits, &rule->counter);

		q->passing = 1;
		if (limit && !pcn_tokens_take(&limit->bucket, &limit->rate, 1, bpf_ktime_get_ns()))
			return 0;
	}
	if (rule->action == FIREWALL_LOG) {
		firewall_count(rule->counter, q->length);
		q->passing = 1;
		q->user = rule->counter + 1;
		return 0;
	}
	q->found = FIREWALL_FOUND(rule->action, rule->counter);
	return 1;
}

static __always_inline void firewall_log(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u32 counter, __u32 chain)
{
	struct firewall_line *line = bpf_ringbuf_reserve(&logs, sizeof(*line), 0);
	__u64 caplen = pkt->len > FIREWALL_LOGGED ? FIREWALL_LOGGED : pkt->len;

	if (!line) {
		firewall_count(FIREWALL_NOT_LOGGED, pkt->len);
		return;
	}
	line->counter = counter;
	line->len = pkt->len;
	line->chain = chain;
	line->caplen = caplen;
	asm volatile("" : "+r"(caplen));
	caplen = ((caplen - 1) & (FIREWALL_LOGGED - 1)) + 1; /* as it was; the verifier of 6.1 understands this */
	if (
#ifdef PCN_XDP
	    bpf_xdp_load_bytes(ctx, 0, line->frame, caplen)
#else
	    bpf_skb_load_bytes(ctx, 0, line->frame, caplen)
#endif
	) {
		bpf_ringbuf_discard(line, 0);
		return;
	}
	bpf_ringbuf_submit(line, 0);
}

/* The answer is the control plane's, as many times a second as it allows. */
static __always_inline int firewall_reject(struct pcn_packet *pkt)
{
	__u32 zero = 0;
	struct firewall_limit *limit = bpf_map_lookup_elem(&rejects, &zero);

	if (!limit || !pcn_tokens_take(&limit->bucket, &limit->rate, 1, bpf_ktime_get_ns()))
		return pcn_drop(pkt, REJECT_RATE);
	return pcn_slowpath(pkt, FIREWALL_REJECT, 0, 0, 0);
}

/* Remembers the session that an accepted packet opens. */
static __always_inline int firewall_open(struct pcn_packet *pkt, struct firewall_scratch *scratch, const struct pcn_ct_packet *p, __u32 now)
{
	memset(&scratch->fresh, 0, sizeof(scratch->fresh));
	pcn_ct_open(&scratch->fresh.ct, p, now);
	pcn_ct_insert(&sessions, &p->tuple, &scratch->fresh, now); /* no room: the packet passes, its answer has to pass the rules */
	return pcn_pass(pkt);
}

/* What a packet is to its session: enum pcn_ct_label, or why it is dropped. A function: inlined, it would leave the stack no room. */
static __noinline int firewall_track(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct pcn_ct_packet *p, struct firewall_scratch *scratch)
{
	struct firewall_session *session;
	__u32 now = pcn_now();
	int reason = pcn_ct_read(ctx, pkt, p, now);

	if (reason) {
		scratch->known = FIREWALL_MALFORMED | reason;
		return 0;
	}
	session = pcn_ct_find(&sessions, p, now);
	scratch->known = session ? FIREWALL_KNOWN | pcn_ct_update(&session->ct, p, now) : pcn_ct_label_first(p, 0);
	return 0;
}

static __always_inline int firewall(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u32 chain)
{
	__u32 zero = 0, known = PCN_CT_UNTRACKED, action, counter, reason;
	struct firewall_scratch *own = 0;
	struct pcn_ct_packet *p = 0;
	struct pcn_classify q;

	reason = pcn_parse(ctx, pkt);
	if (reason)
		return pcn_drop(pkt, reason);
	if (conntrack) {
		own = bpf_map_lookup_elem(&scratch, &zero);
		p = pcn_ct_packet();
		if (!p || !own)
			return pcn_drop(pkt, PCN_DROP_POLICY);
		firewall_track(ctx, pkt, p, own);
		known = *(volatile __u32 *)&own->known;
		if (known & FIREWALL_MALFORMED)
			return pcn_drop(pkt, known & (PCN_REASONS - 1));
		if (accept_established && ((known & FIREWALL_LABEL) == PCN_CT_ESTABLISHED || (known & FIREWALL_LABEL) == PCN_CT_RELATED)) {
			firewall_count(FIREWALL_BY_SESSION + chain, pkt->len);
			return pcn_pass(pkt);
		}
	}
	reason = pcn_classify(ctx, pkt, chain, known & FIREWALL_LABEL, &q);
	if (reason)
		return pcn_drop(pkt, reason);
	if (q.user)
		firewall_log(ctx, pkt, q.user - 1, chain);
	if (q.found == PCN_NO_RULE) {
		action = FIREWALL_FALLBACK(q.fallback, pkt->proto == bpf_htons(ETH_P_IP) || pkt->proto == bpf_htons(ETH_P_IPV6));
		counter = FIREWALL_BY_DEFAULT + chain;
		reason = DEFAULT;
	} else {
		action = q.found >> 24;
		counter = q.found & 0xffffff;
		reason = RULE;
	}
	firewall_count(counter, pkt->len);
	switch (action) {
	case FIREWALL_ACCEPT:
		return own && p && known == PCN_CT_NEW ? firewall_open(pkt, own, p, pcn_now()) : pcn_pass(pkt);
	case FIREWALL_REJECT:
		return firewall_reject(pkt);
	default:
		return pcn_drop(pkt, reason);
	}
}

/* Towards what the firewall protects. */
HANDLER(ingress)
{
	return firewall(ctx, pkt, PCN_INGRESS);
}

/* Away from it. */
HANDLER(egress)
{
	return firewall(ctx, pkt, PCN_EGRESS);
}
