/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Flooding: one broadcast through a device map in XDP, clones in TC. Included by unit.h only. */
#pragma once

struct flood {
	struct pcn_ctx *ctx;
	struct pcn_domain *domain;
	__u32 in_port;
	__u32 len;
	__u32 last; /* TC: member that still waits for its copy; it gets the original if it is the last */
	__u32 copies;
	__u16 hops;     /* of the frame, PCN_META_HOPS */
	__u16 indirect; /* XDP: one of the copies goes to another cube */
};

#ifdef PCN_TC
/* A copy to a netdev goes there; any other one enters the injection device, whose program leads it to the cube and port in the mark. */
static __always_inline void flood_copy(struct flood *flood, __u32 number)
{
	struct pcn_port *port = bpf_map_lookup_elem(&ports, &number);
	struct pcn_ctx *ctx = flood->ctx;

	if (!port || port->next == PCN_NEXT_NONE)
		return;
	if (port->next == PCN_NEXT_NETDEV && !(port->flags & PCN_PORT_INDIRECT)) {
		if (bpf_clone_redirect(ctx, port->target, 0) < 0)
			count_drop(PCN_DROP_NO_NETDEV);
		else
			count_tx(port->id, flood->len);
		span_copy(ctx, port->id, flood->len);
	} else {
		__u32 mark = ctx->mark;

		if (flood->hops == PCN_META_HOPS) {
			count_drop(PCN_DROP_HOPS);
			return;
		}
		ctx->mark = PCN_MARK(pcn_cube * 2, flood->hops + PCN_META_HOP, PCN_MARK_OUT | number);
		if (bpf_clone_redirect(ctx, pcn_inject, BPF_F_INGRESS)) /* the CPU's queue is full, say */
			count_drop(PCN_DROP_NO_NETDEV);
		ctx->mark = mark;
	}
}
#endif

static long flood_member(__u32 index, struct flood *flood)
{
	struct pcn_port *port;
	__u32 number;

	if (index >= PCN_DOMAIN_PORTS)
		return 1;
	number = flood->domain->port[index];
	if (number == flood->in_port)
		return 0;
	port = bpf_map_lookup_elem(&ports, &number);
	if (!port || port->next == PCN_NEXT_NONE)
		return 0;
#ifdef PCN_TC
	if (flood->copies)
		flood_copy(flood, flood->last);
	flood->last = number;
#else
	if (port->flags & PCN_PORT_INDIRECT) {
		flood->indirect = 1; /* counted by the program it goes to */
	} else {
		count_tx(port->id, flood->len);
		span_copy(flood->ctx, port->id, flood->len);
	}
#endif
	flood->copies++;
	return 0;
}

#ifdef PCN_XDP
/* Puts the hops in front of the copies. A driver that has no room for metadata sends them without, and nothing bounds a loop then. */
static __always_inline void flood_hops(struct pcn_ctx *ctx, __u16 hops)
{
	__u32 *copy;

	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*copy)))
		return;
	copy = (void *)(long)ctx->data_meta;
	if ((void *)(copy + 1) <= (void *)(long)ctx->data)
		*copy = PCN_COPY | (hops + PCN_META_HOP);
}
#endif

/* TC: GO_ON, and the last of the ports in pkt->out_port: the original leaves there. */
static __always_inline int flood(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	__u32 number = pkt->out_port, in_port = pkt->in_port; /* copies: a packet whose address is taken does not stay in registers */
	struct flood flood = {.ctx = ctx, .in_port = in_port, .len = pkt->len, .hops = pkt->flags & PCN_META_HOPS};

	flood.domain = bpf_map_lookup_elem(&domains, &number);
	if (!flood.domain)
		return drop(pkt, PCN_DROP_NO_MEMBERS);
	bpf_loop(flood.domain->count, flood_member, &flood, 0);
	if (!flood.copies)
		return drop(pkt, PCN_DROP_NO_MEMBERS);
#ifdef PCN_TC
	pkt->flags |= PCN_META_FLOODED;
	pkt->out_port = flood.last;
	return GO_ON;
#else
	struct pcn_flood_key key = {.domain = number, .port = PCN_ANY_PORT};
	__u64 flags = BPF_F_BROADCAST | BPF_F_EXCLUDE_INGRESS;
	struct pcn_port *in = bpf_map_lookup_elem(&ports, &in_port);
	void *devices;

	if (in && in->flags & PCN_PORT_OWN_FLOOD) {
		key.port = in_port;
		flags = BPF_F_BROADCAST;
	}
	devices = bpf_map_lookup_elem(&flood_devices, &key);
	if (!devices)
		return drop(pkt, PCN_DROP_NO_MEMBERS);
	if (flood.indirect) {
		if (flood.hops == PCN_META_HOPS)
			return drop(pkt, PCN_DROP_HOPS);
		flood_hops(ctx, flood.hops);
	}
	return bpf_redirect_map(devices, 0, flags);
#endif
}
