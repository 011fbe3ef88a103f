/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The clock that cube.h leaves to the unit. The kernel's coarse clock goes on with the tick, so it is asked once a tick and CPU: the number of
 * ticks is a load, the clock a call and a division, some 15 ns. Included by unit.h only.
 */
#pragma once

struct pcn_tick {
	__u64 jiffies;
	__u32 second;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pcn_tick);
} pcn_ticks PCN_MAPS;

__u32 pcn_now(void)
{
	__u64 zero = 0;
	__u64 jiffies = bpf_jiffies64();
	struct pcn_tick *tick = bpf_map_lookup_elem(&pcn_ticks, &zero);

	if (!tick)
		return 0;
	if (tick->jiffies != jiffies) {
		tick->second = bpf_ktime_get_coarse_ns() / 1000000000ULL;
		asm volatile("" ::: "memory"); /* who interrupts here must not take the old second for the new one */
		tick->jiffies = jiffies;
	}
	return tick->second;
}
