// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Does with a frame what the first rule says that matches it; it is dropped if none does. */
#include <polycube/cube.h>

#define PCN_TABLES 1
#define PCN_DIMS                                                                                                                     \
	(PCN_IN(SRC) | PCN_IN(DST) | PCN_IN(SPORT) | PCN_IN(DPORT) | PCN_IN(PROTO) | PCN_IN(VLAN) | PCN_IN(IN_PORT) | PCN_IN(SMAC) | \
	 PCN_IN(DMAC))
#include <polycube/classify.h>

DROPS(NO_RULE);

enum pbforwarder_verb { PBFORWARDER_DROP, PBFORWARDER_SLOWPATH, PBFORWARDER_FORWARD };

struct pbforwarder_count {
	__u64 packets;
	__u64 bytes;
};

MAP(counters, PERCPU_ARRAY, __u32, struct pbforwarder_count, 2 * PCN_RULES); /* of rules; those of a change before and after it */

static __always_inline int pcn_matched(struct pcn_classify *q, __u32 slot, struct pcn_rule *rule)
{
	q->found = slot;
	return 1;
}

HANDLER(ingress)
{
	struct pbforwarder_count *count;
	struct pcn_classify q;
	struct pcn_rule *rule;
	__u32 key, number;
	int reason = pcn_parse(ctx, pkt);

	if (!reason)
		reason = pcn_classify(ctx, pkt, 0, 0, &q);
	if (reason)
		return pcn_drop(pkt, reason);
	if (q.found == PCN_NO_RULE)
		return pcn_drop(pkt, NO_RULE);
	key = q.first + q.found;
	rule = bpf_map_lookup_elem(&cls_rules, &key);
	if (!rule)
		return pcn_drop(pkt, NO_RULE);
	number = rule->counter;
	count = bpf_map_lookup_elem(&counters, &number);
	if (count) {
		count->packets++;
		count->bytes += pkt->len;
	}
	switch (rule->action) {
	case PBFORWARDER_FORWARD:
		return pcn_forward(pkt, rule->data);
	case PBFORWARDER_SLOWPATH:
		return pcn_slowpath(pkt, 1, 0, 0, 0);
	default:
		return pcn_drop(pkt, PCN_DROP_POLICY);
	}
}
