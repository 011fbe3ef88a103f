// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * A load balancer whose servers answer past it (direct server return). A packet to a VIP goes to the backend that its flow has, or, by
 * Maglev, belongs to: at layer 2 with the backend's MAC, or in a packet of its own (IP in IP, GUE). The flow table is a cache: where it
 * has forgotten a flow, or another balancer had it, the Maglev table still gives the same backend, as long as nothing has changed.
 * ICMP errors about what a server sent go to that server.
 */
#include "lbdsr.h"

CFG(struct lbdsr_settings, settings);

MAP(services, HASH, struct pcn_service_key, struct lbdsr_service, 8192);
MAP_FLAGS(members, HASH, struct pcn_maglev_member, struct lbdsr_member, 262144, BPF_F_NO_PREALLOC);
MAP_FLAGS(backends, HASH, struct lbdsr_backend_key, struct lbdsr_backend, 65536, BPF_F_NO_PREALLOC);
MAP(flows, LRU_HASH, struct pcn_ct_tuple, struct lbdsr_flow, 65536);

/* By port and protocol; else by protocol (port 0); else of the VIP (both 0). */
static __always_inline struct lbdsr_service *service_of(const void *vip, __be16 vport, __u8 proto)
{
	struct pcn_service_key key = {.vport = vport, .proto = proto};
	struct lbdsr_service *service;

	memcpy(&key.vip, vip, sizeof(key.vip));
	service = bpf_map_lookup_elem(&services, &key);
	if (!service && vport) {
		key.vport = 0;
		service = bpf_map_lookup_elem(&services, &key);
	}
	if (service)
		return service;
	key.proto = 0;
	return bpf_map_lookup_elem(&services, &key);
}

static __always_inline int is_vip(const void *address, int ipv6)
{
	struct pcn_address vip;

	pcn_ct_set_address(&vip, address, ipv6);
	return pcn_is_vip(&vip);
}

/* ARP and Neighbour Discovery on the frontend's side. */
static __always_inline int answer(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	const struct in6_addr *target6;
	const void *target = pcn_arp_request(ctx, pkt);
	__u8 mac[6];

	memcpy(mac, settings.mac, sizeof(mac));
	if (target && is_vip(target, 0))
		return pcn_arp_answer(ctx, pkt, mac);
	target6 = pcn_nd_request(ctx, pkt);
	if (target6 && is_vip(target6, 1))
		return pcn_nd_answer(ctx, pkt, mac, PCN_ND_FROM_HOST, ARP_IGNORED);
	return pcn_drop(pkt, ARP_IGNORED);
}

static __always_inline int up(const struct lbdsr_backend *backend)
{
	return backend && !backend->down;
}

/* The backend that the flow had so far, if it can still be had. */
static __always_inline struct lbdsr_backend *known(const struct pcn_ct_packet *p)
{
	struct lbdsr_flow *flow = settings.flow_table ? bpf_map_lookup_elem(&flows, &p->tuple) : 0;
	struct lbdsr_backend_key key;

	if (!flow || flow->swapped != p->swapped)
		return 0;
	key = flow->backend;
	return bpf_map_lookup_elem(&backends, &key);
}

/* The backend that the flow belongs to, or NULL and a reason. */
static __always_inline struct lbdsr_backend *chosen(const struct pcn_ct_packet *p, __u16 *reason)
{
	const struct in6_addr *client = (void *)p->tuple.address[0], *vip = (void *)p->tuple.address[1];
	__be16 sport = p->tuple.port[0], vport = p->tuple.port[1];
	struct lbdsr_flow flow = {.swapped = p->swapped};
	struct pcn_maglev_member key;
	struct lbdsr_service *service;
	struct lbdsr_backend *backend;
	struct lbdsr_member *member;

	if (p->swapped) {
		client = (void *)p->tuple.address[1];
		vip = (void *)p->tuple.address[0];
		sport = p->tuple.port[1];
		vport = p->tuple.port[0];
	}
	service = service_of(vip, vport, p->tuple.proto);
	*reason = NO_SERVICE;
	if (!service)
		return 0;
	*reason = NO_BACKEND;
	key = pcn_maglev_pick(&service->maglev, pcn_hash_ipv6(client, vip, sport, vport, p->tuple.proto, 0, 0));
	member = bpf_map_lookup_elem(&members, &key);
	if (!member)
		return 0;
	flow.backend.service = service->number;
	flow.backend.id = member->id;
	backend = bpf_map_lookup_elem(&backends, &flow.backend);
	if (!backend)
		return 0;
	if (settings.flow_table && p->kind != PCN_CT_KIND_ERROR) {
		bpf_map_update_elem(&flows, &p->tuple, &flow, BPF_ANY);
		__sync_fetch_and_add(&backend->flows, 1);
	}
	return backend;
}

/*
 * The outer packet's source tells flows apart to whoever spreads packets by their addresses and ports, as Katran's does: in IP in IP the end of the
 * address is made from the client's address and port, in GUE the source port is.
 */
static __always_inline void mix(struct pcn_encap *encap, const __u8 *client, __be16 sport)
{
	__u8 high = (__u8)sport, low = sport >> 8, *end = encap->from + 2;
	int mapped = !pcn_word(client) && !pcn_word(client + 4) && pcn_word(client + 8) == bpf_htonl(PCN_CT_MAPPED);

	if (encap->ipv6 && encap->udp) {
		const __u8 *from = mapped ? client + 14 : client + 12;

		encap->sport = *(const __u16 *)from ^ sport;
	} else if (encap->udp) {
		encap->sport = *(const __u16 *)(client + 14) ^ (low | high << 8);
	} else if (encap->ipv6) {
		*(__u32 *)(encap->from + 12) = pcn_word(client + 12) ^ sport;
	} else {
		end[0] = client[14] ^ low;
		end[1] = client[15] ^ high;
	}
}

static __always_inline int encapsulate(struct pcn_ctx *ctx, struct pcn_packet *pkt, const struct pcn_ct_packet *p, const struct lbdsr_backend *backend,
				       __u8 kind)
{
	const __u8 *to = backend->address.bytes;
	struct pcn_encap encap = {.udp = kind == LBDSR_GUE, .dport = settings.gue_port};
	__u32 size;

	encap.ipv6 = pcn_word(to) || pcn_word(to + 4) || pcn_word(to + 8) != bpf_htonl(PCN_CT_MAPPED);
	size = pcn_encap_size(encap.ipv6, encap.udp);
	if (pkt->l3 != ETH_HLEN)
		return pcn_drop(pkt, TAGGED);
	if (settings.mtu && !pcn_fits(ctx, pkt, settings.mtu - size)) {
		if (p->kind == PCN_CT_KIND_ERROR || !pcn_vantage_allowed())
			return pcn_drop(pkt, TOO_BIG);
		return pcn_slowpath(pkt, LBDSR_UP_TOO_BIG, settings.mtu - size, 0, 0);
	}
	if (encap.ipv6) {
		memcpy(encap.from, &settings.source6, sizeof(settings.source6));
		memcpy(encap.to, to, sizeof(encap.to));
	} else {
		memcpy(encap.from, settings.source4, sizeof(settings.source4));
		*(__u32 *)encap.to = pcn_word(to + 12);
	}
	if (p->swapped)
		mix(&encap, p->tuple.address[1], p->tuple.port[1]);
	else
		mix(&encap, p->tuple.address[0], p->tuple.port[0]);
	return pcn_encap(ctx, pkt, &encap) ? pcn_drop(pkt, NO_ROOM) : PCN_PASS;
}

static __always_inline int forward(struct pcn_ctx *ctx, struct pcn_packet *pkt, const struct pcn_ct_packet *p, const struct lbdsr_backend *backend)
{
	__u8 addresses[12], kind = backend->encapsulation;
	int verdict;

	memcpy(addresses, backend->mac, 6);
	memcpy(addresses + 6, settings.own_mac, 6);
	if (kind != LBDSR_L2) {
		if (!(*(__u32 *)addresses | *(__u16 *)(addresses + 4)))
			memcpy(addresses, settings.gateway, 6);
		verdict = encapsulate(ctx, pkt, p, backend, kind);
		if (verdict != PCN_PASS)
			return verdict;
	}
	if (pcn_store(ctx, 0, addresses, sizeof(addresses)))
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	return pcn_forward(pkt, settings.backend);
}

static __always_inline int to_vip_mac(struct pcn_ctx *ctx)
{
	__u16 *mac = pcn_at(ctx, 0, ETH_ALEN), *own = (void *)settings.mac;

	return mac && !((mac[0] ^ own[0]) | (mac[1] ^ own[1]) | (mac[2] ^ own[2]));
}

HANDLER(ingress)
{
	struct lbdsr_backend *backend;
	struct pcn_ct_packet *p = pcn_ct_packet();
	__u16 why = NO_BACKEND;
	int reason;

	if (pkt->in_port != settings.frontend) {
		if (!pcn_parse(ctx, pkt) && pcn_for_vantage(ctx, pkt))
			return pcn_vantage_up(pkt, PCN_UP_VANTAGE, CONTROL_LIMIT);
		return pcn_drop(pkt, BACKEND_SIDE);
	}
	if (!p)
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	reason = pcn_ct_read(ctx, pkt, p, pcn_now());
	if (reason)
		return pcn_drop(pkt, reason);
	if (p->kind == PCN_CT_KIND_NONE) {
		if (pkt->proto == bpf_htons(ETH_P_ARP) || pkt->proto == bpf_htons(ETH_P_IPV6))
			return answer(ctx, pkt);
		return pcn_drop(pkt, NOT_IP);
	}
	if (!to_vip_mac(ctx))
		return pcn_drop(pkt, OTHER_MAC);
	if (p->kind == PCN_CT_KIND_BAD)
		return pcn_drop(pkt, UNTRACKABLE);
	backend = known(p);
	if (!up(backend))
		backend = chosen(p, &why);
	if (!up(backend))
		return pcn_drop(pkt, why);
	return forward(ctx, pkt, p, backend);
}
