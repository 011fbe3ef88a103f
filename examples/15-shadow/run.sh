#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A shadow router: configured with ip in its namespace, with a server on its own address; seen by tcpdump; killed.
. "$(dirname "$0")/../hosts.sh"

host h1 10.0.1.1/24 fd00:1::1/64 via 10.0.1.254 fd00:1::fe
host h2 10.0.2.1/24 fd00:2::1/64 via 10.0.2.254 fd00:2::fe

show polycubectl router add r1 shadow=true
show polycubectl r1 ports add lan peer=to_h1
show polycubectl r1 ports add wan peer=to_h2

echo "Addresses by ip, in the router's namespace:"
show ip -n pcn-r1 address add 10.0.1.254/24 dev lan
show ip -n pcn-r1 address add fd00:1::fe/64 dev lan
show ip -n pcn-r1 address add 10.0.2.254/24 dev wan
show ip -n pcn-r1 address add fd00:2::fe/64 dev wan
until polycubectl r1 show ports wan secondaryip | grep -q fd00:2::fe; do sleep 0.1; done
ping_from h1 10.0.2.1
ping_from h1 fd00:2::1

echo "A web server on the router's address, while the daemon is killed:"
ip netns exec pcn-r1 python3 -m http.server --bind 10.0.1.254 80 > "$HOME/r1.log" 2>&1 &
server=$!
until ip netns exec pcn-r1 ss -ltn | grep -q 10.0.1.254:80; do sleep 0.1; done
ping_from pcn-r1 10.0.2.1
kill -9 "$(cat /run/lab/polycubed.pid)"
show ip netns exec h2 python3 -c 'from urllib.request import urlopen; print(urlopen("http://10.0.1.254").status)'
show ip -n pcn-r1 route add 10.9.0.0/16 via 10.0.2.1
polycubed -d
until polycubectl r1 show route 2> /dev/null | grep -q 10.9.0.0; do sleep 0.1; done
show polycubectl r1 show route 10.9.0.0/16 10.0.2.1 active
kill $server

echo "All that passes the router, in tcpdump:"
show polycubectl r1 set span=true
ip netns exec pcn-r1 tcpdump -n -c 8 -i lan icmp > "$HOME/capture.txt" 2> "$HOME/ready.txt" &
until grep -q listening "$HOME/ready.txt"; do sleep 0.1; done
ping_from h1 10.0.2.1
wait $!
cat "$HOME/capture.txt"
show polycubectl del r1
