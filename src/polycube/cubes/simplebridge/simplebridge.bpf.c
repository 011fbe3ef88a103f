// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * A learning bridge. Stations are learned from source addresses, never from group addresses; an entry is written only when the station
 * moved or a second has passed, so that the fast path mostly reads. Ageing is a comparison at look-up: an aged entry is as good as none,
 * whether or not anybody has removed it yet. A table that is full floods. Frames to 01:80:c2:00:00:00 to :0f never pass a bridge
 * (IEEE 802.1D, 7.12.6), as in Linux with its default group_fwd_mask; there is no spanning tree here that would take them.
 */
#include <polycube/cube.h>

DROPS(SAME_PORT, LINK_LOCAL);

enum simplebridge_flag { SIMPLEBRIDGE_STATIC = 1 };

struct simplebridge_mac {
	__u8 address[ETH_ALEN] __attribute__((aligned(4)));
	__u16 zero; /* a key of whole words is hashed and compared faster */
};

struct simplebridge_station {
	__u32 seen; /* second it was last heard, pcn_now() */
	__u16 port;
	__u16 flags; /* enum simplebridge_flag; a static entry neither ages nor moves */
};

/* Memory for stations as they come: a table of the full size for each bridge would be 6 MB, most of it never used. */
MAP_FLAGS(fdb, HASH, struct simplebridge_mac, struct simplebridge_station, 65536, BPF_F_NO_PREALLOC);
MAP(learn_failures, PERCPU_ARRAY, __u32, __u64, 1); /* stations that the table did not take: it is full, or memory is short */

CFG(__u32, aging_time);

/* Loads of 4 and 2 bytes: copied as bytes, the compiler would assume nothing of alignment and load each one. */
static __always_inline void simplebridge_read(struct simplebridge_mac *mac, const __u8 *address)
{
	*(__u32 *)mac->address = *(const __u32 *)address;
	*(__u16 *)(mac->address + 4) = *(const __u16 *)(address + 4);
	mac->zero = 0;
}

static __always_inline void simplebridge_learn(struct pcn_packet *pkt, const struct simplebridge_mac *source, __u32 now)
{
	struct simplebridge_station *known = bpf_map_lookup_elem(&fdb, source);
	struct simplebridge_station station = {.seen = now, .port = pkt->in_port};
	__u32 zero = 0;
	long error;
	__u64 *failures;

	if (known) {
		if (known->flags & SIMPLEBRIDGE_STATIC)
			return;
		if (known->port != station.port)
			known->port = station.port;
		if (known->seen != now)
			known->seen = now;
		return;
	}
	error = bpf_map_update_elem(&fdb, source, &station, BPF_NOEXIST);
	if (!error || error == -17 /* EEXIST: learned by another CPU meanwhile */)
		return;
	failures = bpf_map_lookup_elem(&learn_failures, &zero);
	if (failures)
		(*failures)++;
}

HANDLER(ingress)
{
	struct ethhdr *eth = pcn_at(ctx, 0, sizeof(*eth));
	struct simplebridge_station *station;
	struct simplebridge_mac mac;
	__u32 now = pcn_now();

	if (!eth)
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	if (!(eth->h_source[0] & 1)) {
		simplebridge_read(&mac, eth->h_source);
		simplebridge_learn(pkt, &mac, now);
	}
	simplebridge_read(&mac, eth->h_dest);
	if (mac.address[0] & 1) {
		if (*(__u32 *)mac.address == bpf_htonl(0x0180c200) && !(*(__u16 *)(mac.address + 4) & bpf_htons(0xfff0)))
			return pcn_drop(pkt, LINK_LOCAL);
		return pcn_flood(pkt, 0);
	}
	station = bpf_map_lookup_elem(&fdb, &mac);
	/* Signed: another CPU may have heard it in the second after `now`. */
	if (!station || (!(station->flags & SIMPLEBRIDGE_STATIC) && (__s32)(now - station->seen) > (__s32)aging_time))
		return pcn_flood(pkt, 0);
	if (station->port == pkt->in_port)
		return pcn_drop(pkt, SAME_PORT);
	return pcn_forward(pkt, station->port);
}
