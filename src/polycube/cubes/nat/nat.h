/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What nat's data plane and control plane share: tables, settings, reasons. Addresses are 16 bytes, IPv4 ones mapped; ports as in the frame. */
#pragma once

#include <polycube/lpm.h>
#include <polycube/translate.h>

#define NAT_ATTEMPTS 64  /* ports that are tried for one session: of 90 % in use, one in a thousand sessions finds none */
#define NAT_HAIRPIN_UP 1 /* reason to hand a frame up: it goes back to where it came from */

DROPS(NO_SESSION,      /* from a translated network, in the middle of a connection that is not known, or a fragment whose first is not */
      PORTS_EXHAUSTED, /* no port found that is free towards that destination (endpoint-independent mapping: free at all) */
      TABLE_FULL,      /* no room for one more session */
      CONFLICT,        /* another session has the same ends: two external addresses forward one client's port to one server's */
      UNTRANSLATABLE); /* prefix translation of an address that has no counterpart (RFC 6296, 3.5) */

/* By what rule a session came to be. */
enum nat_rule { NAT_SNAT, NAT_MASQUERADE, NAT_DNAT, NAT_FORWARDING, NAT_MAPPING };

enum nat_flag {
	NAT_INSIDE_SECOND = 1, /* the inside end is the second endpoint of the key */
	NAT_HAIRPIN = 2,       /* its other end is inside, too: one of a pair of sessions, whose frames turn round */
	NAT_HAIRPIN_BACK = 4,  /* the one of the pair that belongs to the end that was called */
};

#define NAT_HAIRPIN_ZONE 1 /* of the twin of the called end's session: the tuple outside is the same for both of a pair */

/* A session, by its ends as they are inside: of the inside host and the remote one. */
struct nat_session {
	struct pcn_ct ct;
	__u8 external[16] __attribute__((aligned(4))); /* what the inside end is outside */
	__be16 external_port;
	__u8 rule;  /* enum nat_rule */
	__u8 flags; /* enum nat_flag */
};

PCN_SESSIONS(sessions, struct nat_session, 262144);

/* By its ends as they are outside: the key among the sessions. An entry is also what keeps a port from being given twice. */
MAP_FLAGS(twins, HASH, struct pcn_ct_tuple, struct pcn_ct_tuple, 262144, BPF_F_NO_PREALLOC);

/* One end, with the protocol; `outside`: as it is outside. */
struct nat_endpoint {
	__u8 address[16] __attribute__((aligned(4)));
	__be16 port;
	__u8 proto;
	__u8 outside;
};

/* Endpoint-independent mapping (RFC 4787, 4.1): what an end is on the other side, whomever it talks to. */
struct nat_mapping {
	__u8 address[16] __attribute__((aligned(4)));
	__be16 port;
	__u8 rule;
	__u8 pad;
	__u32 expires;
};

MAP_FLAGS(mappings, HASH, struct nat_endpoint, struct nat_mapping, 262144, BPF_F_NO_PREALLOC);

/* Source rules: by the longest prefix of the inside address. */
struct nat_source {
	__u8 external[16] __attribute__((aligned(4)));
};

LPM_RULES(sources, struct nat_source, 4096);

/* Destination rules: of an address (port and proto 0), of a port of it (proto 0: TCP and UDP), of a port and protocol. */
struct nat_forward {
	__u8 internal[16] __attribute__((aligned(4)));
	__be16 port; /* 0: stays */
	__u8 rule;
	__u8 pad;
};

MAP_FLAGS(forwards, HASH, struct nat_endpoint, struct nat_forward, 16384, BPF_F_NO_PREALLOC);

/* Prefix translation (NPTv6): by the prefix on one side, the one on the other. A table for each end of a packet that has the former. */
enum nat_end { NAT_SOURCE, NAT_DESTINATION };

struct nat_npt {
	__u8 prefix[16] __attribute__((aligned(4)));
	__u32 length;
	__u32 adjustment; /* what is added to one word of the address so that sums over it stay: one's complement, as the machine reads words */
};

LPM_RULES(translations, struct nat_npt, 2048);

/* What is being made, and keys that are looked up: too much for the stack. */
struct nat_work {
	struct nat_session session;
	struct pcn_translation ends;
	struct pcn_ct_tuple inside;
	struct pcn_ct_tuple outside;
	struct nat_endpoint end;
	struct nat_mapping mapping;
	struct pcn_lpm_rule prefix;
	__u8 remote[16] __attribute__((aligned(4)));
	__be16 remote_port;
	__be16 port; /* of the inside end */
	__u8 proto;
	__u8 done;
	__u16 pad;
	int error;
};

MAP(nat_works, PERCPU_ARRAY, __u32, struct nat_work, 1);

struct nat_address {
	__u8 bytes[16] __attribute__((aligned(4)));
};

CFG(struct nat_address, masquerade4); /* zero: no masquerading, or no address known */
CFG(struct nat_address, masquerade6);
CFG(__u32, forwarding);  /* whether there are destination rules */
CFG(__u32, npt);         /* whether there are prefix translations */
CFG(__u32, any_mapping); /* endpoint-independent mapping */
CFG(__u32, any_filter);  /* endpoint-independent filtering */
CFG(__u32, first_port);
CFG(__u32, port_count);  /* how many, from there */

static __always_inline void nat_set_end(struct nat_endpoint *end, const void *address, __be16 port, __u8 proto, __u8 outside)
{
	pcn_copy_address(end->address, address);
	end->port = port;
	end->proto = proto;
	end->outside = outside;
}

/* The ends of a session outside: fills in the key of its twin. Returns whether the external end is the second. An echo has one identifier. */
static __always_inline int nat_outside(struct pcn_ct_tuple *outside, const void *external, __be16 port, const void *remote, __be16 remote_port, __u8 proto,
				       __u16 zone)
{
	int swapped = pcn_ct_set_tuple(outside, external, remote, port, pcn_is_icmp(proto) ? port : remote_port, proto, 1);

	outside->zone = zone;
	return swapped;
}
