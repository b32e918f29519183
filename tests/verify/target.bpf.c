/* SPDX-License-Identifier: GPL-2.0-only */
/* Programs for functions, iterators, hooks and tracepoints that are not there. */
#include "program.h"

SEC("fentry/vmtest_never_had_it")
int before(void *ctx)
{
    return 0;
}

SEC("freplace/vmtest_never_had_it")
int instead(void *ctx)
{
    return 0;
}

SEC("iter/vmtest_never")
int over_nothing(void *ctx)
{
    return 0;
}

SEC("lsm/vmtest_never")
int on_no_hook(void *ctx)
{
    return 0;
}

SEC("tp_btf/vmtest_never")
int on_no_tracepoint(void *ctx)
{
    return 0;
}
