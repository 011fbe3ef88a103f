/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The filtering database of a bridge (IEEE 802.1Q, 8.8): stations by VLAN and address; VLAN 0 where there are none. Stations are learned from
 * source addresses, never from group addresses; an entry is written only when the station moved or a second has passed, so that the fast
 * path mostly reads. Ageing is a comparison at look-up: an aged entry is as good as none, whether or not anybody has removed it yet. A table
 * that is full takes no more stations, which are then flooded to, and counts them in `learn_failures`.
 *
 * Including this file declares the tables `fdb` and `learn_failures` and the constant `aging_time`; toolkit/fdb.py is the other side.
 */
#pragma once

#include <polycube/cube.h>

#define PCN_STATIONS 65536

enum pcn_station_flag { PCN_STATION_STATIC = 1 };

struct pcn_fdb_key {
	__u8 address[ETH_ALEN] __attribute__((aligned(4)));
	__u16 vlan; /* a key of whole words is hashed and compared faster */
};

struct pcn_station {
	__u32 seen; /* second it was last heard, pcn_now() */
	__u16 port;
	__u16 flags; /* enum pcn_station_flag; a static entry neither ages nor moves */
};

/*
 * Memory for stations as they come: all of it at once would be 4 MB more for each bridge, much for one of hundreds. PCN_STATIONS_AT_ONCE, said
 * before this file is included, is for one that is to be fast with thousands of stations: entries of a cache line each, side by side, so that
 * a look-up waits for half as much memory.
 */
#ifdef PCN_STATIONS_AT_ONCE
MAP(fdb, HASH, struct pcn_fdb_key, struct pcn_station, PCN_STATIONS);
#else
MAP_FLAGS(fdb, HASH, struct pcn_fdb_key, struct pcn_station, PCN_STATIONS, BPF_F_NO_PREALLOC);
#endif
MAP(learn_failures, PERCPU_ARRAY, __u32, __u64, 1); /* stations that the table did not take: it is full, or memory is short */

CFG(__u32, aging_time); /* seconds */

/* Loads of 4 and 2 bytes: copied as bytes, the compiler would assume nothing of alignment and load each one. */
static __always_inline void pcn_fdb_read(struct pcn_fdb_key *key, const __u8 *address, __u16 vlan)
{
	*(__u32 *)key->address = *(const __u32 *)address;
	*(__u16 *)(key->address + 4) = *(const __u16 *)(address + 4);
	key->vlan = vlan;
}

static __always_inline void pcn_fdb_learn(const struct pcn_packet *pkt, const struct pcn_fdb_key *source, __u32 now)
{
	struct pcn_station *known = bpf_map_lookup_elem(&fdb, source);
	struct pcn_station station = {.seen = now, .port = pkt->in_port};
	__u64 zero = 0, *failures;
	long error;

	if (known) {
		if (known->flags & PCN_STATION_STATIC)
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

/* The station, or NULL if there is none that is fresh. Signed: another CPU may have heard it in the second after `now`. */
static __always_inline struct pcn_station *pcn_fdb_find(const struct pcn_fdb_key *key, __u32 now)
{
	struct pcn_station *station = bpf_map_lookup_elem(&fdb, key);

	if (!station || (!(station->flags & PCN_STATION_STATIC) && (__s32)(now - station->seen) > (__s32)aging_time))
		return 0;
	return station;
}

/* 01:80:c2:00:00:00 to :0f: addresses that no bridge passes on (IEEE 802.1D, 7.12.6), as in Linux with its default group_fwd_mask. */
static __always_inline int pcn_is_link_local(const __u8 *address)
{
	return *(const __u32 *)address == bpf_htonl(0x0180c200) && !(*(const __u16 *)(address + 4) & bpf_htons(0xfff0));
}
