/* SPDX-License-Identifier: GPL-2.0-only */
/* A section that does not name what the program is attached to. */
#include "program.h"

SEC("fentry")
int somewhere(void *ctx)
{
    return 0;
}
