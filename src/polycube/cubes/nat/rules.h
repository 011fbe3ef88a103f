/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Which rule says what becomes of an address. Asked for a session's first packet only. */
#pragma once

#include "nat.h"

/* What an inside address is to be outside, or NULL. The more specific rule wins; masquerading is the least specific. */
static __always_inline const void *nat_source_of(struct nat_work *w, const void *address, int ipv6, __u8 *rule)
{
	struct nat_source *source;
	struct nat_address *own = ipv6 ? &masquerade6 : &masquerade4;

	pcn_copy_address(w->prefix.address, address);
	source = pcn_lpm_rule(&sources, &w->prefix, 0);
	if (source) {
		*rule = NAT_SNAT;
		return source->external;
	}
	*rule = NAT_MASQUERADE;
	return pcn_no_address(own) ? 0 : own;
}

static __always_inline struct nat_forward *nat_forward_of(struct nat_work *w, const void *address, __be16 port, __u8 proto)
{
	struct nat_forward *forward;

	if (!forwarding)
		return 0;
	nat_set_end(&w->end, address, port, proto, 0);
	if (pcn_has_ports(proto)) {
		forward = bpf_map_lookup_elem(&forwards, &w->end);
		if (forward)
			return forward;
		w->end.proto = 0;
		forward = bpf_map_lookup_elem(&forwards, &w->end);
		if (forward)
			return forward;
	}
	w->end.port = 0;
	w->end.proto = 0;
	return bpf_map_lookup_elem(&forwards, &w->end);
}

static __always_inline struct nat_mapping *nat_mapping_of(struct nat_work *w, const void *address, __be16 port, __u8 proto, __u8 outside,
								  __u32 now)
{
	struct nat_mapping *mapping;

	nat_set_end(&w->end, address, port, proto, outside);
	mapping = bpf_map_lookup_elem(&mappings, &w->end);
	return mapping && (__s32)(now - mapping->expires) < 0 ? mapping : 0;
}
