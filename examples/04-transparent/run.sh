#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Transparent cubes: stacked on a port of a bridge, and on a netdev that no cube owns.
. "$(dirname "$0")/../hosts.sh"

host h1 10.0.0.1/24
host h2 10.0.0.2/24

show polycubectl simplebridge add br1
show polycubectl br1 ports add p1 peer=to_h1
show polycubectl br1 ports add p2 peer=to_h2

echo "Two on one port: frames from h1 meet 'outer' first, frames to h1 meet 'inner' first."
show polycubectl transparenthelloworld add inner
show polycubectl transparenthelloworld add outer
show polycubectl attach inner br1:p1 position=first
show polycubectl attach outer br1:p1 position=last
show polycubectl br1 ports p1 show tcubes
ping_from h1 10.0.0.2

show polycubectl outer set ingress-action=DROP
no_ping_from h1 10.0.0.2
show polycubectl outer set ingress-action=SLOWPATH
echo "Now every frame goes through the control plane and back:"
ping_from h1 10.0.0.2
show polycubectl detach outer br1:p1
show polycubectl detach inner br1:p1

echo "On a netdev of the host itself: the chain ends in its stack."
host h3 10.0.3.1/24
ip address add 10.0.3.254/24 dev to_h3
show polycubectl attach outer to_h3
ping_from h3 10.0.3.254
show polycubectl topology show to_h3

show polycubectl del inner
show polycubectl del outer
show polycubectl del br1
