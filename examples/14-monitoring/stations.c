/* Packets and bytes of each station, by its MAC address. */
struct station {
	__u8 mac[ETH_ALEN];
	__u16 zero; /* no implicit padding in a key */
};

struct traffic {
	__u64 packets;
	__u64 bytes;
};

MAP(stations, HASH, struct station, struct traffic, 1024);

HANDLER(monitor)
{
	struct ethhdr *eth = pcn_at(ctx, 0, sizeof(*eth));
	struct traffic first = {1, pkt->len}, *known;
	struct station station = {};

	if (!eth)
		return pcn_pass(pkt);
	memcpy(station.mac, eth->h_source, ETH_ALEN);
	known = bpf_map_lookup_elem(&stations, &station);
	if (known) {
		__sync_fetch_and_add(&known->packets, 1);
		__sync_fetch_and_add(&known->bytes, pkt->len);
	} else {
		bpf_map_update_elem(&stations, &station, &first, BPF_NOEXIST);
	}
	return pcn_pass(pkt);
}
