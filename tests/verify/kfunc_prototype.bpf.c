/* SPDX-License-Identifier: GPL-2.0-only */
/* A kfunc of 6.4 with an argument too few; `kfunc` declares it as it is. */
#include "program.h"

extern int bpf_dynptr_from_skb(struct __sk_buff *skb, __u64 flags) __ksym;

SEC("tc")
int makes_nothing(struct __sk_buff *skb)
{
    return bpf_dynptr_from_skb(skb, 0);
}
