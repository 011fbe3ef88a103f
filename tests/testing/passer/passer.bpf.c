// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Passes what it gets to the stack, with another source address; its egress handler refuses what is not for 02:... */
#include <polycube/cube.h>

DROPS(REFUSED, NEVER);
CFG(__u16, forward);

HANDLER(ingress)
{
	__u8 source[ETH_ALEN] = {2, 0, 0, 0, 0, 0x99};

	if (forward)
		return pcn_forward(pkt, forward);
	if (pcn_store(ctx, ETH_ALEN, source, sizeof(source)))
		return pcn_drop(pkt, NEVER);
	return pcn_pass(pkt);
}

HANDLER(egress)
{
	struct ethhdr *eth = pcn_at(ctx, 0, sizeof(*eth));

	if (!eth)
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	if (eth->h_dest[0] == 4)
		return pcn_slowpath(pkt, 9, 1, 2, pkt->out_port);
	return eth->h_dest[0] == 2 ? pcn_pass(pkt) : pcn_drop(pkt, REFUSED);
}
