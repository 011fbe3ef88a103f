/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Rates of prefixes and of each address in them. */
#pragma once

#include "ddosmitigator.h"

/* Packets and bytes, or neither. */
static __always_inline int limit_take(const struct ddosmitigator_limit *limit, struct pcn_tokenbucket *packets,
				      struct pcn_tokenbucket *bytes, const struct ddosmitigator_packet *packet)
{
	if (!pcn_tokens_take(packets, &limit->packets, packet->packets, packet->now))
		return 0;
	if (pcn_tokens_take(bytes, &limit->bytes, packet->bytes, packet->now))
		return 1;
	pcn_tokens_return(packets, &limit->packets, packet->packets);
	return 0;
}

/* The buckets of an address; NULL if there is no room for them. */
static __always_inline struct ddosmitigator_buckets *limit_buckets(const struct in6_addr *address, __u32 slot)
{
	struct ddosmitigator_address key = {.address = *address, .limit = slot};
	struct ddosmitigator_buckets *standing = bpf_map_lookup_elem(&buckets, &key), full = {};

	if (standing)
		return standing;
	bpf_map_update_elem(&buckets, &key, &full, BPF_NOEXIST); /* another CPU may be faster */
	return bpf_map_lookup_elem(&buckets, &key);
}

/*
 * Whether the rate of an entry lets a packet pass. Where each address has a rate and there is no room for one more, those without share the
 * rate of one: known ones keep theirs, and a flood of sources that are made up gets no more than that.
 */
static __always_inline int limit_allows(const struct ddosmitigator_entry *entry, const struct in6_addr *address,
					const struct ddosmitigator_packet *packet, struct ddosmitigator_stats *count)
{
	__u32 slot = entry->limit;
	struct ddosmitigator_limit *limit = bpf_map_lookup_elem(&limits, &slot);
	struct ddosmitigator_buckets *own;

	if (!limit)
		return 1;
	if (entry->kind == DDOSMITIGATOR_LIMIT_EACH) {
		own = limit_buckets(address, slot);
		if (own)
			return limit_take(limit, &own->packets, &own->bytes, packet);
		count->unlisted++;
	}
	return limit_take(limit, &limit->packet_bucket, &limit->byte_bucket, packet);
}
