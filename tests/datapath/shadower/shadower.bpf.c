// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Does with a frame what its first byte of payload says, as far as there is a namespace. */
#include <polycube/cube.h>

HANDLER(ingress)
{
	__u8 *op = pcn_at(ctx, sizeof(struct ethhdr), 1);

	if (!op)
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	switch (*op) {
	case 'n':
		return pcn_shadow(pkt);
	case 'h':
		return pcn_has_shadow() ? pcn_shadow(pkt) : pcn_pass(pkt);
	case 'f':
		*op = 'F';
		return pcn_forward(pkt, 1);
	case 'a':
		return pcn_flood(pkt, 0);
	default:
		return pcn_drop(pkt, PCN_DROP_POLICY);
	}
}
