// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* The smallest bridge there is: the filtering database of fdb.h, no VLANs, no spanning tree that would take the control frames of the link. */
#include <polycube/fdb.h>

DROPS(SAME_PORT, LINK_LOCAL);

HANDLER(ingress)
{
	struct ethhdr *eth = pcn_at(ctx, 0, sizeof(*eth));
	struct pcn_station *station;
	struct pcn_fdb_key key;
	__u32 now = pcn_now();

	if (!eth)
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	if (!(eth->h_source[0] & 1)) {
		pcn_fdb_read(&key, eth->h_source, 0);
		pcn_fdb_learn(pkt, &key, now);
	}
	if (eth->h_dest[0] & 1)
		return pcn_is_link_local(eth->h_dest) ? pcn_drop(pkt, LINK_LOCAL) : pcn_flood(pkt, 0);
	pcn_fdb_read(&key, eth->h_dest, 0);
	station = pcn_fdb_find(&key, now);
	if (!station)
		return pcn_flood(pkt, 0);
	if (station->port == pkt->in_port)
		return pcn_drop(pkt, SAME_PORT);
	return pcn_forward(pkt, station->port);
}
