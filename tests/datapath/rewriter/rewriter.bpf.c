// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Does one thing to each frame and sends it out of the other port. */
#include <polycube/csum.h>
#include <polycube/mtu.h>
#include <polycube/vlan.h>

enum rewriter_op { NOTHING, DECREMENT, ADDRESS4, ADDRESS6, PORT, PUSH, POP, SET, FITS, FITS_NETDEV };

DROPS(FAILED, EXPIRED, TOO_BIG);
CFG(enum rewriter_op, op);
CFG(__u32, value);
CFG(struct in6_addr, address);
CFG(__u16, proto);

static __always_inline int rewriter_decrement(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	int left = pkt->proto == bpf_htons(ETH_P_IP) ? pcn_ipv4_decrement_ttl(ctx, pkt) : pcn_ipv6_decrement_hops(ctx, pkt);

	return left > 0 ? pcn_forward(pkt, pkt->in_port ^ 1) : pcn_drop(pkt, left ? FAILED : EXPIRED);
}

HANDLER(ingress)
{
	struct in6_addr to = address;
	int failed = 0, reason = pcn_parse(ctx, pkt);
	__u32 mtu;

	if (reason)
		return pcn_drop(pkt, reason);
	switch (op) {
	case DECREMENT:
		return rewriter_decrement(ctx, pkt);
	case ADDRESS4:
		failed = pcn_ipv4_set_address(ctx, pkt, __builtin_offsetof(struct iphdr, daddr), value);
		break;
	case ADDRESS6:
		failed = pcn_ipv6_set_address(ctx, pkt, __builtin_offsetof(struct ipv6hdr, saddr), &to);
		break;
	case PORT:
		failed = pcn_l4_set_word(ctx, pkt, pkt->l4 + 2, bpf_htons(value));
		break;
	case PUSH:
		failed = pcn_vlan_push(ctx, pkt, proto, value);
		break;
	case POP:
		failed = pcn_vlan_pop(ctx, pkt);
		break;
	case SET:
		failed = pcn_vlan_set(ctx, pkt, value);
		break;
	case FITS:
		if (!pcn_fits(ctx, pkt, value))
			return pcn_drop(pkt, TOO_BIG);
		break;
	case FITS_NETDEV:
		if (!pcn_fits_netdev(ctx, value, 0, &mtu))
			return pcn_slowpath(pkt, TOO_BIG, mtu, 0, 0);
		break;
	default:
		break;
	}
	if (failed)
		return pcn_drop(pkt, FAILED);
	reason = pcn_parse(ctx, pkt); /* what a rewrite leaves behind must parse again */
	if (reason)
		return pcn_drop(pkt, reason);
	return pcn_forward(pkt, pkt->in_port ^ 1);
}
