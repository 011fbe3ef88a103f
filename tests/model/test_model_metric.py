# SPDX-License-Identifier: Apache-2.0
"""Metrics from models."""

from polycube.model import COUNTER, GAUGE, Keyed, Metric, Node, container, key, leaf, listing, measured, state


class Rule(Node):
    """A rule."""

    id: int = key("Number")
    hits: int | None = state("Packets it matched", metric=COUNTER)


class Chain(Node):
    """A chain of rules."""

    name: str = key("Name")
    comment: str | None = leaf("Remark", default=None, metric=Metric("gauge", "filter_comments"))
    rule: Keyed[Rule] = listing("Rules", metric=Metric("gauge", "filter_rules"))


class Stats(Node):
    """Totals."""

    over_limit: int | None = state("Packets above the limit", metric=COUNTER)


class Config(Node):
    """A filter."""

    chain: Keyed[Chain] = listing("Chains", metric=GAUGE)
    stats: Stats = container("Totals", read_only=True)


DUMP = {
    "chain": [
        {"name": "in", "comment": "first", "rule": [{"id": 1, "hits": 7}, {"id": 2, "hits": 0}]},
        {"name": "out", "rule": [{"id": 1}]},
    ],
    "stats": {"over-limit": 3},
}


def samples(dumped):
    return {one.name("filter"): (one.labels, list(one.samples(dumped))) for one in measured(Config)}


def test_leaves_and_lists_become_samples_with_the_keys_of_their_lists():
    found = samples(DUMP)
    assert found["polycube_filter_chain_number"] == ((), [((), 2)])
    assert found["polycube_filter_stats_over_limit"] == ((), [((), 3.0)])
    assert found["polycube_filter_chain_rule_hits"] == (("chain_name", "rule_id"), [(("in", "1"), 7.0), (("in", "2"), 0.0)])


def test_a_name_of_its_own_is_the_sum_of_all_places():
    found = samples(DUMP)
    assert found["filter_rules"] == ((), [((), 3)])
    assert found["filter_comments"] == ((), [((), 1.0)])


def test_nothing_configured_is_zero_of_lists_and_silence_of_leaves():
    found = samples({})
    assert found["polycube_filter_chain_number"] == ((), [((), 0)])
    assert found["polycube_filter_stats_over_limit"] == ((), [])
    assert found["filter_rules"] == ((), [((), 0)])
