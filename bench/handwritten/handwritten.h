/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What such a program begins with: tables, counters of ports, drops by reason. */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_helpers.h>

#define TABLE_(_name, _type, _key, _value, _max, _flags)                                                                              \
	struct {                                                                                                                     \
		__uint(type, BPF_MAP_TYPE_##_type);                                                                                  \
		__uint(max_entries, _max);                                                                                           \
		__uint(map_flags, _flags);                                                                                           \
		__type(key, _key);                                                                                                   \
		__type(value, _value);                                                                                               \
	} _name SEC(".maps")

#define TABLE(_name, _type, _key, _value, _max, _flags) TABLE_(_name, _type, _key, _value, _max, _flags)

struct counter {
	__u64 rx_packets, rx_bytes, tx_packets, tx_bytes;
};

TABLE(counters, PERCPU_ARRAY, __u32, struct counter, 128, 0);
TABLE(drops, PERCPU_ARRAY, __u32, __u64, 8, 0);

static __always_inline int drop(__u32 reason)
{
	__u64 *count = bpf_map_lookup_elem(&drops, &reason);

	if (count)
		(*count)++;
	return XDP_DROP;
}

static __always_inline void count(__u32 port, __u32 len, int out)
{
	struct counter *counter = bpf_map_lookup_elem(&counters, &port);

	if (!counter)
		return;
	if (out) {
		counter->tx_packets++;
		counter->tx_bytes += len;
	} else {
		counter->rx_packets++;
		counter->rx_bytes += len;
	}
}

/* A bridge's table. */
struct mac {
	__u32 high, low;
};

struct station {
	__u32 seen;
	__u16 port, flags;
};
