/* SPDX-License-Identifier: GPL-2.0-only */
/* A field that lies further in its structure than the offset of a load reaches (32767 bytes). */
#include "program.h"

#include <bpf/bpf_core_read.h>

struct pglist_data {
    int nr_zones;
} __attribute__((preserve_access_index));

SEC("raw_tp/sched_switch")
int reads_too_far(unsigned long long *ctx)
{
    struct pglist_data *node = (void *)ctx[1];

    return *(volatile int *)&node->nr_zones;
}

SEC("raw_tp/sched_switch")
int reads_with_a_helper(unsigned long long *ctx)
{
    struct pglist_data *node = (void *)ctx[1];

    return BPF_CORE_READ(node, nr_zones);
}
