# SPDX-License-Identifier: Apache-2.0
"""Bitcode and glue to BPF objects: what is compiled at build time, linked and emitted at run time, and cached.

Knows functions and hooks, not instances, topologies or daemons. Importing the package costs nothing: llvmlite is imported by `unit`
only, and `unit` by the compiler process only.
"""
