/* SPDX-License-Identifier: GPL-2.0-only */
/* A value that is larger than what older kernels make an array of. */
#include "program.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __uint(key_size, 4);
    __uint(value_size, 8 << 20);
} large SEC(".maps");

SEC("xdp")
int looks(struct xdp_md *ctx)
{
    __u32 key = 0;

    return bpf_map_lookup_elem(&large, &key) ? XDP_PASS : XDP_DROP;
}
