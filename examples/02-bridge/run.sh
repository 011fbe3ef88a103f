#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Three hosts on two bridges that are joined; what they learn; and a station that is configured.
. "$(dirname "$0")/../hosts.sh"

host h1 10.0.0.1/24
host h2 10.0.0.2/24
host h3 10.0.0.3/24

show polycubectl simplebridge add br1
show polycubectl br1 ports add p1 peer=to_h1
show polycubectl br1 ports add p2 peer=to_h2
show polycubectl br1 ports add up
show polycubectl simplebridge add br2
show polycubectl br2 ports add p3 peer=to_h3
show polycubectl br2 ports add down
show polycubectl connect br1:up br2:down

ping_from h1 10.0.0.2
ping_from h1 10.0.0.3
show polycubectl br1 show fdb

echo "A configured station neither ages nor moves; a wrong one cuts h3 off:"
mac=$(ip netns exec h3 cat /sys/class/net/eth0/address)
show polycubectl br1 fdb entry add "$mac" port=p2
no_ping_from h1 10.0.0.3
show polycubectl br1 fdb entry del "$mac"
ping_from h1 10.0.0.3

show polycubectl br1 fdb flush
show polycubectl del br1
show polycubectl del br2
