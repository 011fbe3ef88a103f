# SPDX-License-Identifier: Apache-2.0
"""Command lines in the way of upstream's scripts, service by service, and what they have to bring.

A line is an argument list of polycubectl that ends well; `!` before it says that it is refused. Lines beginning with `>` are parts of what
it prints, in this order, of what it says on standard error if it is refused. v1 to v4 are netdevs.
"""

SCRIPTS = {
    "helloworld": """
helloworld add hw0 action=FORWARD loglevel=TRACE
helloworld add hw1 type=tc loglevel=debug
hw0 ports add port1 peer=v1
helloworld hw0 ports add port2
helloworld hw0 ports port2 set peer=v2
! hw0 ports add port3
> maximum number of ports
helloworld hw0 show action
> FORWARD
hw0 show
> name: hw0
> service-name: helloworld
> loglevel: TRACE
> action: FORWARD
> ports:
>  name   uuid
> status  peer
hw0 ports show
> port1
> v1
hw0 ports port1 show peer
> v1
hw0 ports port1 show status
> UP
hw0 set action=slowpath
hw0 set action=DROP loglevel=INFO
helloworld show -brief
> hw0
helloworld show -json
> "service-name": "helloworld"
hw0 show -yaml
> action: DROP
hw0 show -hide=uuid,ports.uuid
hw0 ports port1 set peer=
hw0 ports port1 show -json
> "peer": ""
helloworld hw0 ports del port1
! helloworld hw0 ports del port_not_existing
! helloworld hw_not_existing ports del port1
hw0 ports del
hw1 del
del helloworld hw0
! hw0 show
""",
    "transparenthelloworld": """
transparenthelloworld add th1 loglevel=TRACE
transparenthelloworld add th2 loglevel=TRACE
transparenthelloworld add th3
transparenthelloworld add th4
transparenthelloworld add th5 ingress-action=PASS egress-action=drop
th5 set egress-action=PASS
th1 show parent
attach th3 v1
attach th1 v1 position=first
attach th5 v1 position=last
attach th2 v1 after=th1
attach th4 v1 before=th5
topology show v1
> ingress service chain: th1 ---> th2 ---> th3 ---> th4 ---> th5 ---> stack
topology show v1
> egress service chain: th5 ---> th4 ---> th3 ---> th2 ---> th1 ---> stack
topology show v1
> cubes, ingress_index, egress_index:
> th1
th1 show parent
> v1
! attach th1 v2
> already attached
! attach th9 v1
> Cube th9 does not exist
! attach th1 v1 position=first after=th2
! detach th1 v2
detach th1 v1
topology show v1
> ingress service chain: th2 ---> th3
del th1
transparenthelloworld del th2
th3 del
th4 del
th5 del
""",
    "simpleforwarder": """
simpleforwarder add fwd1
fwd1 ports add port1 peer=v1
fwd1 ports add port2 peer=v2
simpleforwarder fwd1 actions add port1 action=FORWARD outport=port2
fwd1 actions add port2 action=SLOWPATH
fwd1 actions port2 set action=DROP
fwd1 actions port1 show outport
> port2
fwd1 actions show
> inport
> port1
! fwd1 actions add port3 action=DROP
> port3
! fwd1 actions port2 set action=FORWARD
! fwd1 actions del port3
fwd1 actions del port1
fwd1 actions del
simpleforwarder del fwd1
""",
    "simplebridge": """
simplebridge add br1
simplebridge add br2 loglevel=INFO
br1 ports add toveth1
connect br1:toveth1 v1
br1 ports add toveth2 peer=v2
! connect br1:toveth2 v3
> br1:toveth2 already has a peer v2
br1 fdb set aging-time=60
br1 show fdb aging-time
> 60
br1 fdb entry add 02:00:00:00:00:99 port=toveth1
br1 fdb entry show
> address
> 02:00:00:00:00:99  toveth1
br1 fdb entry 02:00:00:00:00:99 show port
> toveth1
br1 fdb entry del 02:00:00:00:00:99
simplebridge br1 fdb flush
> flushed: true
br2 ports add p1
! connect br1:toveth1 br2:p1
> br1:toveth1 already has a peer v1
! connect br2:nope v3
disconnect br1:toveth1 v1
! disconnect br1:toveth1 v1
> br1:toveth1 is not connected to v1
simplebridge show
> br1
simplebridge del br1
simplebridge del br2
""",
    "bridge": """
bridge add br1
bridge add br2 type=TC stp-enabled=true
bridge br1 ports add v1
bridge br1 ports v1 set peer=v1
br1 ports add tobr2 mode=trunk
br2 ports add tobr1 mode=trunk
connect br1:tobr2 br2:tobr1
br1 ports tobr2 trunk allowed add 10
br1 ports tobr2 trunk allowed add 20
br1 ports tobr2 trunk allowed del 20
br1 ports tobr2 trunk set native-vlan-enabled=false
br1 ports tobr2 trunk set native-vlan=5
br1 ports v1 access set vlanid=10
br1 ports v1 show mode
> access
br1 ports v1 access show vlanid
> 10
br1 ports v1 set mode=TRUNK
br1 ports v1 set mode=access
br1 set stp-enabled=true
br2 stp 1 set priority=28672
br2 stp 1 show priority
> 28672
br1 stp 10 set forward-delay=4 hello-time=1 max-message-age=6
br1 stp 10 show
> priority: 32768
> forward-delay: 4
br1 ports v1 stp 10 set path-cost=10
br1 ports v1 stp 10 set port-priority=64
br1 ports v1 stp 10 show path-cost
> 10
br1 fdb set aging-time=100
br1 fdb entry add 10 02:00:00:00:00:0A port=v1
br1 fdb entry 10 02:00:00:00:00:0a show type
> static
br1 fdb entry del 10 02:00:00:00:00:0a
br1 fdb show
br1 fdb flush
br1 show
> stp-enabled: true
bridge del br1
br2 del
""",
    "router": """
router add r1 loglevel=INFO
router add r2
router r1 ports add to_veth1 ip=10.1.1.254/24
r1 ports to_veth1 set peer=v1
r1 ports add to_veth2 ip=10.1.2.254/24 peer=v2
r1 ports to_veth2 secondaryip add 10.1.3.254/24
r1 ports to_veth2 secondaryip show
> 10.1.3.254/24
r1 ports add to_r2 ip=10.1.0.1/30
r2 ports add to_r1 ip=10.1.0.2/30 mac=02:01:02:03:04:05
r2 ports to_r1 show mac
> 02:01:02:03:04:05
connect r1:to_r2 r2:to_r1
r2 route add 10.1.1.0/24 10.1.0.1
r2 route add 0.0.0.0/0 10.1.0.1 pathcost=5
r2 route 0.0.0.0/0 10.1.0.1 show pathcost
> 5
! r2 route add 10.1.1.0/24 10.1.0.1
> already
! r2 route add 10.9.0.0/16 192.168.9.9
r2 route add 10.9.0.0/16 192.168.9.9 interface=to_r1
r1 show route
> network
> nexthop
> interface
> pathcost
> 10.1.1.0/24
> local
! r1 route del 10.1.1.0/24 local
r2 route del 10.1.1.0/24 10.1.0.1
r1 arp-table add 10.1.1.9 mac=02:00:00:00:00:09 interface=to_veth1
r1 arp-table show
> 10.1.1.9
r1 arp-table 10.1.1.9 show mac
> 02:00:00:00:00:09
r1 arp-table del 10.1.1.9
r2 route del
r1 ports to_veth2 secondaryip del 10.1.3.254/24
! r1 ports p9 show
r2 ports to_r1 del
router del r1
del router r2
""",
    "nat": """
nat add nat1
router add r1
r1 ports add out ip=10.1.2.254/24
attach nat1 r1:out
nat1 rule snat append internal-net=10.0.0.0/24 external-ip=1.2.3.4
> id: 0
nat1 rule snat entry add 7 internal-net=10.0.1.0/24 external-ip=1.2.3.5
nat1 rule snat entry 7 show external-ip
> 1.2.3.5
nat1 rule masquerade enable
> result: true
nat1 rule masquerade show enabled
> true
nat1 rule masquerade disable
> result: true
nat1 rule masquerade set enabled=true
nat1 rule dnat append internal-ip=10.0.0.1 external-ip=1.2.3.6
> id: 0
nat1 rule port-forwarding append external-ip=1.2.3.4 external-port=80 internal-ip=10.0.0.1 internal-port=8080 proto=tcp
> id: 0
nat1 rule port-forwarding append external-ip=1.2.3.4 external-port=81 internal-ip=10.0.0.1 internal-port=8080
> id: 1
nat1 rule port-forwarding entry 0 show proto
> tcp
nat1 rule show
> snat:
nat1 rule snat show
> internal-net
! nat1 rule port-forwarding append external-ip=1.2.3.4 external-port=82 internal-ip=10.0.0.1 internal-port=1 proto=sctp
! nat1 rule snat append internal-net=10.0.0.0/24
> external-ip is missing
! nat1 rule snat entry del 9
nat1 rule snat entry del 7
nat1 rule snat del
nat1 rule port-forwarding entry del
nat1 rule del
nat1 rule masquerade show enabled
> false
nat1 natting-table show
nat1 natting-table del
detach nat1 r1:out
nat del nat1
""",
    "firewall": """
firewall add fw loglevel=DEBUG
attach fw v1
firewall fw chain INGRESS set default=DROP
firewall fw chain EGRESS set default=ACCEPT
firewall fw chain INGRESS append src=10.0.0.1 dst=10.0.0.2 l4proto=ICMP action=ACCEPT
> id: 0
firewall fw chain INGRESS append src=10.0.0.1/32 dst=10.0.0.0/24 l4proto=TCP sport=1000 dport=80 tcpflags='SYN' action=DROP description=web
> id: 1
fw chain INGRESS insert l4proto=UDP action=ACCEPT
> id: 0
fw chain INGRESS insert id=1 l4proto=GRE action=ACCEPT
> id: 1
! fw chain INGRESS insert id=9 l4proto=GRE action=ACCEPT
fw chain INGRESS show rule 3
> description: web
fw chain INGRESS rule show 3 tcpflags
> SYN
fw chain INGRESS rule 3 show dport
> 80
firewall fw chain EGRESS rule add 0 src=10.1.1.1/31 l4proto=TCP sport=1 dport=1 tcpflags='!SYN' action=DROP
firewall fw chain EGRESS rule 1 add conntrack=ESTABLISHED action=ACCEPT
firewall fw chain EGRESS rule 0 add src=20.0.0.2/32 dst=10.0.0.1/32 l4proto=ICMP action=ACCEPT
fw chain EGRESS rule 0 show src
> 20.0.0.2
! fw chain EGRESS append src=10.0.0.1
> action
! fw chain EGRESS rule del -1
! fw chain EGRESS rule del 4
! fw chain EGRESS rule show 4
fw chain EGRESS delete conntrack=ESTABLISHED action=ACCEPT
! fw chain EGRESS delete conntrack=NEW action=ACCEPT
firewall fw chain EGRESS del rule 0
fw chain INGRESS rule del 0
fw chain INGRESS show
> name: INGRESS
> default: DROP
> rule:
firewall fw chain INGRESS stats show -yaml
> pkts: 0
> bytes: 0
firewall fw chain INGRESS stats 0 show pkts
> 0
fw chain INGRESS reset-counters
> result: true
! fw chain INVALID set default=DROP
firewall fw set conntrack=OFF
firewall fw set conntrack=ON
firewall fw set accept-established=OFF
firewall fw set accept-established=ON
firewall fw session-table show
fw chain INGRESS del rule
fw chain INGRESS set default=accept
fw show
> conntrack: ON
detach fw v1
firewall del fw
""",
    "lbrp": """
lbrp add lb0 port_mode=MULTI loglevel=TRACE
lb0 ports add to_ns1 type=FRONTEND peer=v1 ip=192.178.1.1
lb0 ports add to_ns2 type=frontend peer=v2 ip=192.178.1.2
lb0 ports add to_ns3 type=BACKEND peer=v3
! lb0 ports add to_ns4 type=FRONTEND
lbrp lb0 service add 10.0.0.1 80 TCP name=my-service
lbrp lb0 service 10.0.0.1 80 TCP backend add 192.178.1.11 name=backend1 port=80 weight=20
lbrp lb0 service 10.0.0.1 80 TCP backend add 192.178.1.12 name=backend2 port=80
lbrp lb0 service 10.0.0.1 80 TCP backend show
> 192.178.1.11
lbrp lb0 service 10.0.0.1 80 TCP backend 192.178.1.11 set weight=30
lbrp lb0 service 10.0.0.1 80 TCP show
> name: my-service
lbrp lb0 service 10.0.0.1 80 TCP backend del 192.178.1.11
lbrp lb0 service 10.0.0.1 80 TCP backend del 192.178.1.12
lbrp lb0 service del 10.0.0.1 80 TCP
lb0 service add 10.0.0.1 80 ALL name=my-service
lb0 service 10.0.0.1 80 tcp backend add 192.178.1.2 port=80 weight=20 name=backend-tcp
lb0 service 10.0.0.1 80 udp backend add 192.178.1.2 port=80 weight=20 name=backend-udp
lb0 service 10.0.0.1 0 icmp backend add 192.178.1.2 port=0 weight=20 name=backend-icmp
lbrp lb0 service del 10.0.0.1 80 TCP
lb0 service show
> UDP
! lb0 service add 10.0.0.1 80 ICMP
lb0 service 10.0.0.1 0 ICMP show name
> my-service
lbrp lb0 src-ip-rewrite set ip-range=10.0.0.1/24 new_ip_range=20.0.0.1/24
lb0 show port_mode
> MULTI
lbrp lb0 show
lbrp del lb0
""",
    "lbdsr": """
lbdsr add lb1
lbdsr lb1 ports add frontend-port type=FRONTEND
lbdsr lb1 ports add backend-port type=BACKEND
lbdsr lb1 ports frontend-port set peer="v1"
lbdsr lb1 ports backend-port set peer="v2"
lbdsr lb1 frontend set mac=aa:bb:cc:dd:ee:ff
lbdsr lb1 frontend set vip=10.0.0.100
lbdsr lb1 frontend show
> vip: 10.0.0.100
> mac: aa:bb:cc:dd:ee:ff
lbdsr lb1 backend pool add 1 mac=02:01:01:01:01:01
lbdsr lb1 backend pool add 2 mac=02:02:02:02:02:02
lbdsr lb1 backend pool 2 show mac
> 02:02:02:02:02:02
lb1 set algorithm=hash
lbdsr lb1 backend show pool
lbdsr lb1 backend pool del 2
lbdsr del lb1
""",
    "pbforwarder": """
pbforwarder add pbf1
pbforwarder pbf1 ports add v1
pbforwarder pbf1 ports v1 set peer=v1
pbf1 ports add v2 peer=v2
pbforwarder pbf1 rules add 0 src_mac=00:00:00:00:11:01 action=DROP
pbforwarder pbf1 rules add 1 src_ip=10.9.8.1 action=DROP
pbforwarder pbf1 rules add 2 l4_proto=TCP action=DROP
pbforwarder pbf1 rules add 3 src_ip=10.0.0.1 dst_ip=10.0.0.2 action=FORWARD out_port=v2
pbforwarder pbf1 rules add 4 dst_mac=FF:FF:FF:FF:FF:FF action=FORWARD out_port=v2
pbf1 rules add 5 in_port=v2 vlan=10 l4_proto=udp src_port=53 dst_port=1000 action=SLOWPATH
pbf1 rules 3 show out_port
> v2
pbf1 rules 5 set action=DROP
pbf1 rules show
> dst_mac
! pbf1 rules add 6 action=FORWARD
> Port is mandatory to FORWARD
! pbf1 rules add 3 action=DROP
pbf1 rules del 5
pbf1 rules del
pbforwarder del pbf1
""",
    "ddosmitigator": """
ddosmitigator add d1 type=TC
ddosmitigator d1 set loglevel=INFO
attach d1 v1
ddosmitigator d1 stats show
> pps: 0
> pkts: 0
ddosmitigator d1 blacklist-src add 10.0.0.1
ddosmitigator d1 show blacklist-src
> 10.0.0.1  0
d1 blacklist-src 10.0.0.1 show drop-pkts
> 0
! d1 blacklist-src add 10.0.0.1
! d1 blacklist-src add ten
ddosmitigator d1 blacklist-dst add 10.0.0.2
ddosmitigator d1 blacklist-src del 10.0.0.1
ddosmitigator d1 blacklist-dst del
nat add nat1
! nat1 rule snat append external-ip=1.2.3.4
attach nat1 v1
topology show v1
> ingress service chain: nat1 ---> d1 ---> stack
ddosmitigator del d1
nat del nat1
""",
    "packetcapture": """
packetcapture add mysniffer capture=bidirectional
packetcapture add other capture=ingress snaplen=80
packetcapture del other
simplebridge add br1
br1 ports add toveth1 peer=v1
attach mysniffer br1:toveth1
mysniffer set filter=all
mysniffer set filter="ip src 10.0.2.11"
mysniffer filter show
> ip src 10.0.2.11
! mysniffer set filter="ip sauce 10.0.2.11"
mysniffer set snaplen=80
mysniffer snaplen show
> 80
mysniffer set networkmode=true
mysniffer globalheader show
> magic: 2712847316
> version_major: 2
> snaplen: 80
> linktype: 1
mysniffer packet show
> capturelen: 0
> rawdata:
mysniffer set networkmode=false
mysniffer set dump="/tmp/capture"
mysniffer show dump
> /tmp/capture
mysniffer set anonimize=false
mysniffer set capture=off
detach mysniffer br1:toveth1
packetcapture mysniffer del
br1 del
""",
    "dynmon": """
dynmon add monitor
attach monitor v1
monitor dataplane-config show
monitor metrics show
monitor metrics ingress-metrics show
monitor open-metrics show
monitor show parent
> v1
detach monitor v1
dynmon del monitor
""",
    "synflood": """
synflood add sf
attach sf v1
synflood sf stats show
> tcpattemptfails: 0
> tcpoutrsts: 0
> deliverratio: 0.
> responseratio: 0.
> lastupdate: 1
sf stats show lastupdate
synflood del sf
""",
    "words": """
?
> helloworld
> connect
> topology
cubes
cubes ?
netdevs
> v1
netdevs show v1
> v1
! netdevs show v99
netdevs ?
topology
topology ?
version
> polycubectl:
>  version:
> polycubed:
>  version:
version show
services
> helloworld
services show helloworld -json
> "datamodel": "module helloworld {
services ?
! services show nothing
! services del nothing
connect ?
disconnect ?
attach ?
detach ?
! connect v1
! attach x
! detach x
! connect v1 v2
> Error setting peer
helloworld ?
> add
> del
> show
> <name>
helloworld add ?
> <name>
> Other parameters:
> loglevel=value
> Example:
helloworld add hw1
cubes
> helloworld:
> hw1
cubes show hw1
> name: hw1
cubes hw1 show
> service-name: helloworld
helloworld show ?
> hw1
helloworld del ?
> hw1
hw1 ?
> ports
> action
hw1 set ?
> loglevel=value
> action=value
hw1 show ?
> uuid
hw1 ports ?
hw1 ports add ?
> <name>
> peer=value
hw1 ports add p1 peer=v1 ?
hw1 ports add p1
hw1 ports p1 ?
> peer
hw1 ports p1 set ?
> peer=value
hw1 ports del ?
> p1
hw1 action ?
> DROP
topology show -json
> "name": "hw1"
topology
> hw1
! hw1 set action=EXPLODE
> expected one of DROP, SLOWPATH, FORWARD
! hw1 set loglevel=LOUD
! helloworld add hw1
> exists already
! helloworld add
! nothing add x
! hw1 set type=XDP_SKB
hw1 show type
> TC
add helloworld hw2
hw2 del
""",
}
