/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What the data plane and the control plane of lbdsr share. Addresses are 16 bytes, IPv4 ones mapped (::ffff:a.b.c.d), in network byte order. */
#pragma once

#include <polycube/balance.h>
#include <polycube/encap.h>
#include <polycube/mtu.h>

enum lbdsr_encapsulation { LBDSR_L2, LBDSR_IPIP, LBDSR_GUE };

struct lbdsr_service {
	struct pcn_maglev maglev;
	__u32 number;
};

struct lbdsr_member {
	__u32 id;
};

struct lbdsr_backend_key {
	__u32 service; /* number */
	__u32 id;
};

struct lbdsr_backend {
	struct pcn_address address; /* where encapsulated packets are sent */
	__u8 mac[6];                  /* zero: the gateway's */
	__u8 encapsulation;           /* enum lbdsr_encapsulation */
	__u8 down;                    /* by its health check: flows that it had go to others */
	__u64 flows;                  /* that it was chosen for */
};

/* Which backend a flow has. */
struct lbdsr_flow {
	struct lbdsr_backend_key backend;
	__u32 swapped; /* the VIP is the first endpoint of the tuple */
};

/* The MTU that a packet has to fit, headers of the encapsulation taken off; 0: no limit is known. */
struct lbdsr_settings {
	__u32 frontend; /* numbers of ports */
	__u32 backend;
	__u32 mtu; /* of the backend port */
	__u32 flow_table;
	__u8 mac[6];     /* of the VIPs */
	__u8 own_mac[6]; /* that frames to servers come from: another, or switches would look for the VIPs where the servers are */
	__u8 gateway[6];
	__be16 gue_port;
	__u8 source4[4];
	struct in6_addr source6;
};

enum lbdsr_reason {
	LBDSR_UP_TOO_BIG = PCN_UP_VANTAGE + 1, /* metadata: MTU to report */
};

DROPS(BACKEND_SIDE,  /* from the backend port: servers answer past the balancer */
      OTHER_MAC,     /* to a MAC that is not that of the VIPs */
      TAGGED,        /* to be encapsulated, and tagged */
      NOT_IP,        /* neither IPv4 nor IPv6 nor ARP */
      ARP_IGNORED,   /* ARP or neighbour discovery that does not ask for a VIP */
      UNTRACKABLE,   /* belongs to no flow that could be told: TCP flags that no host sends, fragments without their first, ICMP about nothing */
      NO_SERVICE,    /* to an address, port and protocol that is no service */
      NO_BACKEND,    /* the service has no backend that takes new flows */
      TOO_BIG,       /* for the backend port's MTU once encapsulated; counted beyond the limit of answers, else answered */
      CONTROL_LIMIT, /* more for the control plane's own host than it takes */
      NO_ROOM);      /* the frame has no room in front for the outer headers */
