// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Hands up what the parser says of each frame. */
#include <polycube/parse.h>

HANDLER(ingress)
{
	int reason = pcn_parse(ctx, pkt);

	/* A second time: must be the same, from memory. */
	if (!reason && pcn_parse(ctx, pkt))
		return pcn_drop(pkt, PCN_DROP_POLICY);
	if (reason)
		return pcn_drop(pkt, reason);
	return pcn_slowpath(pkt, pkt->vlans, pkt->proto | pkt->l3 << 16, pkt->l4 | pkt->l4_proto << 16 | pkt->fragment << 24,
			    pkt->vlan[0] | pkt->vlan[1] << 16);
}
