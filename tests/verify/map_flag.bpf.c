/* SPDX-License-Identifier: GPL-2.0-only */
/* A ring buffer with a flag of 6.19. */
#include "program.h"

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
    __uint(map_flags, 1 << 19);
} overwritten SEC(".maps");

SEC("xdp")
int tells(struct xdp_md *ctx)
{
    __u64 value = 1;

    return bpf_ringbuf_output(&overwritten, &value, sizeof(value), 0) ? XDP_DROP : XDP_PASS;
}
