/* SPDX-License-Identifier: GPL-2.0-only */
/* The bytes of a timer in a map's value are not for programs; the members beside it are. */
#include "program.h"

struct kept {
    struct bpf_timer timer;
    __u64 count;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct kept);
} timers SEC(".maps");

SEC("tc")
int reads_the_timer(struct __sk_buff *skb)
{
    __u32 key = 0;
    struct kept *kept = bpf_map_lookup_elem(&timers, &key);

    return kept && *(volatile __u64 *)&kept->timer ? 1 : 0;
}

SEC("tc")
int reads_what_lies_beside_it(struct __sk_buff *skb)
{
    __u32 key = 0;
    struct kept *kept = bpf_map_lookup_elem(&timers, &key);

    return kept && *(volatile __u64 *)&kept->count ? 1 : 0;
}
