#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Three web servers behind one address: weights, one that dies, one that is drained, connections that live on while the daemon is killed.
. "$(dirname "$0")/../hosts.sh"

host client 10.0.1.1/24 fd00:1::1/64 via 10.0.1.254 fd00:1::fe
for n in 1 2 3; do
	host "web$n" "10.0.2.$n/24" "fd00:2::$n/64" via 10.0.2.254 fd00:2::fe
done

# serve HOST: a web server that answers with its host's name
serve() {
	ip netns exec "$1" python3 - "$1" <<-'PY' &
		import http.server, socket, sys
		class Server(http.server.ThreadingHTTPServer):
		    address_family = socket.AF_INET6
		class Handler(http.server.BaseHTTPRequestHandler):
		    def do_GET(self):
		        body = (sys.argv[1] + "\n").encode()
		        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
		    def log_message(self, *_): pass
		Server(("::", 8080), Handler).serve_forever()
	PY
	server=$!
	until ip netns exec "$1" curl -s -o /dev/null localhost:8080; do sleep 0.1; done
}

# ask TIMES URL: who answers, and how often
ask() {
	echo "\$ curl $2      # $1 times, from client"
	for _ in $(seq "$1"); do
		ip netns exec client curl -s --max-time 5 "$2" || echo "no answer"
	done | sort | uniq -c
}

for n in 1 2 3; do
	serve "web$n"
	servers="${servers:-} $server"
done
trap 'kill $servers' EXIT

echo "client - lb1 - router r1 - bridge br1 - web1, web2, web3"
show polycubectl simplebridge add br1
for n in 1 2 3; do
	polycubectl br1 ports add "p$n" peer="to_web$n"
done
polycubectl br1 ports add up
show polycubectl router add r1
show polycubectl r1 ports add lan ip=10.0.1.254/24
polycubectl r1 ports lan secondaryip add fd00:1::fe/64
show polycubectl r1 ports add servers ip=10.0.2.254/24
polycubectl r1 ports servers secondaryip add fd00:2::fe/64
polycubectl connect br1:up r1:servers
show polycubectl lbrp add lb1
show polycubectl lb1 ports add clients type=FRONTEND peer=to_client
show polycubectl lb1 ports add router type=BACKEND
show polycubectl connect lb1:router r1:lan

show polycubectl lb1 service add 10.96.0.1 80 TCP name=web
show polycubectl lb1 service 10.96.0.1 80 TCP backend add 10.0.2.1 port=8080 weight=2
show polycubectl lb1 service 10.96.0.1 80 TCP backend add 10.0.2.2 port=8080
show polycubectl lb1 service 10.96.0.1 80 TCP backend add 10.0.2.3 port=8080
ask 24 http://10.96.0.1/
polycubectl lb1 service add fd96::1 80 TCP
for n in 1 2 3; do
	polycubectl lb1 service fd96::1 80 TCP backend add "fd00:2::$n" port=8080
done
ask 12 'http://[fd96::1]/'

echo "Health checks come from a host of the balancer's own, 10.0.1.250, since the daemon's host has no way to the servers:"
show polycubectl lb1 probe set ip=10.0.1.250/24 gateway=10.0.1.254
show polycubectl lb1 service 10.96.0.1 80 TCP health-check set type=HTTP interval=200 timeout=500 fall=2
until [ "$(polycubectl lb1 service 10.96.0.1 80 TCP show backend -json | grep -c '"UP"')" = 3 ]; do sleep 0.2; done
show polycubectl lb1 service 10.96.0.1 80 TCP show backend

echo "web3 dies:"
kill "${server}"
servers=${servers% *}
until polycubectl lb1 service 10.96.0.1 80 TCP show backend | grep -q DOWN; do sleep 0.2; done
ask 12 http://10.96.0.1/

echo "web1 is drained:"
show polycubectl lb1 service 10.96.0.1 80 TCP backend 10.0.2.1 set state=DRAIN
ask 12 http://10.96.0.1/

echo "A download goes on while polycubed is killed:"
ip netns exec client python3 - <<'PY' &
import http.client, time
connection = http.client.HTTPConnection("10.96.0.1", 80, timeout=10)
for _ in range(20):
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"web2\n"
    time.sleep(0.1)
print("20 answers over one connection, all from web2")
PY
download=$!
sleep 0.5
show kill -9 "$(cat /run/lab/polycubed.pid)"
wait "$download"
