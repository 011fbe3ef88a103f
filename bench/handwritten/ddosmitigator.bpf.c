// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * What somebody who needs just a blacklist of sources would write for XDP: the yardstick for a drop by cubes/ddosmitigator. The same
 * look-up (the library's longest-prefix match, with entries that expire), the same checks of headers and the same counters, of the entry, of
 * all drops, of the netdev and of drop reasons; no framework.
 */
#define PCN_XDP
#include <polycube/lpm.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

struct entry {
	__u64 dropped;
	__u32 expires;
	__u16 limit, kind;
	__u32 load, pad;
};

struct stats {
	__u64 dropped_src, dropped_dst, dropped_rate, dropped_heavy, dropped_bytes, unlisted, unblocked;
};

static __always_inline int stands(const void *value, __u64 seconds)
{
	const struct entry *entry = value;

	return !entry->expires | (entry->expires > seconds);
}

LPM4_IF(sources4, struct entry, 65536, stands);
LPM6_IF(sources6, struct entry, 65536, stands);
MAP(stats, PERCPU_ARRAY, __u32, struct stats, 1);
MAP(counters, PERCPU_ARRAY, __u32, struct pcn_counter, 16);
MAP(reasons, PERCPU_ARRAY, __u32, __u64, 64);
MAP(port_of, ARRAY, __u32, __u32, 65536);

struct vlan {
	__be16 tci, proto;
};

static __always_inline int drop(struct entry *entry, __u32 length)
{
	__u32 zero = 0, reason = PCN_DROP_CUBE;
	struct stats *count = bpf_map_lookup_elem(&stats, &zero);
	__u64 *dropped = bpf_map_lookup_elem(&reasons, &reason);

	if (count) {
		count->dropped_src++;
		count->dropped_bytes += length;
	}
	if (dropped)
		(*dropped)++;
	__sync_fetch_and_add(&entry->dropped, 1);
	return XDP_DROP;
}

SEC("xdp")
int ddosmitigator(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 ifindex = ctx->ingress_ifindex, length = end - data, *port = bpf_map_lookup_elem(&port_of, &ifindex), id, i;
	struct entry *entry = 0;
	struct pcn_counter *counter;
	struct ethhdr *eth = data;
	void *l3 = eth + 1;
	__be16 proto;
	__u64 now;

	if (!port || l3 > end)
		return XDP_DROP;
	id = *port;
	counter = bpf_map_lookup_elem(&counters, &id);
	if (counter) {
		counter->rx_packets++;
		counter->rx_bytes += length;
	}
	proto = eth->h_proto;
	for (i = 0; i < 2 && (proto == bpf_htons(ETH_P_8021Q) || proto == bpf_htons(ETH_P_8021AD)); i++) {
		struct vlan *tag = l3;

		l3 = tag + 1;
		if (l3 > end)
			return XDP_DROP;
		proto = tag->proto;
	}
	now = bpf_ktime_get_ns() / 1000000000ULL;
	if (proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = l3;

		if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
			return XDP_DROP;
		if (pcn_lpm_any(sources4))
			entry = pcn_lpm4_if(sources4, ip->saddr, now);
	} else if (proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = l3;
		struct in6_addr source;

		if ((void *)(ip + 1) > end || ip->version != 6)
			return XDP_DROP;
		source = ip->saddr;
		if (pcn_lpm_any(sources6))
			entry = pcn_lpm6_if(sources6, &source, now);
	}
	return entry ? drop(entry, length) : XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
