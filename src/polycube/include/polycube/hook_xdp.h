/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The XDP flavour of what differs between hooks. Included by cube.h only. */
#pragma once

#define pcn_ctx xdp_md

/*
 * Pointers into the frame. clang takes the two members for 32-bit numbers; where it keeps or copies one in half a register the verifier
 * no longer sees a pointer. The volatile load and the empty assembly keep it in a whole one. (Assembly that is not empty can't be used:
 * llvmlite has no assembler for BPF.)
 */
static __always_inline void *pcn_data(struct pcn_ctx *ctx)
{
	__u64 data = *(volatile __u32 *)&ctx->data;

	asm volatile("" : "+r"(data));
	return (void *)data;
}

static __always_inline void *pcn_data_end(struct pcn_ctx *ctx)
{
	__u64 end = *(volatile __u32 *)&ctx->data_end;

	asm volatile("" : "+r"(end));
	return (void *)end;
}

/* The first `size` bytes at `offset`, or NULL when the frame is shorter. Valid until the next call that pushes, pulls or resizes. */
static __always_inline void *pcn_at(struct pcn_ctx *ctx, __u32 offset, __u32 size)
{
	void *data = pcn_data(ctx);
	void *end = pcn_data_end(ctx);
	__u64 at = pcn_opaque(offset);

	if (at > PCN_MAX_OFFSET)
		return 0;
	data += at;
	return data + size > end ? 0 : data;
}

/*
 * Multi-buffer frames are rare and their linear part is never of ordinary length: it fills a page or holds less than a header. Ask the
 * kernel in these cases only; the helper call is dear beside everything else done for a small frame.
 */
static __always_inline __u32 pcn_len(struct pcn_ctx *ctx)
{
	__u32 len = pcn_data_end(ctx) - pcn_data(ctx);

	return len < 60 || len > 1518 ? bpf_xdp_get_buff_len(ctx) : len;
}

static __always_inline __u32 pcn_ifindex(struct pcn_ctx *ctx)
{
	return ctx->ingress_ifindex;
}

/* In XDP a tag is in the bytes, always. */
static __always_inline int pcn_hw_vlan(struct pcn_ctx *ctx, __u16 *tci, __u16 *proto)
{
	return 0;
}

/* Overwrites `size` bytes of the frame (constant size). Returns 0, or -1 when the frame is shorter. */
static __always_inline int pcn_store(struct pcn_ctx *ctx, __u32 offset, const void *from, __u32 size)
{
	void *to = pcn_at(ctx, offset, size);

	if (!to)
		return -1;
	memcpy(to, from, size);
	return 0;
}

/* In TC it matters which bytes a checksum field covers; here it does not. */
static __always_inline int pcn_store_covered(struct pcn_ctx *ctx, __u32 offset, const void *from, __u32 size)
{
	return pcn_store(ctx, offset, from, size);
}

/* Room for `size` more bytes in front (negative: fewer). The caller moves the headers. Returns 0 or -1. */
static __always_inline int pcn_adjust_head(struct pcn_ctx *ctx, int size)
{
	return bpf_xdp_adjust_head(ctx, -size) ? -1 : 0;
}
