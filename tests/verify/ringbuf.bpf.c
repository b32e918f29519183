/* SPDX-License-Identifier: GPL-2.0-only */
/* A ring buffer (5.8). */
#include "program.h"

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} events SEC(".maps");

SEC("tc")
int reports(struct __sk_buff *skb)
{
    __u64 length = skb->len;

    return bpf_ringbuf_output(&events, &length, sizeof(length), 0);
}
