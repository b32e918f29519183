/* SPDX-License-Identifier: GPL-2.0-only */
/* A member that no kernel's struct of that name has, and that is set. */
#include "program.h"

struct tcp_congestion_ops {
    int (*vmtest_never)(void *sk);
    char name[16];
};

SEC("struct_ops/vmtest_never")
int never(unsigned long long *ctx)
{
    return 0;
}

SEC(".struct_ops")
struct tcp_congestion_ops with_more = {
    .vmtest_never = (void *)never,
    .name = "vmtest_more",
};
