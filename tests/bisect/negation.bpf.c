/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An index that was negated on its way: 7 + -(n & 7). The verifier follows the bounds of a negation
 * since Linux 6.17; before, it knew nothing of the result and refused the access.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char table[8];

SEC("tc")
int reads(struct __sk_buff *skb)
{
    __u64 n = skb->len & 7;

    /* In C both would become 7 - n, which was always followed. */
    asm volatile("%0 = -%0; %0 += 7" : "+r"(n));
    return table[n];
}

char _license[] SEC("license") = "GPL";
