/* SPDX-License-Identifier: GPL-2.0-only */
/* A map as before BTF. */
#include "program.h"

struct legacy_map {
    unsigned int type;
    unsigned int key_size;
    unsigned int value_size;
    unsigned int max_entries;
    unsigned int map_flags;
};

struct legacy_map counters SEC("maps") = {
    .type = BPF_MAP_TYPE_ARRAY,
    .key_size = sizeof(__u32),
    .value_size = sizeof(__u64),
    .max_entries = 1,
};

SEC("xdp")
int counts(struct xdp_md *ctx)
{
    __u32 key = 0;

    return bpf_map_lookup_elem(&counters, &key) ? XDP_PASS : XDP_DROP;
}
