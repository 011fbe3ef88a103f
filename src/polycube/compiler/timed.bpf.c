// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * The clock around the handlers of a cube that is timed (`timing`); linked with its function, it replaces what unit.h calls there. A
 * handler ends before its verdict is carried out, so that nothing behind a tail call, a redirect or a flood is in its time. The variant
 * without PCN_TIMED_EGRESS is for functions that have no egress handler.
 */
#include <polycube/cube.h>

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PCN_CUBES * 2);
	__type(key, __u32);
	__type(value, struct pcn_time);
} pcn_times PCN_MAPS; /* two for each cube, by enum pcn_direction */

extern __u32 pcn_cube; /* the unit's (unit_maps.h) */

static __always_inline int timed(__u32 handler)
{
#ifdef PCN_TIMED_EGRESS
	return 1;
#else
	return handler == PCN_INGRESS;
#endif
}

__u64 pcn_clock_start(__u32 handler)
{
	return timed(handler) ? bpf_ktime_get_ns() : 0;
}

void pcn_clock_stop(__u32 handler, __u64 start)
{
	__u64 end = pcn_clock_start(handler);
	__u32 key = pcn_cube * 2 + handler;
	struct pcn_time *time = timed(handler) ? bpf_map_lookup_elem(&pcn_times, &key) : NULL;

	if (time) {
		time->nanoseconds += end - start;
		time->packets++;
	}
}
