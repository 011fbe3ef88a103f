/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Connection tracking: TCP. Of each end it is remembered whether its SYN and FIN went by and were acknowledged; the state of the connection
 * follows from these bits alone, so that retransmissions, simultaneous opens and closes and half-closed connections are no special cases.
 * Numbers are held against what the other end has acknowledged and offered to take: a segment that its receiver would not accept is INVALID
 * and changes nothing. Included by conntrack.h only.
 */
#pragma once

#define PCN_CT_OLD_ACKS 66000 /* bytes: acknowledgements as old as this are still normal */

static __always_inline int pcn_ct_after(__u32 a, __u32 b)
{
	return (__s32)(a - b) > 0;
}

static __always_inline __u8 pcn_ct_tcp_state(__u16 flags)
{
	__u32 syns = flags >> 4 & 3, syns_acked = flags >> 6 & 3, fins = flags >> 8 & 3, fins_acked = flags >> 10 & 3;

	if (fins == 3)
		return fins_acked == 3 ? PCN_CT_TIME_WAIT : PCN_CT_LAST_ACK;
	if (fins)
		return fins_acked ? PCN_CT_CLOSE_WAIT : PCN_CT_FIN_WAIT;
	if (syns_acked == 3)
		return PCN_CT_TCP_ESTABLISHED;
	if (syns == 3)
		return syns_acked ? PCN_CT_SYN_RECV : PCN_CT_SYN_SENT2;
	return PCN_CT_SYN_SENT;
}

/* Shift of the windows that an end offers; scaling is on if both ends offered it (RFC 7323). */
static __always_inline __u32 pcn_ct_tcp_shift(const struct pcn_ct *ct, enum pcn_ct_way way)
{
	__u32 a = ct->scales & 15, b = ct->scales >> 4;

	if (a == PCN_CT_UNSCALED || b == PCN_CT_UNSCALED)
		return 0;
	return way == PCN_CT_ORIGINAL ? a : b;
}

/* The first that is seen of an end. */
static __always_inline void pcn_ct_tcp_begin(struct pcn_ct *ct, struct pcn_ct_side *me, const struct pcn_ct_packet *p, enum pcn_ct_way way)
{
	me->una = p->seq;
	me->next = p->end;
	me->window = p->window;
	ct->scales = way == PCN_CT_ORIGINAL ? (ct->scales & 0xf0) | p->scale : (ct->scales & 0x0f) | p->scale << 4;
	ct->flags |= PCN_CT_SYN << way;
}

/* A SYN opens a connection; or, where the cube tracks loosely, a segment of one that stands: its windows are unknown, hence taken as the largest. */
static __always_inline void pcn_ct_tcp_open(struct pcn_ct *ct, const struct pcn_ct_packet *p)
{
	ct->resync = 0;
	ct->scales = PCN_CT_UNSCALED << 4;
	ct->side[PCN_CT_REPLY].una = ct->side[PCN_CT_REPLY].next = p->flags & PCN_CT_TCP_SYN ? 0 : p->ack; /* of a SYN it says nothing */
	ct->side[PCN_CT_REPLY].window = 0;
	pcn_ct_tcp_begin(ct, &ct->side[PCN_CT_ORIGINAL], p, PCN_CT_ORIGINAL);
	if (!(p->flags & PCN_CT_TCP_SYN)) {
		ct->scales = 14 << 4 | 14;
		ct->side[PCN_CT_ORIGINAL].window = p->window << 14;
		ct->side[PCN_CT_REPLY].next += p->window << 14; /* may be under way already */
		ct->side[PCN_CT_REPLY].window = 0xffff << 14;
		ct->flags |= PCN_CT_SYN * 3 | PCN_CT_SYN_ACKED * 3 | (p->flags & PCN_CT_TCP_FIN ? PCN_CT_FIN : 0);
	}
	ct->state = pcn_ct_tcp_state(ct->flags);
}

/* What an acknowledgement says of the other end. */
static __always_inline void pcn_ct_tcp_acknowledge(struct pcn_ct *ct, struct pcn_ct_side *peer, __u32 ack, enum pcn_ct_way of)
{
	if (!pcn_ct_after(ack, peer->una))
		return;
	peer->una = ack;
	ct->flags |= PCN_CT_SYN_ACKED << of;
	if (ct->flags & PCN_CT_FIN << of && ack == peer->next)
		ct->flags |= PCN_CT_FIN_ACKED << of;
}

static __always_inline int pcn_ct_tcp_acks_syn(const struct pcn_ct_side *peer, __u32 ack)
{
	return pcn_ct_after(ack, peer->una) && !pcn_ct_after(ack, peer->next);
}

/*
 * A SYN without ACK. On a connection that is over it opens a new one. On one that stands it may be a retransmission, or an end that has
 * forgotten the connection; the other end's answer will tell, so nothing changes but what that answer must acknowledge.
 */
static __always_inline enum pcn_ct_label pcn_ct_tcp_syn(struct pcn_ct *ct, struct pcn_ct_side *me, const struct pcn_ct_packet *p, enum pcn_ct_way way)
{
	if (ct->state == PCN_CT_CLOSE || ct->state == PCN_CT_TIME_WAIT || (ct->state == PCN_CT_SYN_SENT && way == PCN_CT_ORIGINAL)) {
		ct->flags = p->swapped;
		pcn_ct_tcp_open(ct, p);
		return PCN_CT_NEW;
	}
	if (!(ct->flags & PCN_CT_SYN << way)) {
		pcn_ct_tcp_begin(ct, me, p, way);
	} else if (p->end != me->next) {
		ct->resync = p->end;
		ct->flags |= PCN_CT_RESYNC;
	}
	return PCN_CT_ESTABLISHED;
}

/* A SYN with ACK. */
static __always_inline enum pcn_ct_label pcn_ct_tcp_syn_ack(struct pcn_ct *ct, struct pcn_ct_side *me, struct pcn_ct_side *peer,
							    const struct pcn_ct_packet *p, enum pcn_ct_way way)
{
	if (ct->flags & PCN_CT_RESYNC && p->ack == ct->resync) { /* both ends agree on a new connection, whose windows are unknown */
		ct->state = PCN_CT_SYN_RECV;
		ct->flags = !p->swapped | PCN_CT_REPLIED | PCN_CT_SYN * 3 | PCN_CT_SYN_ACKED;
		ct->scales = 14 << 4 | 14;
		ct->side[PCN_CT_ORIGINAL].una = ct->side[PCN_CT_ORIGINAL].next = p->ack;
		ct->side[PCN_CT_ORIGINAL].window = 0xffff << 14;
		ct->side[PCN_CT_REPLY].una = p->seq;
		ct->side[PCN_CT_REPLY].next = p->end;
		ct->side[PCN_CT_REPLY].window = p->window;
		return PCN_CT_ESTABLISHED;
	}
	if (!(ct->flags & PCN_CT_SYN << !way))
		return PCN_CT_INVALID;
	if (!(ct->flags & PCN_CT_SYN_ACKED << !way)) {
		if (!pcn_ct_tcp_acks_syn(peer, p->ack))
			return PCN_CT_INVALID;
		pcn_ct_tcp_acknowledge(ct, peer, p->ack, !way);
	}
	if (!(ct->flags & PCN_CT_SYN << way))
		pcn_ct_tcp_begin(ct, me, p, way);
	return PCN_CT_ESTABLISHED;
}

/*
 * A reset: of an attempt to connect, when it acknowledges the SYN; else with a number that its sender has reached and the receiver has not yet
 * passed (RFC 5961, 3.2, as far as it can be told from between the two), or as the answer to a SYN on a connection that stood.
 */
static __always_inline int pcn_ct_tcp_resets(const struct pcn_ct *ct, const struct pcn_ct_side *me, const struct pcn_ct_side *peer,
					     const struct pcn_ct_packet *p, enum pcn_ct_way way)
{
	if (ct->flags & PCN_CT_RESYNC && p->flags & PCN_CT_TCP_ACK && p->ack == ct->resync)
		return 1;
	if (ct->state == PCN_CT_SYN_SENT)
		return way == PCN_CT_ORIGINAL || (p->flags & PCN_CT_TCP_ACK && pcn_ct_tcp_acks_syn(peer, p->ack));
	return !pcn_ct_after(me->una, p->seq) && !pcn_ct_after(p->seq, me->next);
}

/* Data, acknowledgements, the end of data. */
static __always_inline enum pcn_ct_label pcn_ct_tcp_segment(struct pcn_ct *ct, struct pcn_ct_side *me, struct pcn_ct_side *peer,
							    const struct pcn_ct_packet *p, enum pcn_ct_way way)
{
	__u32 room = peer->window ? peer->window : 1, window = p->window << pcn_ct_tcp_shift(ct, way);

	if (!(ct->flags & PCN_CT_SYN << way)) /* an answer to a SYN by an end that holds an old connection: it will be reset */
		return way == PCN_CT_REPLY && p->flags == PCN_CT_TCP_ACK ? PCN_CT_ESTABLISHED : PCN_CT_INVALID;
	if (!(ct->flags & PCN_CT_SYN_ACKED << !way) && !pcn_ct_tcp_acks_syn(peer, p->ack))
		return PCN_CT_INVALID;
	if (pcn_ct_after(p->seq, me->una + room) || pcn_ct_after(me->una - room, p->end) || pcn_ct_after(p->ack, peer->next) ||
	    pcn_ct_after(peer->una - me->window - PCN_CT_OLD_ACKS, p->ack))
		return PCN_CT_INVALID;
	pcn_ct_tcp_acknowledge(ct, peer, p->ack, !way);
	if (window > me->window)
		me->window = window;
	if (p->flags & PCN_CT_TCP_FIN) {
		ct->flags |= PCN_CT_FIN << way;
		me->next = p->end;
	} else if (pcn_ct_after(p->end, me->next)) {
		me->next = p->end;
	}
	return PCN_CT_ESTABLISHED;
}

static __always_inline enum pcn_ct_label pcn_ct_tcp_update(struct pcn_ct *ct, const struct pcn_ct_packet *p, enum pcn_ct_way way)
{
	struct pcn_ct_side *me = &ct->side[way & 1], *peer = &ct->side[!way];
	enum pcn_ct_label label;

	if (p->flags & PCN_CT_TCP_RST) {
		if (!pcn_ct_tcp_resets(ct, me, peer, p, way))
			return PCN_CT_INVALID;
		ct->state = PCN_CT_CLOSE;
		label = PCN_CT_ESTABLISHED;
	} else {
		if (p->flags == PCN_CT_TCP_SYN)
			label = pcn_ct_tcp_syn(ct, me, p, way);
		else if (p->flags & PCN_CT_TCP_SYN)
			label = pcn_ct_tcp_syn_ack(ct, me, peer, p, way);
		else
			label = pcn_ct_tcp_segment(ct, me, peer, p, way);
		if (label != PCN_CT_ESTABLISHED)
			return label;
		/* A connection that was reset stays so: but if the receiver did not take the reset for one, what it goes on sending keeps the entry. */
		if (ct->state != PCN_CT_CLOSE && ct->state != pcn_ct_tcp_state(ct->flags))
			ct->state = pcn_ct_tcp_state(ct->flags);
	}
	if (way == PCN_CT_REPLY) {
		if (!(ct->flags & PCN_CT_REPLIED))
			ct->flags |= PCN_CT_REPLIED;
	} else if (!(ct->flags & PCN_CT_REPLIED)) {
		return PCN_CT_NEW;
	}
	return PCN_CT_ESTABLISHED;
}
