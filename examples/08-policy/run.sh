#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Policy-based forwarding: h1 asks one address, and gets answers from h2 on port 80 and from h3 otherwise.
. "$(dirname "$0")/../hosts.sh"

host h1 10.0.0.1/24
host h2 10.0.0.9/24
host h3 10.0.0.9/24
ip -n h1 link set eth0 address 02:00:00:00:00:01
for server in h2 h3; do # answers to ARP go one way only, so both know h1
	ip -n $server link set eth0 address 02:00:00:00:00:09
	ip -n $server neighbour replace 10.0.0.1 lladdr 02:00:00:00:00:01 dev eth0
done

serve() { # HOST PORT: says who it is to whoever connects
	ip netns exec "$1" python3 -c "
import socket
listening = socket.create_server(('', $2))
while True:
    connection, _ = listening.accept()
    connection.sendall(b'$1')
    connection.close()" &
	trap 'kill $(jobs -p)' EXIT
}

ask() { # PORT EXPECTED
	echo "\$ ip netns exec h1 <connect to 10.0.0.9 port $1>"
	answer=$(ip netns exec h1 python3 -c "
import socket, time
for _ in range(50):
    try:
        print(socket.create_connection(('10.0.0.9', $1), 1).recv(10).decode())
        break
    except OSError:
        time.sleep(0.1)")
	echo "$answer"
	[ "$answer" = "$2" ]
}

serve h2 80
serve h3 8080

show polycubectl pbforwarder add pb1
for i in 1 2 3; do show polycubectl pb1 ports add "p$i" peer="to_h$i"; done
show polycubectl pb1 rules add 0 in_port=p1 l4_proto=TCP dst_port=80 action=FORWARD out_port=p2
show polycubectl pb1 rules add 1 in_port=p1 action=FORWARD out_port=p3
show polycubectl pb1 rules add 2 src_ip=10.0.0.0/24 action=FORWARD out_port=p1
show polycubectl pb1 rules add 3 src_mac=02:00:00:00:00:09 action=FORWARD out_port=p1

ask 80 h2
ask 8080 h3

echo "From now on the other one answers on port 80, too:"
serve h3 80
show polycubectl pb1 rules 0 set dst_port=81-90
ask 80 h3
show polycubectl pb1 show rules

show polycubectl del pb1
