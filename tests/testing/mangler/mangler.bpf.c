// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* A bad path for traffic.bpf.c: passes frames from one netdev to another and, one in so many, drops, doubles or exchanges them. */
#include <polycube/cube.h>

#ifdef PCN_TC
#include <linux/pkt_cls.h>

struct mangling {
	__u32 ifindex;
	__u32 drop, twice, swap; /* every so many frames; 0: never */
};

MAP(manglings, ARRAY, __u32, struct mangling, 1);

#define NUMBER 54 /* offset of the number in an IPv4 frame; its complement follows */

SEC("tc") int mangle(struct __sk_buff *ctx)
{
	__u32 zero = 0, number, other[2];
	struct mangling *how = bpf_map_lookup_elem(&manglings, &zero);

	if (!how || bpf_skb_load_bytes(ctx, NUMBER, &number, sizeof(number)))
		return TC_ACT_UNSPEC;
	if (how->drop && number % how->drop == 0)
		return TC_ACT_SHOT;
	if (how->twice && number % how->twice == 1)
		bpf_clone_redirect(ctx, how->ifindex, 0);
	if (how->swap && number % how->swap < 2) { /* as if the two had changed places */
		other[0] = number % how->swap ? number - 1 : number + 1;
		other[1] = ~other[0];
		bpf_skb_store_bytes(ctx, NUMBER, other, sizeof(other), 0);
	}
	return bpf_redirect(how->ifindex, 0);
}
#endif

char _license[] SEC("license") = "GPL";
