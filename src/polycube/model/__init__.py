# SPDX-License-Identifier: Apache-2.0
"""The typed data model: one description of a service, from which everything else is derived.

An author writes `Node` classes (`base`) from leaf types (`types`); the daemon reads them (`schema`), resolves paths in
them (`path`), validates bodies (`parse`), changes configurations (`edit`), tells what changed (`diff`), stores them
(`rows`), shows them with operational data (`dump`), and answers help and completion (`help`). Errors are in `errors`.
The package imports nothing else of polycube and does no I/O.
"""

from polycube.model.base import COUNTER, GAUGE, Action, Keyed, Metric, Node, container, key, key_of, leaf, listing, state
from polycube.model.diff import Diff
from polycube.model.dump import dump, dump_at
from polycube.model.edit import Edit, Op, edit
from polycube.model.ends import ends
from polycube.model.errors import ModelError, Path, PolycubeError, Problem, Tag, path_text, problem, suggest
from polycube.model.help import Command, complete_at, help_at
from polycube.model.metric import Measured, measured
from polycube.model.ordered import INSERT, Ordered
from polycube.model.parse import load
from polycube.model.path import Step, Target, resolve
from polycube.model.rows import from_rows, row_changes, rows
from polycube.model.schema import Kind, LeafType, Member, actions, describe, key_segments, keys, members, to_wire
from polycube.model.types import (
    Choice,
    Int8,
    Int16,
    Int32,
    Int64,
    IpAddress,
    IpInterface,
    IpPrefix,
    Ipv4Address,
    Ipv4Interface,
    Ipv4Prefix,
    Ipv6Address,
    Ipv6Interface,
    Ipv6Prefix,
    MacAddress,
    Name,
    Named,
    Peer,
    PortNumber,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    VlanId,
    host_address,
)
from polycube.model.yang import yang

__all__ = [
    "COUNTER",
    "GAUGE",
    "INSERT",
    "Action",
    "Choice",
    "Command",
    "Diff",
    "Edit",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "IpAddress",
    "IpInterface",
    "IpPrefix",
    "Ipv4Address",
    "Ipv4Interface",
    "Ipv4Prefix",
    "Ipv6Address",
    "Ipv6Interface",
    "Ipv6Prefix",
    "Keyed",
    "Kind",
    "LeafType",
    "MacAddress",
    "Measured",
    "Member",
    "Metric",
    "ModelError",
    "Name",
    "Named",
    "Node",
    "Op",
    "Ordered",
    "Path",
    "Peer",
    "PolycubeError",
    "PortNumber",
    "Problem",
    "Step",
    "Tag",
    "Target",
    "Uint8",
    "Uint16",
    "Uint32",
    "Uint64",
    "VlanId",
    "actions",
    "complete_at",
    "container",
    "describe",
    "dump",
    "dump_at",
    "edit",
    "ends",
    "from_rows",
    "help_at",
    "host_address",
    "key",
    "key_of",
    "key_segments",
    "keys",
    "leaf",
    "listing",
    "load",
    "measured",
    "members",
    "path_text",
    "problem",
    "resolve",
    "row_changes",
    "rows",
    "state",
    "suggest",
    "to_wire",
    "yang",
]
