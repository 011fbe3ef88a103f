// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * Network address translation. Ingress comes from outside, egress goes there. What goes out is looked up by its ends as they are inside, and
 * gets the source that the session says; what comes in by its ends as they are outside (the twin), and gets the destination. A packet
 * without a session opens one where a rule says so: source rules for what goes out, destination rules for what comes in; it passes
 * unchanged where none does. Rules are asked then only, so that changing them leaves sessions alone.
 */
#include "binding.h"
#include "npt.h"

static __always_inline struct nat_work *nat_work(void)
{
	__u64 zero = 0;

	return bpf_map_lookup_elem(&nat_works, &zero);
}

/* The session of a packet that came in, by its twin; NULL if there is none, or it has expired. */
static __always_inline struct nat_session *nat_find_twin(const struct pcn_ct_packet *p, struct pcn_ct_tuple **inside, __u32 now)
{
	struct nat_session *session;

	*inside = bpf_map_lookup_elem(&twins, &p->tuple);
	session = *inside ? bpf_map_lookup_elem(&sessions, *inside) : 0;
	if (!session || !nat_expired(session, now))
		return session;
	bpf_map_delete_elem(&sessions, *inside);
	bpf_map_delete_elem(&twins, &p->tuple);
	return 0;
}

static __always_inline int nat_is_external(const struct nat_session *session, const struct pcn_ct_packet *p)
{
	__u32 to = !(p->swapped & 1);

	return p->tuple.port[to] == session->external_port && pcn_same_address(p->tuple.address[to], session->external);
}

/* Whether a packet that belongs to no session comes from an address that must not be seen outside. */
static __noinline int nat_is_hidden(struct pcn_ctx *ctx, struct pcn_packet *pkt, struct nat_work *w)
{
	int ipv6 = pkt->proto == bpf_htons(ETH_P_IPV6);
	const void *at, *external;
	__u8 rule;

	if (!w)
		return 0;
	if (ipv6) {
		at = pcn_at(ctx, pkt->l3 + __builtin_offsetof(struct ipv6hdr, saddr), 32);
		if (!at)
			return 0;
		pcn_ct_set_address(w->remote, at, 1);
		pcn_ct_set_address(w->end.address, at + 16, 1);
	} else {
		at = pcn_at(ctx, pkt->l3 + __builtin_offsetof(struct iphdr, saddr), 8);
		if (!at)
			return 0;
		pcn_ct_set_address(w->remote, at, 0);
		pcn_ct_set_address(w->end.address, at + 4, 0);
	}
	if (nat_is_local(w->remote, w->end.address, ipv6))
		return 0;
	external = nat_source_of(w, w->remote, ipv6, &rule);
	return external && !pcn_same_address(w->remote, external);
}

HANDLER(ingress)
{
	struct pcn_ct_packet *p = pcn_ct_packet();
	struct nat_work *w = nat_work();
	struct nat_session *session;
	struct pcn_ct_tuple *inside;
	__u32 now = pcn_now(), in;
	int reason, error;

	if (!p || !w)
		return pcn_drop(pkt, PCN_DROP_POLICY);
	reason = pcn_ct_read(ctx, pkt, p, now);
	if (reason)
		return pcn_drop(pkt, reason);
	if (npt && pkt->proto == bpf_htons(ETH_P_IPV6)) {
		int done = nat_npt(ctx, pkt, w, NAT_DESTINATION);

		if (done)
			return done < 0 ? pcn_drop(pkt, UNTRANSLATABLE) : pcn_pass(pkt);
	}
	if (p->kind == PCN_CT_KIND_NONE || p->kind == PCN_CT_KIND_BAD)
		return pcn_pass(pkt);
	session = nat_find_twin(p, &inside, now);
	if (session && !nat_is_external(session, p)) { /* it turned round: to the other one of a pair */
		p->tuple.zone = NAT_HAIRPIN_ZONE;
		session = nat_find_twin(p, &inside, now);
	}
	if (session) {
		in = session->flags & NAT_INSIDE_SECOND;
		p->swapped = !in;
		pcn_ct_update(&session->ct, p, now);
	} else {
		if (p->kind == PCN_CT_KIND_ERROR)
			return pcn_pass(pkt);
		error = nat_open_inbound(p, w, now);
		if (error >= 0)
			return error ? pcn_drop(pkt, error) : pcn_pass(pkt);
		session = nat_find_twin(p, &inside, now);
		if (!session)
			return pcn_drop(pkt, TABLE_FULL);
		in = session->flags & NAT_INSIDE_SECOND;
	}
	pcn_set_endpoint(&w->ends.from, inside->address[!in], inside->port[!in]);
	pcn_set_endpoint(&w->ends.to, inside->address[in], inside->port[in]);
	w->ends.hides = 0;
	return pcn_translate(ctx, pkt, p, &w->ends) ? pcn_drop(pkt, PCN_DROP_MALFORMED) : pcn_pass(pkt);
}

HANDLER(egress)
{
	struct pcn_ct_packet *p = pcn_ct_packet();
	struct nat_work *w = nat_work();
	struct nat_session *session = 0;
	__u32 now = pcn_now(), in, expires;
	int reason, error;

	if (!p || !w)
		return pcn_drop(pkt, PCN_DROP_POLICY);
	reason = pcn_ct_read(ctx, pkt, p, now);
	if (reason)
		return pcn_drop(pkt, reason);
	if (npt && pkt->proto == bpf_htons(ETH_P_IPV6)) {
		int done = nat_npt(ctx, pkt, w, NAT_SOURCE);

		if (done)
			return done < 0 ? pcn_drop(pkt, UNTRANSLATABLE) : pcn_pass(pkt);
	}
	if (p->kind == PCN_CT_KIND_NONE)
		return pcn_pass(pkt);
	in = p->swapped & 1;
	if (p->kind != PCN_CT_KIND_BAD)
		session = bpf_map_lookup_elem(&sessions, &p->tuple);
	if (session && nat_expired(session, now)) {
		nat_forget(w, &p->tuple, session);
		session = 0;
	}
	if (session) {
		if ((session->flags & NAT_INSIDE_SECOND) != in) /* the other way, but not as an answer comes */
			return nat_is_hidden(ctx, pkt, w) ? pcn_drop(pkt, CONFLICT) : pcn_pass(pkt);
		expires = session->ct.expires;
		pcn_ct_update(&session->ct, p, now);
		if (any_mapping && session->ct.expires != expires)
			nat_keep_mapping(w, session, &p->tuple, now);
	} else {
		if (p->kind == PCN_CT_KIND_ERROR || p->kind == PCN_CT_KIND_BAD)
			return nat_is_hidden(ctx, pkt, w) ? pcn_drop(pkt, NO_SESSION) : pcn_pass(pkt);
		error = nat_open_outbound(p, w, now, pkt->proto == bpf_htons(ETH_P_IPV6));
		if (error >= 0)
			return error ? pcn_drop(pkt, error) : pcn_pass(pkt);
		session = bpf_map_lookup_elem(&sessions, &p->tuple);
		if (!session)
			return pcn_drop(pkt, TABLE_FULL);
	}
	pcn_set_endpoint(&w->ends.from, session->external, session->external_port);
	pcn_set_endpoint(&w->ends.to, p->tuple.address[!in], p->tuple.port[!in]);
	w->ends.hides = 1;
	if (pcn_translate(ctx, pkt, p, &w->ends))
		return pcn_drop(pkt, PCN_DROP_MALFORMED);
	/* To somebody inside: back to where it came from, as if it had been received. That is the control plane's to do. */
	return session->flags & NAT_HAIRPIN ? pcn_slowpath(pkt, NAT_HAIRPIN_UP, 0, 0, 0) : pcn_pass(pkt);
}
