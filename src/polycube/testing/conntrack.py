# SPDX-License-Identifier: Apache-2.0
"""What connection tracking should say, in plain Python: a model to hold data planes against, in property tests.

It follows a TCP connection between ends "a" and "b", of which either may open it. It states the rules of include/polycube/conntrack_tcp.h
without its bits: each end's numbers, and the state as a function of what was seen of both.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MODULUS = 1 << 32
OLD_ACKS = 66_000
LARGEST = 0xFFFF << 14


@dataclass(frozen=True)
class Segment:
    """A TCP segment on its way from one end to the other. `flags` as scapy writes them, of S, A, F, R."""

    sender: str  # "a" or "b"
    flags: str
    seq: int = 0
    ack: int = 0
    length: int = 0
    window: int = 8192
    scale: int | None = None  # offered by a SYN

    @property
    def end(self) -> int:
        return (self.seq + self.length + ("S" in self.flags) + ("F" in self.flags)) % MODULUS


@dataclass
class End:
    """What was seen of one end."""

    una: int = 0
    next: int = 0
    window: int = 0
    scale: int | None = None
    syn: bool = False
    syn_acked: bool = False
    fin: bool = False
    fin_acked: bool = False


@dataclass
class Connection:
    """A tracked connection."""

    opener: str
    ends: dict[str, End] = field(default_factory=lambda: {"a": End(), "b": End()})
    answered: bool = False
    reset: bool = False
    resync: int | None = None

    @property
    def state(self) -> str:
        one, other = self.ends.values()
        if self.reset:
            return "CLOSE"
        if one.fin and other.fin:
            return "TIME_WAIT" if one.fin_acked and other.fin_acked else "LAST_ACK"
        if one.fin or other.fin:
            return "CLOSE_WAIT" if one.fin_acked or other.fin_acked else "FIN_WAIT"
        if one.syn_acked and other.syn_acked:
            return "TCP_ESTABLISHED"
        if one.syn and other.syn:
            return "SYN_RECV" if one.syn_acked or other.syn_acked else "SYN_SENT2"
        return "SYN_SENT"


class Tracker:
    """One connection's tracker: `see` says what each segment is, and `connection` what is known then."""

    def __init__(self) -> None:
        self.connection: Connection | None = None

    def see(self, segment: Segment) -> str:
        """NEW, ESTABLISHED or INVALID."""
        if set(segment.flags) not in ({"S"}, {"S", "A"}, {"A"}, {"A", "F"}, {"R"}, {"R", "A"}):
            return "INVALID"
        known = self.connection
        opens = segment.flags == "S"
        if known is None or (opens and known.state in ("CLOSE", "TIME_WAIT")):
            return self._open(segment) if opens else "INVALID"
        if opens and known.state == "SYN_SENT" and segment.sender == known.opener:
            return self._open(segment)
        if not self._accept(known, segment):
            return "INVALID"
        assert self.connection
        if segment.sender != self.connection.opener:
            self.connection.answered = True
        return "ESTABLISHED" if self.connection.answered else "NEW"

    def _open(self, segment: Segment) -> str:
        self.connection = Connection(segment.sender)
        self.connection.ends[segment.sender] = _begin(segment)
        return "NEW"

    def _accept(self, known: Connection, segment: Segment) -> bool:
        me, peer = known.ends[segment.sender], known.ends["b" if segment.sender == "a" else "a"]
        if "R" in segment.flags:
            accepted = _resets(known, me, peer, segment)
            known.reset = known.reset or accepted
            return accepted
        if segment.flags == "S":
            if not me.syn:
                known.ends[segment.sender] = _begin(segment)
            elif segment.end != me.next:
                known.resync = segment.end
            return True
        if "S" in segment.flags:
            return self._syn_ack(known, me, peer, segment)
        return _segment(known, me, peer, segment)

    def _syn_ack(self, known: Connection, me: End, peer: End, segment: Segment) -> bool:
        if known.resync == segment.ack:
            opener = "b" if segment.sender == "a" else "a"
            self.connection = Connection(opener)
            self.connection.ends[opener] = End(segment.ack, segment.ack, LARGEST, 14, syn=True, syn_acked=True)
            self.connection.ends[segment.sender] = End(segment.seq, segment.end, segment.window, 14, syn=True)
            return True
        if not peer.syn or (not peer.syn_acked and not _acks_syn(peer, segment.ack)):
            return False
        if not peer.syn_acked:
            _acknowledge(peer, segment.ack)
        if not me.syn:
            known.ends[segment.sender] = _begin(segment)
        return True


def _begin(segment: Segment) -> End:
    return End(segment.seq, segment.end, segment.window, segment.scale, syn=True)


def _after(a: int, b: int) -> bool:
    return 0 < (a - b) % MODULUS < MODULUS // 2


def _acks_syn(peer: End, ack: int) -> bool:
    return _after(ack, peer.una) and not _after(ack, peer.next)


def _reached(me: End, seq: int) -> bool:
    return not _after(me.una, seq) and not _after(seq, me.next)


def _resets(known: Connection, me: End, peer: End, segment: Segment) -> bool:
    if "A" in segment.flags and segment.ack == known.resync:
        return True
    if known.state == "SYN_SENT":
        return segment.sender == known.opener or ("A" in segment.flags and _acks_syn(peer, segment.ack))
    return _reached(me, segment.seq)


def _acknowledge(peer: End, ack: int) -> None:
    if _after(ack, peer.una):
        peer.una = ack
        peer.syn_acked = True
        peer.fin_acked = peer.fin_acked or (peer.fin and ack == peer.next)


def _segment(known: Connection, me: End, peer: End, segment: Segment) -> bool:
    if not me.syn:
        return segment.sender != known.opener and segment.flags == "A"
    room = peer.window or 1
    if not peer.syn_acked and not _acks_syn(peer, segment.ack):
        return False
    if _after(segment.seq, (me.una + room) % MODULUS) or _after((me.una - room) % MODULUS, segment.end):
        return False
    if _after(segment.ack, peer.next) or _after((peer.una - me.window - OLD_ACKS) % MODULUS, segment.ack):
        return False
    _acknowledge(peer, segment.ack)
    scaled = me.scale is not None and peer.scale is not None
    me.window = max(me.window, segment.window << (me.scale or 0 if scaled else 0))
    if "F" in segment.flags:
        me.fin, me.next = True, segment.end
    elif _after(segment.end, me.next):
        me.next = segment.end
    return True
