/* SPDX-License-Identifier: GPL-2.0-only */
/* Operations of a struct that no kernel has. */
#include "program.h"

struct vmtest_never_ops {
    int (*begin)(void *ctx);
};

SEC("struct_ops/begin")
int begin(unsigned long long *ctx)
{
    return 0;
}

SEC(".struct_ops")
struct vmtest_never_ops never = {
    .begin = (void *)begin,
};
