// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Hands up the hash of each frame. */
#include <polycube/hash.h>

CFG(__u32, flags);
CFG(__u32, seed);

HANDLER(ingress)
{
	int reason = pcn_parse(ctx, pkt);

	if (reason)
		return pcn_drop(pkt, reason);
	return pcn_slowpath(pkt, 0, pcn_hash_flow(ctx, pkt, flags, seed), pcn_hash_below(pcn_hash_flow(ctx, pkt, flags, seed), 100), 0);
}
