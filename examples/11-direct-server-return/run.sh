#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Servers that answer past the balancer: at layer 2 on one segment, and behind a router by IP in IP.
. "$(dirname "$0")/../hosts.sh"

VIP=10.0.0.100 VIP6=fd00::100
host client 10.0.0.1/24 fd00::1/64
for n in 1 2; do
	host "web$n" "10.0.0.1$n/24" "fd00::1$n/64"
	ip -n "web$n" address add $VIP/32 dev lo
	ip -n "web$n" address add $VIP6/128 dev lo nodad
	ip netns exec "web$n" sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
	ip netns exec "web$n" python3 - "web$n" <<-'PY' &
		import http.server, socket, sys
		class Server(http.server.ThreadingHTTPServer):
		    address_family = socket.AF_INET6
		class Handler(http.server.BaseHTTPRequestHandler):
		    def do_GET(self):
		        self.send_response(200); self.end_headers(); self.wfile.write((sys.argv[1] + "\n").encode())
		    def log_message(self, *_): pass
		Server(("::", 80), Handler).serve_forever()
	PY
	servers="${servers:-} $!"
	until ip netns exec "web$n" curl -s -o /dev/null localhost; do sleep 0.1; done
done
trap 'kill $servers' EXIT
mac() { ip -n "$1" -br link show eth0 | awk '{print $3}'; }

# ask TIMES URL: who answers, and how often
ask() {
	echo "\$ curl $2      # $1 times, from client"
	for _ in $(seq "$1"); do
		ip netns exec client curl -s --max-time 5 "$2"
	done | sort | uniq -c
}

echo "client, web1, web2 and both sides of the balancer on one bridge; the servers have the virtual addresses, but do not answer for them:"
show polycubectl simplebridge add br1
for peer in client web1 web2; do
	polycubectl br1 ports add "$peer" peer="to_$peer"
done
polycubectl br1 ports add front
polycubectl br1 ports add back
show polycubectl lbdsr add lb1
show polycubectl lb1 ports add front type=FRONTEND
show polycubectl lb1 ports add back type=BACKEND
show polycubectl connect br1:front lb1:front
show polycubectl connect br1:back lb1:back
show polycubectl lb1 frontend set vip=$VIP mac=02:00:00:00:00:64
show polycubectl lb1 backend pool add 1 mac="$(mac web1)"
show polycubectl lb1 backend pool add 2 mac="$(mac web2)"
ask 12 http://$VIP/
show polycubectl lb1 service add $VIP6 80 TCP
for n in 1 2; do
	polycubectl lb1 service $VIP6 80 TCP backend add $n mac="$(mac web$n)"
done
ask 12 "http://[$VIP6]/"
show polycubectl lb1 backend show pool

echo "web1 is drained, and then taken out:"
show polycubectl lb1 backend pool 1 set state=DRAIN
ask 10 http://$VIP/
show polycubectl lb1 backend pool del 1

echo "To a server behind routers packets go in packets of their own, here IP in IP:"
show polycubectl lb1 outer set gateway="$(mac web2)"
show polycubectl lb1 service add 10.0.0.101 80 TCP encapsulation=IPIP
show polycubectl lb1 service 10.0.0.101 80 TCP backend add 1 ip=10.0.0.12
ip netns exec web2 timeout 60 tcpdump -i eth0 -n -c 1 -t ip proto 4 2> /dev/null &
watching=$!
while kill -0 "$watching" 2> /dev/null; do ip netns exec client curl -s --max-time 1 http://10.0.0.101/ || true; done
wait "$watching"
