// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * What stands where a cube under test would have neighbours. Ports of the cube lead to `probe` by tail call, as to a cube; it writes
 * down the frame and where it would have arrived, whether it is the original or a flooded copy that came by way of an injection device.
 */
#include <polycube/cube.h>

#define PROBE_BYTES 4096
#define PROBE_PASSED 0xffff

enum probe_flag { PROBE_VLAN = 0x8000, PROBE_XDP = 0x4000 };

struct probe_record {
	__u32 len;
	__u32 caplen;
	__u16 endpoint; /* which outgoing port under test: pcn_port.peer_port */
	__u16 flags;    /* enum pcn_meta_flag, enum probe_flag */
	__u32 id;
	__u16 vlan_tci;
	__u16 vlan_proto; /* network byte order */
	__u32 mark;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 * 1024 * 1024);
} probe_records SEC(".maps");

static __always_inline void probe_write(struct pcn_ctx *ctx, __u16 endpoint, __u16 flags, __u32 id)
{
	__u16 tci = 0, proto = 0;
	struct probe_record *record = bpf_ringbuf_reserve(&probe_records, sizeof(*record) + PROBE_BYTES, 0);
	__u64 caplen;
	long failed;

	if (!record)
		return;
	record->len = pcn_len(ctx);
	if (pcn_hw_vlan(ctx, &tci, &proto))
		flags |= PROBE_VLAN;
	caplen = record->len < PROBE_BYTES ? record->len : PROBE_BYTES;
	record->caplen = caplen;
	record->endpoint = endpoint;
	record->id = id;
	record->vlan_tci = tci;
	record->vlan_proto = proto;
	/* From 1 to PROBE_BYTES, which it is: the verifier of 6.1 learns neither from a comparison with 0 nor from one of another register */
	asm volatile("" : "+r"(caplen));
	caplen = ((caplen - 1) & (PROBE_BYTES - 1)) + 1;
#ifdef PCN_XDP
	flags |= PROBE_XDP;
	record->mark = 0;
	failed = bpf_xdp_load_bytes(ctx, 0, record + 1, caplen);
#else
	record->mark = ctx->mark;
	failed = bpf_skb_load_bytes(ctx, 0, record + 1, caplen);
#endif
	record->flags = flags;
	if (failed)
		bpf_ringbuf_discard(record, 0);
	else
		bpf_ringbuf_submit(record, 0);
}

#ifdef PCN_XDP
MAP(pcn_scratch, PERCPU_ARRAY, __u32, struct pcn_meta, 1);

/* In the place of the next cube. */
SEC("xdp.frags") int probe(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct pcn_meta *meta = bpf_map_lookup_elem(&pcn_scratch, &zero);

	if (meta)
		probe_write(ctx, meta->port, meta->flags, meta->id);
	return XDP_DROP;
}
#else
#include <linux/pkt_cls.h>

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} probe_start SEC(".maps"); /* the program that `prologue` leads to */

MAP(probe_wires, HASH, __u32, __u32, 1024); /* ifindex -> endpoint */

/* In the place of the next cube. */
SEC("tc") int probe(struct __sk_buff *ctx)
{
	probe_write(ctx, ctx->cb[0], ctx->cb[0] >> 16, ctx->cb[1]);
	return TC_ACT_SHOT;
}

/* On the ingress of the netdev that XDP programs run on: what they pass to the stack. */
SEC("tc") int passed(struct __sk_buff *ctx)
{
	probe_write(ctx, PROBE_PASSED, 0, 0);
	return TC_ACT_SHOT;
}

/* On the far ends of netdevs that ports of a cube under test lead to: what arrives there. (In XDP an internal veth leads to `probe`.) */
SEC("tc") int wire(struct __sk_buff *ctx)
{
	__u32 ifindex = ctx->ifindex;
	__u32 *endpoint = bpf_map_lookup_elem(&probe_wires, &ifindex);

	if (endpoint)
		probe_write(ctx, *endpoint, 0, 0);
	return TC_ACT_SHOT;
}

/*
 * In front of a unit under test: real frames have their outer tag in the skb's metadata, those of BPF_PROG_TEST_RUN in the bytes. Popping
 * moves the inner tag into the metadata; pushing the outer one moves it back to the bytes.
 */
SEC("tc") int prologue(struct __sk_buff *ctx)
{
	struct {
		__be16 proto;
		__be16 tci;
	} tag;

	if (ctx->cb[4]) { /* an EtherType that a test run would have refused for a frame so short */
		__u16 proto = ctx->cb[4];

		ctx->cb[4] = 0;
		bpf_skb_store_bytes(ctx, 2 * ETH_ALEN, &proto, sizeof(proto), 0);
	}
	if (ctx->protocol == bpf_htons(ETH_P_8021Q) || ctx->protocol == bpf_htons(ETH_P_8021AD)) {
		if (!bpf_skb_load_bytes(ctx, 2 * ETH_ALEN, &tag, sizeof(tag)) && !bpf_skb_vlan_pop(ctx))
			bpf_skb_vlan_push(ctx, tag.proto, bpf_ntohs(tag.tci));
	}
	bpf_tail_call(ctx, &probe_start, 0);
	return TC_ACT_SHOT;
}
#endif

char _license[] SEC("license") = "GPL";
