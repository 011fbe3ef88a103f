/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * New sessions, and the ports they get. A port is taken by putting the twin into its table with BPF_NOEXIST: of two CPUs that try for the same
 * one, one gets it. With endpoint-independent mapping the same holds for the mapping, which has to be the only one of its port.
 */
#pragma once

#include "rules.h"

#define NAT_MAPPING_LIFE 7440 /* seconds that a mapping outlives its last new session at most (RFC 5382, 5) */

static __always_inline int nat_expired(const struct nat_session *session, __u32 now)
{
	return (__s32)(now - session->ct.expires) >= 0;
}

/* Removes a session that has expired, and its twin, so that both keys are free. */
static __always_inline void nat_forget(struct nat_work *w, const struct pcn_ct_tuple *inside, const struct nat_session *session)
{
	__u32 in = session->flags & NAT_INSIDE_SECOND;

	nat_outside(&w->outside, session->external, session->external_port, inside->address[!in], inside->port[!in], inside->proto,
		    session->flags & NAT_HAIRPIN_BACK ? NAT_HAIRPIN_ZONE : 0);
	bpf_map_delete_elem(&sessions, inside);
	bpf_map_delete_elem(&twins, &w->outside);
}

/* Takes a key outside; also from a session that has expired. 0, or what the table says. */
static __always_inline int nat_reserve(const struct pcn_ct_tuple *outside, const struct pcn_ct_tuple *inside, __u32 now)
{
	int error = bpf_map_update_elem(&twins, outside, inside, BPF_NOEXIST);
	struct nat_session *session;
	struct pcn_ct_tuple *holder;

	if (error != -EEXIST)
		return error;
	holder = bpf_map_lookup_elem(&twins, outside);
	session = holder ? bpf_map_lookup_elem(&sessions, holder) : 0;
	/* None: another CPU is about to make it */
	if (!session || !nat_expired(session, now) || bpf_map_delete_elem(&sessions, holder))
		return -EEXIST;
	bpf_map_delete_elem(&twins, outside);
	return bpf_map_update_elem(&twins, outside, inside, BPF_NOEXIST);
}

static __always_inline int nat_in_range(__be16 port)
{
	return bpf_ntohs(port) - first_port < port_count;
}

/* bpf_loop() takes a pointer to the stack only. */
struct nat_search {
	struct nat_work *work;
	__u32 now;
};

/* Tries one port: the inside end's own first (RFC 4787, 4.2.1), then any (RFC 6056). Returns 1 when there is nothing more to try. */
static long nat_try(__u32 attempt, struct nat_search *search)
{
	struct nat_work *w = search->work;
	__be16 port = w->port;
	int icmp = pcn_is_icmp(w->proto);

	if (!icmp && !pcn_has_ports(w->proto) && attempt)
		return 1;
	if (attempt || (pcn_has_ports(w->proto) && !nat_in_range(port))) {
		__u32 random = bpf_get_prandom_u32();

		port = icmp ? random : bpf_htons(first_port + random % (port_count ? port_count : 1));
	}
	nat_outside(&w->outside, w->session.external, port, w->remote, w->remote_port, w->proto, 0);
	w->end.port = port;
	if (any_mapping) {
		w->error = bpf_map_update_elem(&mappings, &w->end, &w->mapping, BPF_NOEXIST);
		if (w->error)
			return w->error != -EEXIST;
	}
	w->error = nat_reserve(&w->outside, &w->inside, search->now);
	if (w->error) {
		if (any_mapping)
			bpf_map_delete_elem(&mappings, &w->end);
		return w->error != -EEXIST;
	}
	w->session.external_port = port;
	w->done = 1;
	return 1;
}

/* Finds an external port. 0 or a drop reason. */
static __always_inline int nat_allocate(struct nat_work *w, __u32 now)
{
	struct nat_search search = {w, now};
	struct nat_mapping *mapping = 0;

	if (any_mapping)
		mapping = nat_mapping_of(w, w->inside.address[w->session.flags & NAT_INSIDE_SECOND], w->port, w->proto, 0, now);
	if (mapping) {
		pcn_copy_address(w->session.external, mapping->address);
		w->session.external_port = mapping->port;
		nat_outside(&w->outside, w->session.external, mapping->port, w->remote, w->remote_port, w->proto, 0);
		w->error = nat_reserve(&w->outside, &w->inside, now);
		return !w->error ? 0 : w->error == -EEXIST ? CONFLICT : TABLE_FULL;
	}
	nat_set_end(&w->end, w->session.external, 0, w->proto, 1);
	pcn_copy_address(w->mapping.address, w->inside.address[w->session.flags & NAT_INSIDE_SECOND]);
	w->mapping.port = w->port;
	w->mapping.rule = w->session.rule;
	w->mapping.expires = now + 1; /* nat_keep_mapping() says more */
	w->done = 0;
	bpf_loop(NAT_ATTEMPTS, nat_try, &search, 0);
	if (!w->done)
		return w->error == -EEXIST ? PORTS_EXHAUSTED : TABLE_FULL;
	if (any_mapping) {
		nat_set_end(&w->end, w->mapping.address, w->port, w->proto, 0);
		pcn_copy_address(w->mapping.address, w->session.external);
		w->mapping.port = w->session.external_port;
		bpf_map_update_elem(&mappings, &w->end, &w->mapping, BPF_ANY);
	}
	return 0;
}

/* A session lives: so do the two entries of its mapping, but not for the days of an established TCP connection. */
static __noinline int nat_keep_mapping(struct nat_work *w, struct nat_session *session, const struct pcn_ct_tuple *inside, __u32 now)
{
	__u32 in, expires;
	struct nat_mapping *mapping;

	if (!w || !session || !inside)
		return 0;
	in = session->flags & NAT_INSIDE_SECOND;
	expires = session->ct.expires;
	if ((__s32)(expires - now) > NAT_MAPPING_LIFE)
		expires = now + NAT_MAPPING_LIFE;
	nat_set_end(&w->end, inside->address[in], inside->port[in], inside->proto, 0);
	mapping = bpf_map_lookup_elem(&mappings, &w->end);
	if (!mapping)
		return 0;
	if ((__s32)(expires - mapping->expires) > 0)
		mapping->expires = expires;
	nat_set_end(&w->end, session->external, session->external_port, inside->proto, 1);
	mapping = bpf_map_lookup_elem(&mappings, &w->end);
	if (mapping && (__s32)(expires - mapping->expires) > 0)
		mapping->expires = expires;
	return 0;
}

/* Traffic of a link: addresses that are not routed, or groups (and 255.255.255.255). It keeps its addresses. */
static __always_inline int nat_is_local(const __u8 *from, const __u8 *to, int ipv6)
{
	if (ipv6)
		return to[0] == 0xff || (from[0] == 0xfe && (from[1] & 0xc0) == 0x80) || pcn_no_address(from);
	return to[12] >= 224 || !pcn_word(from + 12);
}

/* A packet on its way out without a session. -1: there is one now; 0: it passes as it is; else why it is dropped. */
static __noinline int nat_open_outbound(struct pcn_ct_packet *p, struct nat_work *w, __u32 now, int ipv6)
{
	__u32 in = p->swapped & 1;
	const void *from = p->tuple.address[in], *external;
	int error;

	if (nat_is_local(from, p->tuple.address[!in], ipv6))
		return 0;
	external = nat_source_of(w, from, ipv6, &w->session.rule);
	if (!external)
		return 0;
	if (pcn_ct_label_first(p, 1) != PCN_CT_NEW)
		return pcn_same_address(from, external) ? 0 : NO_SESSION;
	pcn_copy_address(w->session.external, external);
	pcn_copy_address(w->remote, p->tuple.address[!in]);
	w->inside = p->tuple;
	w->remote_port = p->tuple.port[!in];
	w->port = p->tuple.port[in];
	w->proto = p->tuple.proto;
	w->session.flags = in;
	if (nat_forward_of(w, w->remote, w->remote_port, w->proto) || (any_filter && nat_mapping_of(w, w->remote, w->remote_port, w->proto, 1, now)))
		w->session.flags |= NAT_HAIRPIN;
	pcn_ct_open(&w->session.ct, p, now);
	error = nat_allocate(w, now);
	if (error) {
		if (error == TABLE_FULL)
			pcn_ct_count_failure();
		return error;
	}
	error = pcn_ct_insert(&sessions, &w->inside, &w->session, now);
	if (error) { /* -EEXIST: another packet of the same session was faster on another CPU; its port is the one */
		nat_outside(&w->outside, w->session.external, w->session.external_port, w->remote, w->remote_port, w->proto, 0);
		bpf_map_delete_elem(&twins, &w->outside);
		return error == -EEXIST ? -1 : TABLE_FULL;
	}
	if (any_mapping)
		nat_keep_mapping(w, &w->session, &w->inside, now);
	return -1;
}

/* The same for one on its way in. */
static __noinline int nat_open_inbound(struct pcn_ct_packet *p, struct nat_work *w, __u32 now)
{
	__u32 remote = p->swapped & 1;
	const void *to = p->tuple.address[!remote];
	struct nat_forward *forward = nat_forward_of(w, to, p->tuple.port[!remote], p->tuple.proto);
	struct nat_mapping *mapping;
	struct nat_session *old;
	int error;

	w->port = p->tuple.port[!remote];
	if (forward) {
		pcn_copy_address(w->session.external, forward->internal);
		w->session.rule = forward->rule;
		if (forward->port)
			w->port = forward->port;
	} else if (any_filter) {
		mapping = nat_mapping_of(w, to, w->port, p->tuple.proto, 1, now);
		if (!mapping)
			return 0;
		pcn_copy_address(w->session.external, mapping->address);
		w->session.rule = NAT_MAPPING;
		w->port = mapping->port;
	} else {
		return 0;
	}
	if (pcn_ct_label_first(p, 1) != PCN_CT_NEW)
		return NO_SESSION;
	p->swapped = pcn_ct_set_tuple(&w->inside, p->tuple.address[remote], w->session.external,
				      pcn_is_icmp(p->tuple.proto) ? w->port : p->tuple.port[remote], w->port, p->tuple.proto, 1);
	w->session.flags = !p->swapped;
	if (p->tuple.zone == NAT_HAIRPIN_ZONE)
		w->session.flags |= NAT_HAIRPIN | NAT_HAIRPIN_BACK;
	pcn_copy_address(w->session.external, to);
	w->session.external_port = p->tuple.port[!remote];
	pcn_ct_open(&w->session.ct, p, now);
	old = bpf_map_lookup_elem(&sessions, &w->inside);
	if (old && nat_expired(old, now))
		nat_forget(w, &w->inside, old);
	error = nat_reserve(&p->tuple, &w->inside, now);
	if (error == -EEXIST) /* another CPU was faster */
		return -1;
	if (error) {
		pcn_ct_count_failure();
		return TABLE_FULL;
	}
	error = pcn_ct_insert(&sessions, &w->inside, &w->session, now);
	if (!error)
		return -1;
	bpf_map_delete_elem(&twins, &p->tuple);
	return error == -EEXIST ? CONFLICT : TABLE_FULL;
}
