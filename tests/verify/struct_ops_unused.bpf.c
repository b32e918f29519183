/* SPDX-License-Identifier: GPL-2.0-only */
/* An operation that no map of the object has as a member. */
#include "program.h"

SEC("struct_ops/ssthresh")
int nobodys(unsigned long long *ctx)
{
    return 2;
}
