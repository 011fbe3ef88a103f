// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * The unit of one: what makes a program of one cube. Linked at run time with the bitcode of the function, whose handlers it calls:
 * finds the port a frame arrived by, counts, carries out the verdict and follows the next hop, which is read from maps and reached by a
 * tail call. It depends on the function and the hook only, never on the instance. What a function does not use (flooding, the slow path,
 * an egress handler) is optimised away, maps included: framework maps nobody refers to do not get into the object (unit.py).
 *
 * A standard cube becomes two programs, `entry` (attached to netdevs) and `tail` (called by other units); a transparent cube the same
 * two for each direction.
 */
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

static __always_inline void count_drop(__u32 reason)
{
	__u32 key = pcn_cube * PCN_REASONS + (reason & (PCN_REASONS - 1));
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
	struct pcn_counter *counter = bpf_map_lookup_elem(&pcn_counters, &id);

	if (counter) {
		counter->rx_packets++;
		counter->rx_bytes += len;
	}
}

static __always_inline void count_tx(__u32 id, __u32 len)
{
	struct pcn_counter *counter = bpf_map_lookup_elem(&pcn_counters, &id);

	if (counter) {
		counter->tx_packets++;
		counter->tx_bytes += len;
	}
}

static __always_inline void write_meta(struct pcn_ctx *ctx, const struct pcn_meta *meta)
{
#ifdef PCN_XDP
	__u32 zero = 0;
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
	__u32 zero = 0;
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
	struct pcn_counter *counter = bpf_map_lookup_elem(&pcn_counters, &id);

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

#include "unit_slowpath.h"
#ifndef PCN_TRANSPARENT
#include "unit_flood.h"
#endif

/* ---- verdicts ---- */

#ifdef PCN_TRANSPARENT

static __always_inline int run(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u32 direction)
{
	int verdict;
	struct pcn_port *port;

	pkt->in_port = direction;
	if (!(pkt->flags & PCN_META_OUT)) {
		verdict = direction == PCN_INGRESS ? pcn_ingress(ctx, pkt) : pcn_egress(ctx, pkt);
		if (verdict == PCN_SLOWPATH)
			return slowpath_up(ctx, pkt, direction == PCN_EGRESS ? PCN_EVENT_EGRESS : 0);
		if (verdict != PCN_PASS)
			return drop(pkt, pkt->reason);
	}
	port = bpf_map_lookup_elem(&ports, &direction);
	if (!port)
		return drop(pkt, PCN_DROP_NO_PORT);
	return follow(ctx, pkt, port);
}

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

#define PROGRAMS(_name, _direction)                                                                                                  \
	PCN_SEC int _name(struct pcn_ctx *ctx)                                                                                       \
	{                                                                                                                            \
		struct pcn_packet pkt = {.len = pcn_len(ctx)};                                                                       \
		__u32 direction = _direction;                                                                                        \
		struct pcn_port *port = bpf_map_lookup_elem(&ports, &direction);                                                     \
                                                                                                                                     \
		if (was_here(ctx))                                                                                                   \
			return ACTION_STACK;                                                                                         \
		if (!port)                                                                                                           \
			return drop(&pkt, PCN_DROP_NO_PORT);                                                                         \
		count_rx(port->id, pkt.len);                                                                                         \
		return run(ctx, &pkt, _direction);                                                                                   \
	}                                                                                                                            \
                                                                                                                                     \
	PCN_SEC int _name##_tail(struct pcn_ctx *ctx)                                                                                \
	{                                                                                                                            \
		struct pcn_meta meta = {};                                                                                           \
		struct pcn_packet pkt = {.len = pcn_len(ctx)};                                                                       \
                                                                                                                                     \
		read_meta(ctx, &meta);                                                                                               \
		pkt.flags = meta.flags;                                                                                              \
		if (!(meta.flags & PCN_META_OUT))                                                                                    \
			count_tail(&meta, _direction, pkt.len);                                                                      \
		return run(ctx, &pkt, _direction);                                                                                   \
	}

/* Attached to a netdev, and called by the unit before it: frames on their way in. */
PROGRAMS(ingress, PCN_INGRESS)
/* The same for frames on their way out. */
PROGRAMS(egress, PCN_EGRESS)

#else

/* Out of a port: the egress handler, then the next hop. */
static __always_inline int output(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u32 number)
{
	struct pcn_port *port;
	int verdict;

	pkt->out_port = number;
	verdict = pcn_egress(ctx, pkt);
	if (verdict == PCN_SLOWPATH)
		return slowpath_up(ctx, pkt, PCN_EVENT_EGRESS);
	if (verdict != PCN_PASS)
		return drop(pkt, pkt->reason);
	port = bpf_map_lookup_elem(&ports, &number);
	if (!port)
		return drop(pkt, PCN_DROP_NO_PORT);
	return follow(ctx, pkt, port);
}

static __always_inline int input(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	switch (pcn_ingress(ctx, pkt)) {
	case PCN_FORWARD:
		return output(ctx, pkt, pkt->out_port);
	case PCN_FLOOD:
		return flood(ctx, pkt);
	case PCN_PASS:
		return ACTION_STACK;
	case PCN_SLOWPATH:
		return slowpath_up(ctx, pkt, 0);
	default:
		return drop(pkt, pkt->reason);
	}
}

/* Attached to netdevs: the port is found by the netdev. */
PCN_SEC int entry(struct pcn_ctx *ctx)
{
	struct pcn_packet pkt = {.len = pcn_len(ctx)};
	__u32 ifindex = pcn_ifindex(ctx);
	struct pcn_entry *at;

	if (ifindex < PCN_ENTRIES) {
		at = bpf_map_lookup_elem(&pcn_entries, &ifindex);
	} else {
		at = bpf_map_lookup_elem(&pcn_entries_high, &ifindex);
		/* Keeps the two calls apart: merged into one with a choice of maps, the verifier could not inline the look-up. */
		asm volatile("" : "+r"(at));
	}
	if (!at || !at->id)
		return drop(&pkt, PCN_DROP_NO_ENTRY);
	pkt.in_port = at->port;
	count_rx(at->id, pkt.len);
	return input(ctx, &pkt);
}

/* Called by the unit before it, or to inject a frame. */
PCN_SEC int tail(struct pcn_ctx *ctx)
{
	struct pcn_meta meta = {};
	struct pcn_packet pkt = {.len = pcn_len(ctx)};

	read_meta(ctx, &meta);
	pkt.in_port = meta.port;
	pkt.flags = meta.flags;
	if (meta.flags & PCN_META_OUT) {
		pkt.in_port = PCN_ANY_PORT;
		return output(ctx, &pkt, meta.port);
	}
	count_tail(&meta, meta.port, pkt.len);
	return input(ctx, &pkt);
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

char _license[] SEC("license") = "GPL";
