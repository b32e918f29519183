/* SPDX-License-Identifier: GPL-2.0-only */
/* A bounded loop that takes more than a million instructions to walk through. */
#include "program.h"

SEC("tc")
int a_million(struct __sk_buff *skb)
{
    __u32 sum = skb->len;

    for (__u32 n = 0; n < 300000; n++) {
        sum = sum * 31 + n;
        asm volatile("" : "+r"(sum));
    }
    return sum & 1;
}

/* A part of it, which goes on with the next part. */
struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} next SEC(".maps");

SEC("tc")
int a_million_cured(struct __sk_buff *skb)
{
    __u32 sum = skb->mark;

    for (__u32 n = 0; n < 1000; n++) {
        sum = sum * 31 + n;
        asm volatile("" : "+r"(sum));
    }
    skb->mark = sum;
    bpf_tail_call(skb, &next, 0);
    return sum & 1;
}
