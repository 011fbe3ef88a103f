// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Counts what the frame says, at the time that it says, in a sketch of few cells, and writes the estimate into it. */
#define SKETCH_CELLS 64
#include "../../../src/polycube/cubes/ddosmitigator/sketch.h"

struct sketcher_order {
	struct in6_addr source;
	__u32 seconds;
	__u32 units;
	__u64 estimate;
} __attribute__((packed));

HANDLER(ingress)
{
	struct sketcher_order *order = pcn_at(ctx, ETH_HLEN, sizeof(*order));
	struct in6_addr source;

	if (!order)
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	source = order->source;
	order->estimate = sketch_add(&source, order->seconds, order->units);
	return pcn_pass(pkt);
}
