#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A patch panel: a simpleforwarder joins h1 with h2, then with h3.
. "$(dirname "$0")/../hosts.sh"

host h1 10.0.0.1/24
host h2 10.0.0.9/24
host h3 10.0.0.9/24

show polycubectl simpleforwarder add sf1
for i in 1 2 3; do show polycubectl sf1 ports add "p$i" peer="to_h$i"; done
show polycubectl sf1 actions add p1 action=FORWARD outport=p2
show polycubectl sf1 actions add p2 action=FORWARD outport=p1
show polycubectl sf1 actions add p3 action=FORWARD outport=p1
ping_from h1 10.0.0.9

echo "The same address, now at h3:"
show polycubectl sf1 actions p1 set outport=p3
ip -n h1 neighbour flush dev eth0
ping_from h1 10.0.0.9
show polycubectl sf1 show actions

show polycubectl del sf1
