/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Tables of the bridge, and what its handlers tell each other. Included by bridge.bpf.c only. */
#pragma once

#define PCN_STATIONS_AT_ONCE
#include <polycube/fdb.h>
#include <polycube/parse.h>
#include <polycube/vlan.h>

#define BRIDGE_VLANS 4096

DROPS(BAD_SOURCE,   /* nobody can have sent it: a group's address, or none */
      SAME_PORT,    /* the destination is where the frame came from */
      LINK_LOCAL,   /* an address that no bridge passes */
      NO_VLAN,      /* untagged, on a port that gives no VLAN to such frames */
      NOT_MEMBER,   /* the port is not in the frame's VLAN */
      BLOCKED,      /* spanning tree: the port does not forward in this VLAN */
      SILENT,       /* spanning tree: nobody speaks it for this bridge, and there is another bridge behind the port */
      NO_LISTENER); /* snooping: nobody behind the port listens to the group */

enum bridge_reason { BRIDGE_BPDU, BRIDGE_SNOOPED }; /* for the slow path; the first word is the VLAN */

/* A port's part in VLANs, as it is configured. */
struct bridge_port {
	__u16 pvid;   /* VLAN of untagged frames, both ways; 0: such frames are dropped */
	__u16 tagged; /* whether tagged frames are taken */
	__u8 vlans[BRIDGE_VLANS / 8];
};

enum bridge_state {
	BRIDGE_DISCARDING,
	BRIDGE_LEARNING,
	BRIDGE_FORWARDING,
	BRIDGE_TOWARDS_ROOT, /* forwards, and hears BPDUs from the root */
};

/* A port's part in the spanning trees. A new one blocks until the control plane has decided. */
struct bridge_tree {
	__u32 flushed;                  /* second of the last topology change: what was learned before is void */
	__u8 states[BRIDGE_VLANS / 4];  /* enum bridge_state, two bits for each VLAN */
};

struct bridge_heartbeat {
	__u32 beat;  /* second in which the control plane was last seen to work, pcn_now() */
	__u32 limit; /* of its silence, in seconds: less than what any other bridge needs to open a port */
};

struct bridge_place {
	__u16 vlan;
	__u16 port;
};

/* What the control plane keeps for its successor about a port in a tree; its own affair. */
struct bridge_memory {
	__u8 data[64];
};

struct bridge_group {
	__u16 vlan;
	__u16 port;
	__u8 address[16]; /* IPv6, or IPv4 mapped into it (RFC 4291); all zero: the port leads to a multicast router */
};

MAP(bridge_ports, ARRAY, __u32, struct bridge_port, PCN_PORTS);
MAP(bridge_domains, ARRAY, __u32, __u32, BRIDGE_VLANS);         /* VLAN -> flood domain */
MAP(bridge_trees, ARRAY, __u32, struct bridge_tree, PCN_PORTS);
MAP(bridge_heartbeats, ARRAY, __u32, struct bridge_heartbeat, 1);
/* Second in which another bridge last claimed to be the one that leads to the root; VLAN 0: the control plane has closed the port for it. */
MAP_FLAGS(bridge_heard, HASH, struct bridge_place, __u32, 65536, BPF_F_NO_PREALLOC);
MAP_FLAGS(bridge_memories, HASH, struct bridge_place, struct bridge_memory, 65536, BPF_F_NO_PREALLOC);
MAP(bridge_queriers, ARRAY, __u32, __u32, BRIDGE_VLANS);        /* VLAN -> second until which somebody asks for listeners */
MAP_FLAGS(bridge_groups, HASH, struct bridge_group, __u32, 65536, BPF_F_NO_PREALLOC); /* second until which there is a listener */

CFG(__u32, stp);
CFG(__u32, snooping);

/* pkt->carry: the VLAN the frame was put into, and how it is at present. */
#define BRIDGE_CLASSIFIED 0x10000
#define BRIDGE_TAGGED 0x20000
#define BRIDGE_VID 0xfff
