#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A private network behind one address: masquerading, a forwarded port, prefix translation for IPv6.
. "$(dirname "$0")/../hosts.sh"

host h1 10.0.1.1/24 fd00:1::1/64 via 10.0.1.254 fd00:1::fe
echo "h2 is outside, and knows no way to 10.0.1.0/24:"
host h2 203.0.113.9/24 2001:db8::9/64
ip -n h2 route add 2001:db8:1::/64 via 2001:db8::fe

show polycubectl router add r1
show polycubectl r1 ports add lan ip=10.0.1.254/24 peer=to_h1
show polycubectl r1 ports lan secondaryip add fd00:1::fe/64
show polycubectl r1 ports add wan ip=203.0.113.1/24 peer=to_h2
show polycubectl r1 ports wan secondaryip add 2001:db8::fe/64
no_ping_from h1 203.0.113.9

show polycubectl nat add nat1
show polycubectl attach nat1 r1:wan
show polycubectl nat1 rule masquerade enable
ping_from h1 203.0.113.9
show polycubectl nat1 show natting-table

echo "Port 8080 of the router's address is port 80 of h1:"
show polycubectl nat1 rule port-forwarding append external-ip=203.0.113.1 external-port=8080 proto=tcp internal-ip=10.0.1.1 internal-port=80
ip netns exec h1 python3 -c '
import socket
with socket.create_server(("10.0.1.1", 80)) as server:
    print("listening", flush=True)
    connection, peer = server.accept()
    with connection:
        while data := connection.recv(100):
            connection.sendall(peer[0].encode() + b" said " + data)' > "$HOME/h1.out" &
until [ -s "$HOME/h1.out" ]; do sleep 0.1; done
ip netns exec h2 python3 -c '
import os, signal, socket, sys, time
pid = int(open("/run/lab/polycubed.pid").read())
with socket.create_connection(("203.0.113.1", 8080), timeout=10) as talk:
    talk.sendall(b"hello")
    print(talk.recv(100).decode())
    os.kill(pid, signal.SIGKILL)
    talk.sendall(b"hello again")
    print(talk.recv(100).decode(), "(with the daemon dead)")'
wait
polycubed -d
until polycubectl version > /dev/null 2>&1; do sleep 0.1; done

echo "IPv6 by prefixes, address by address and without sessions:"
show polycubectl nat1 rule prefix-translation entry add 1 internal-prefix=fd00:1::/64 external-prefix=2001:db8:1::/64
ping_from h1 2001:db8::9

show polycubectl nat1 rule masquerade disable
show polycubectl nat1 flush
no_ping_from h1 203.0.113.9
show polycubectl del nat1
show polycubectl del r1
