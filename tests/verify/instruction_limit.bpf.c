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
