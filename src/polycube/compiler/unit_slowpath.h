/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The way up to the control plane: a record in the cube's ring buffer, as large as the frame wants. Included by unit.h only. */
#pragma once

/*
 * A number that is from 1 to a power of two already, for the verifier: that of 6.1 learns nothing from a comparison with 0, nor of the number
 * from one with the number less 1. The empty assembly before it keeps the compiler from knowing better.
 */
#define FROM_ONE_TO(_most, _number) ((((_number) - 1) & ((_most) - 1)) + 1)

#define SLOWPATH_COPY(_class)													\
	do {															\
		struct pcn_event *event = bpf_ringbuf_reserve(&slowpath, sizeof(*event) + (_class), 0);				\
		__u64 caplen = pkt->len > (_class) ? (_class) : pkt->len;							\
																	\
		if (!event)													\
			return drop(pkt, PCN_DROP_SLOWPATH_FULL);								\
		fill_event(ctx, pkt, event, flags);										\
		event->caplen = caplen;												\
		if (caplen < pkt->len)												\
			event->flags |= PCN_EVENT_TRUNCATED;									\
		asm volatile("" : "+r"(caplen));											\
		if (load_bytes(ctx, event + 1, FROM_ONE_TO(_class, caplen))) {							\
			bpf_ringbuf_discard(event, 0);										\
			return drop(pkt, PCN_DROP_MALFORMED);									\
		}														\
		bpf_ringbuf_submit(event, 0);											\
	} while (0)

static __always_inline void fill_event(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct pcn_event *event, __u16 flags)
{
	__u16 tci = 0, proto = 0;

	if (pcn_hw_vlan(ctx, &tci, &proto))
		flags |= PCN_EVENT_VLAN;
	event->len = pkt->len;
	event->port = pkt->in_port;
	event->reason = pkt->reason;
	event->flags = flags;
	event->vlan_tci = tci;
	event->vlan_proto = proto;
	event->pad = 0;
	event->ifindex = pcn_ifindex(ctx);
	event->metadata[0] = pkt->metadata[0];
	event->metadata[1] = pkt->metadata[1];
	event->metadata[2] = pkt->metadata[2];
}

static __always_inline long load_bytes(struct pcn_ctx *ctx, void *to, __u32 len)
{
#ifdef PCN_XDP
	return bpf_xdp_load_bytes(ctx, 0, to, len);
#else
	return bpf_skb_load_bytes(ctx, 0, to, len);
#endif
}

static __always_inline int slowpath_up(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u16 flags)
{
#ifdef PCN_XDP
	flags |= PCN_EVENT_XDP;
#endif
	if (pkt->len <= 256)
		SLOWPATH_COPY(256);
	else if (pkt->len <= 2048)
		SLOWPATH_COPY(2048);
	else
		SLOWPATH_COPY(65536);
	return ACTION_DROP; /* taken over, hence no drop reason */
}
