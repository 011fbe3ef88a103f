/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The TC flavour of what differs between hooks. Included by cube.h only. */
#pragma once

#define pcn_ctx __sk_buff

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

/*
 * The first `size` bytes at `offset`, or NULL when the frame is shorter. Headers outside the linear part are pulled in, which moves the
 * data: earlier pointers are void. Valid until the next call that pushes, pulls or resizes.
 */
static __always_inline void *pcn_at(struct pcn_ctx *ctx, __u32 offset, __u32 size)
{
	__u64 at = pcn_opaque(offset);
	void *data;

	if (at > PCN_MAX_OFFSET)
		return 0;
	data = pcn_data(ctx) + at;
	if (data + size > pcn_data_end(ctx)) {
		if (bpf_skb_pull_data(ctx, offset + size))
			return 0;
		data = pcn_data(ctx) + at;
		if (data + size > pcn_data_end(ctx))
			return 0;
	}
	return data;
}

static __always_inline __u32 pcn_len(struct pcn_ctx *ctx)
{
	return ctx->len;
}

static __always_inline __u32 pcn_ifindex(struct pcn_ctx *ctx)
{
	return ctx->ifindex;
}

/* The tag that the kernel keeps beside the bytes: 1 if there is one. `proto` in network byte order. */
static __always_inline int pcn_hw_vlan(struct pcn_ctx *ctx, __u16 *tci, __u16 *proto)
{
	if (!ctx->vlan_present)
		return 0;
	*tci = ctx->vlan_tci;
	*proto = ctx->vlan_proto;
	return 1;
}

/*
 * Overwrites `size` bytes of the frame (constant size) that no checksum field of the frame covers, or one that is fixed afterwards by
 * pcn_l4_csum_replace() with PCN_CSUM_PSEUDO in IPv6. Keeps the sum over the frame that a NIC may have computed, which does not
 * cover the Ethernet header. Returns 0, or -1 if the frame is shorter.
 */
static __always_inline int pcn_store(struct pcn_ctx *ctx, __u32 offset, const void *from, __u32 size)
{
	return bpf_skb_store_bytes(ctx, offset, from, size, offset < ETH_HLEN ? 0 : BPF_F_RECOMPUTE_CSUM) ? -1 : 0;
}

/* The same for bytes whose checksum field (IPv4 header, TCP, UDP) is fixed, too: the sum over both does not change. */
static __always_inline int pcn_store_covered(struct pcn_ctx *ctx, __u32 offset, const void *from, __u32 size)
{
	return bpf_skb_store_bytes(ctx, offset, from, size, 0) ? -1 : 0;
}

/* Room for `size` more bytes in front (negative is refused by the kernel here). The caller moves the headers. Returns 0 or -1. */
static __always_inline int pcn_adjust_head(struct pcn_ctx *ctx, int size)
{
	return bpf_skb_change_head(ctx, size, 0) ? -1 : 0;
}
