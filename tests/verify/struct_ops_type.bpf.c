/* SPDX-License-Identifier: GPL-2.0-only */
/* A member that every kernel has as an array of 16 bytes, declared as one of 8. */
#include "program.h"

struct tcp_congestion_ops {
    __u32 (*ssthresh)(void *sk);
    char name[8];
};

SEC("struct_ops/ssthresh")
int ssthresh_of_another_type(unsigned long long *ctx)
{
    return 2;
}

SEC(".struct_ops")
struct tcp_congestion_ops with_another_type = {
    .ssthresh = (void *)ssthresh_of_another_type,
    .name = "vmtest",
};
