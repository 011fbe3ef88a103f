// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * A load balancer that answers pass through again. A packet to a service (VIP, port, protocol) gets a backend as its destination, and the
 * answer the VIP as its source. Each flow is a session, found by what the client sends and (`returns`) by what the backend does; packets
 * of neither are passed on as they are. At layer 2 nothing changes: the balancer stands in a link, or before the ports of pods.
 */
#include "onward.h"
#include "shortcut.h"

/* Source and destination of a packet; of an error: of a packet that would have gone its way. */
static __always_inline void ends_of(const struct pcn_ct_packet *p, struct pcn_translation *ends)
{
	if (p->swapped) {
		pcn_set_endpoint(&ends->from, p->tuple.address[1], p->tuple.port[1]);
		pcn_set_endpoint(&ends->to, p->tuple.address[0], p->tuple.port[0]);
	} else {
		pcn_set_endpoint(&ends->from, p->tuple.address[0], p->tuple.port[0]);
		pcn_set_endpoint(&ends->to, p->tuple.address[1], p->tuple.port[1]);
	}
}

/* As pcn_ct_find_tuple(), for entries that do not begin with their struct pcn_ct. */
static __always_inline struct lbrp_session *session_of(const struct pcn_ct_tuple *tuple, __u32 now)
{
	struct lbrp_session *session = bpf_map_lookup_elem(&sessions, tuple);

	return session && (__s32)(now - session->ct.expires) < 0 ? session : 0;
}

/* What the backend of a session takes the client for, who is `client`. */
static __always_inline const void *source_of(const struct lbrp_session *session, const void *client)
{
	return session->other_source ? session->source.bytes : client;
}

/* The tuple of the flow as the backend sees it; `ends` are those that the client sees. */
static __always_inline void inner_tuple(struct pcn_ct_tuple *tuple, const struct lbrp_session *session, const struct pcn_translation *ends, __u8 proto)
{
	__be16 port = session->backend.port ? session->backend.port : ends->to.port;

	pcn_ct_set_tuple(tuple, source_of(session, ends->from.address), session->backend.address.bytes, session->sport, port, proto, 1);
}

/* What a packet of the client has to become. `ends` is what it has. */
static __always_inline void to_backend(const struct lbrp_session *session, struct pcn_translation *ends)
{
	if (session->other_source)
		pcn_copy_address(ends->from.address, session->source.bytes);
	pcn_copy_address(ends->to.address, session->backend.address.bytes);
	ends->from.port = session->sport;
	if (session->backend.port)
		ends->to.port = session->backend.port;
}

/* The other way: `front` is the tuple of client and VIP. */
static __always_inline void to_client(const struct lbrp_session *session, const struct pcn_ct_tuple *front, struct pcn_translation *ends)
{
	if (session->ct.flags & PCN_CT_SWAPPED) { /* the client is the second endpoint */
		pcn_set_endpoint(&ends->from, front->address[0], front->port[0]);
		pcn_set_endpoint(&ends->to, front->address[1], front->port[1]);
	} else {
		pcn_set_endpoint(&ends->from, front->address[1], front->port[1]);
		pcn_set_endpoint(&ends->to, front->address[0], front->port[0]);
	}
}

/* The backend that a client had in the last seconds, if it takes new flows still: 1, or 0. */
static __always_inline int remembered(const struct lbrp_service *service, struct lbrp_work *work, __u32 now)
{
	struct lbrp_affinity *known = bpf_map_lookup_elem(&affinities, &work->client);
	struct lbrp_target *target;

	if (!known || (__s32)(now - known->expires) >= 0)
		return 0;
	work->target.service = service->number;
	work->target.backend = known->backend;
	target = bpf_map_lookup_elem(&targets, &work->target);
	if (!target || !target->takes || target->down)
		return 0;
	known->expires = now + service->affinity;
	work->session.backend = work->target.backend;
	return 1;
}

static __always_inline void remember(const struct lbrp_service *service, struct lbrp_work *work, __u32 now)
{
	__u32 zero = 0;
	__u64 *failures;

	work->affinity.backend = work->session.backend;
	work->affinity.expires = now + service->affinity;
	if (!bpf_map_update_elem(&affinities, &work->client, &work->affinity, BPF_ANY))
		return;
	failures = bpf_map_lookup_elem(&affinity_failures, &zero);
	if (failures)
		(*failures)++;
}

/* Gives the new session a backend: 1, or 0 if there is none. */
static __always_inline int choose(const struct lbrp_service *service, const struct pcn_translation *ends, __u8 proto, struct lbrp_work *work, __u32 now)
{
	const struct in6_addr *client = (const void *)ends->from.address, *vip = (const void *)ends->to.address;
	__u32 hash = pcn_hash_ipv6(client, vip, ends->from.port, ends->to.port, proto, service->affinity ? PCN_HASH_SOURCE : 0, 0);
	struct pcn_maglev_member slot;
	struct lbrp_backend *member;

	work->client.service = service->number;
	pcn_copy_address(&work->client.client, client);
	if (service->affinity && remembered(service, work, now))
		return 1;
	slot = pcn_maglev_pick(&service->maglev, hash);
	member = bpf_map_lookup_elem(&members, &slot);
	if (!member)
		return 0;
	work->session.backend = *member;
	if (service->affinity)
		remember(service, work, now);
	return 1;
}

/* What the backend takes the client for: another address where it is to be rewritten, and the VIP where the client would meet itself. */
static __always_inline void set_source(struct pcn_ctx *ctx, struct lbrp_session *session, const struct pcn_translation *ends)
{
	__u32 *to = (void *)session->source.bytes, *new = (void *)rewrite.new_range.bytes, *mask = (void *)rewrite.mask.bytes;
	struct lbrp_mac mac = {};
	struct ethhdr *eth;
	int i;

	session->sport = ends->from.port;
	session->other_source = 1;
	if (pcn_same_address(ends->from.address, session->backend.address.bytes)) {
		pcn_copy_address(to, ends->to.address);
		return;
	}
	pcn_copy_address(to, ends->from.address);
	if (!rewrite.on || !in_range(to, &rewrite.range)) {
		session->other_source = 0;
		return;
	}
#pragma unroll
	for (i = 0; i < 4; i++)
		to[i] = (to[i] & ~mask[i]) | new[i];
	eth = pcn_at(ctx, 0, sizeof(*eth));
	if (!eth)
		return;
	memcpy(mac.bytes, eth->h_source, sizeof(mac.bytes));
	bpf_map_update_elem(&clients, &session->source, &mac, BPF_ANY);
}

/*
 * Takes the way back for a session: 0, or a drop reason. Another flow may have it, from the same client through another service; then the
 * backend sees this one with another port. An identifier of an echo is nobody's to change.
 */
static __always_inline int reserve(struct lbrp_work *work, const struct pcn_ct_packet *p, const struct pcn_translation *ends, __u32 now)
{
	struct pcn_ct_tuple *taken;
	int try;

#pragma unroll /* the verifier of 6.1 refuses a loop whose end falls through into its beginning, as the compiler lays this one out */
	for (try = 0; try < LBRP_TRIES; try++) {
		inner_tuple(&work->inner, &work->session, ends, p->tuple.proto);
		taken = bpf_map_lookup_elem(&returns, &work->inner);
		if (!taken || !session_of(taken, now)) {
			if (!bpf_map_update_elem(&returns, &work->inner, &p->tuple, BPF_ANY))
				return 0;
			pcn_ct_count_failure();
			return SESSIONS_FULL;
		}
		if (!pcn_has_ports(p->tuple.proto))
			break;
		work->session.sport = bpf_htons(1024 + pcn_hash_below(bpf_get_prandom_u32(), 64512));
	}
	return SESSION_CONFLICT;
}

/* Frees the way back of a session that another one takes the place of. */
static __always_inline void release(const struct pcn_ct_packet *p, struct lbrp_work *work, const struct pcn_translation *ends)
{
	struct lbrp_session *old = bpf_map_lookup_elem(&sessions, &p->tuple);

	if (!old)
		return;
	inner_tuple(&work->inner, old, ends, p->tuple.proto);
	bpf_map_delete_elem(&returns, &work->inner);
}

static __always_inline void count_flow(struct lbrp_work *work)
{
	struct lbrp_target *target;

	work->target.service = work->session.service;
	work->target.backend = work->session.backend;
	target = bpf_map_lookup_elem(&targets, &work->target);
	if (target)
		__sync_fetch_and_add(&target->flows, 1);
}

/* The service that a packet is for, or NULL. All identifiers of an echo are one service, of both versions. */
static __always_inline struct lbrp_service *service_of(const struct pcn_ct_packet *p, const struct pcn_translation *ends)
{
	struct pcn_service_key key = {.vport = ends->to.port, .proto = p->tuple.proto};

	if (p->tuple.proto == IPPROTO_ICMP || p->tuple.proto == IPPROTO_ICMPV6) {
		key.vport = 0;
		key.proto = IPPROTO_ICMP;
	}
	pcn_copy_address(&key.vip, ends->to.address);
	return bpf_map_lookup_elem(&services, &key);
}

/* Makes work->session of a packet to a service: 0, or a drop reason. */
static __always_inline int opened(struct pcn_ctx *ctx, const struct pcn_ct_packet *p, const struct lbrp_service *service, struct lbrp_work *work,
				  const struct pcn_translation *ends, __u32 now)
{
	int reason;

	/* What has no session may be of one that another balancer had, or that was forgotten: its backend is the one that the table says */
	if (p->kind == PCN_CT_KIND_ERROR || pcn_ct_label_first(p, 1) != PCN_CT_NEW)
		return UNTRACKABLE;
	if (!choose(service, ends, p->tuple.proto, work, now))
		return NO_BACKEND;
	release(p, work, ends);
	work->session.service = service->number;
	set_source(ctx, &work->session, ends);
	pcn_ct_open(&work->session.ct, p, now);
	reason = reserve(work, p, ends, now);
	if (reason)
		return reason;
	if (bpf_map_update_elem(&sessions, &p->tuple, &work->session, BPF_ANY)) {
		bpf_map_delete_elem(&returns, &work->inner);
		pcn_ct_count_failure();
		return SESSIONS_FULL;
	}
	count_flow(work);
	return 0;
}

/* The session of what a backend sends (of its way back: what the client sends, translated, may pass here again), or NULL. */
static __always_inline struct lbrp_session *returning(const struct pcn_ct_packet *p, const struct pcn_translation *ends, struct pcn_ct_tuple *front,
						      __u32 now)
{
	struct pcn_ct_tuple *found = bpf_map_lookup_elem(&returns, &p->tuple);
	struct lbrp_session *session;

	if (!found)
		return 0;
	*front = *found;
	session = session_of(front, now);
	/* A host that is client and backend is shown the VIP as the client: so the addresses tell the two ways apart */
	return session && pcn_same_address(session->backend.address.bytes, ends->from.address) ? session : 0;
}

/* Of no flow that could be told: what is for a VIP is dropped, the rest none of our business. */
static __always_inline int stray(struct pcn_ctx *ctx, struct pcn_packet *pkt)
{
	struct pcn_address to;

	if (destination(ctx, pkt, &to))
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	if (pcn_is_vip(&to))
		return pcn_drop(pkt, UNTRACKABLE);
	return onward(ctx, pkt, to.bytes);
}

/* Whether a session is over, so that the same addresses and ports may open another one. */
static __always_inline int is_over(const struct pcn_ct *ct, const struct pcn_ct_packet *p)
{
	return p->kind == PCN_CT_KIND_OPENS && (ct->state == PCN_CT_TIME_WAIT || ct->state == PCN_CT_CLOSE);
}

/*
 * IP, of which more is known than its addresses: `ends` becomes what source and destination have to be. Returns 0, a drop reason, or -1 if
 * the packet has what it needs: it belongs to no service, or was translated when it came by before.
 */
static __always_inline int balance(struct pcn_ctx *ctx, const struct pcn_packet *pkt, struct lbrp_work *work, __u32 now)
{
	int from_backends = pkt->in_port == settings.backend, reason;
	struct pcn_ct_packet *p = &work->packet;
	struct pcn_translation *ends = &work->ends;
	struct lbrp_session *session, *back = 0;
	struct lbrp_service *service;

	ends_of(p, ends);
	if (from_backends) /* mostly answers, for which a look-up among what clients send is in vain */
		back = returning(p, ends, &work->front, now);
	if (!back) {
		session = session_of(&p->tuple, now);
		if (session && pcn_ct_way(&session->ct, p) != PCN_CT_ORIGINAL)
			return -1;
		if (session && !is_over(&session->ct, p)) {
			pcn_ct_update(&session->ct, p, now);
			to_backend(session, ends);
			return 0;
		}
		if (!from_backends)
			back = returning(p, ends, &work->front, now);
	}
	if (back) {
		p->swapped = !(back->ct.flags & PCN_CT_SWAPPED);
		pcn_ct_update(&back->ct, p, now);
		to_client(back, &work->front, ends);
		return 0;
	}
	service = service_of(p, ends);
	if (!service)
		return -1;
	reason = opened(ctx, p, service, work, ends, now);
	if (!reason)
		to_backend(&work->session, ends);
	return reason;
}

HANDLER(ingress)
{
	__u32 zero = 0, now, usual;
	struct lbrp_work *work = bpf_map_lookup_elem(&works, &zero);
	struct pcn_translation ends = {};
	struct lbrp_flow flow = {};
	int reason = pcn_parse(ctx, pkt);

	if (reason || !work)
		return pcn_drop(pkt, reason ? reason : PCN_DROP_MALFORMED);
	if (pcn_for_vantage(ctx, pkt))
		return pcn_vantage_up(pkt, PCN_UP_VANTAGE, CONTROL_LIMIT);
	usual = shortcut_flow(ctx, pkt, &flow);
	if (usual && shortcut(pkt, &flow, &ends)) {
		if (pkt->proto == bpf_htons(ETH_P_IPV6) ? pcn_translate_ipv6(ctx, pkt, &ends) : pcn_translate_ipv4(ctx, pkt, &ends))
			return pcn_drop(pkt, PCN_DROP_MALFORMED);
		return onward(ctx, pkt, ends.to.address);
	}
	now = pcn_now();
	reason = pcn_ct_read(ctx, pkt, &work->packet, now);
	if (reason)
		return pcn_drop(pkt, reason);
	if (work->packet.kind == PCN_CT_KIND_NONE)
		return link_talk(ctx, pkt);
	if (work->packet.kind == PCN_CT_KIND_BAD)
		return stray(ctx, pkt);
	reason = balance(ctx, pkt, work, now);
	if (reason > 0)
		return pcn_drop(pkt, reason);
	if (!reason && pcn_translate(ctx, pkt, &work->packet, &work->ends))
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	if (!reason && usual)
		make_shortcut(pkt, &flow, &work->ends);
	return onward(ctx, pkt, work->ends.to.address);
}
