// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Does with a frame what the table says for the port it came by; without an entry it is dropped. */
#include <polycube/cube.h>

enum simpleforwarder_verb { DROP, SLOWPATH, FORWARD };

DROPS(NO_ACTION);

struct simpleforwarder_action {
	enum simpleforwarder_verb verb;
	__u32 port; /* out of which FORWARD sends */
};

MAP(actions, HASH, __u32, struct simpleforwarder_action, 1024);

HANDLER(ingress)
{
	__u32 port = pkt->in_port;
	struct simpleforwarder_action *action = bpf_map_lookup_elem(&actions, &port);

	if (!action)
		return pcn_drop(pkt, NO_ACTION);
	switch (action->verb) {
	case FORWARD:
		return pcn_forward(pkt, action->port);
	case SLOWPATH:
		return pcn_slowpath(pkt, 1, 0, 0, 0);
	default:
		return pcn_drop(pkt, PCN_DROP_POLICY);
	}
}
