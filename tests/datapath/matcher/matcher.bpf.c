/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Forwards by the longest prefix of the destination: for the tests of lpm.h. */
#include <polycube/lpm.h>
#include <polycube/parse.h>

DROPS(NO_PREFIX, NOT_IP);
LPM4(prefixes4, __u32, 65536);
LPM6(prefixes6, __u32, 65536);

HANDLER(ingress)
{
	__u32 *found;

	if (pcn_parse_l3(ctx, pkt))
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	if (pkt->proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));

		found = ip ? pcn_lpm4(prefixes4, ip->daddr) : 0;
	} else if (pkt->proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));

		found = ip ? pcn_lpm6(prefixes6, &ip->daddr) : 0;
	} else {
		return pcn_drop(pkt, NOT_IP);
	}
	return found ? pcn_forward(pkt, *found) : pcn_drop(pkt, NO_PREFIX);
}
