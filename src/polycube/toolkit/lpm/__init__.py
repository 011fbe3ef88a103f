# SPDX-License-Identifier: Apache-2.0
"""Longest-prefix match: the control plane's side of what data planes declare by lpm.h, a class or function for each kind of table."""

from polycube.toolkit.lpm.blocks import PrefixTable
from polycube.toolkit.lpm.entries import EntryTable
from polycube.toolkit.lpm.filter import Maps
from polycube.toolkit.lpm.rules import packed_rule, rule_key

__all__ = ["EntryTable", "Maps", "PrefixTable", "packed_rule", "rule_key"]
