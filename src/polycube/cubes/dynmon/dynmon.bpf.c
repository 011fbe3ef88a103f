// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * Runs code that its user injects, on the way in and on the way out. That code is linked in under these names (code.py), twice if it has
 * maps that are swapped when they are read: the same code on the one set of maps and on the other.
 */
#include <polycube/cube.h>

MAP(dynmon_active, ARRAY, __u32, __u32, 2); /* direction -> which of the two runs */

__weak int dynmon_ingress(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	return PCN_PASS;
}

__weak int dynmon_ingress_swap(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	return PCN_PASS;
}

__weak int dynmon_egress(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	return PCN_PASS;
}

__weak int dynmon_egress_swap(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	return PCN_PASS;
}

static __always_inline int swapped(__u32 direction)
{
	__u32 *active = bpf_map_lookup_elem(&dynmon_active, &direction);

	return active && *active;
}

/* A monitor passes or drops; there is nobody to take a frame from its slow path. */
static __always_inline int decide(struct pcn_packet *pkt, int verdict)
{
	return verdict == PCN_DROP ? pcn_drop(pkt, PCN_DROP_POLICY) : pcn_pass(pkt);
}

HANDLER(ingress)
{
	return decide(pkt, swapped(PCN_INGRESS) ? dynmon_ingress_swap(ctx, pkt) : dynmon_ingress(ctx, pkt));
}

HANDLER(egress)
{
	return decide(pkt, swapped(PCN_EGRESS) ? dynmon_egress_swap(ctx, pkt) : dynmon_egress(ctx, pkt));
}
