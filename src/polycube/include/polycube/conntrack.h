/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Connection tracking: which session a packet belongs to, and in what state that is. One table holds IPv4 and IPv6; both ways of a session
 * find the same entry, since the key has its two endpoints in an order of their own. The entry begins with struct pcn_ct, and what
 * follows is the cube's (a translation, a backend, nothing):
 *
 *	struct nat_session { struct pcn_ct ct; ... };
 *	PCN_SESSIONS(sessions, struct nat_session, 65536);
 *
 *	struct pcn_ct_packet *p = pcn_ct_packet();
 *	int reason = pcn_ct_read(ctx, pkt, p, now);
 *	struct nat_session *session = pcn_ct_find(&sessions, p, now);
 *	enum pcn_ct_label label = session ? pcn_ct_update(&session->ct, p, now) : pcn_ct_label_first(p, 0);
 *
 *	if (label == PCN_CT_NEW && !session) { pcn_ct_open(&fresh.ct, p, now); pcn_ct_insert(&sessions, &p->tuple, &fresh, now); }
 *
 * An entry says when it expires; one that has is as good as none, whether or not the control plane (toolkit/conntrack.py) has removed it
 * yet. The table is a HASH: when it is full, sessions that it holds go on, and those that found no room are counted in `ct_failures`.
 *
 * Sources: RFC 9293 (states, resets), RFC 5961 (blind resets), RFC 7323 (window scale), RFC 5382 and 4787 (time-outs);
 * G. van Rooij, "Real Stateful TCP Packet Filtering in IP Filter", 2000 (what a segment's numbers may be).
 */
#pragma once

#include <linux/errno.h>

#include <polycube/address.h>
#include <polycube/parse.h>

/* A session's two endpoints, the lower one first. Addresses are 16 bytes, IPv4 ones mapped (::ffff:a.b.c.d); all in network byte order. */
struct pcn_ct_tuple {
	__u8 address[2][16] __attribute__((aligned(4)));
	__be16 port[2]; /* ICMP echo: the identifier, twice; protocols without ports: 0 */
	__u8 proto;
	__u8 pad;
	__u16 zone; /* for a cube that keeps more than one address space in its table; else 0 */
};

/* States, and indices of their time-outs. Names of TCP's are the kernel's. Those of other protocols are two each: unanswered, answered. */
enum pcn_ct_state {
	PCN_CT_SYN_SENT,
	PCN_CT_SYN_SENT2, /* simultaneous open: both have sent a SYN */
	PCN_CT_SYN_RECV,
	PCN_CT_TCP_ESTABLISHED,
	PCN_CT_FIN_WAIT,   /* one end has finished */
	PCN_CT_CLOSE_WAIT, /* the other has acknowledged it: half closed */
	PCN_CT_LAST_ACK,   /* both have finished */
	PCN_CT_TIME_WAIT,  /* both have acknowledged it */
	PCN_CT_CLOSE,      /* reset */
	PCN_CT_UDP_NEW,
	PCN_CT_UDP_ESTABLISHED,
	PCN_CT_ICMP_NEW,
	PCN_CT_ICMP_ESTABLISHED,
	PCN_CT_OTHER_NEW,
	PCN_CT_OTHER_ESTABLISHED,
	PCN_CT_STATES,
};

struct pcn_ct_timeouts {
	__u32 seconds[16]; /* by enum pcn_ct_state */
};

CFG(struct pcn_ct_timeouts, ct_timeouts);

enum pcn_ct_way { PCN_CT_ORIGINAL, PCN_CT_REPLY };

/* For each way, the bit of ORIGINAL; that of REPLY is the next one. */
enum pcn_ct_flag {
	PCN_CT_SWAPPED = 1, /* the second endpoint of the key opened the session */
	PCN_CT_REPLIED = 2,
	PCN_CT_RESYNC = 4,  /* a SYN came by while the session stood: `resync` is what an answer to it acknowledges */
	PCN_CT_SYN = 0x10,  /* that end has sent its SYN */
	PCN_CT_SYN_ACKED = 0x40,
	PCN_CT_FIN = 0x100,
	PCN_CT_FIN_ACKED = 0x400,
};

/* What is known of one end of a TCP connection. */
struct pcn_ct_side {
	__u32 una;    /* the other end has acknowledged what it sent up to here */
	__u32 next;   /* end of what it has sent */
	__u32 window; /* largest that it has offered, bytes */
};

struct pcn_ct {
	__u32 expires;  /* second, pcn_now() */
	__u16 flags;    /* enum pcn_ct_flag */
	__u8 state;     /* enum pcn_ct_state */
	__u8 scales;    /* window scales, ORIGINAL in the lower half; PCN_CT_UNSCALED: none offered */
	__u32 resync;
	struct pcn_ct_side side[2]; /* by enum pcn_ct_way */
};

/* A packet's relation to its session. */
enum pcn_ct_label {
	PCN_CT_UNTRACKED,   /* not IP, neighbour discovery and the like: nothing is known or remembered of it */
	PCN_CT_NEW,         /* would open, or has opened a session that nobody has answered yet */
	PCN_CT_ESTABLISHED, /* of a session that has been answered, or an answer */
	PCN_CT_RELATED,     /* an ICMP error about a packet of a session */
	PCN_CT_INVALID,     /* belongs to no session and can't open one, or is not what its session would carry */
};

enum pcn_ct_kind {
	PCN_CT_KIND_NONE,  /* untracked */
	PCN_CT_KIND_OPENS, /* may open a session: TCP with SYN alone, UDP, echo request, other protocols */
	PCN_CT_KIND_FLOW,  /* may not */
	PCN_CT_KIND_ERROR, /* ICMP error: the tuple is that of the packet it is about */
	PCN_CT_KIND_BAD,   /* flags that no TCP sends, an error about nothing that can be told */
};

/* What later fragments of a packet have in common with the first. */
struct pcn_ct_fragment_key {
	__u8 address[2][16] __attribute__((aligned(4))); /* source, destination */
	__u32 id;
	__u8 proto;
	__u8 pad[3];
};

/* What pcn_ct_read() finds out, and what it needs for that. */
struct pcn_ct_packet {
	struct pcn_ct_tuple tuple;
	__u8 kind;    /* enum pcn_ct_kind */
	__u8 swapped; /* it came from the second endpoint of the tuple; an error: it goes to the first */
	__u8 flags;   /* enum pcn_ct_tcp_flag */
	__u8 scale;   /* of a SYN */
	__u32 seq;
	__u32 ack;
	__u32 end;    /* seq of what would come next */
	__u32 window; /* unscaled */
	__u16 inner_l3; /* of an error: where the headers of the packet it is about are */
	__u16 inner_l4;
	__u8 options[66]; /* of a SYN */
	struct pcn_ct_fragment_key fragment;
	__u64 parsed[2];  /* see pcn_ct_unlearn() */
};

/* Memory for sessions as they come: preallocated, a table for a million would take 130 MB at once. */
#define PCN_SESSIONS(_name, _value, _max) MAP_FLAGS(_name, HASH, struct pcn_ct_tuple, _value, _max, BPF_F_NO_PREALLOC)

/*
 * What pcn_ct_read() finds out is put here instead of onto the stack: it spares 90 of its 512 bytes, and the verifier, which knows nothing of
 * what such memory holds, looks at what follows once instead of once for each kind of packet.
 */
MAP(ct_packets, PERCPU_ARRAY, __u32, struct pcn_ct_packet, 1);

/* Room for what there is to know of the packet in hand; never NULL, but the verifier wants to see it looked at. */
static __always_inline struct pcn_ct_packet *pcn_ct_packet(void)
{
	__u64 zero = 0;

	return bpf_map_lookup_elem(&ct_packets, &zero);
}

MAP(ct_failures, PERCPU_ARRAY, __u32, __u64, 1); /* sessions that the table did not take: it is full, or memory is short */

#include <polycube/conntrack_read.h>
#include <polycube/conntrack_tcp.h>

static __always_inline void pcn_ct_refresh(struct pcn_ct *ct, __u32 now)
{
	__u32 expires = now + ct_timeouts.seconds[ct->state & 15];

	if (ct->expires != expires)
		ct->expires = expires;
}

/* The session of a packet (of the packet that an error is about), or NULL. What it points to begins with struct pcn_ct. */
static __always_inline void *pcn_ct_find_tuple(void *sessions, const struct pcn_ct_tuple *tuple, __u32 now)
{
	struct pcn_ct *ct = bpf_map_lookup_elem(sessions, tuple);

	return ct && (__s32)(now - ct->expires) < 0 ? ct : 0;
}

static __always_inline void *pcn_ct_find(void *sessions, const struct pcn_ct_packet *p, __u32 now)
{
	if (p->kind == PCN_CT_KIND_NONE || p->kind == PCN_CT_KIND_BAD)
		return 0;
	return pcn_ct_find_tuple(sessions, &p->tuple, now);
}

/* Which way a packet goes through its session. */
static __always_inline enum pcn_ct_way pcn_ct_way(const struct pcn_ct *ct, const struct pcn_ct_packet *p)
{
	return pcn_opaque(p->swapped ^ ct->flags) & PCN_CT_SWAPPED;
}

/*
 * What a packet without a session is. `loose`: segments from the middle of a TCP connection may open one as well, as they must where a cube
 * is put before connections that stand already.
 */
static __always_inline enum pcn_ct_label pcn_ct_label_first(const struct pcn_ct_packet *p, int loose)
{
	switch (p->kind) {
	case PCN_CT_KIND_NONE:
		return PCN_CT_UNTRACKED;
	case PCN_CT_KIND_OPENS:
		return PCN_CT_NEW;
	case PCN_CT_KIND_FLOW:
		if (loose && p->tuple.proto == IPPROTO_TCP && (p->flags & (PCN_CT_TCP_SYN | PCN_CT_TCP_RST | PCN_CT_TCP_ACK)) == PCN_CT_TCP_ACK)
			return PCN_CT_NEW;
		return PCN_CT_INVALID;
	default:
		return PCN_CT_INVALID;
	}
}

/* Fills in a session that a packet labelled NEW opens. */
static __always_inline void pcn_ct_open(struct pcn_ct *ct, const struct pcn_ct_packet *p, __u32 now)
{
	ct->flags = p->swapped;
	switch (p->tuple.proto) {
	case IPPROTO_TCP:
		pcn_ct_tcp_open(ct, p);
		break;
	case IPPROTO_UDP:
		ct->state = PCN_CT_UDP_NEW;
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		ct->state = PCN_CT_ICMP_NEW;
		break;
	default:
		ct->state = PCN_CT_OTHER_NEW;
		break;
	}
	pcn_ct_refresh(ct, now);
}

/* A packet of a session went by: its label, and the session's new state and time of expiry. An error changes nothing. */
static __always_inline enum pcn_ct_label pcn_ct_update(struct pcn_ct *ct, const struct pcn_ct_packet *p, __u32 now)
{
	enum pcn_ct_way way = pcn_ct_way(ct, p);
	enum pcn_ct_label label = PCN_CT_ESTABLISHED;

	if (p->kind == PCN_CT_KIND_ERROR)
		return PCN_CT_RELATED;
	if (p->tuple.proto == IPPROTO_TCP) {
		label = pcn_ct_tcp_update(ct, p, way);
		if (label == PCN_CT_INVALID)
			return label;
	} else if (way == PCN_CT_REPLY) {
		if (!(ct->flags & PCN_CT_REPLIED)) {
			ct->flags |= PCN_CT_REPLIED;
			ct->state++; /* unanswered to answered */
		}
	} else if (!(ct->flags & PCN_CT_REPLIED)) {
		label = PCN_CT_NEW;
	}
	pcn_ct_refresh(ct, now);
	return label;
}

static __always_inline void pcn_ct_count_failure(void)
{
	__u64 zero = 0;
	__u64 *failures = bpf_map_lookup_elem(&ct_failures, &zero);

	if (failures)
		(*failures)++;
}

/*
 * Puts a session into the table; in the place of one that has expired, but of no other. Returns 0; -EEXIST: another CPU was faster, and its
 * session stands; else -E2BIG or -ENOMEM, counted.
 */
static __always_inline int pcn_ct_insert(void *sessions, const struct pcn_ct_tuple *tuple, const void *value, __u32 now)
{
	int error = bpf_map_update_elem(sessions, tuple, value, BPF_NOEXIST);

	if (error == -EEXIST && !pcn_ct_find_tuple(sessions, tuple, now))
		error = bpf_map_update_elem(sessions, tuple, value, BPF_ANY);
	if (error && error != -EEXIST)
		pcn_ct_count_failure();
	return error;
}
