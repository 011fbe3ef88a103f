/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What programs and user space agree on: the layouts of the shared maps, of the metadata that a tail call carries, and of what the
 * slow path hands up. A change here changes the layout digests, and with them the names of the pins: two generations never read each
 * other's bytes.
 */
#pragma once

#include <linux/types.h>

#define PCN_PORTS 1022         /* ports of one cube */
#define PCN_DOMAIN_PORTS PCN_PORTS
#define PCN_DOMAINS 1024       /* flood domains of one cube */
#define PCN_ENTRIES 65536      /* netdevs with a smaller ifindex are found in an array, others in a hash */
#define PCN_IDS 16384          /* ports of all cubes together: slots in `counters` and `netdevs` */
#define PCN_CUBES 2048         /* cubes in all; a cube owns two slots in `progs` and a row in `drops` */
#define PCN_REASONS 64         /* drop reasons of one cube, the framework's included */
#define PCN_ANY_PORT 0xffff

/* What comes next for a frame that leaves by a port (in a transparent cube: in a direction). */
enum pcn_next {
	PCN_NEXT_NONE,    /* no peer: dropped */
	PCN_NEXT_NETDEV,  /* target: ifindex */
	PCN_NEXT_CUBE,    /* target: slot in progs; peer_port, peer_id: where it arrives */
	PCN_NEXT_STACK,   /* the host's stack, as received by the netdev it came from */
};

enum pcn_port_flag {
	PCN_PORT_PEER = 1,       /* TC: the netdev is a veth into another namespace: bpf_redirect_peer spares frames for the host there a queue */
	PCN_PORT_OWN_FLOOD = 2,  /* XDP: floods from this port have a device map of their own (exclusion is not by netdev) */
	PCN_PORT_INDIRECT = 4,   /* a flooded copy can't be put on a netdev directly: egress code or a cube comes first */
	PCN_PORT_HOOK = 8,       /* TC: end of a netdev's own chain; on the hook of `target` itself the frame just goes on */
};

/* One entry of a cube's `ports`. */
struct pcn_port {
	__u8 next;       /* enum pcn_next */
	__u8 flags;      /* enum pcn_port_flag */
	__u16 peer_port; /* number of the port that receives the frame in the cube that comes next */
	__u32 target;
	__u32 id;        /* this port among the ports of all cubes: slot in counters and netdevs */
	__u32 peer_id;   /* the same of the peer */
};

/* Where frames of a netdev arrive: value of `entries`. */
struct pcn_entry {
	__u32 port;
	__u32 id;
};

/* Counters of a port, per CPU. In a transparent cube: of a direction. */
struct pcn_counter {
	__u64 rx_packets;
	__u64 rx_bytes;
	__u64 tx_packets;
	__u64 tx_bytes;
};

/* Of a handler that is timed, per CPU. */
struct pcn_time {
	__u64 nanoseconds;
	__u64 packets;
};

enum pcn_meta_flag {
	PCN_META_OUT = 1, /* send out of `port` instead of treating it as received there */
	PCN_META_TRACE = 2,
	PCN_META_FLOODED = 4,   /* TC: one of many copies; not for whoever gets it in particular */
	PCN_META_SEEN = 8,      /* sent by the cube's own namespace, which needs no copy of it */
	PCN_META_HOP = 0x100,   /* a flooded copy came back in by a device: one more hop */
	PCN_META_HOPS = 0x1f00, /* the hops so far; a copy that has them all is dropped, which ends loops */
};

/* What travels with a frame across a tail call: in skb->cb (TC), in a per-CPU slot (XDP). */
struct pcn_meta {
	__u16 port;
	__u16 flags; /* enum pcn_meta_flag */
	__u32 id;
};

/* skb->mark of a frame on the injection device (TC): slot in progs, whether to send it out of the port, hops, port. */
#define PCN_MARK(_slot, _flags, _port) ((_slot) << 16 | ((_flags) & PCN_META_HOPS) << 2 | (_port))
#define PCN_MARK_OUT 0x8000
#define PCN_MARK_PORT 0x3ff
/* Metadata in front of a flooded copy (XDP): the hops of PCN_META_HOPS beside this. */
#define PCN_COPY 0x9c0b0000
#define PCN_MARK_DONE 0x9c0bed0e /* was put on the netdev's hook from elsewhere: its own chain has had it */
#define PCN_MARK_SPAN 0x9c0b59a4 /* on a shadow netdev: a copy, to be captured in the namespace and not to be answered */
#define PCN_INDEX_SPAN 0x9c0b    /* the same on the way into the namespace: skb->tc_index, which crosses the border as the mark does not */

/* In front of a frame that user space injects through BPF_PROG_TEST_RUN (XDP). */
struct pcn_inject {
	struct pcn_meta meta;
	__u32 slot;
	__u32 pad;
};

/* The members of a flood domain. */
struct pcn_domain {
	__u32 count;
	__u16 port[PCN_DOMAIN_PORTS];
};

/* Key of `flood_devices`. */
struct pcn_flood_key {
	__u16 domain;
	__u16 port; /* in-port, or PCN_ANY_PORT */
};

enum pcn_event_flag {
	PCN_EVENT_XDP = 1,
	PCN_EVENT_VLAN = 2,      /* the tag was in the skb's metadata: vlan_tci, vlan_proto */
	PCN_EVENT_EGRESS = 4,    /* handed up by the egress handler */
	PCN_EVENT_TRUNCATED = 8, /* caplen < len */
};

/* A frame on its way up; `caplen` bytes of it follow. */
struct pcn_event {
	__u32 len;
	__u32 caplen;
	__u16 port;
	__u16 reason;
	__u16 flags; /* enum pcn_event_flag */
	__u16 vlan_tci;
	__u16 vlan_proto; /* network byte order */
	__u16 pad;
	__u32 ifindex;    /* of the netdev whose program ran */
	__u32 metadata[3];
};

/* XDP: a copy on its way into the cube's namespace by user space; `caplen` bytes of the frame follow. */
struct pcn_copy {
	__u32 id; /* of the port */
	__u32 caplen;
};

/* Why a frame was dropped; a cube's own reasons begin at PCN_DROP_CUBE. */
enum pcn_drop_reason {
	PCN_DROP_POLICY,        /* the function's configuration says so */
	PCN_DROP_MALFORMED,     /* headers cut off or inconsistent */
	PCN_DROP_NO_PORT,       /* forwarded to a port that does not exist */
	PCN_DROP_NO_PEER,       /* the port leads nowhere */
	PCN_DROP_NO_ENTRY,      /* the netdev is not (or no longer) a port of this cube */
	PCN_DROP_HOPS,          /* too many cubes on the way: the kernel's limit of tail calls, or that of flooded copies; next cube gone */
	PCN_DROP_NO_NETDEV,     /* the netdev is gone or can't transmit */
	PCN_DROP_SLOWPATH_FULL, /* the queue to the control plane is full */
	PCN_DROP_NO_MEMBERS,    /* flooded to an empty domain */
	PCN_DROP_EXTENSIONS,    /* more IPv6 extension headers than are followed */
	PCN_DROP_SPAN,          /* a copy for the cube's namespace was lost; the frame itself went on */
	PCN_DROP_CUBE = 16,
};
