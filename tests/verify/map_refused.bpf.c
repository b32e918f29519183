/* SPDX-License-Identifier: GPL-2.0-only */
/* An array whose key is not four bytes: every kernel has arrays, none makes this one. */
#include "program.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u64);
    __type(value, __u64);
} odd SEC(".maps");

SEC("xdp")
int looks_up(struct xdp_md *ctx)
{
    __u64 key = 0;

    return bpf_map_lookup_elem(&odd, &key) ? XDP_PASS : XDP_DROP;
}
