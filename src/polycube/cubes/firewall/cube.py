# SPDX-License-Identifier: Apache-2.0
"""The firewall's control plane: chains to the tables of the classifier, actions, sessions, the log, and answers to what is rejected.

Rules live in the configuration, in the order of their numbers. `apply` hands both chains whole to the classifier, which finds out what
changed. Actions turn into edits of the configuration, one at a time; those that need a rule's place find it by content.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import itertools
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from polycube.bpf import RingBuffer
from polycube.core.cube import Cube, Packet, action, every, stream
from polycube.cubes.firewall import explain, matching, reject
from polycube.cubes.firewall.chains import BY_DEFAULT, BY_SESSION, CHAINS, FIELDS, NOT_LOGGED, Chains, check, mono, slots
from polycube.cubes.firewall.model import (
    Batch,
    BatchLine,
    Body,
    Chain,
    ChainName,
    Done,
    Explained,
    FirewallConfig,
    Flushed,
    Inserted,
    Operation,
    Probe,
    RejectWith,
    Switch,
    Timed,
    Where,
    Which,
)
from polycube.model import INSERT, Diff, Edit, ModelError, Op, PolycubeError, Problem, Tag, dump
from polycube.toolkit import tokenbucket
from polycube.toolkit.classify import Space, flow_sets
from polycube.toolkit.conntrack import Session, SessionTable, failures, protocol_name, tuple_key

REJECTS_A_SECOND, REJECTS_AT_ONCE = 1000, 200
SHOWN = 10_000  # sessions
_LINE = struct.Struct("<IIHH")


class Firewall(Cube[FirewallConfig]):
    """A stateful packet filter for IPv4 and IPv6."""

    config = FirewallConfig
    learned = ("sessions",)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._chains: Chains | None = None
        self._sessions: SessionTable | None = None
        self._logs: RingBuffer | None = None
        self._places: dict[ChainName, dict[int, int]] = {}  # of rules, by their counters; for what is read from the log at once
        self._one_at_a_time = asyncio.Lock()
        self._unreachable: dict[ChainName, tuple[Any, Any, list[dict[str, Any]]]] = {}

    @classmethod
    def sizes(cls, config: FirewallConfig) -> dict[str, int]:
        """Hash maps take memory as they fill, but for their buckets."""
        places, many = slots(config.max_rules), 1 << (config.max_rules * 16 - 1).bit_length()
        return {
            "cls_rules": places * 4,
            "counters": 8 + places * 2,
            "limits": places * 2,
            "cls_hosts": many,
            "cls_prefixes": many,
            "cls_classes": many,
            "cls_rows": many * 2,
            "cls_flows": max(1, flow_sets(config.flow_cache)),
            "sessions": config.max_sessions,
        }

    # ---- configuration ----

    def apply(self, change: Diff[FirewallConfig]) -> None:
        new = change.new
        if new is None:
            return
        check(new, change.old)
        wanted = (new.accept_established, new.conntrack) == (Switch.ON, Switch.OFF)
        if wanted and not change.created and change.changed("accept_established"):
            raise ModelError(Problem(Tag.INVALID_VALUE, ("accept-established",), "cannot be ON: Please enable conntrack first."))
        self.cfg["conntrack"] = int(new.conntrack is Switch.ON)
        self.cfg["accept_established"] = int(new.accept_established is Switch.ON)
        if change.changed("timeouts"):
            self.cfg["ct_timeouts"] = new.timeouts.cfg()
        if change.created:
            self.maps["rejects"][0] = {"rate": tokenbucket.rate(REJECTS_A_SECOND, REJECTS_AT_ONCE)}
        old = change.old
        if old is None or old.chain is not new.chain or old.sets is not new.sets:
            self._ready(old or new, new.max_rules).write(new)

    def _ready(self, config: FirewallConfig, max_rules: int) -> Chains:
        if self._chains is None:
            self._chains = Chains(self.maps, max_rules)
            self._chains.adopt(config)
        return self._chains

    @property
    def now(self) -> FirewallConfig:
        """The configuration that stands."""
        assert self.current is not None
        return self.current

    @property
    def chains(self) -> Chains:
        chains = self._ready(self.now, self.now.max_rules)
        if self.decided.is_set():
            chains.follow(self.now)
        return chains

    @property
    def sessions(self) -> SessionTable:
        if self._sessions is None:
            self._sessions = SessionTable(self.maps["sessions"])
        return self._sessions

    # ---- life ----

    async def start(self) -> None:
        kernel = self.maps["logs"].kernel
        if kernel is not None:
            self._logs = RingBuffer(kernel, self._logged)
        if self._chains is None:  # taken over from a former process: what it left half done, if anything, is mended
            self.chains.write(self.now)

    def close(self) -> None:
        if self._logs is not None:
            self._logs.close()

    @every(5)
    async def sweep(self) -> None:
        """Removes sessions that have expired."""
        await self.sessions.sweep()

    @every(1)
    async def expire(self) -> None:
        """Removes rules whose time is over; the data plane has stopped to heed them already."""
        moment = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        async with self._one_at_a_time:
            edits = [
                Edit(Op.DELETE, ("chain", str(chain.name), "rule", str(place)))
                for chain in self.now.chain.values()
                if self.chains.having[chain.name]["expires"]
                for place, rule in reversed(list(enumerate(chain.rule.kept)))
                if rule.expires is not None and rule.expires <= moment
            ]
            if edits:
                await self.edit(edits)

    @every(0.2)
    def read_log(self) -> None:
        """Lines of LOG rules."""
        if self._logs is not None:
            self._logs.consume(1000)
            self._places.clear()

    def _logged(self, data: bytes) -> None:
        counter, length, caplen, chain = _LINE.unpack_from(data)
        name = CHAINS[chain]
        if name not in self._places:
            self._places[name] = {entry.counter: at for at, entry in enumerate(self.chains.table(name).entries)}
        place = self._places[name].get(counter)
        frame = data[_LINE.size : _LINE.size + caplen]
        try:
            packet = explain.matched(explain.parsed((frame.ljust(length, b"\0")).hex()))
        except PolycubeError:
            packet = frame[:14].hex(":")
        self.log.info("packet of a LOG rule", chain=str(name), rule="gone" if place is None else place, length=length, packet=packet)

    async def packet(self, packet: Packet) -> None:
        """One that is to be rejected."""
        chain = ChainName.EGRESS if packet.egress else ChainName.INGRESS
        reply = reject.answer(packet.data, self._how(chain, packet.data))
        if reply is not None:
            back = self.ports["ingress" if packet.egress else "egress"]
            self.send(back, reply, ifindex=packet.ifindex)

    def _how(self, chain: ChainName, frame: bytes) -> RejectWith:
        if not self.chains.having[chain]["reject_with"]:
            return RejectWith.AUTO
        try:
            place, _, _ = explain.decides(self.chains.table(chain), explain.parsed(frame.hex()), mono(_utc(0)))
        except PolycubeError:
            return RejectWith.AUTO
        return (None if place is None else self.now.chain[chain].rule[place].reject_with) or RejectWith.AUTO

    # ---- actions ----

    @action("chain/append")
    async def append(self, chain: str, rule: Timed) -> Where:
        async with self._one_at_a_time:
            place = len(self._chain(chain).rule)
            await self._edit(chain, [Edit(Op.CREATE, ("rule", str(place)), _body(rule))])
            return Where(id=place)

    @action("chain/insert")
    async def insert(self, chain: str, rule: Inserted) -> Where:
        async with self._one_at_a_time:
            if rule.id > len(self._chain(chain).rule):
                raise _refused("insert", f"id {rule.id} not allowed: chain {chain} has {len(self._chain(chain).rule)} rules")
            await self._edit(chain, [Edit(Op.CREATE, ("rule", str(INSERT + rule.id)), _body(rule))])
            return Where(id=rule.id)

    @action("chain/delete")
    async def delete(self, chain: str, rule: Timed) -> Done:
        async with self._one_at_a_time:
            place = self._find(self._chain(chain).rule.kept, rule, "delete")
            await self._edit(chain, [Edit(Op.DELETE, ("rule", str(place)))])
            return Done()

    @action("chain/batch")
    async def batch(self, chain: str, batch: Batch) -> Done:
        """Works on a list of its own: nothing has changed if a line is wrong."""
        async with self._one_at_a_time:
            rules: list[Body] = list(self._chain(chain).rule.kept)
            for number, line in enumerate(batch.rules.values(), 1):
                self._line(rules, line, number)
            bodies = [{"id": at, **_body(rule)} for at, rule in enumerate(rules)]
            await self._edit(chain, [Edit(Op.REPLACE, ("rule",), bodies)])
            return Done()

    def _line(self, rules: list[Body], line: BatchLine, number: int) -> None:
        where = f"batch line {number}"
        if line.operation is Operation.APPEND:
            rules.append(line)
            return
        if line.operation is Operation.INSERT:
            place = line.id or 0
            if place > len(rules):
                raise _refused("batch", f"{where}: id {place} not allowed: there are {len(rules)} rules then")
            rules.insert(place, line)
            return
        if line.operation is Operation.DELETE and line.id is None:
            del rules[self._find(rules, line, where)]
            return
        if line.id is None or line.id >= len(rules):
            raise _refused("batch", f"{where}: {line.operation} needs the id of a rule; there are {len(rules)} then")
        if line.operation is Operation.DELETE:
            del rules[line.id]
        else:
            rules[line.id] = line

    @action("chain/reset-counters")
    def reset_counters(self, chain: str) -> Done:
        table = self.chains.table(ChainName(chain))
        number = CHAINS.index(ChainName(chain))
        self.chains.reset([*(entry.counter for entry in table.entries), BY_DEFAULT + number, BY_SESSION + number])
        return Done()

    @action("flush")
    async def flush(self, which: Which) -> Flushed:
        def meant(one: Session) -> bool:
            wanted = ((which.src, one.source), (which.dst, one.destination), (which.sport, one.sport), (which.dport, one.dport))
            proto = which.l4proto is None or matching.has_protocol(which.l4proto, one.protocol)
            return proto and all(asked is None or asked == found for asked, found in wanted)

        return Flushed(flushed=await self.sessions.flush(meant))

    @stream("all-sessions")
    def pour(self, reader: socket.socket) -> None:
        """All of them, however many."""
        self.sessions.pour(reader, _session)

    @action("chain/explain")
    def explained(self, chain: str, probe: Probe) -> Explained:
        config = self._chain(chain)
        frame = explain.parsed(probe.frame) if probe.frame is not None else explain.described(probe)
        label, known = self._label(probe, frame)
        frame[Space.STATE] = frame[Space.STATE] & 0xF0 | matching.STATES.index(label)
        if self.now.conntrack is Switch.ON and self.now.accept_established is Switch.ON and label in ("ESTABLISHED", "RELATED"):
            return Explained(action="ACCEPT", by="its session", conntrack=label, why=(known,))
        table = self.chains.table(ChainName(chain))
        place, logs, limits = explain.decides(table, frame, mono(_utc(0)))
        why = [f"rule {at} logs it first" for at in logs] + [f"rule {at} holds within its limit only" for at in limits]
        why.append(known)
        if place is None:
            ip = Space.ETHERTYPE not in frame
            verdict, by = str(config.default if ip else config.default_non_ip), "the default" if ip else "the default for what is not IP"
        else:
            rule = config.rule[place]
            verdict, by = str(rule.action), f"rule {place}"
            why = explain.reasons(table, table.entries[place], frame) + why
        near = explain.near(table, frame, place)
        return Explained(action=verdict, by=by, id=place, conntrack=label, why=tuple(filter(None, why)), before=tuple(near))

    def _label(self, probe: Probe, frame: explain.Frame) -> tuple[str, str]:
        """A packet's relation to a session, and from where it is known."""
        if self.now.conntrack is Switch.OFF or Space.ETHERTYPE in frame:
            return "UNTRACKED", ""
        if probe.conntrack is not None:
            return probe.conntrack.partition(",")[0], "the relation to a session is as given"
        if Space.PROTO not in frame or (Space.ICMP4 in frame or Space.ICMP6 in frame):
            echo = frame.get(Space.ICMP4, frame.get(Space.ICMP6, 0)) >> 8
            return ("NEW" if echo in (8, 128) else "UNTRACKED" if 133 <= echo <= 137 else "INVALID"), "as if there were no session"
        four = Space.SRC4 in frame
        make = ipaddress.IPv4Address if four else ipaddress.IPv6Address
        src, dst = make(frame[Space.SRC4 if four else Space.SRC6]), make(frame[Space.DST4 if four else Space.DST6])
        key = tuple_key(src, frame.get(Space.SPORT, 0), dst, frame.get(Space.DPORT, 0), frame[Space.PROTO])
        if self.maps["sessions"].packed(key) is not None:
            return "ESTABLISHED", "there is a session"
        opens = frame[Space.PROTO] != 6 or frame[Space.FLAGS] & 0x17 == 2
        return ("NEW" if opens else "INVALID"), "there is no session"

    # ---- inside ----

    def _chain(self, name: str) -> Chain:
        return self.now.chain[ChainName(name)]

    def _find(self, rules: Sequence[Body], rule: Timed, where: str) -> int:
        """Place of the first rule with this content; the action counts if it is given."""
        content = itemgetter(*(name for name in FIELDS if name not in _NO_CONTENT and (name != "action" or rule.action is not None)))
        wanted = content(rule.__dict__)
        for at, one in enumerate(rules):
            if content(one.__dict__) == wanted:
                return at
        raise _refused(where, "no matching rule to delete")

    async def _edit(self, chain: str, edits: list[Edit]) -> None:
        await self.edit([Edit(one.op, ("chain", chain, *one.path), one.value) for one in edits])

    # ---- state ----

    def state(self) -> Mapping[str, Any]:
        if self.current is None:
            return {}
        counts = self.chains.counts()
        return {
            "session-table": [_session(one) for one in itertools.islice(self.sessions, SHOWN)],
            "sessions": self.sessions.live,
            "sessions-failed": failures(self.maps["ct_failures"]),
            "log-missed": counts.get(NOT_LOGGED, (0, 0))[0],
            "chain": [self._chain_state(name, counts) for name in self.now.chain],
        }

    def _chain_state(self, name: ChainName, counts: Mapping[int, tuple[int, int]]) -> dict[str, Any]:
        chain, table, number = self.now.chain[name], self.chains.table(name), CHAINS.index(name)
        stats = []
        for place, (rule, entry) in enumerate(zip(chain.rule.kept, table.entries, strict=False)):
            packets, size = counts.get(entry.counter, (0, 0))
            shown = {name: rule.__dict__[name] for name in _SHOWN if rule.__dict__[name] is not None}
            stats.append({**shown, "id": place, "pkts": packets, "bytes": size})
        packets, size = counts.get(BY_DEFAULT + number, (0, 0))
        stats.append({"id": len(chain.rule), "pkts": packets, "bytes": size, "action": str(chain.default), "description": "DEFAULT"})
        known = self._unreachable.get(name)
        if known is None or known[0] is not table.rules or known[1] is not self.now.sets:
            lines = [{"id": at, "reason": why} for at, why in explain.unreachable(table).items()]
            known = self._unreachable[name] = (table.rules, self.now.sets, lines)
        return {"name": str(name), "stats": stats, "established": counts.get(BY_SESSION + number, (0, 0))[0], "unreachable": known[2]}


_SHOWN = ("src", "dst", "l4proto", "sport", "dport", "tcpflags", "conntrack", "action", "description")
_NO_CONTENT = ("description", "expires")


def _session(one: Session) -> dict[str, Any]:
    """A row of the session table."""
    return {
        "src": str(one.source),
        "dst": str(one.destination),
        "l4proto": protocol_name(one.protocol),
        "sport": one.sport,
        "dport": one.dport,
        "state": one.state.word,
        "eta": one.eta,
    }


def _refused(name: str, why: str) -> ModelError:
    return ModelError(Problem(Tag.INVALID_VALUE, (name,), why))


def _utc(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(time.time() + seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _body(rule: Body) -> dict[str, Any]:
    """A rule as it is stored, but for its place."""
    body = {name: value for name, value in dump(rule).items() if name not in ("id", "timeout", "operation") and value is not None}
    if isinstance(rule, Timed) and rule.timeout is not None:
        body["expires"] = _utc(rule.timeout)
    return body
