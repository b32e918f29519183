/* SPDX-License-Identifier: GPL-2.0-only */
/* Programs for functions that are not there. */
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
