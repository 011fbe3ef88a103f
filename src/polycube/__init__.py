# SPDX-License-Identifier: Apache-2.0
"""Polycube: network functions inside the Linux kernel as eBPF, chained and controlled at run time."""

__version__ = "0.1.0"
