// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * The frame of a fused unit: its program, and what the generated glue (glue.py) does between cubes. Linked at run time with the glue and
 * with member.bpf.c and a function for each cube.
 */
#include "unit.h"

/* The glue: from the netdev a frame came by to the end of its way through the unit. */
int pcn_fused(struct pcn_ctx *ctx, struct pcn_packet *pkt);

PCN_SEC int fused(struct pcn_ctx *ctx)
{
	struct pcn_packet pkt = {.len = pcn_len(ctx)};

	return pcn_fused(ctx, &pkt);
}

__u32 pcn_fused_ifindex(struct pcn_ctx *ctx)
{
	return pcn_ifindex(ctx);
}

/* Whether the netdev's own chain has had the frame. */
int pcn_fused_was_here(struct pcn_ctx *ctx)
{
	return was_here(ctx);
}

int pcn_fused_stack(void)
{
	return ACTION_STACK;
}

/* From a netdev into the first cube. */
void pcn_fused_arrive(struct pcn_packet *pkt, __u32 port, __u32 id)
{
	pkt->in_port = port;
	count_rx(id, pkt->len);
}

/* Behind a cube that may have made the frame longer or shorter. */
void pcn_fused_measure(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	pkt->len = pcn_len(ctx);
	pkt->parsed = 0;
}

/* From a cube into another one of the unit: what a tail call does between units, but what was parsed stays known. */
void pcn_fused_cross(struct pcn_packet *pkt, const struct pcn_port *port)
{
	count_tx(port->id, pkt->len);
	pkt->in_port = port->peer_port;
	pkt->flags &= PCN_META_TRACE | PCN_META_FLOODED | PCN_META_HOPS;
	memset(pkt->metadata, 0, sizeof(pkt->metadata));
	pkt->carry = 0;
	count_rx(port->peer_id, pkt->len);
}

__u32 pcn_fused_out_port(struct pcn_packet *pkt)
{
	return pkt->out_port;
}

char _license[] SEC("license") = "GPL";
