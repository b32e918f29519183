/* SPDX-License-Identifier: GPL-2.0-only */
/* A map of maps of which only the user knows what is in it, and nobody said so; `wishes` has it. */
#include "program.h"

struct {
    __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
    __uint(max_entries, 8);
    __type(key, __u32);
    __type(value, __u32);
} by_service SEC(".maps");

SEC("xdp")
int looks_inside(struct xdp_md *ctx)
{
    __u32 key = 0;

    return bpf_map_lookup_elem(&by_service, &key) ? XDP_PASS : XDP_DROP;
}
