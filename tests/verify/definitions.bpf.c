/* SPDX-License-Identifier: GPL-2.0-only */
/* A ring buffer with a value type, which it has not. */
#include "program.h"

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
    __type(value, __u64);
} events SEC(".maps");

SEC("xdp")
int tells(struct xdp_md *ctx)
{
    void *event = bpf_ringbuf_reserve(&events, 8, 0);

    if (event)
        bpf_ringbuf_submit(event, 0);
    return XDP_PASS;
}
