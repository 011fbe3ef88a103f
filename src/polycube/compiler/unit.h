/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What every unit does around the handlers of a function: counts, carries out verdicts, follows next hops. Included by unit.bpf.c (the unit
 * of one) and member.bpf.c (a cube's part of a fused unit). What a function does not use (flooding, the slow path, an egress handler) is
 * optimised away, maps included: framework maps nobody refers to do not get into the object (unit.py).
 */
#pragma once

#include <polycube/cube.h>

#include "unit_maps.h"

/* ---- hooks ---- */

#ifdef PCN_XDP
#define PCN_SEC SEC("xdp.frags")
#define ACTION_DROP XDP_DROP
#define ACTION_STACK XDP_PASS
#define ACTION_REDIRECT XDP_REDIRECT
#else
#include <linux/if_packet.h>
#include <linux/pkt_cls.h>
#define PCN_SEC SEC("tc")
#define ACTION_DROP TC_ACT_SHOT
#define ACTION_STACK TC_ACT_UNSPEC /* the next program on the hook, if there is one; else the stack */
#define ACTION_REDIRECT TC_ACT_REDIRECT
#endif
#define GO_ON 0x10000 /* beside the values that programs return: the frame is not finished with */

static __always_inline void count_drop(__u32 reason)
{
	__u64 key = pcn_cube * PCN_REASONS + (reason & (PCN_REASONS - 1));
	__u64 *count = bpf_map_lookup_elem(&pcn_drops, &key);

	if (count)
		(*count)++;
}

static __always_inline int drop(struct pcn_packet *pkt, __u32 reason)
{
	count_drop(reason);
	return ACTION_DROP;
}

static __always_inline void count_rx(__u32 id, __u32 len)
{
	__u64 slot = id;
	struct pcn_counter *counter = bpf_map_lookup_elem(&pcn_counters, &slot);

	if (counter) {
		counter->rx_packets++;
		counter->rx_bytes += len;
	}
}

static __always_inline void count_tx(__u32 id, __u32 len)
{
	__u64 slot = id;
	struct pcn_counter *counter = bpf_map_lookup_elem(&pcn_counters, &slot);

	if (counter) {
		counter->tx_packets++;
		counter->tx_bytes += len;
	}
}

static __always_inline void write_meta(struct pcn_ctx *ctx, const struct pcn_meta *meta)
{
#ifdef PCN_XDP
	__u64 zero = 0;
	struct pcn_meta *slot = bpf_map_lookup_elem(&pcn_scratch, &zero);

	if (slot)
		*slot = *meta;
#else
	ctx->cb[0] = meta->port | (__u32)meta->flags << 16;
	ctx->cb[1] = meta->id;
#endif
}

static __always_inline void read_meta(struct pcn_ctx *ctx, struct pcn_meta *meta)
{
#ifdef PCN_XDP
	__u64 zero = 0;
	struct pcn_meta *slot = bpf_map_lookup_elem(&pcn_scratch, &zero);

	if (slot)
		*meta = *slot;
#else
	meta->port = ctx->cb[0];
	meta->flags = ctx->cb[0] >> 16;
	meta->id = ctx->cb[1];
#endif
}

/* What was counted as sent did not get away after all. */
static __always_inline void uncount_tx(__u32 id, __u32 len)
{
	__u64 slot = id;
	struct pcn_counter *counter = bpf_map_lookup_elem(&pcn_counters, &slot);

	if (counter) {
		counter->tx_packets--;
		counter->tx_bytes -= len;
	}
}

#ifdef PCN_TC
/*
 * Whether a frame may enter the other end of a veth past its queue. On that way it counts as one for the host there whatever its address says
 * (and on kernels before 6.15 as one for somebody else, unless the type is set here), so flooded and group frames take the ordinary one.
 */
static __always_inline int for_peer(struct pcn_ctx *ctx, const struct pcn_packet *pkt)
{
	struct ethhdr *eth;

	if (pkt->flags & (PCN_META_FLOODED | PCN_META_HOPS))
		return 0;
	eth = pcn_at(ctx, 0, sizeof(*eth));
	if (!eth || eth->h_dest[0] & 1)
		return 0;
	return ctx->pkt_type == PACKET_HOST || !bpf_skb_change_type(ctx, PACKET_HOST);
}
#endif

/* Follows the next hop of a port whose entry is in hand. */
static __always_inline int follow(struct pcn_ctx *ctx, struct pcn_packet *pkt, const struct pcn_port *port)
{
#ifdef PCN_TC
	if (port->flags & PCN_PORT_HOOK) {
		count_tx(port->id, pkt->len);
		if (ctx->ifindex == port->target)
			return ACTION_STACK;
		ctx->mark = PCN_MARK_DONE;
		return bpf_redirect(port->target, port->next == PCN_NEXT_STACK ? BPF_F_INGRESS : 0);
	}
#endif
	if (port->next == PCN_NEXT_NETDEV) {
#ifdef PCN_XDP
		long action = bpf_redirect_map(&pcn_netdevs, port->id, XDP_ABORTED);
#else
		long action = port->flags & PCN_PORT_PEER && for_peer(ctx, pkt) ? bpf_redirect_peer(port->target, 0) : bpf_redirect(port->target, 0);
#endif
		if (action != ACTION_REDIRECT)
			return drop(pkt, PCN_DROP_NO_NETDEV);
		count_tx(port->id, pkt->len);
		return action;
	}
	if (port->next == PCN_NEXT_CUBE) {
		struct pcn_meta meta = {
			.port = port->peer_port,
			.flags = pkt->flags & (PCN_META_TRACE | PCN_META_FLOODED | PCN_META_HOPS),
			.id = port->peer_id,
		};

		count_tx(port->id, pkt->len);
		write_meta(ctx, &meta);
		bpf_tail_call(ctx, &pcn_progs, port->target);
		uncount_tx(port->id, pkt->len);
		return drop(pkt, PCN_DROP_HOPS);
	}
	if (port->next == PCN_NEXT_STACK) {
		count_tx(port->id, pkt->len);
		return ACTION_STACK;
	}
	return drop(pkt, port->id ? PCN_DROP_NO_PEER : PCN_DROP_NO_PORT);
}

/* Counts a frame that came by a tail call. TC: one that was injected has its port in the mark, but no room for the port's id. */
static __always_inline void count_tail(const struct pcn_meta *meta, __u32 number, __u32 len)
{
	__u32 id = meta->id;

#ifdef PCN_TC
	if (!id) {
		struct pcn_port *port = bpf_map_lookup_elem(&ports, &number);

		if (!port)
			return;
		id = port->id;
	}
#endif
	count_rx(id, len);
}

#include "unit_clock.h"
#include "unit_log.h"
#include "unit_slowpath.h"
#ifndef PCN_TRANSPARENT
#include "unit_shadow.h"
#include "unit_flood.h"
#endif

/* A frame that this netdev's chain has had already and put on the hook again, since it came by another way (the slow path). */
static __always_inline int was_here(struct pcn_ctx *ctx)
{
#ifdef PCN_TC
	if (ctx->mark == PCN_MARK_DONE) {
		ctx->mark = 0;
		return 1;
	}
#endif
	return 0;
}

/* ---- verdicts ---- */

/* timed.bpf.c replaces these in the unit of a cube that is timed; elsewhere nothing is left of them. */
__weak __u64 pcn_clock_start(__u32 handler)
{
	return 0;
}

__weak void pcn_clock_stop(__u32 handler, __u64 start)
{
}

static __always_inline int run_ingress(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	__u64 start = pcn_clock_start(PCN_INGRESS);
	int verdict = pcn_ingress(ctx, pkt);

	pcn_clock_stop(PCN_INGRESS, start);
	return verdict;
}

static __always_inline int run_egress(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	__u64 start = pcn_clock_start(PCN_EGRESS);
	int verdict = pcn_egress(ctx, pkt);

	pcn_clock_stop(PCN_EGRESS, start);
	return verdict;
}

#ifdef PCN_TRANSPARENT

/* Runs the handler of a direction. */
static __always_inline int handle(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u32 direction)
{
	int verdict = direction == PCN_INGRESS ? run_ingress(ctx, pkt) : run_egress(ctx, pkt);

	if (verdict == PCN_SLOWPATH)
		return slowpath_up(ctx, pkt, direction == PCN_EGRESS ? PCN_EVENT_EGRESS : 0);
	if (verdict != PCN_PASS)
		return drop(pkt, pkt->reason);
	return GO_ON;
}

#else

/* Runs the ingress handler; GO_ON when the frame leaves by pkt->out_port. */
static __always_inline int handle_input(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	switch (run_ingress(ctx, pkt)) {
	case PCN_FORWARD:
		return GO_ON;
	case PCN_FLOOD:
		return flood(ctx, pkt);
	case PCN_PASS:
		return ACTION_STACK;
	case PCN_SLOWPATH:
		return slowpath_up(ctx, pkt, 0);
	case PCN_SHADOW:
		return to_shadow(ctx, pkt);
	default:
		return drop(pkt, pkt->reason);
	}
}

/* Runs the egress handler for pkt->out_port. */
static __always_inline int handle_output(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	int verdict = run_egress(ctx, pkt);

	if (verdict == PCN_SLOWPATH)
		return slowpath_up(ctx, pkt, PCN_EVENT_EGRESS);
	if (verdict != PCN_PASS)
		return drop(pkt, pkt->reason);
	return GO_ON;
}

#endif

/* The function's own handlers replace these when it is linked in. */
__weak int pcn_ingress(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	return PCN_PASS;
}

__weak int pcn_egress(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	return PCN_PASS;
}
