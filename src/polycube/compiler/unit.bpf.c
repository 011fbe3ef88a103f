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
#include "unit.h"

#ifdef PCN_TRANSPARENT

static __always_inline int run(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u32 direction)
{
	struct pcn_port *port;
	int action;

	pkt->in_port = direction;
	if (!(pkt->flags & PCN_META_OUT)) {
		action = handle(ctx, pkt, direction);
		if (action != GO_ON)
			return action;
	}
	port = bpf_map_lookup_elem(&ports, &direction);
	if (!port)
		return drop(pkt, PCN_DROP_NO_PORT);
	return follow(ctx, pkt, port);
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
static __always_inline int output(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	__u32 number = pkt->out_port; /* a copy: a packet whose address is taken does not stay in registers */
	int action = handle_output(ctx, pkt);
	struct pcn_port *port;

	if (action != GO_ON)
		return action;
	port = bpf_map_lookup_elem(&ports, &number);
	if (!port)
		return drop(pkt, PCN_DROP_NO_PORT);
	span(ctx, pkt, port->id);
	return follow(ctx, pkt, port);
}

static __always_inline int input(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	int action = handle_input(ctx, pkt);

	return action == GO_ON ? output(ctx, pkt) : action;
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
	span(ctx, &pkt, at->id);
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
		pkt.out_port = meta.port;
		return output(ctx, &pkt);
	}
	count_tail(&meta, meta.port, pkt.len);
	span_port(ctx, &pkt, meta.port);
	return input(ctx, &pkt);
}

#endif

char _license[] SEC("license") = "GPL";
