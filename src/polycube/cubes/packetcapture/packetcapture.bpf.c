// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * Copies frames that a filter takes into a ring buffer, as blocks of a pcapng file (draft-ietf-opsawg-pcapng, Enhanced Packet Block): the
 * control plane writes them where they are wanted as they are. Frames go on in any case.
 *
 * The filter is generated (filter.py). A tag in the skb's metadata is where it was on the wire, for the filter and in the copy.
 */
#include <polycube/parse.h>

#define BLOCK_PACKET 6
#define OPTION_COMMENT 1
#define OPTION_FLAGS 2

struct capture_count {
	__u64 taken; /* by the filter */
	__u64 lost;  /* the ring was full */
};

/* What stands before the bytes of a frame. */
struct capture_head {
	__u32 type;
	__u32 total;
	__u32 interface;
	__u32 time_high; /* ns since 1970 */
	__u32 time_low;
	__u32 caplen;
	__u32 len;
};

/* What stands behind them. */
struct capture_flags {
	__u16 code, size;
	__u32 flags; /* 1: inbound, 2: outbound */
};

struct capture_comment {
	__u16 code, size;
	char text[12];
};

struct capture_end {
	__u32 none; /* no more options */
	__u32 total;
};

#define TRAILER (sizeof(struct capture_flags) + sizeof(struct capture_comment) + sizeof(struct capture_end))

MAP_RING(frames, 1 << 23);
MAP(clocks, ARRAY, __u32, __u64, 1); /* ns between bpf_ktime_get_ns() and 1970 */
MAP(counts, PERCPU_ARRAY, __u32, struct capture_count, 2); /* by direction */
CFG(__u32, directions); /* a bit for each direction that is captured */
CFG(__u32, snaplen);

__weak int capture_filter(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	return 0;
}

static __always_inline int load(struct pcn_ctx *ctx, __u32 offset, void *to, __u32 size)
{
#ifdef PCN_XDP
	return bpf_xdp_load_bytes(ctx, offset, to, size);
#else
	return bpf_skb_load_bytes(ctx, offset, to, size);
#endif
}

#ifdef PCN_TC
#define TAG_AT 12
#define TAG_SIZE 4

static __always_inline __u32 tag_of(struct pcn_ctx *ctx)
{
	return (__u32)bpf_ntohs(ctx->vlan_proto) << 16 | (ctx->vlan_tci & 0xffff);
}

/* A number in a frame whose tag is in the metadata. */
static __noinline __s64 load_tagged(struct pcn_ctx *ctx, __u64 offset, __u32 size)
{
	__u32 tag = tag_of(ctx);
	__s64 value = 0;
	int i;

	for (i = 0; i < 4; i++) {
		__u64 at = offset + i;
		__u8 byte;

		if (i >= size)
			break;
		if (at >= TAG_AT && at < TAG_AT + TAG_SIZE)
			byte = tag >> 8 * (TAG_AT + TAG_SIZE - 1 - at);
		else if (load(ctx, at < TAG_AT ? at : at - TAG_SIZE, &byte, 1))
			return -1;
		value = value << 8 | byte;
	}
	return value;
}
#endif

/* What generated code loads: a number of the frame in host order, or -1 if it is not whole in the frame. */
static __always_inline __s64 load_number(struct pcn_ctx *ctx, __u64 offset, __u32 size)
{
	__u32 number = 0;
	void *at;

#ifdef PCN_TC
	if (ctx->vlan_present)
		return offset > 0xffff ? -1 : load_tagged(ctx, offset, size);
#endif
	if (offset <= PCN_MAX_OFFSET) {
		at = pcn_at(ctx, offset, size);
		if (!at)
			return -1;
		memcpy(&number, at, size);
	} else if (offset > 0x3ffff || load(ctx, offset, &number, size)) {
		return -1;
	}
	return size == 4 ? bpf_ntohl(number) : size == 2 ? bpf_ntohs(number) : number;
}

__s64 capture_load1(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u64 offset)
{
	return load_number(ctx, offset, 1);
}

__s64 capture_load2(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u64 offset)
{
	return load_number(ctx, offset, 2);
}

__s64 capture_load4(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u64 offset)
{
	return load_number(ctx, offset, 4);
}

__u32 capture_length(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
#ifdef PCN_TC
	if (ctx->vlan_present)
		return pkt->len + TAG_SIZE;
#endif
	return pkt->len;
}

/*
 * The first `len` bytes of a frame as it was on the wire, 16 to `most` (a constant). The empty assembly has the comparison before it stay
 * where the verifier needs it.
 */
static __always_inline int copy(struct pcn_ctx *ctx, void *to, __u64 len, __u32 most)
{
#ifdef PCN_TC
	if (ctx->vlan_present) {
		__u32 tag = bpf_htonl(tag_of(ctx));
		__u64 rest = len - TAG_AT - TAG_SIZE;

		if (load(ctx, 0, to, TAG_AT))
			return -1;
		memcpy(to + TAG_AT, &tag, TAG_SIZE);
		asm volatile("" : "+r"(rest));
		if (!rest || rest > most - TAG_AT - TAG_SIZE)
			return 0;
		return load(ctx, TAG_AT, to + TAG_AT + TAG_SIZE, rest);
	}
#endif
	asm volatile("" : "+r"(len));
	return len && len <= most ? load(ctx, 0, to, len) : -1;
}

/* Why cubes that parse the frame will drop it, as a comment; 0: they won't. */
static __always_inline const char *refusal(int reason)
{
	return reason == PCN_DROP_MALFORMED ? "malformed\0\0\0" : reason == PCN_DROP_EXTENSIONS ? "extensions\0\0" : 0;
}

/* Options and end behind the bytes; returns their size. */
static __always_inline __u32 finish(void *at, __u32 direction, __u32 before, int reason)
{
	struct capture_flags *flags = at;
	struct capture_comment *comment = (void *)(flags + 1);
	__u32 more = refusal(reason) ? sizeof(*comment) : 0;
	struct capture_end *end;

	flags->code = OPTION_FLAGS;
	flags->size = sizeof(flags->flags);
	flags->flags = direction == PCN_INGRESS ? 1 : 2;
	if (more) {
		comment->code = OPTION_COMMENT;
		comment->size = reason == PCN_DROP_MALFORMED ? 9 : 10;
		memcpy(comment->text, refusal(reason), sizeof(comment->text));
		end = (void *)(comment + 1);
	} else {
		end = (void *)comment;
	}
	end->none = 0;
	end->total = before + sizeof(*flags) + more + sizeof(*end);
	return end->total;
}

#define CAPTURE(_class)                                                                                                              \
	do {                                                                                                                         \
		struct capture_head *head = bpf_ringbuf_reserve(&frames, sizeof(*head) + (_class) + TRAILER, 0);                     \
		__u64 padded = (caplen + 3) & ~3ULL;                                                                                 \
		void *bytes = head + 1;                                                                                              \
                                                                                                                                     \
		if (!head)                                                                                                           \
			return 0;                                                                                                    \
		asm volatile("" : "+r"(padded));                                                                                     \
		if (padded < 4 || padded > (_class)) {                                                                               \
			bpf_ringbuf_discard(head, BPF_RB_NO_WAKEUP);                                                                 \
			return 0;                                                                                                    \
		}                                                                                                                    \
		*(__u32 *)(bytes + padded - 4) = 0; /* what fills up to whole words */                                               \
		if (copy(ctx, bytes, caplen, _class)) {                                                                              \
			bpf_ringbuf_discard(head, BPF_RB_NO_WAKEUP);                                                                 \
			return 0;                                                                                                    \
		}                                                                                                                    \
		head->type = BLOCK_PACKET;                                                                                           \
		head->interface = 0;                                                                                                 \
		head->time_high = now >> 32;                                                                                         \
		head->time_low = now;                                                                                                \
		head->caplen = caplen;                                                                                               \
		head->len = len;                                                                                                     \
		head->total = finish(bytes + padded, direction, sizeof(*head) + padded, reason);                                     \
		bpf_ringbuf_submit(head, BPF_RB_NO_WAKEUP); /* the reader comes by itself */                                         \
		return 1;                                                                                                            \
	} while (0)

/* Whether a copy got into the ring. */
static __always_inline int record(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u32 direction)
{
	__u32 zero = 0, len = capture_length(ctx, pkt);
	__u64 *clock = bpf_map_lookup_elem(&clocks, &zero);
	__u64 caplen = len < snaplen ? len : snaplen, now = bpf_ktime_get_ns() + (clock ? *clock : 0);
	int reason = pcn_parse(ctx, pkt);

	if (caplen <= 128)
		CAPTURE(128);
	if (caplen <= 512)
		CAPTURE(512);
	if (caplen <= 2048)
		CAPTURE(2048);
	if (caplen <= 16384)
		CAPTURE(16384);
	if (caplen > 65536)
		caplen = 65536;
	CAPTURE(65536);
}

static __always_inline void capture(struct pcn_ctx *ctx, struct pcn_packet *pkt, __u32 direction)
{
	struct capture_count *count;

	if (!(directions & 1 << direction) || !capture_filter(ctx, pkt))
		return;
	count = bpf_map_lookup_elem(&counts, &direction);
	if (!count)
		return;
	count->taken++;
	if (!record(ctx, pkt, direction))
		count->lost++;
}

HANDLER(ingress)
{
	capture(ctx, pkt, PCN_INGRESS);
	return pcn_pass(pkt);
}

HANDLER(egress)
{
	capture(ctx, pkt, PCN_EGRESS);
	return pcn_pass(pkt);
}
