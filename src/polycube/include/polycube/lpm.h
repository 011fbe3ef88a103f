/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Longest-prefix match, for all services. What a table is for decides how it is kept; toolkit/lpm is the control plane's side of each:
 *
 *	LPM4, LPM6        many prefixes that have few values between them, as routes have next hops (lpm_blocks.h, PrefixTable)
 *	LPM4_IF, LPM6_IF  many prefixes that each have a state, and count under a condition (lpm_entries.h, EntryTable)
 *	LPM_RULES         prefixes of rules: few in most tables, of which any number share one map (lpm_rules.h, rule_key)
 */
#pragma once

#include <polycube/lpm_blocks.h>
#include <polycube/lpm_entries.h>
#include <polycube/lpm_rules.h>
