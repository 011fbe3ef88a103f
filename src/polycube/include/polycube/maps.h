/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* How a cube declares its state: maps, configuration constants and drop reasons. */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <polycube/abi.h>

/* A table of the cube: MAP(fdb, HASH, struct mac, struct station, 65536). Pinned by cube and name; survives programs and daemons. */
#define MAP(_name, _type, _key, _value, _max)                                                                                        \
	struct {                                                                                                                     \
		__uint(type, BPF_MAP_TYPE_##_type);                                                                                  \
		__uint(max_entries, _max);                                                                                           \
		__type(key, _key);                                                                                                   \
		__type(value, _value);                                                                                               \
	} _name SEC(".maps")

/* The same with map flags, such as BPF_F_NO_PREALLOC, which an LPM_TRIE needs. */
#define MAP_FLAGS(_name, _type, _key, _value, _max, _flags)                                                                          \
	struct {                                                                                                                     \
		__uint(type, BPF_MAP_TYPE_##_type);                                                                                  \
		__uint(max_entries, _max);                                                                                           \
		__uint(map_flags, _flags);                                                                                           \
		__type(key, _key);                                                                                                   \
		__type(value, _value);                                                                                               \
	} _name SEC(".maps")

/* The same without keys: QUEUE, STACK. */
#define MAP_KEYLESS(_name, _type, _value, _max)                                                                                      \
	struct {                                                                                                                     \
		__uint(type, BPF_MAP_TYPE_##_type);                                                                                  \
		__uint(max_entries, _max);                                                                                           \
		__type(value, _value);                                                                                               \
	} _name SEC(".maps")

/* A ring buffer of so many bytes, a power of two of at least a page. */
#define MAP_RING(_name, _bytes)                                                                                                      \
	struct {                                                                                                                     \
		__uint(type, BPF_MAP_TYPE_RINGBUF);                                                                                  \
		__uint(max_entries, _bytes);                                                                                         \
	} _name SEC(".maps")

/* A map of the framework: like SEC(".maps"), but the optimiser may drop it from an object whose code does not refer to it. */
#define PCN_MAPS __attribute__((section(".maps")))

/*
 * A configuration constant, read by its name. In a unit of one it is memory that the control plane writes at run time; in a fused unit
 * the compiler defines it and folds it away. Not `const`, since clang believes the initial value of a constant even when it is weak;
 * never write to it.
 */
#define CFG(_type, _name) _type _name __attribute__((weak, section(".data.cfg")))

/*
 * The cube's own drop reasons: DROPS(NO_ROUTE, NO_NEIGHBOUR) gives enumerators in that order; user space reads their names from BTF.
 * The constant exists to put the enumeration into BTF.
 */
#define DROPS(_first, ...)                                                                                                           \
	enum pcn_cube_drop { _first = PCN_DROP_CUBE, ##__VA_ARGS__ };                                                                \
	CFG(enum pcn_cube_drop, pcn_cube_drops)
