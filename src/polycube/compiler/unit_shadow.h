/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The way into the cube's namespace, of frames that are handed over and, in units that are made for it (PCN_SPAN), of copies of everything.
 * In TC a copy is a clone. XDP has none: its copies go up by a ring buffer that all cubes share, and into the namespace by the daemon.
 * Included by unit.h only.
 */
#pragma once

static __always_inline int to_shadow(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	__u32 number = pkt->in_port;
	struct pcn_port *port = bpf_map_lookup_elem(&ports, &number);

	if (!port || !pcn_shadow_base)
		return drop(pkt, PCN_DROP_NO_PORT);
	return bpf_redirect(pcn_shadow_base + port->id, 0);
}

#ifndef PCN_SPAN

static __always_inline void span_copy(struct pcn_ctx *ctx, __u32 id, __u32 len)
{
}

#elif defined(PCN_TC)

static __always_inline void span_copy(struct pcn_ctx *ctx, __u32 id, __u32 len)
{
	__u32 mark = ctx->mark;

	ctx->mark = PCN_MARK_SPAN;
	if (bpf_clone_redirect(ctx, pcn_shadow_base + id, 0))
		count_drop(PCN_DROP_SPAN);
	ctx->mark = mark;
}

#else

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1024 * 1024);
} pcn_copies PCN_MAPS;

/* As SLOWPATH_COPY. */
#define SPAN_COPY(_class)                                                                                                            \
	do {                                                                                                                         \
		struct pcn_copy *copy = bpf_ringbuf_reserve(&pcn_copies, sizeof(*copy) + (_class), 0);                              \
		__u64 caplen = len > (_class) ? (_class) : len;                                                                      \
                                                                                                                                     \
		if (!copy) {                                                                                                         \
			count_drop(PCN_DROP_SPAN);                                                                                   \
			return;                                                                                                      \
		}                                                                                                                    \
		copy->id = id;                                                                                                       \
		copy->caplen = caplen;                                                                                               \
		asm volatile("" : "+r"(caplen));                                                                                     \
		if (bpf_xdp_load_bytes(ctx, 0, copy + 1, FROM_ONE_TO(_class, caplen)))                                                  \
			bpf_ringbuf_discard(copy, 0);                                                                                \
		else                                                                                                                 \
			bpf_ringbuf_submit(copy, 0);                                                                                 \
	} while (0)

static __noinline void span_copy(struct pcn_ctx *ctx, __u32 id, __u32 len)
{
	if (len <= 256)
		SPAN_COPY(256);
	else if (len <= 2048)
		SPAN_COPY(2048);
	else
		SPAN_COPY(16384);
}

#endif

/* Of a frame that is received or about to leave by a port; not if the namespace has sent it. */
static __always_inline void span(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u32 id)
{
	if (!(pkt->flags & PCN_META_SEEN))
		span_copy(ctx, id, pkt->len);
}

/* The same when the port's id is not at hand. */
static __always_inline void span_port(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u32 number)
{
#ifdef PCN_SPAN
	struct pcn_port *port = bpf_map_lookup_elem(&ports, &number);

	if (port)
		span(ctx, pkt, port->id);
#endif
}
