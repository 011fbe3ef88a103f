#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Two bridges, two VLANs, two trunks between them of which spanning tree closes one.
. "$(dirname "$0")/../hosts.sh"

host h1 10.0.0.1/24
host h2 10.0.0.2/24
host h3 10.0.0.3/24

# forwards BRIDGE PORT: waits until a port forwards in VLAN 10
forwards() {
	for _ in $(seq 100); do
		[ "$(polycubectl "$1" ports "$2" stp 10 show state 2>/dev/null)" = forwarding ] && return
		sleep 0.2
	done
	return 1
}

for bridge in br1 br2; do
	show polycubectl bridge add $bridge stp-enabled=true
	for trunk in t1 t2; do
		show polycubectl $bridge ports add $trunk mode=trunk
		show polycubectl $bridge ports $trunk trunk allowed add 10
		show polycubectl $bridge ports $trunk trunk allowed add 20
	done
done
show polycubectl br1 stp add 10 priority=4096
show polycubectl br1 ports add p1 peer=to_h1 edge=true
show polycubectl br2 ports add p2 peer=to_h2 edge=true
show polycubectl br2 ports add p3 peer=to_h3 edge=true
for port in br1:p1 br2:p2; do
	show polycubectl ${port%:*} ports ${port#*:} access set vlanid=10
done
show polycubectl br2 ports p3 access set vlanid=20
show polycubectl connect br1:t1 br2:t1
show polycubectl connect br1:t2 br2:t2

forwards br1 t1
forwards br2 t1
ping_from h1 10.0.0.2
no_ping_from h1 10.0.0.3
show polycubectl br2 show stp
show polycubectl br2 ports t2 show stp

echo "The trunk in use is cut, the other one takes over:"
show polycubectl disconnect br1:t1 br2:t1
forwards br2 t2
ping_from h1 10.0.0.2

show polycubectl del br1
show polycubectl del br2
