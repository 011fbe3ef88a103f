# SPDX-License-Identifier: Apache-2.0
"""Netlink, namespaces, addresses: all that is asked of the kernel's network apart from eBPF.

pyroute2 and the raw netlink it does not cover stay inside; what comes out are values (`Netdev`, events, `Mac`,
standard `ipaddress` types) and the errors of `polycube.net.errors`. Nothing of polycube is imported from here.
"""
