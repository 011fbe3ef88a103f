/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The data-plane contract: what the author of a network function includes. One source, compiled for XDP and for TC; the handlers
 * below are all it defines. Hooks, counters, chains, attachment, flooding and the slow path are the framework's (unit.bpf.c).
 *
 *	#include <polycube/cube.h>
 *
 *	HANDLER(ingress) { return pcn_forward(pkt, pkt->in_port ^ 1); }
 */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include <polycube/abi.h>
#include <polycube/log.h>
#include <polycube/maps.h>

#ifndef memcpy
#define memcpy(d, s, n) __builtin_memcpy((d), (s), (n))
#endif
#ifndef memset
#define memset(d, c, n) __builtin_memset((d), (c), (n))
#endif
#ifndef memcmp
#define memcmp(a, b, n) __builtin_memcmp((a), (b), (n))
#endif

#define PCN_MAX_VLANS 2
#define PCN_MAX_OFFSET 0x1ff /* headers are looked for in the first 512 bytes; further off the verifier loses track */

/*
 * What is known of the frame in hand. `in_port` to `metadata` are always valid; what stands below them is valid after the parser of
 * parse.h was asked, until something is pushed or pulled. Lives on the stack of the program.
 */
struct pcn_packet {
	__u32 in_port;  /* number of the port it arrived by; in a transparent cube the direction, enum pcn_direction */
	__u32 len;      /* whole frame, bytes, without checksum and without a tag kept in the skb's metadata */
	__u32 out_port; /* of a forwarding verdict */
	__u16 reason;   /* of a drop or slow-path verdict */
	__u16 flags;    /* enum pcn_meta_flag */
	__u32 metadata[3];
	__u32 carry;    /* the function's own, from its ingress to its egress handler; 0 in copies and frames of the control plane */

	__u16 parsed;   /* enum pcn_parsed */
	__u16 proto;    /* EtherType behind the tags, network byte order */
	__u16 l3;       /* offset of the network header */
	__u16 l4;       /* offset of the transport header; 0: there is none (not IP, a later fragment, no next header) */
	__u32 end;      /* offset behind an IP packet: what follows in the frame is padding */
	__u32 fragment_id; /* of a fragment: what its packet's fragments have in common, as it is in the frame */
	__u8 l4_proto;
	__u8 fragment;  /* enum pcn_fragment */
	__u8 vlans;     /* tags found, up to PCN_MAX_VLANS, the one in the skb's metadata included */
	__u16 vlan[PCN_MAX_VLANS]; /* TCI, host byte order, outermost first */
};

enum pcn_direction { PCN_INGRESS, PCN_EGRESS };

enum pcn_verdict {
	PCN_DROP,
	PCN_PASS,     /* standard cube: to the host's stack; transparent cube: go on */
	PCN_FORWARD,  /* out of pkt->out_port */
	PCN_FLOOD,    /* out of every port of domain pkt->out_port but the one it came by */
	PCN_SLOWPATH, /* to the control plane */
	PCN_SHADOW,   /* standard cube: into its namespace, as received by the port there */
};

/*
 * A number the optimiser knows nothing of. It drops a comparison whose outcome it can prove from where a value once came from; the verifier
 * forgets that when the value has been in memory, and needs the comparison. It also masks before an XOR instead of after it; of an XOR of two
 * unknown numbers, however small, the verifier of 6.1 knows no bounds.
 */
static __always_inline __u64 pcn_opaque(__u64 number)
{
	if (!__builtin_constant_p(number))
		asm volatile("" : "+r"(number));
	return number;
}

#if defined(PCN_XDP)
#include <polycube/hook_xdp.h>
#elif defined(PCN_TC)
#include <polycube/hook_tc.h>
#else
#error "compile with -DPCN_XDP or -DPCN_TC"
#endif

/* A handler of the function: HANDLER(ingress) { ... } and, if there is one, HANDLER(egress) { ... }. Returns an enum pcn_verdict. */
#define HANDLER(_direction) int pcn_##_direction(struct pcn_ctx *ctx, struct pcn_packet *pkt)

int pcn_ingress(struct pcn_ctx *ctx, struct pcn_packet *pkt);
int pcn_egress(struct pcn_ctx *ctx, struct pcn_packet *pkt);

static __always_inline int pcn_drop(struct pcn_packet *pkt, __u16 reason)
{
	pkt->reason = reason;
	return PCN_DROP;
}

static __always_inline int pcn_pass(struct pcn_packet *pkt)
{
	return PCN_PASS;
}

static __always_inline int pcn_forward(struct pcn_packet *pkt, __u32 port)
{
	pkt->out_port = port;
	return PCN_FORWARD;
}

static __always_inline int pcn_flood(struct pcn_packet *pkt, __u32 domain)
{
	pkt->out_port = domain;
	return PCN_FLOOD;
}

/* Hands the frame to the control plane (Cube.packet) with a reason and up to three words of metadata. */
static __always_inline int pcn_slowpath(struct pcn_packet *pkt, __u16 reason, __u32 a, __u32 b, __u32 c)
{
	pkt->reason = reason;
	pkt->metadata[0] = a;
	pkt->metadata[1] = b;
	pkt->metadata[2] = c;
	return PCN_SLOWPATH;
}

extern __u32 pcn_shadow_base; /* the unit's (unit_maps.h) */

/* Whether the cube has a namespace (shadow=true). Known when a fused unit is made, and costs nothing there. */
static __always_inline int pcn_has_shadow(void)
{
	return !!pcn_shadow_base;
}

/*
 * Hands the frame into the cube's namespace, as received by the netdev of the port it came by. It should be as it came: tags and MACs
 * are what the stack there goes by. Without a namespace it is dropped.
 */
static __always_inline int pcn_shadow(struct pcn_packet *pkt)
{
	return PCN_SHADOW;
}

/* Seconds since boot, suspend excluded: what ageing compares. By the clock of the last tick. The unit's (unit_clock.h). */
__u32 pcn_now(void);
