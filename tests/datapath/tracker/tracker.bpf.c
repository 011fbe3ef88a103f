// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Tracks connections, writes down what each packet was found to be, and sends it out of the other port. */
#include <polycube/conntrack.h>

struct tracker_session {
	struct pcn_ct ct;
	__u32 packets; /* what a cube keeps beside */
};

struct tracker_result {
	__u32 label; /* enum pcn_ct_label */
	__u32 kind;
	__u32 way;
	int inserted;
};

PCN_SESSIONS(sessions, struct tracker_session, 65536);
MAP(results, ARRAY, __u32, struct tracker_result, 1);
CFG(__u32, loose);

HANDLER(ingress)
{
	struct tracker_session *session, fresh = {.packets = 1};
	__u32 zero = 0, now = pcn_now();
	struct tracker_result result = {};
	struct pcn_ct_packet *p = pcn_ct_packet();
	int reason;

	if (!p)
		return pcn_drop(pkt, PCN_DROP_POLICY);
	reason = pcn_ct_read(ctx, pkt, p, now);
	if (reason)
		return pcn_drop(pkt, reason);
	session = pcn_ct_find(&sessions, p, now);
	if (session) {
		result.way = pcn_ct_way(&session->ct, p);
		result.label = pcn_ct_update(&session->ct, p, now);
		session->packets++;
	} else {
		result.label = pcn_ct_label_first(p, loose);
		if (result.label == PCN_CT_NEW) {
			pcn_ct_open(&fresh.ct, p, now);
			result.inserted = pcn_ct_insert(&sessions, &p->tuple, &fresh, now);
		}
	}
	result.kind = p->kind;
	bpf_map_update_elem(&results, &zero, &result, BPF_ANY);
	return pcn_forward(pkt, pkt->in_port ^ 1);
}
