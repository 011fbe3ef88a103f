// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Drops all frames, hands them to the control plane, or sends them out of the other of its two ports. */
#include <polycube/cube.h>

enum helloworld_action { DROP, SLOWPATH, FORWARD };

CFG(enum helloworld_action, action);

HANDLER(ingress)
{
	switch (action) {
	case FORWARD:
		return pcn_forward(pkt, pkt->in_port ^ 1);
	case SLOWPATH:
		return pcn_slowpath(pkt, 1, 0, 0, 0);
	default:
		return pcn_drop(pkt, PCN_DROP_POLICY);
	}
}

HANDLER(egress)
{
	return pcn_pass(pkt);
}
