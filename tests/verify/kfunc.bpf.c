/* SPDX-License-Identifier: GPL-2.0-only */
/* A kfunc of 6.4. */
#include "program.h"

extern int bpf_dynptr_from_skb(struct __sk_buff *skb, __u64 flags,
                               struct bpf_dynptr *pointer) __ksym;

SEC("tc")
int reads_by_pointer(struct __sk_buff *skb)
{
    struct bpf_dynptr pointer;
    __u8 first = 0;

    if (bpf_dynptr_from_skb(skb, 0, &pointer))
        return 0;
    return bpf_dynptr_read(&first, sizeof(first), &pointer, 0, 0) == 0;
}
