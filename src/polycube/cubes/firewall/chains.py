# SPDX-License-Identifier: Apache-2.0
"""Chains as configured, and what they are to the classifier and the maps."""

from __future__ import annotations

import datetime
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from polycube.core.maps import MapViews
from polycube.cubes.firewall import matching
from polycube.cubes.firewall.model import Body, Chain, ChainName, FirewallConfig, RuleAction
from polycube.model import ModelError, Problem, Tag, ends, suggest
from polycube.toolkit import tokenbucket
from polycube.toolkit.classify import SLOTS, Result, Rule, Sides, Table
from polycube.toolkit.classify.space import Numbers

CHAINS = tuple(ChainName)
ACTIONS = tuple(RuleAction)  # without LOG: also the defaults; enum firewall_action has this order
FIRST_COUNTER = 8  # FIREWALL_COUNTERS
BY_DEFAULT, BY_SESSION, NOT_LOGGED = 0, 2, 4
LIMITED = 1  # enum firewall_flag
BURST = 5
_COUNT = struct.Struct("<QQ")
FIELDS = tuple(Body.model_fields)
COUNTED = ("expires", "reject_with")


def slots(max_rules: int) -> int:
    """Slots for so many rules: some more, so that there are gaps."""
    return min(SLOTS, -(-(max_rules * 8 // 5) // 64) * 64)


def mono(moment: str) -> int:
    """A moment as the data plane counts, pcn_now()."""
    when = datetime.datetime.fromisoformat(moment).timestamp()
    return max(1, int(time.clock_gettime(time.CLOCK_MONOTONIC) + when - time.time()))


class Chains:
    """Both chains of a firewall."""

    def __init__(self, maps: MapViews, max_rules: int) -> None:
        self._maps = maps
        counters = Numbers(last=FIRST_COUNTER - 1)
        self.sides = [Sides(maps, number, Table(slots(max_rules), counters), "counters") for number in range(len(CHAINS))]
        self._counters = counters
        self._known: dict[Any, Rule] = {}  # by content
        self._made: dict[ChainName, tuple[Sequence[Body], list[Rule]]] = {}  # a chain's rules as they were last
        self._written: FirewallConfig | None = None  # what the tables hold
        self.having = {name: dict.fromkeys(COUNTED, 0) for name in CHAINS}  # how many rules of a chain say something of these

    def table(self, chain: ChainName) -> Table:
        return self.sides[CHAINS.index(chain)].table

    def adopt(self, config: FirewallConfig) -> None:
        """After a restart: rules get the counters they have in the kernel."""
        places = [sides.places() for sides in self.sides]
        self._counters.reserve({counter for found in places for _, counter in found})
        for name, sides, found in zip(CHAINS, self.sides, places, strict=True):
            sides.table.restore(self.rules(config.chain[name]), found, self.sets(config))
        self._written = config

    def follow(self, config: FirewallConfig) -> None:
        """Takes the tables back to the configuration that stands, after a change that was not made; packets never met another."""
        written, self._written = self._written, config
        if written is None or (written.chain is config.chain and written.sets is config.sets):
            return
        for name, sides in zip(CHAINS, self.sides, strict=True):
            sides.table.update(self.rules(config.chain[name]), self.sets(config))

    def write(self, config: FirewallConfig) -> None:
        """Has the data plane use this configuration."""
        sets, self._written = self.sets(config), config
        for name, sides in zip(CHAINS, self.sides, strict=True):
            chain = config.chain[name]
            fallback = ACTIONS.index(chain.default) | ACTIONS.index(chain.default_non_ip) << 8
            sides.update(self.rules(chain), sets, fallback=fallback, flows=config.flow_cache)
            limited = [one for one in sides.table.came if one.rule.result.flags & LIMITED]
            self._maps["limits"].load([(one.counter.to_bytes(4, "little"), self._limit(one.rule)) for one in limited])
        if len(self._known) > 2 * sum(len(sides.table.rules) for sides in self.sides) + 1000:
            self._known = {rule.key: rule for sides in self.sides for rule in sides.table.rules}

    def _limit(self, rule: Rule) -> bytes:
        assert isinstance(rule.key, tuple)
        body = dict(zip(FIELDS, rule.key, strict=True))
        tokens, seconds = matching.tokens_per_second(body["limit"])
        rate = tokenbucket.rate(tokens, body["burst"] or BURST)
        spread = {
            "price": rate["price"] * seconds,
            "burst": min(rate["burst"] * seconds, tokenbucket.MAX_BURST_SECONDS * tokenbucket.SECOND),
        }
        return self._maps["limits"].pack({"rate": spread})

    def rules(self, chain: Chain) -> list[Rule]:
        """Those of a chain, in order. Equal ones are the same object, which makes comparing them cheap."""
        before, found = self._made.get(chain.name, ((), []))
        kept = chain.rule.kept
        if kept is before:
            return found
        first, last = ends(before, kept)
        gone, came = before[first : len(before) - last], kept[first : len(kept) - last]
        found = [*found[:first], *map(self._made_of, came), *found[len(found) - last :]]
        for rules, sign in ((came, 1), (gone, -1)):
            for name in COUNTED:
                self.having[chain.name][name] += sign * sum(rule.__dict__[name] is not None for rule in rules)
        self._made[chain.name] = (kept, found)
        return found

    def _made_of(self, rule: Body) -> Rule:
        key = rule.content
        one = self._known.get(key)
        if one is None:
            one = self._known[key] = self._rule(rule, key)
        return one

    def _rule(self, rule: Body, key: tuple[Any, ...]) -> Rule:
        action = RuleAction.ACCEPT if rule.action is None else rule.action
        result = Result(
            action=ACTIONS.index(action),
            flags=LIMITED if rule.limit is not None else 0,
            expires=mono(rule.expires) if rule.expires is not None else 0,
        )
        return Rule(key, matching.match_of(rule), result)

    @staticmethod
    def sets(config: FirewallConfig) -> dict[str, Any]:
        """Named sets as the classifier wants them."""
        return {one.name: matching.elements_of_set(one.element) for one in config.sets.values()}

    # ---- counters ----

    def counts(self) -> dict[int, tuple[int, int]]:
        """Packets and bytes by counter."""
        kernel = self._maps["counters"].kernel
        found = {}
        for key, value in kernel.items() if kernel is not None else ():
            if any(value):
                each = list(_COUNT.iter_unpack(value))
                found[int.from_bytes(key, "little")] = (sum(one[0] for one in each), sum(one[1] for one in each))
        return found

    def reset(self, numbers: Iterable[int]) -> None:
        """Sets counters to 0."""
        self._maps["counters"].load([(number.to_bytes(4, "little"), None) for number in numbers])


def check(config: FirewallConfig, old: FirewallConfig | None) -> None:
    """What the types don't say, of what is new. Raises ModelError."""
    found = []
    names = old is None or old.sets is not config.sets
    for chain in config.chain.values():
        at = ("chain", str(chain.name), "rule")
        if len(chain.rule) > config.max_rules:
            found.append(Problem(Tag.INVALID_VALUE, at, f"holds {len(chain.rule)} rules: max-rules allows {config.max_rules}"))
        kept = chain.rule.kept
        first, last = (0, 0) if old is None or names else ends(old.chain[chain.name].rule.kept, kept)
        for place, rule in enumerate(kept[first : len(kept) - last], first):
            found += [Problem(Tag.INVALID_VALUE, (*at, str(place)), wrong) for wrong in objections(rule, config.sets)]
    if found:
        raise ModelError(*found[:20])


def objections(rule: Body, sets: Mapping[str, Any]) -> Iterable[str]:
    """Why a rule makes no sense."""
    if rule.action is None:
        yield "has no action: action not specified for the rule"
    if rule.icmptype is not None and (rule.sport is not None or rule.dport is not None):
        yield "asks for ports and for an ICMP type, which exclude each other"
    for name in filter(None, map(matching.set_of, (rule.src, rule.dst, str(rule.sport), str(rule.dport)))):
        if name not in sets:
            yield f"names a set that is not there, {name}{suggest(name, sets)}"
    if rule.reject_with is not None and rule.action != "REJECT":
        yield f"says how to reject, but its action is {rule.action}"
