/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What the data plane and the control plane of lbrp share. Addresses are 16 bytes, IPv4 ones mapped (::ffff:a.b.c.d), in network byte order. */
#pragma once

#include <polycube/balance.h>
#include <polycube/translate.h>

#define LBRP_TRIES 4 /* source ports that are tried when one is taken */

struct lbrp_service {
	struct pcn_maglev maglev;
	__u32 number;
	__u32 affinity; /* seconds for which a client keeps its backend; 0: every flow is for itself */
};

/* A backend, in `members` and elsewhere: where packets are sent. Port 0: that of the packet stays. */
struct lbrp_backend {
	struct pcn_address address;
	__be16 port;
	__u16 pad;
};

struct lbrp_target_key {
	__u32 service; /* number */
	struct lbrp_backend backend;
};

struct lbrp_target {
	__u64 flows;    /* that it was chosen for */
	__u32 takes;    /* whether new flows may go there, unless it is down; affinity looks here */
	__u32 down;     /* what the last checks say */
};

struct lbrp_affinity_key {
	__u32 service;
	struct pcn_address client;
};

struct lbrp_affinity {
	struct lbrp_backend backend;
	__u32 expires; /* second, pcn_now() */
};

/*
 * A balanced flow. The key is the tuple of client and VIP; that of client and backend leads to it by `returns`. In the order of use: with the
 * end of the key, what a packet that is not TCP needs lies in one cache line.
 */
struct lbrp_session {
	struct lbrp_backend backend;
	__be16 sport;          /* what the backend takes the client's port for */
	__u16 other_source;    /* `source` counts */
	struct pcn_ct ct;
	struct pcn_address source; /* what the backend takes the client for, if not for itself */
	__u32 service;
};

/*
 * What is used within one run, and stands here rather than on the stack: there is not enough of that, and the verifier, which remembers what was
 * written to the stack, would go through the program once for each way that leads to a value.
 */
struct lbrp_work {
	struct pcn_ct_packet packet;
	struct pcn_translation ends;
	struct lbrp_session session;
	struct pcn_ct_tuple inner;
	struct pcn_ct_tuple front;
	struct lbrp_target_key target;
	struct lbrp_affinity_key client;
	struct lbrp_affinity affinity;
};

struct lbrp_mac {
	__u8 bytes[6];
	__u16 pad;
};

/* Maps sources of one range into another of the same size. */
struct lbrp_rewrite {
	__u32 on;
	struct pcn_address range;
	struct pcn_address new_range;
	struct pcn_address mask;
};

struct lbrp_settings {
	__u32 backend;  /* number of the port */
	__u32 frontend; /* SINGLE: number of the port */
	__u32 multi;
};

CFG(struct lbrp_settings, settings);
CFG(struct lbrp_rewrite, rewrite);

MAP(works, PERCPU_ARRAY, __u32, struct lbrp_work, 1);
MAP(services, HASH, struct pcn_service_key, struct lbrp_service, 16384);
MAP_FLAGS(members, HASH, struct pcn_maglev_member, struct lbrp_backend, 262144, BPF_F_NO_PREALLOC);
MAP_FLAGS(targets, HASH, struct lbrp_target_key, struct lbrp_target, 131072, BPF_F_NO_PREALLOC);
MAP_FLAGS(affinities, HASH, struct lbrp_affinity_key, struct lbrp_affinity, 65536, BPF_F_NO_PREALLOC);
MAP(affinity_failures, PERCPU_ARRAY, __u32, __u64, 1); /* clients for which there was no room */
PCN_SESSIONS(sessions, struct lbrp_session, 65536);
MAP_FLAGS(returns, HASH, struct pcn_ct_tuple, struct pcn_ct_tuple, 65536, BPF_F_NO_PREALLOC);
MAP(frontends, HASH, struct pcn_address, __u32, 2048); /* MULTI: who is behind which port */
MAP(clients, LRU_HASH, struct pcn_address, struct lbrp_mac, 16384); /* whom backends know by an address of the new range, by that */

DROPS(NO_FRONTEND,      /* MULTI: from the backend port, to an address that no frontend has */
      NO_BACKEND,       /* the service has no backend that takes new flows */
      SESSIONS_FULL,    /* no room for one more flow: the table is full, or memory is short */
      SESSION_CONFLICT, /* the backend has a flow with these addresses and ports already, through another service */
      UNTRACKABLE,      /* to a VIP, but of no flow that could be told: TCP flags that no host sends, fragments without their first */
      UNKNOWN_CLIENT,   /* ARP or neighbour discovery for an address of the new range that no client has */
      CONTROL_LIMIT);   /* more for the control plane's own host than it takes */

/* Whether an address is in a range of the size that is configured for rewriting. */
static __always_inline int in_range(const void *address, const struct pcn_address *range)
{
	const __u32 *words = address, *base = (const void *)range->bytes, *mask = (const void *)rewrite.mask.bytes;

	return !(((words[0] ^ base[0]) & mask[0]) | ((words[1] ^ base[1]) & mask[1]) | ((words[2] ^ base[2]) & mask[2]) |
		 ((words[3] ^ base[3]) & mask[3]));
}
