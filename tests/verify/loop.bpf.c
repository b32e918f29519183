/* SPDX-License-Identifier: GPL-2.0-only */
/* A loop without an end. */
#include "program.h"

SEC("tc")
int waits_for_chance(struct __sk_buff *skb)
{
    while (bpf_get_prandom_u32() != 7)
        ;
    return 0;
}

SEC("tc")
int waits_for_chance_cured(struct __sk_buff *skb)
{
    for (int tries = 0; tries < 100; tries++)
        if (bpf_get_prandom_u32() == 7)
            break;
    return 0;
}
