/* SPDX-License-Identifier: GPL-2.0-only */
/* A function from elsewhere that is not declared as one of the kernel's. */
#include "program.h"

extern int vmtest_never_defined(void);

SEC("xdp")
int calls_elsewhere(struct xdp_md *ctx)
{
    return vmtest_never_defined();
}
