// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Ways into a cube for frames that no netdev received: from the slow path, and copies of flooded frames. */
#include <linux/pkt_cls.h>

#include <polycube/cube.h>

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, PCN_CUBES * 2);
	__type(key, __u32);
	__type(value, __u32);
} pcn_progs SEC(".maps");

MAP(pcn_leads, HASH, __u32, struct pcn_inject, 8192); /* ifindex of an internal or shadow veth -> where its frames go */

#ifdef PCN_XDP
MAP(pcn_scratch, PERCPU_ARRAY, __u32, struct pcn_meta, 1);

static __always_inline int lead(struct xdp_md *ctx, const struct pcn_inject *to, __u16 hops)
{
	__u32 zero = 0;
	struct pcn_meta *meta = bpf_map_lookup_elem(&pcn_scratch, &zero);

	if (meta) {
		*meta = to->meta;
		meta->flags |= hops;
	}
	bpf_tail_call(ctx, &pcn_progs, to->slot);
	return XDP_DROP;
}

/* Run by BPF_PROG_TEST_RUN with live frames: a struct pcn_inject stands in front of the frame. */
SEC("xdp.frags") int pcn_inject(struct xdp_md *ctx)
{
	struct pcn_inject *header = pcn_at(ctx, 0, sizeof(*header));
	struct pcn_inject to;

	if (!header)
		return XDP_DROP;
	to = *header;
	if (bpf_xdp_adjust_head(ctx, sizeof(to)))
		return XDP_DROP;
	return lead(ctx, &to, 0);
}

/*
 * Attached to the inner end of an internal veth: a flooded copy on its way to a port that no netdev takes directly. Also to a shadow veth:
 * what the cube's namespace sends leaves by the port.
 */
SEC("xdp.frags") int pcn_lead(struct xdp_md *ctx)
{
	__u32 ifindex = ctx->ingress_ifindex;
	struct pcn_inject *to = bpf_map_lookup_elem(&pcn_leads, &ifindex);
	__u32 *copy = (void *)(long)ctx->data_meta;
	__u16 hops = 0;

	if (!to)
		return XDP_DROP;
	if ((void *)(copy + 1) <= (void *)(long)ctx->data && (*copy & ~PCN_META_HOPS) == PCN_COPY) {
		hops = *copy & PCN_META_HOPS;
		bpf_xdp_adjust_meta(ctx, sizeof(*copy));
	}
	return lead(ctx, to, hops);
}
#else
/* On the ingress of the injection device: the mark says where the frame goes. */
SEC("tc") int pcn_lead(struct __sk_buff *ctx)
{
	__u32 mark = ctx->mark;

	ctx->mark = 0;
	ctx->cb[0] = (mark & PCN_MARK_PORT) | (mark & PCN_MARK_OUT ? PCN_META_OUT << 16 : 0) | (mark >> 2 & PCN_META_HOPS) << 16;
	ctx->cb[1] = 0;
	bpf_tail_call(ctx, &pcn_progs, mark >> 16);
	return TC_ACT_SHOT;
}

/* On the ingress of a shadow veth: what the cube's namespace sends leaves by the port. */
SEC("tc") int pcn_shadow_out(struct __sk_buff *ctx)
{
	__u32 ifindex = ctx->ifindex;
	struct pcn_inject *to = bpf_map_lookup_elem(&pcn_leads, &ifindex);

	if (!to)
		return TC_ACT_SHOT;
	ctx->cb[0] = to->meta.port | (__u32)to->meta.flags << 16;
	ctx->cb[1] = 0;
	bpf_tail_call(ctx, &pcn_progs, to->slot);
	return TC_ACT_SHOT;
}

/* On the egress of a shadow veth: copies keep their sign on the way into the namespace. */
SEC("tc") int pcn_shadow_in(struct __sk_buff *ctx)
{
	ctx->tc_index = ctx->mark == PCN_MARK_SPAN ? PCN_INDEX_SPAN : 0;
	return TC_ACT_UNSPEC;
}

/* On the ingress of its end in the namespace: who captures there has seen the copies; nobody is to answer them. */
SEC("tc") int pcn_shadow_end(struct __sk_buff *ctx)
{
	return ctx->tc_index == PCN_INDEX_SPAN ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}
#endif

char _license[] SEC("license") = "GPL";
