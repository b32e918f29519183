/* SPDX-License-Identifier: GPL-2.0-only */
/* A number of the kernel's config, declared as a truth value. */
#include "program.h"

extern bool CONFIG_HZ __kconfig;

SEC("xdp")
int ticks(struct xdp_md *ctx)
{
    return CONFIG_HZ ? XDP_PASS : XDP_DROP;
}
