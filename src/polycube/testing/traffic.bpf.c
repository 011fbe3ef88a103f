// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * A generator and a sink for counted traffic (traffic.py). Every frame is a UDP datagram whose payload has a number; what else is in the
 * header comes from a template that is written anew for each frame, since the kernel gives recycled pages of a live test run out as the
 * path has left them. Numbers are followed by their complement, and what a flow adds to the sum is taken off again, so that one UDP
 * checksum, in the template, is right for all frames.
 */
#include <linux/ip.h>
#include <polycube/cube.h>

#define TRAFFIC_TEMPLATE 128
#define TRAFFIC_HEAD 64 /* every frame is at least so long */
#define TRAFFIC_LOOPBACK 1

struct traffic_payload {
	__u32 magic;
	__u16 run; /* frames of another run are none of ours */
	__u16 flow;
	__u16 not_flow[2]; /* one for `flow`, one for the source port */
	__u32 number;
	__u32 not_number;
} __attribute__((packed));

struct traffic_datagram {
	__u16 port[2];
	__u16 length;
	__u16 checksum;
	struct traffic_payload payload;
} __attribute__((packed));

struct traffic_setup {
	__u8 template[TRAFFIC_TEMPLATE];
	__u32 length;  /* of the template */
	__u32 udp;     /* its offset */
	__u32 ifindex; /* netdev to send by */
	__u32 flows;
	__u32 port; /* source port of flow 0 */
	__u32 magic;
	__u32 run;
	__u32 stations; /* they are sent to in turn; their addresses follow the template's */
	__u32 networks; /* IPv4 without a tag: they are sent to in turn, each a /24 behind the one before */
	__u32 next; /* number of the next frame */
};

struct traffic_counts {
	__u64 received;
	__u64 duplicated;
	__u64 reordered;
};

MAP(traffic_setups, ARRAY, __u32, struct traffic_setup, 1);
MAP(traffic_counted, PERCPU_ARRAY, __u32, struct traffic_counts, 1);

static __always_inline struct traffic_setup *setup_of_run(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&traffic_setups, &zero);
}

/* The payload, if this is a frame of this run. Untagged, or with one tag in the bytes; IP without options. */
static __always_inline struct traffic_payload *payload_of(struct pcn_ctx *ctx, const struct traffic_setup *setup)
{
	__u16 *type = pcn_at(ctx, 2 * ETH_ALEN, 8);
	struct traffic_payload *payload;
	__u32 offset = ETH_HLEN;
	__u16 proto;

	if (!type)
		return 0;
	proto = *type;
	if (proto == bpf_htons(ETH_P_8021Q)) {
		proto = type[2];
		offset += 4;
	}
	if (proto == bpf_htons(ETH_P_IP))
		offset += 20 + 8;
	else if (proto == bpf_htons(ETH_P_IPV6))
		offset += 40 + 8;
	else
		return 0;
	payload = pcn_at(ctx, offset, sizeof(*payload));
	if (!payload || payload->magic != setup->magic || payload->run != setup->run)
		return 0;
	return payload;
}

#ifdef PCN_XDP
#define VERDICT_TAKEN XDP_DROP
#define VERDICT_OTHER XDP_PASS
#define SECTION SEC("xdp")

/* Adds to the destination's network, with the header's checksum (RFC 1624). */
static __always_inline void towards(struct iphdr *ip, __u32 networks)
{
	__u32 old = ip->daddr, new = bpf_htonl(bpf_ntohl(old) + (networks << 8));
	__u32 sum = (__u16)~ip->check + (__u16)~old + (__u16)~(old >> 16) + (__u16)new + (new >> 16);

	sum = (sum & 0xffff) + (sum >> 16);
	ip->check = ~((sum & 0xffff) + (sum >> 16));
	ip->daddr = new;
}

/* Makes the next frame and redirects it into the netdev. */
SEC("xdp") int traffic_redirect(struct xdp_md *ctx)
{
	struct traffic_setup *setup = setup_of_run();
	struct traffic_datagram *udp;
	void *data = pcn_data(ctx), *end = pcn_data_end(ctx);
	__u32 number, offset;
	__u16 flow;

	if (ctx->ingress_ifindex == TRAFFIC_LOOPBACK)
		return XDP_PASS;
	if (!setup || data + TRAFFIC_HEAD > end)
		return XDP_DROP;
	memcpy(data, setup->template, TRAFFIC_HEAD);
	if (setup->stations > 1)
		*(__be16 *)(data + 4) = bpf_htons(bpf_ntohs(*(__be16 *)(data + 4)) + setup->next % setup->stations);
	if (setup->length > TRAFFIC_HEAD) {
		__u32 rest = setup->length - TRAFFIC_HEAD;

		asm volatile("" : "+r"(rest));
		if (rest == 0 || rest > TRAFFIC_TEMPLATE - TRAFFIC_HEAD)
			return XDP_DROP;
		if (bpf_xdp_store_bytes(ctx, TRAFFIC_HEAD, setup->template + TRAFFIC_HEAD, rest))
			return XDP_DROP;
		data = pcn_data(ctx);
		end = pcn_data_end(ctx);
	}
	offset = setup->udp & 0x7f;
	udp = data + offset;
	if ((void *)(udp + 1) > end || data + TRAFFIC_HEAD > end)
		return XDP_DROP;
	number = setup->next++;
	if (setup->networks > 1)
		towards(data + ETH_HLEN, number % setup->networks);
	flow = setup->flows > 1 ? number % setup->flows : 0;
	udp->port[0] = bpf_htons(setup->port + flow);
	udp->payload.flow = bpf_htons(flow);
	udp->payload.not_flow[0] = udp->payload.not_flow[1] = ~bpf_htons(flow);
	udp->payload.number = number;
	udp->payload.not_number = ~number;
	return bpf_redirect(setup->ifindex, 0);
}
#else
#include <linux/pkt_cls.h>
#define VERDICT_TAKEN TC_ACT_SHOT
#define VERDICT_OTHER TC_ACT_UNSPEC
#define SECTION SEC("tc")
#endif

MAP(traffic_highest, ARRAY, __u32, __u32, 1); /* by flow: 1 + the highest number so far */
MAP(traffic_seen, ARRAY, __u32, __u64, 1);    /* a bit for each number */

/* Counts, and knows each frame by its number. */
SECTION int traffic_sink(struct pcn_ctx *ctx)
{
	struct traffic_setup *setup = setup_of_run();
	struct traffic_payload *payload;
	struct traffic_counts *counts;
	__u32 number, word, flow, zero = 0, *highest;
	__u64 bit, *seen;

	if (!setup)
		return VERDICT_OTHER;
	payload = payload_of(ctx, setup);
	if (!payload)
		return VERDICT_OTHER;
	number = payload->number;
	flow = bpf_ntohs(payload->flow);
	word = number / 64;
	bit = 1ULL << (number % 64);
	counts = bpf_map_lookup_elem(&traffic_counted, &zero);
	seen = bpf_map_lookup_elem(&traffic_seen, &word);
	highest = bpf_map_lookup_elem(&traffic_highest, &flow);
	if (!counts || !seen || !highest)
		return VERDICT_TAKEN;
	if (__sync_fetch_and_or(seen, bit) & bit) {
		counts->duplicated++;
		return VERDICT_TAKEN;
	}
	counts->received++;
	if (number < *highest)
		counts->reordered++;
	else
		*highest = number + 1;
	return VERDICT_TAKEN;
}

/* Counts only: for measurements, at the least cost. Takes every frame that is long enough to be one of ours and not broadcast. */
SECTION int traffic_count(struct pcn_ctx *ctx)
{
	__u8 *address = pcn_at(ctx, 0, ETH_HLEN);
	struct traffic_counts *counts;
	__u32 zero = 0;

	if (!address || (address[0] & 1) || pcn_len(ctx) < TRAFFIC_HEAD)
		return VERDICT_OTHER;
	counts = bpf_map_lookup_elem(&traffic_counted, &zero);
	if (counts)
		counts->received++;
	return VERDICT_TAKEN;
}

char _license[] SEC("license") = "GPL";
