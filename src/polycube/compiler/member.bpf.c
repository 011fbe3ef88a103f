// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * A cube's part of a fused unit. Linked with the bitcode of the function, once for each cube; the generated glue (glue.py) calls these
 * functions under names that begin with the cube's prefix, as its maps' and constants' do. Each gives GO_ON, or what the program returns.
 */
#include "unit.h"

#ifdef PCN_TRANSPARENT

int pcn_member_ingress(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	return handle(ctx, pkt, PCN_INGRESS);
}

int pcn_member_egress(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	return handle(ctx, pkt, PCN_EGRESS);
}

#else

int pcn_member_input(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	return handle_input(ctx, pkt);
}

int pcn_member_output(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	return handle_output(ctx, pkt);
}

/* Out of a port that is not among the constant ones: by the table, or when they are all there are. */
int pcn_member_elsewhere(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u32 number)
{
	struct pcn_port *port = bpf_map_lookup_elem(&ports, &number);

	return port ? follow(ctx, pkt, port) : drop(pkt, PCN_DROP_NO_PORT);
}

int pcn_member_no_port(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u32 number)
{
	return drop(pkt, PCN_DROP_NO_PORT);
}

#endif

/* Out of a port whose entry is a constant, to where the unit ends. */
int pcn_member_follow(struct pcn_ctx *ctx, struct pcn_packet *pkt, const struct pcn_port *port)
{
	return follow(ctx, pkt, port);
}
