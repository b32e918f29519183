/* SPDX-License-Identifier: GPL-2.0-only */
/* Accepted only if somebody sizes a map, sets a global and gives a map of maps its template. */
#include "program.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
} slots SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
    __uint(max_entries, 4);
    __type(key, __u32);
    __type(value, __u32);
} by_service SEC(".maps");

const volatile __u32 careful = 0;

SEC("xdp")
int wants_much(struct xdp_md *ctx)
{
    __u32 key = 0;
    char *data = (void *)(long)ctx->data;

    if (!careful)
        return data[20];
    if (!bpf_map_lookup_elem(&slots, &key))
        return XDP_DROP;
    return bpf_map_lookup_elem(&by_service, &key) ? XDP_PASS : XDP_DROP;
}
