#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A firewall on a port of a bridge, in front of a server.
. "$(dirname "$0")/../hosts.sh"

host server 10.0.0.1/24
host client 10.0.0.2/24

show polycubectl simplebridge add br1
show polycubectl br1 ports add p1 peer=to_server
show polycubectl br1 ports add p2 peer=to_client

echo "EGRESS of a port is towards the host behind it, INGRESS what comes from there."
show polycubectl firewall add fw1
show polycubectl fw1 chain EGRESS set default=DROP
show polycubectl attach fw1 br1:p1
no_ping_from client 10.0.0.1
echo "What the server asks for comes back all the same:"
ping_from server 10.0.0.2

show polycubectl fw1 sets add admins
show polycubectl fw1 chain EGRESS append l4proto=TCP dport=80,443 action=ACCEPT
show polycubectl fw1 chain EGRESS append src=@admins action=ACCEPT
show polycubectl fw1 chain EGRESS append l4proto=TCP action=REJECT
echo "The client becomes one of the administrators; the set is edited, the rules are not:"
show polycubectl fw1 sets admins element add 10.0.0.2
ping_from client 10.0.0.1

echo "Which rule decides, without sending anything:"
show polycubectl fw1 chain EGRESS explain src=10.0.0.7 dst=10.0.0.1 l4proto=TCP dport=22
show polycubectl fw1 chain EGRESS stats show
show polycubectl fw1 show session-table

show polycubectl del fw1
show polycubectl del br1
