/* SPDX-License-Identifier: GPL-2.0-only */
/* Two frames that fit one by one, and not together. */
#include "program.h"

static __attribute__((noinline)) int inner(int number)
{
    volatile char room[400] = {};

    return room[number & 255];
}

SEC("xdp")
int too_deep(struct xdp_md *ctx)
{
    volatile char room[400] = {};

    return inner(ctx->rx_queue_index) + room[ctx->rx_queue_index & 255];
}

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, char[400]);
} rooms SEC(".maps");

SEC("xdp")
int too_deep_cured(struct xdp_md *ctx)
{
    __u32 key = 0;
    char *room = bpf_map_lookup_elem(&rooms, &key);

    return room ? inner(ctx->rx_queue_index) + room[ctx->rx_queue_index & 255] : 0;
}
