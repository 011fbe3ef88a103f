/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Forwards by the longest prefix of the destination whose port is below a limit: for the tests of lpm_entries.h. */
#include <polycube/lpm.h>
#include <polycube/parse.h>

DROPS(NO_PREFIX, NOT_IP);
CFG(__u32, limit);

static __always_inline int below(const void *value, __u64 argument)
{
	return *(const __u32 *)value < argument;
}

LPM4_IF(prefixes4, __u32, 65536, below);
LPM6_IF(prefixes6, __u32, 65536, below);

HANDLER(ingress)
{
	__u32 *found;

	if (pcn_parse_l3(ctx, pkt))
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	if (pkt->proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));

		found = ip ? pcn_lpm4_if(prefixes4, ip->daddr, limit) : 0;
	} else if (pkt->proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = pcn_at(ctx, pkt->l3, sizeof(*ip));

		found = ip ? pcn_lpm6_if(prefixes6, &ip->daddr, limit) : 0;
	} else {
		return pcn_drop(pkt, NOT_IP);
	}
	return found ? pcn_forward(pkt, *found) : pcn_drop(pkt, NO_PREFIX);
}
