#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Two subnets, IPv4 and IPv6: a bridge on the left, a router between them. The chain of `make demo`.
. "$(dirname "$0")/../hosts.sh"

host h1 10.0.1.1/24 fd00:1::1/64 via 10.0.1.254 fd00:1::fe
host h2 10.0.1.2/24 fd00:1::2/64 via 10.0.1.254 fd00:1::fe
host h3 10.0.2.1/24 fd00:2::1/64 via 10.0.2.254 fd00:2::fe

show polycubectl simplebridge add br1
show polycubectl br1 ports add p1 peer=to_h1
show polycubectl br1 ports add p2 peer=to_h2
show polycubectl br1 ports add up
show polycubectl router add r1
show polycubectl r1 ports add lan ip=10.0.1.254/24
show polycubectl r1 ports lan secondaryip add fd00:1::fe/64
show polycubectl r1 ports add wan ip=10.0.2.254/24 peer=to_h3
show polycubectl r1 ports wan secondaryip add fd00:2::fe/64
show polycubectl connect br1:up r1:lan

ping_from h1 10.0.1.254
ping_from h1 10.0.2.1
ping_from h2 fd00:2::1

echo "h3 gets a second address behind it, and the router a route there:"
ip -n h3 address add 10.9.0.1/32 dev lo
show polycubectl r1 route add 10.9.0.0/24 10.0.2.1
ping_from h1 10.9.0.1
show polycubectl r1 show route
show polycubectl r1 show arp-table

show polycubectl del br1
show polycubectl del r1
