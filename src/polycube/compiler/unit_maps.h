/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The maps and constants of a unit. Included by unit.h only; what the linked function leaves unused gets into no object. */
#pragma once

/* ---- maps that all cubes share ---- */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PCN_ENTRIES);
	__type(key, __u32);
	__type(value, struct pcn_entry);
} pcn_entries PCN_MAPS; /* ifindex -> port, for small ifindexes; id 0: no port */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct pcn_entry);
} pcn_entries_high PCN_MAPS;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PCN_IDS);
	__type(key, __u32);
	__type(value, struct pcn_counter);
} pcn_counters PCN_MAPS;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PCN_CUBES * PCN_REASONS);
	__type(key, __u32);
	__type(value, __u64);
} pcn_drops PCN_MAPS;

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, PCN_CUBES * 2);
	__type(key, __u32);
	__type(value, __u32);
} pcn_progs PCN_MAPS; /* one for each hook */

#ifdef PCN_XDP
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pcn_meta);
} pcn_scratch PCN_MAPS;

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, PCN_IDS);
	__type(key, __u32);
	__type(value, __u32);
} pcn_netdevs PCN_MAPS; /* by port id; the kernel empties a slot when its netdev goes */
#endif

/* ---- maps of the cube ---- */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PCN_PORTS);
	__type(key, __u32);
	__type(value, struct pcn_port);
} ports PCN_MAPS;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PCN_DOMAINS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct pcn_domain);
} domains PCN_MAPS;

#ifdef PCN_XDP
struct pcn_flood_devices_inner {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u32);
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, PCN_DOMAINS * 16);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct pcn_flood_key);
	__array(values, struct pcn_flood_devices_inner);
} flood_devices PCN_MAPS;
#endif

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} slowpath PCN_MAPS;

CFG(__u32, pcn_cube);   /* number of the cube: its row in pcn_drops */
CFG(enum pcn_drop_reason, pcn_drop_reasons); /* never read: puts the names of the framework's reasons into BTF */
CFG(__u32, pcn_shadow_base); /* ifindex of a port's end of the veth into the cube's namespace, less the port's id; 0: there is none */
#ifdef PCN_TC
CFG(__u32, pcn_inject); /* TC: ifindex of the device whose ingress leads copies and injected frames to a cube */
#endif
