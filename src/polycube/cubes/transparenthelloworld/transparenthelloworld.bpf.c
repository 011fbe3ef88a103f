// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Passes, drops or hands to the control plane all frames of a direction. */
#include <polycube/cube.h>

enum transparenthelloworld_action { PASS, DROP, SLOWPATH };

CFG(enum transparenthelloworld_action, ingress_action);
CFG(enum transparenthelloworld_action, egress_action);

static __always_inline int transparenthelloworld_act(struct pcn_packet *pkt, enum transparenthelloworld_action action)
{
	switch (action) {
	case PASS:
		return pcn_pass(pkt);
	case SLOWPATH:
		return pcn_slowpath(pkt, 1, 0, 0, 0);
	default:
		return pcn_drop(pkt, PCN_DROP_POLICY);
	}
}

HANDLER(ingress)
{
	pcn_pkt_log(ctx, pkt, LOG_DEBUG);
	return transparenthelloworld_act(pkt, ingress_action);
}

HANDLER(egress)
{
	pcn_pkt_log(ctx, pkt, LOG_DEBUG);
	return transparenthelloworld_act(pkt, egress_action);
}
