# SPDX-License-Identifier: Apache-2.0
"""Packet classification, control plane: from rules to the tables of include/polycube/classify.h.

`rule` says what rules ask for, `space` divides the values of a field into classes, `table` keeps the bit vectors, `layout` turns them into
bytes and `sides` brings them into the maps of a cube. All but the last are pure.

    table = Table()
    table.update([Rule("a", match({Space.SRC4: prefixes("10.0.0.0/8"), Space.DPORT: ranges((80, 80))}), Result(action=1))])
    table.search({Space.SRC4: ..., ...})            # as the data plane does
    sides.sync(0, table, fallback=0)                # in Cube.apply
"""

from polycube.toolkit.classify.layout import flow_sets
from polycube.toolkit.classify.rule import ANY, Dim, Match, Result, Rule, Space, Values, match, named, prefixes, ranges
from polycube.toolkit.classify.sides import Sides
from polycube.toolkit.classify.table import SLOTS, Entry, Table, TableFull

__all__ = [
    "ANY",
    "SLOTS",
    "Dim",
    "Entry",
    "Match",
    "Result",
    "Rule",
    "Sides",
    "Space",
    "Table",
    "TableFull",
    "Values",
    "flow_sets",
    "match",
    "named",
    "prefixes",
    "ranges",
]
