/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What load balancers have in common: the other side of polycube.toolkit.balancer, which fills these maps and three of the cube's own:
 *
 *	struct lb_service { struct pcn_maglev maglev; __u32 number; ... };
 *	MAP(services, HASH, struct pcn_service_key, struct lb_service, 16384);
 *	MAP_FLAGS(members, HASH, struct pcn_maglev_member, struct lb_member, 262144, BPF_F_NO_PREALLOC);     who new flows go to
 *	MAP_FLAGS(backends, HASH, struct lb_key, struct lb_backend, 65536, BPF_F_NO_PREALLOC);               all backends
 *
 * A key of `backends` begins with the number of the service, and its value has `flows` (that it was chosen for) and `down` (by its checks).
 * Frames for the control plane's own host go up with the reason PCN_UP_VANTAGE.
 */
#pragma once

#include <polycube/conntrack.h>
#include <polycube/maglev.h>
#include <polycube/vantage.h>

enum { PCN_UP_VANTAGE = 1 };

/* IPv4 ones mapped (::ffff:a.b.c.d), in network byte order. */
struct pcn_address {
	__u8 bytes[16] __attribute__((aligned(4)));
};

struct pcn_service_key {
	struct pcn_address vip;
	__be16 vport;
	__u8 proto;
	__u8 pad;
};

MAP(vips, HASH, struct pcn_address, __u32, 16384);

static __always_inline int pcn_is_vip(const struct pcn_address *address)
{
	return bpf_map_lookup_elem(&vips, address) != 0;
}
