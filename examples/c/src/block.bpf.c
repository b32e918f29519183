// SPDX-License-Identifier: GPL-2.0-only
/* Refuses connect() over IPv4 to the ports in a map, and counts how often. */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define REFUSE 0
#define ALLOW  1

char _license[] SEC("license") = "GPL";

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 64);
    __type(key, __u16);
    __type(value, __u64);
} refused SEC(".maps");

SEC("cgroup/connect4")
int block(struct bpf_sock_addr *address)
{
    __u16 port = bpf_ntohs((__u16)address->user_port);
    __u64 *times = bpf_map_lookup_elem(&refused, &port);

    if (!times)
        return ALLOW;
    __sync_fetch_and_add(times, 1);
    return REFUSE;
}
