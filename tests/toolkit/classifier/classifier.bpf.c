/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Classifies frames by table 0 and writes down which rule it was. Every rule ends the search unless its action is 1. */
#include <polycube/cube.h>

#define PCN_TABLES 2
#define PCN_DIMS 0xff
#include <polycube/classify.h>

MAP(results, ARRAY, __u32, __u32, 1);
MAP(counters, PERCPU_ARRAY, __u32, __u64, 32768);

static __always_inline int pcn_matched(struct pcn_classify *q, __u32 slot, struct pcn_rule *rule)
{
	if (rule->action == 1) {
		q->passing = 1;
		return 0;
	}
	q->found = slot;
	return 1;
}

HANDLER(ingress)
{
	struct pcn_classify q;
	__u32 zero = 0, *result = bpf_map_lookup_elem(&results, &zero);
	int reason = pcn_parse(ctx, pkt);

	if (!reason)
		reason = pcn_classify(ctx, pkt, 0, 0, &q);
	if (reason || !result)
		return pcn_drop(pkt, reason);
	*result = q.found;
	return pcn_pass(pkt);
}
